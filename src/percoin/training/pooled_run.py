"""Train networks on many markets and keep the best one at its best epoch."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import lightning.pytorch as pl
from lightning.pytorch.loggers import Logger

from percoin.network import CnnLstm
from percoin.training.interruption import RunInterruption
from percoin.training.lit_module import SignalClassifier
from percoin.training.pooled_module import PooledClassifier, PooledDataModule, pool_name
from percoin.training.recipes.pool import Pool
from percoin.training.run import (
    EndsWhenTold,
    TrainedModel,
    TrainingPlan,
    check_checkpoint,
    checkpoint_of,
    fit_best,
    quiet_lightning,
)

log = logging.getLogger(__name__)


# Below the run's folder, where networks of several seeds are trained.
_SEED_FOLDER = "seed-{}"


@dataclass(frozen=True)
class PooledPlan:
    """How to train a pool, apart from its markets and the network.

    Attributes:
        training: As for one market; ``lr`` is the largest learning rate, ``seed`` the first.
        windows_per_epoch: Train windows drawn for each epoch.
        validation_windows: Of all markets, at most.
        warmup_epochs: Over which the learning rate grows.
        n_seeds: How many networks are trained, from seeds that follow one another; the one
            with the least validation loss is kept.
    """

    training: TrainingPlan
    windows_per_epoch: int
    validation_windows: int
    warmup_epochs: float
    n_seeds: int = 1


@dataclass(frozen=True)
class TrainedPool:
    """What the training of a pool leaves behind.

    Attributes:
        model: Of the seed that was kept; its seconds are those of all seeds.
        seed: Which one that was.
        losses: The least validation loss of each seed.
        folder: Where the checkpoints and logs of that seed lie.
    """

    model: TrainedModel
    seed: int
    losses: Mapping[int, float]
    folder: Path


def train_pool(
    pool: Pool,
    make_network: Callable[[int], CnnLstm],
    plan: PooledPlan,
    folder: Path,
    make_loggers: Callable[[Path], Sequence[Logger]] = lambda folder: (),
    callbacks: Sequence[pl.Callback] = (),
    resume: bool = False,
    interruption: RunInterruption | None = None,
) -> TrainedPool:
    """Fit a network of each seed to the seen markets and keep the best one.

    Args:
        pool: The markets.
        make_network: A network with the first weights of a seed.
        plan: How to train.
        folder: Checkpoints go below it.
        make_loggers: Of Lightning, for the training in a folder.
        callbacks: Further ones, for the training of every seed.
        resume: Go on from the folder's last checkpoint.
        interruption: Of the run that this training is part of; alone it has its own.

    Raises:
        DivergedError: The loss is no longer finite.
        InterruptedRunError: Ctrl-C or SIGTERM; the last finished epoch is kept.
        ResumeError: The last checkpoint is damaged or beyond the plan's epochs.
    """
    market = (pool_name(len(pool.markets)), pool.seen[0].bars.timeframe.value)
    interruption = interruption or RunInterruption(market, folder)
    around = [*callbacks, EndsWhenTold(interruption)]
    training = _PoolTraining(pool, plan, folder, around, resume)
    with interruption.expected(), quiet_lightning():
        trained = training.go(make_network, make_loggers)
        interruption.end_if_received()
    return trained


class _PoolTraining:
    """The networks of all seeds, one after another."""

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
        self._name = (pool_name(len(pool.markets)), pool.seen[0].bars.timeframe.value)
        first = plan.training.seed
        self._seeds = range(first, first + plan.n_seeds)

    def go(
        self,
        make_network: Callable[[int], CnnLstm],
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
        # Of equals the last, as it has always been.
        seed = min(reversed(self._seeds), key=losses.__getitem__)
        module, epoch = fitted[seed]
        if len(self._seeds) > 1:
            log.info("seed %d is kept: validation loss %s", seed, _listed(losses))
        secs = time.monotonic() - started + sum(each.secs_before for each, _ in fitted.values())
        model = TrainedModel(module, len(module.history["val_loss"]), epoch, secs)
        return TrainedPool(model, seed, losses, self._folder_of(seed))

    def _check_resumable(self, seed: int) -> None:
        checkpoint = checkpoint_of(self._folder_of(seed))
        # An interrupted run has one of each seed that it got to.
        if self._resume and (checkpoint.is_file() or seed == self._seeds[0]):
            check_checkpoint(checkpoint, self._plan.training.epochs, self._name)

    def _fit(
        self, seed: int, network: CnnLstm, loggers: Sequence[Logger]
    ) -> tuple[SignalClassifier, int]:
        """The module with the weights of its best epoch, and which that was."""
        plan, folder = self._plan, self._folder_of(seed)
        training = replace(plan.training, seed=seed)
        data = PooledDataModule(
            self._pool,
            training.batch_size,
            seed,
            plan.windows_per_epoch,
            plan.validation_windows,
        )
        module = PooledClassifier(
            network,
            training.optimizer,
            training.lr,
            seed,
            plan.warmup_epochs,
            data.n_validation_windows,
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
