"""Train one signal classifier: ``python train.py symbol=BTCUSDT tf=15m``."""

import sys

from percoin.cli import run_jobs
from percoin.config import TrainConfig


def train(settings: TrainConfig) -> None:
    """Train what the settings describe."""
    # Lightning takes seconds to import: only once the settings are known to be good.
    from percoin.training.build import train_from_config

    train_from_config(settings)


if __name__ == "__main__":
    sys.exit(run_jobs(train, TrainConfig, config_name="train"))
