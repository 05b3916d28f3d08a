"""Train one network on many markets, keep the best epoch, test it on each of them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import lightning.pytorch as pl
from lightning.pytorch.loggers import Logger

from percoin.dataset import MarketDataset
from percoin.network import CnnLstm
from percoin.pool import Pool
from percoin.training.datamodule import MarketDataModule, PooledDataModule
from percoin.training.pooled_module import PooledClassifier
from percoin.training.run import (
    Interruption,
    TrainedModel,
    TrainingPlan,
    check_checkpoint,
    checkpoint_of,
    fit_best,
    make_trainer,
    quiet_lightning,
)


@dataclass(frozen=True)
class PooledPlan:
    """How to train a pool, apart from its markets and the network.

    Attributes:
        training: As for one market; ``lr`` is the largest learning rate.
        windows_per_epoch: Train windows drawn for each epoch.
        validation_windows: Of all markets, at most.
        warmup_epochs: Over which the learning rate grows.
    """

    training: TrainingPlan
    windows_per_epoch: int
    validation_windows: int
    warmup_epochs: float


def pool_name(n_markets: int) -> str:
    """What messages call a pool in place of a symbol."""
    return f"pool of {n_markets} markets"


def train_pool(
    pool: Pool,
    network: CnnLstm,
    plan: PooledPlan,
    folder: Path,
    tests: Iterable[tuple[MarketDataset, Sequence[pl.Callback]]],
    loggers: Sequence[Logger] = (),
    callbacks: Sequence[pl.Callback] = (),
    resume: bool = False,
) -> TrainedModel:
    """Fit the network to the seen markets, restore its best epoch and test that on each market.

    Args:
        pool: The markets.
        network: With its initial weights; it is trained in place.
        plan: How to train.
        folder: Checkpoints go below it.
        tests: Markets to test on, with callbacks whose test hooks see the best weights;
            the next one is asked for when the one before has been tested.
        loggers: Of Lightning, for the training.
        callbacks: The same.
        resume: Go on from the folder's last checkpoint.

    Raises:
        DivergedError: The loss is no longer finite.
        InterruptedRunError: Ctrl-C or SIGTERM; the last finished epoch is kept, and so is
            what the tests have left.
        ResumeError: The last checkpoint is damaged or beyond the plan's epochs.
    """
    training = plan.training
    name = (pool_name(len(pool.markets)), pool.seen[0].bars.timeframe.value)
    if resume:
        check_checkpoint(checkpoint_of(folder), training.epochs, name)
    data = PooledDataModule(
        pool,
        training.batch_size,
        training.seed,
        plan.windows_per_epoch,
        plan.validation_windows,
    )
    module = PooledClassifier(
        network,
        training.optimizer,
        training.lr,
        training.seed,
        name,
        plan.warmup_epochs,
        data.n_validation_windows,
    )
    started = time.monotonic()
    interruption = Interruption(name, checkpoint_of(folder), ends_with_export=True)
    around = [*callbacks, interruption]
    with interruption.expected(), quiet_lightning():
        _, best_epoch = fit_best(module, data, training, folder, loggers, around, resume)
        for dataset, callbacks in tests:
            trainer = make_trainer(training, None, (), [interruption, *callbacks])
            market = MarketDataModule(dataset, training.batch_size, training.seed)
            trainer.test(module, datamodule=market, verbose=False)
    n_epochs = len(module.history["val_loss"])
    return TrainedModel(module, n_epochs, best_epoch, time.monotonic() - started)
