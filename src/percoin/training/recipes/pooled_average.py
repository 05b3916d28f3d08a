"""The pooled recipe without a network: averages of models, some of which learn from all markets."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from percoin.config import TrainConfig
from percoin.dataset import MarketDataset
from percoin.evaluation.baselines import POOLED_MOVES
from percoin.evaluation.blend import AVERAGE
from percoin.evaluation.fold_forecasts import (
    PooledBaseline,
    fit_pooled_baselines,
    forecast_average,
)
from percoin.training.recipes.last_row import FittedLastRow, loggers_of_many_runs
from percoin.training.recipes.pool import Pool
from percoin.training.recipes.pool_recipe import PoolRecipe, record_pool
from percoin.training.recipes.recipe import Fitting, Trained

log = logging.getLogger(__name__)

# Of the training, in the summary.
_TOLD = "the models that learn from all markets, without a network"


@dataclass(frozen=True, kw_only=True)
class PooledAverage(PoolRecipe):
    """Averages of models without a network, for each market of a pool."""

    can_resume: ClassVar[bool] = False

    def max_epochs(self, settings: TrainConfig) -> int:
        """0: such a model has no epochs."""
        return 0

    def fit(self, fitting: Fitting) -> Trained:
        """Fit what learns from all markets; the rest of each market is fitted when it is asked."""
        loggers = loggers_of_many_runs(fitting)
        started, pool = time.monotonic(), self.pool
        n_rows = sum(len(dataset.rows("train")) for dataset in pool.seen)
        log.info("fitting model=average to %d train rows of %d markets", n_rows, len(pool.seen))
        pooled, record = _fit(pool, fitting), record_pool(pool)
        again = _RefitOfAverages(pool, fitting)
        secs = time.monotonic() - started

        def fitted(dataset: MarketDataset) -> FittedLastRow:
            return FittedLastRow(
                dataset=dataset,
                seed=fitting.settings.seed,
                secs=secs,
                name=AVERAGE,
                ask=lambda: (forecast_average(dataset, fitting.rules, pooled, fitting.fitter),),
                again=lambda: again.of(dataset.bars.symbol),
                pool=record,
                fitter=fitting.fitter,
            )

        markets = [fitted(dataset) for dataset in self.markets]
        return Trained(markets, secs, _TOLD, self.notes(), self.facts(), loggers)


@dataclass(frozen=True)
class _RefitOfAverages:
    """The refit of a pool, made when the first market asks for it and once for all of them."""

    pool: Pool
    fitting: Fitting

    def of(self, symbol: str) -> tuple[MarketDataset, Sequence[PooledBaseline]]:
        """What one market serves of it."""
        [dataset] = [each for each in self._whole.markets if each.bars.symbol == symbol]
        return dataset, self._pooled

    @cached_property
    def _whole(self) -> Pool:
        return self.pool.without_holdout()

    @cached_property
    def _pooled(self) -> Sequence[PooledBaseline]:
        log.info("fitting what learns from all markets again, on all rows")
        return _fit(self._whole, self.fitting)


def _fit(pool: Pool, fitting: Fitting) -> Sequence[PooledBaseline]:
    has_moves = POOLED_MOVES in fitting.settings.blended
    return tuple(fit_pooled_baselines(pool.seen, fitting.settings.seed, has_moves))
