"""Train one signal classifier: ``python train.py symbol=BTCUSDT tf=15m``."""

import sys
from collections.abc import Callable, Sequence

from percoin.cli import run_jobs
from percoin.config import LogisticConfig, Recipe, TrainConfig
from percoin.training.memory import memory_errors


def train(settings: TrainConfig) -> None:
    """Train what the settings describe, after a search for better ones if they ask for it."""
    with memory_errors(settings.title, settings.tf.name):
        recipe(settings)(settings)


def recipe(settings: TrainConfig) -> Callable[[TrainConfig], None]:
    """What trains by these settings."""
    # Lightning takes seconds to import: only once the settings are known to be good.
    if settings.experiment is not None:
        from percoin.tuning.command import tune_from_config

        return tune_from_config
    if isinstance(settings.model, LogisticConfig):
        from percoin.training.recipes.logistic import train_logistic_from_config

        return train_logistic_from_config
    if settings.fleet:
        from percoin.training.recipes.fleet import train_fleet_from_config

        return train_fleet_from_config
    if settings.recipe == Recipe.POOLED:
        from percoin.training.recipes.pooled import train_pool_from_config

        return train_pool_from_config
    from percoin.training.recipes.per_market import train_from_config

    return train_from_config


def sweep(overrides: Sequence[str]) -> None:
    """Train one model per combination of what the overrides list."""
    from percoin.sweep.launcher import launch

    launch(overrides)


if __name__ == "__main__":
    sys.exit(run_jobs(train, TrainConfig, config_name="train", sweep=sweep))
