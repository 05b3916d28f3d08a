"""Train networks on many markets, keep the best one at its best epoch, test it on each market."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import lightning.pytorch as pl
from lightning.pytorch.loggers import Logger

from percoin.dataset import MarketDataset
from percoin.network import CnnLstm
from percoin.training.datamodule import MarketDataModule
from percoin.training.lit_module import SignalClassifier
from percoin.training.pooled_module import PooledClassifier, PooledDataModule, pool_name
from percoin.training.recipes.pool import Pool
from percoin.training.run import (
    Interruption,
    TrainedModel,
    TrainingPlan,
    check_checkpoint,
    checkpoint_of,
    fit_best,
    make_trainer,
    quiet_lightning,
    run_test,
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
    tests: Callable[[int], Iterable[tuple[MarketDataset, Sequence[pl.Callback]]]],
    make_loggers: Callable[[Path], Sequence[Logger]] = lambda folder: (),
    callbacks: Sequence[pl.Callback] = (),
    resume: bool = False,
) -> TrainedPool:
    """Fit a network of each seed to the seen markets and test the best one on each market.

    Args:
        pool: The markets.
        make_network: A network with the first weights of a seed.
        plan: How to train.
        folder: Checkpoints go below it.
        tests: For the seed that is kept: markets to test on, with callbacks whose test hooks
            see the best weights; the next one is asked for when the one before has been tested.
        make_loggers: Of Lightning, for the training in a folder.
        callbacks: Further ones, for the training of every seed.
        resume: Go on from the folder's last checkpoint.

    Raises:
        DivergedError: The loss is no longer finite.
        InterruptedRunError: Ctrl-C or SIGTERM; the last finished epoch is kept, and so is
            what the tests have left.
        ResumeError: The last checkpoint is damaged or beyond the plan's epochs.
    """
    training = _PoolTraining(pool, plan, folder, callbacks, resume)
    return training.go(make_network, tests, make_loggers)


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
        # Whether anything can be gone on with shows in the folder of the first.
        checkpoint = checkpoint_of(self._folder_of(first))
        self._interruption = Interruption(self._name, checkpoint, ends_with_export=True)

    def go(
        self,
        make_network: Callable[[int], CnnLstm],
        tests: Callable[[int], Iterable[tuple[MarketDataset, Sequence[pl.Callback]]]],
        make_loggers: Callable[[Path], Sequence[Logger]],
    ) -> TrainedPool:
        for seed in self._seeds:
            self._check_resumable(seed)
        started = time.monotonic()
        modules: list[SignalClassifier] = []
        best: tuple[SignalClassifier, int, int] | None = None
        losses: dict[int, float] = {}
        with self._interruption.expected(), quiet_lightning():
            for seed in self._seeds:
                loggers = make_loggers(self._folder_of(seed))
                module, epoch = self._fit(seed, make_network(seed), loggers)
                losses[seed] = module.history["val_loss"][epoch - 1]
                modules.append(module)
                if losses[seed] == min(losses.values()):
                    best = module, epoch, seed
            assert best is not None
            module, epoch, seed = best
            if len(self._seeds) > 1:
                log.info("seed %d is kept: validation loss %s", seed, _listed(losses))
            self._test(module, tests(seed))
        n_epochs = len(module.history["val_loss"])
        secs = time.monotonic() - started + sum(each.secs_before for each in modules)
        model = TrainedModel(module, n_epochs, epoch, secs)
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
        around = [*self._callbacks, self._interruption]
        _, epoch = fit_best(module, data, training, folder, loggers, around, resume)
        return module, epoch

    def _test(
        self,
        module: SignalClassifier,
        tests: Iterable[tuple[MarketDataset, Sequence[pl.Callback]]],
    ) -> None:
        training = self._plan.training
        for dataset, callbacks in tests:
            trainer = make_trainer(training, None, (), [self._interruption, *callbacks])
            run_test(
                trainer, module, MarketDataModule.of(dataset, training.batch_size, training.seed)
            )

    def _folder_of(self, seed: int) -> Path:
        return self._folder / _SEED_FOLDER.format(seed) if self._plan.n_seeds > 1 else self._folder


def _listed(losses: Mapping[int, float]) -> str:
    return ", ".join(f"{loss:.5f} (seed {seed})" for seed, loss in losses.items())
