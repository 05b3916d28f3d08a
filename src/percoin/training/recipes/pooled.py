"""The pooled recipe: one network for several markets, judged on each of them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import ClassVar, Self

from lightning.pytorch.loggers import Logger

from percoin.assembly import dataset_spec
from percoin.bars.panel import load_beside
from percoin.bars.schema import Bars
from percoin.config import TrainConfig
from percoin.dataset import MarketDataset
from percoin.errors import DataError, DivergedError, PoolError
from percoin.evaluation.baselines import POOLED_MOVES
from percoin.evaluation.fold_forecasts import PooledBaseline, fit_pooled_baselines
from percoin.registry.field_checks import open_time_text
from percoin.registry.pool_record import PoolRecord
from percoin.training.early import without_bars
from percoin.training.fitted_network import FittedNetwork, TrainedAgain
from percoin.training.folds import LoadBars
from percoin.training.lit_module import SignalClassifier
from percoin.training.loggers import make_loggers
from percoin.training.own_parts import sources_of
from percoin.training.pooled_run import PooledPlan, TrainedPool, train_pool, train_pool_again
from percoin.training.recipes.network import ask_network, network_spec, plan_of, seeded_network
from percoin.training.recipes.pool import Pool, build_pool
from percoin.training.recipes.recipe import (
    Fitting,
    Recipe,
    Trained,
    known_bars,
    market_settings,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Pooled(Recipe):
    """Several markets with common time cuts and one scaling, for one network.

    Attributes:
        pool: The prepared markets.
    """

    is_set: ClassVar[bool] = True
    shares_network: ClassVar[bool] = True
    pool: Pool

    @classmethod
    def prepare(cls, settings: TrainConfig, load: LoadBars) -> Self:
        """Load the bars and build the pool.

        Raises:
            PoolError: Markets have no bars, or too few are left to train on; the message names
                all of them.
        """
        markets, spec = load_pool_bars(settings, load), dataset_spec(settings)
        known = {bars.symbol for bars in markets}
        beside = [
            load_beside(markets[0], symbol, lambda name: load(market_settings(settings, name)))
            for symbol in spec.feature_set.references
            if symbol not in known
        ]
        return cls(pool=build_pool(markets, settings.pooled.leave_out, spec, beside))

    @property
    def datasets(self) -> Sequence[MarketDataset]:
        """All markets, the seen ones first; the unseen ones are only judged."""
        return self.pool.markets

    def max_epochs(self, settings: TrainConfig) -> int:
        """The sum over all seeds."""
        return settings.epochs * settings.pooled.seeds

    def settings_of(self, settings: TrainConfig, symbol: str) -> TrainConfig:
        """The pool's settings, with the number of looks at this market's test rows."""
        return replace(settings, looks=settings.looks_of(symbol))

    def fit(self, fitting: Fitting) -> Trained:
        """Train one network per seed on all markets; every market gets the best one."""
        settings, pool, chosen = fitting.settings, self.pool, fitting.settings.pooled
        n_rows = sum(len(dataset.rows("train")) for dataset in pool.seen)
        log.info("training one network on %d train rows of %d markets", n_rows, len(pool.seen))
        plan = PooledPlan(
            plan_of(settings),
            chosen.windows_per_epoch,
            chosen.validation_windows,
            chosen.warmup_epochs,
            chosen.seeds,
        )
        loggers: dict[Path, list[Logger]] = {}

        def loggers_of(place: Path) -> list[Logger]:
            loggers[place] = make_loggers(settings, place)
            return loggers[place]

        trained = train_pool(
            pool,
            lambda seed: seeded_network(replace(settings, seed=seed)),
            plan,
            fitting.folder,
            loggers_of,
            fitting.callbacks,
            settings.resume,
            fitting.interruption,
        )
        return Trained(
            self._fitted(fitting, trained, plan),
            trained.model.secs,
            _told(trained),
            self._notes(),
            {
                "refused": dict(pool.refused),
                "cuts": asdict(pool.cuts),
                "epochs": trained.model.n_epochs,
                "best_epoch": trained.model.best_epoch,
                "seed": trained.seed,
                "validation_losses": {str(seed): loss for seed, loss in trained.losses.items()},
            },
            loggers[trained.folder],
        )

    def _fitted(
        self, fitting: Fitting, trained: TrainedPool, plan: PooledPlan
    ) -> list[FittedNetwork]:
        """One entry per market, all with the same network."""
        model, record, settings = trained.model, record_pool(self.pool), fitting.settings
        spec, sources = network_spec(settings), sources_of(settings)
        again = _Again(self.pool, fitting, trained, plan)

        @cache
        def baselines() -> Sequence[PooledBaseline]:
            log.info("fitting the baselines that learn from all markets")
            has_moves = POOLED_MOVES in fitting.settings.blended
            return tuple(fit_pooled_baselines(self.pool.seen, trained.seed, has_moves))

        def fitted(dataset: MarketDataset) -> FittedNetwork:
            return FittedNetwork(
                dataset=dataset,
                seed=trained.seed,
                secs=model.secs,
                epochs=(model.n_epochs, model.best_epoch),
                pool=record,
                test=lambda: ask_network(
                    model.module, dataset, plan.training, fitting.interruption
                ),
                spec=spec,
                sources=sources,
                pooled_baselines=baselines,
                fitter=fitting.fitter,
                again=lambda: again.of(dataset.bars.symbol),
            )

        return [fitted(dataset) for dataset in self.markets]

    def _notes(self) -> tuple[str, ...]:
        cuts = self.pool.cuts
        moments = (cuts.first_time, cuts.validation_time, cuts.test_time)
        first, validation, test = (open_time_text(moment)[:16] for moment in moments)
        return (
            *(f"refused {symbol}: {reason}" for symbol, reason in self.pool.refused.items()),
            f"cuts of all markets (UTC): train from {first}, validation from {validation}, "
            f"test from {test}",
        )


@dataclass(frozen=True)
class _Again:
    """The refit of a pool, made when the first market asks for it and once for all of them."""

    pool: Pool
    fitting: Fitting
    trained: TrainedPool
    plan: PooledPlan

    def of(self, symbol: str) -> TrainedAgain:
        """What one market serves of it."""
        [dataset] = [each for each in self._whole.markets if each.bars.symbol == symbol]
        return TrainedAgain(dataset, self._module, lambda: self._baselines)

    @cached_property
    def _whole(self) -> Pool:
        return self.pool.without_holdout()

    @cached_property
    def _module(self) -> SignalClassifier:
        settings, seed = self.fitting.settings, self.trained.seed
        n_rows = sum(len(dataset.rows("train")) for dataset in self._whole.seen)
        log.info("refit on all %d rows of %d markets", n_rows, len(self._whole.seen))
        try:
            return train_pool_again(
                self._whole,
                self.trained,
                seeded_network(replace(settings, seed=seed)),
                self.plan,
                settings.resume,
                self.fitting.interruption,
            )
        except DivergedError as error:
            # Not the failure of one market, after which the next one would train it again.
            raise PoolError(str(error)) from error

    @cached_property
    def _baselines(self) -> Sequence[PooledBaseline]:
        log.info("fitting the baselines that learn from all markets again, on all rows")
        has_moves = POOLED_MOVES in self.fitting.settings.blended
        return tuple(fit_pooled_baselines(self._whole.seen, self.trained.seed, has_moves))


def _told(trained: TrainedPool) -> str:
    model = trained.model
    if len(trained.losses) == 1:
        return f"{model.n_epochs} epochs, epoch {model.best_epoch} kept"
    losses = ", ".join(f"{loss:.5f} of {seed}" for seed, loss in trained.losses.items())
    return (
        f"{len(trained.losses)} seeds, kept seed {trained.seed} at epoch {model.best_epoch} "
        f"of {model.n_epochs} (validation log-loss {losses})"
    )


def load_pool_bars(settings: TrainConfig, load: LoadBars) -> list[Bars]:
    """Load the bars of every market in the pool.

    Args:
        settings: Settings of the pool.
        load: Loads the bars of one market, given the settings of that market.

    Raises:
        PoolError: Some markets have no usable bars; the message names all of them.
    """
    found, missing = list[Bars](), list[DataError]()
    for symbol in settings.pooled_symbols:
        try:
            found.append(load(market_settings(settings, symbol)))
        except DataError as error:
            missing.append(error)
    if missing:
        raise without_bars(missing, len(settings.pooled_symbols))
    return found


def record_pool(pool: Pool) -> PoolRecord:
    """The record of the pool for manifests."""
    cuts, seen = pool.cuts, {dataset.bars.symbol for dataset in pool.seen}
    return PoolRecord(
        first_time=open_time_text(cuts.first_time),
        validation_time=open_time_text(cuts.validation_time),
        test_time=open_time_text(cuts.test_time),
        markets={
            dataset.bars.symbol: known_bars(dataset, dataset.bars.symbol in seen)
            for dataset in pool.markets
        },
    )
