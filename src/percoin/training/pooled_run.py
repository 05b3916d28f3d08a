"""Train one network per seed on several markets, and keep the best one at its best epoch."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import lightning.pytorch as pl
from lightning.pytorch.loggers import Logger
from torch import nn

from percoin.training.interruption import RunInterruption
from percoin.training.lit_module import SignalClassifier
from percoin.training.pooled_module import PooledClassifier, PooledDataModule
from percoin.training.recipes.pool import Pool
from percoin.training.run import (
    EndsWhenTold,
    TrainedModel,
    TrainingPlan,
    check_checkpoint,
    checkpoint_of,
    fit_best,
    quiet_lightning,
    train_again,
)

log = logging.getLogger(__name__)

# Folder of each seed inside the run's folder, if there are several seeds.
_SEED_FOLDER = "seed-{}"


@dataclass(frozen=True)
class PooledPlan:
    """How to train on a pool, apart from the markets and the network.

    Attributes:
        training: As for one market; ``lr`` is the largest learning rate, ``seed`` the first seed.
        windows_per_epoch: Train windows drawn per epoch.
        validation_windows: Largest number of validation windows, over all markets.
        warmup_epochs: Epochs over which the learning rate rises.
        n_seeds: Number of networks, trained with consecutive seeds; the one with the lowest
            validation loss is kept.
    """

    training: TrainingPlan
    windows_per_epoch: int
    validation_windows: int
    warmup_epochs: float
    n_seeds: int = 1


@dataclass(frozen=True)
class TrainedPool:
    """The result of training on a pool.

    Attributes:
        model: The model of the best seed; its ``secs`` covers all seeds.
        seed: The best seed.
        losses: Lowest validation loss of each seed.
        folder: Checkpoints and logs of the best seed.
    """

    model: TrainedModel
    seed: int
    losses: Mapping[int, float]
    folder: Path


def train_pool(
    pool: Pool,
    make_network: Callable[[int], nn.Module],
    plan: PooledPlan,
    folder: Path,
    make_loggers: Callable[[Path], Sequence[Logger]] = lambda folder: (),
    callbacks: Sequence[pl.Callback] = (),
    resume: bool = False,
    interruption: RunInterruption | None = None,
) -> TrainedPool:
    """Fit one network per seed to the seen markets and keep the best one.

    Args:
        pool: The markets.
        make_network: Builds a network with the initial weights of a seed.
        plan: How to train.
        folder: Checkpoints go below it.
        make_loggers: Makes Lightning loggers that write to a folder.
        callbacks: Extra callbacks for every seed.
        resume: Continue from the last checkpoint in the folder.
        interruption: Signal handling of the surrounding run; None creates one.

    Raises:
        DivergedError: The loss is no longer finite.
        InterruptedRunError: Ctrl-C or SIGTERM; the last finished epoch is kept.
        ResumeError: The last checkpoint is damaged or beyond the plan's epochs.
    """
    interruption = interruption or RunInterruption(pool.name, folder)
    around = [*callbacks, EndsWhenTold(interruption)]
    training = _PoolTraining(pool, plan, folder, around, resume)
    with interruption.expected(), quiet_lightning():
        trained = training.go(make_network, make_loggers)
        interruption.end_if_received()
    return trained


def train_pool_again(
    pool: Pool,
    trained: TrainedPool,
    network: nn.Module,
    plan: PooledPlan,
    resume: bool = False,
    interruption: RunInterruption | None = None,
) -> SignalClassifier:
    """Train the network of the best seed again, on a pool of which no row is held out.

    Args:
        pool: The markets without validation and test rows.
        trained: The judged twin.
        network: The initial weights of its seed.
        plan: The twin's; the learning rate follows the same schedule.
        resume: Continue from the last checkpoint of the refit.
        interruption: Signal handling of the surrounding run; None creates one.

    Raises:
        DivergedError: The loss is no longer finite.
        InterruptedRunError: Ctrl-C or SIGTERM; the last finished epoch is kept.
    """
    training = replace(plan.training, seed=trained.seed)
    module = PooledClassifier(
        network,
        training.optimizer,
        training.lr,
        trained.seed,
        plan.warmup_epochs,
        (),
        training.own,
    )
    data = _data_of(pool, plan, trained.seed)
    train_again(trained.model, module, data, training, trained.folder, resume, interruption)
    return module


def _data_of(pool: Pool, plan: PooledPlan, seed: int) -> PooledDataModule:
    return PooledDataModule(
        pool, plan.training.batch_size, seed, plan.windows_per_epoch, plan.validation_windows
    )


class _PoolTraining:
    """Trains the networks of all seeds, one after another."""

    def __init__(
        self,
        pool: Pool,
        plan: PooledPlan,
        folder: Path,
        callbacks: Sequence[pl.Callback],
        resume: bool,
    ) -> None:
        self._pool = pool
        self._plan = plan
        self._folder = folder
        self._callbacks = callbacks
        self._resume = resume
        first = plan.training.seed
        self._seeds = range(first, first + plan.n_seeds)

    def go(
        self,
        make_network: Callable[[int], nn.Module],
        make_loggers: Callable[[Path], Sequence[Logger]],
    ) -> TrainedPool:
        for seed in self._seeds:
            self._check_resumable(seed)
        started = time.monotonic()
        fitted: dict[int, tuple[SignalClassifier, int]] = {}
        losses: dict[int, float] = {}
        for seed in self._seeds:
            module, epoch = self._fit(seed, make_network(seed), make_loggers(self._folder_of(seed)))
            fitted[seed] = module, epoch
            losses[seed] = module.history["val_loss"][epoch - 1]
        # Among equal losses the last seed wins, as in earlier versions.
        seed = min(reversed(self._seeds), key=losses.__getitem__)
        module, epoch = fitted[seed]
        if len(self._seeds) > 1:
            log.info("seed %d is kept: validation loss %s", seed, _listed(losses))
        secs = time.monotonic() - started + sum(each.secs_before for each, _ in fitted.values())
        model = TrainedModel(module, len(module.history["val_loss"]), epoch, secs)
        return TrainedPool(model, seed, losses, self._folder_of(seed))

    def _check_resumable(self, seed: int) -> None:
        checkpoint = checkpoint_of(self._folder_of(seed))
        # An interrupted run has checkpoints only of the seeds it has started.
        if self._resume and (checkpoint.is_file() or seed == self._seeds[0]):
            check_checkpoint(checkpoint, self._plan.training.epochs, self._pool.name)

    def _fit(
        self, seed: int, network: nn.Module, loggers: Sequence[Logger]
    ) -> tuple[SignalClassifier, int]:
        """Train one seed; return the module with its best weights, and the best epoch."""
        plan, folder = self._plan, self._folder_of(seed)
        training = replace(plan.training, seed=seed)
        data = _data_of(self._pool, plan, seed)
        module = PooledClassifier(
            network,
            training.optimizer,
            training.lr,
            seed,
            plan.warmup_epochs,
            data.n_validation_windows,
            training.own,
        )
        if len(self._seeds) > 1:
            log.info("seed %d of %s", seed, ", ".join(map(str, self._seeds)))
        resume = self._resume and checkpoint_of(folder).is_file()
        _, epoch = fit_best(module, data, training, folder, loggers, self._callbacks, resume)
        return module, epoch

    def _folder_of(self, seed: int) -> Path:
        return self._folder / _SEED_FOLDER.format(seed) if self._plan.n_seeds > 1 else self._folder


def _listed(losses: Mapping[int, float]) -> str:
    return ", ".join(f"{loss:.5f} (seed {seed})" for seed, loss in losses.items())
