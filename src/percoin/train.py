"""The command behind ``train.py``: one training, a search before it, or a sweep of them."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from percoin.cli import run_jobs
from percoin.config import TrainConfig
from percoin.training.early import check_bars, check_device, check_network
from percoin.training.memory import memory_errors


def train(settings: TrainConfig) -> None:
    """Train what the settings describe, after a search for better ones if they ask for it."""
    # What comes after these checks takes seconds to import.
    check_device(settings)
    markets = [(symbol, settings.tf.timeframe) for symbol in settings.pooled_symbols]
    check_network(settings, markets, settings.title, settings.tf.name)
    check_bars(settings, markets)
    with memory_errors(settings.title, settings.tf.name):
        if settings.experiment is not None:
            from percoin.tuning.command import tune_from_config

            tune_from_config(settings)
            return
        from percoin.training.pipeline import train_from_config

        train_from_config(settings)


def sweep(overrides: Sequence[str]) -> None:
    """Train one model per combination of what the overrides list."""
    from percoin.sweep.launcher import launch

    launch(overrides)


def main() -> int:
    """Run what the command line asks for; the exit code."""
    return run_jobs(train, TrainConfig, config_name="train", sweep=sweep)


if __name__ == "__main__":
    sys.exit(main())
