"""The pooled recipe: one network for several markets, judged on each of them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path

from lightning.pytorch.loggers import Logger

from percoin.config import TrainConfig
from percoin.dataset import MarketDataset
from percoin.errors import DivergedError, PoolError
from percoin.evaluation.blend import AVERAGE
from percoin.evaluation.fold_forecasts import PooledBaseline
from percoin.training.fitted_network import FittedNetwork, TrainedAgain
from percoin.training.lit_module import SignalClassifier
from percoin.training.loggers import make_loggers
from percoin.training.own_parts import sources_of
from percoin.training.pooled_run import PooledPlan, TrainedPool, train_pool, train_pool_again
from percoin.training.recipes.network import ask_network, network_spec, plan_of, seeded_network
from percoin.training.recipes.pool_recipe import PoolAgain, PoolRecipe, fit_together, record_pool
from percoin.training.recipes.recipe import Fitting, Trained
from percoin.types import Timeframe

log = logging.getLogger(__name__)

# On these the other parts of the default blend were better alone in some windows.
_SLOW = (Timeframe.H4, Timeframe.D1)


@dataclass(frozen=True, kw_only=True)
class Pooled(PoolRecipe):
    """One network for all markets of a pool."""

    def max_epochs(self, settings: TrainConfig) -> int:
        """The sum over all seeds."""
        return settings.epochs * settings.pooled.seeds

    def fit(self, fitting: Fitting) -> Trained:
        """Train one network per seed on all markets; every market gets the best one."""
        settings, pool, chosen = fitting.settings, self.pool, fitting.settings.pooled
        n_rows = sum(len(dataset.rows("train")) for dataset in pool.seen)
        log.info("training one network on %d train rows of %d markets", n_rows, len(pool.seen))
        warn_of_slow_bars(settings)
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
            self.notes(),
            {
                **self.facts(),
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
        again = _Again(self.pool, settings, trained.seed, fitting, trained, plan)

        @cache
        def baselines() -> Sequence[PooledBaseline]:
            log.info("fitting the baselines that learn from all markets")
            return fit_together(self.pool, settings, trained.seed)

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


@dataclass(frozen=True)
class _Again(PoolAgain):
    """The refit of a pool with its network."""

    fitting: Fitting
    trained: TrainedPool
    plan: PooledPlan

    def of(self, symbol: str) -> TrainedAgain:
        """What one market serves of it."""
        return TrainedAgain(self.dataset(symbol), self._module, lambda: self.baselines)

    @cached_property
    def _module(self) -> SignalClassifier:
        whole = self.whole
        n_rows = sum(len(dataset.rows("train")) for dataset in whole.seen)
        log.info("refit on all %d rows of %d markets", n_rows, len(whole.seen))
        try:
            return train_pool_again(
                whole,
                self.trained,
                seeded_network(replace(self.settings, seed=self.seed)),
                self.plan,
                self.settings.resume,
                self.fitting.interruption,
            )
        except DivergedError as error:
            # Not the failure of one market, after which the next one would train it again.
            raise PoolError(str(error)) from error


def warn_of_slow_bars(settings: TrainConfig) -> None:
    """Warn before a training whose network is not worth its time, as far as is known."""
    if settings.blended and settings.tf.timeframe in _SLOW:
        log.warning(
            "on 4h and 1d the network of a pool was no sure gain in any window, and in some it "
            "took skill away from the models that it is averaged with (docs/RECIPES.md); "
            "model=%s trains those alone, in minutes",
            AVERAGE,
        )


def _told(trained: TrainedPool) -> str:
    model = trained.model
    if len(trained.losses) == 1:
        return f"{model.n_epochs} epochs, epoch {model.best_epoch} kept"
    losses = ", ".join(f"{loss:.5f} of {seed}" for seed, loss in trained.losses.items())
    return (
        f"{len(trained.losses)} seeds, kept seed {trained.seed} at epoch {model.best_epoch} "
        f"of {model.n_epochs} (validation log-loss {losses})"
    )
