"""The pooled recipe without a network: averages of models, some of which learn from all markets."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from percoin.config import TrainConfig
from percoin.dataset import MarketDataset
from percoin.evaluation.blend import AVERAGE
from percoin.evaluation.fold_forecasts import PooledBaseline, forecast_average
from percoin.training.recipes.last_row import FittedLastRow, loggers_of_many_runs
from percoin.training.recipes.pool_recipe import PoolAgain, PoolRecipe, fit_together, record_pool
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
        started, pool, settings = time.monotonic(), self.pool, fitting.settings
        n_rows = sum(len(dataset.rows("train")) for dataset in pool.seen)
        log.info("fitting model=average to %d train rows of %d markets", n_rows, len(pool.seen))
        pooled = fit_together(pool, settings, settings.seed)
        record, again = record_pool(pool), PoolAgain(pool, settings, settings.seed)
        secs = time.monotonic() - started

        def fit_again(symbol: str) -> tuple[MarketDataset, Sequence[PooledBaseline]]:
            return again.dataset(symbol), again.baselines

        def fitted(dataset: MarketDataset) -> FittedLastRow:
            return FittedLastRow(
                dataset=dataset,
                seed=settings.seed,
                secs=secs,
                name=AVERAGE,
                ask=lambda: (forecast_average(dataset, fitting.rules, pooled, fitting.fitter),),
                again=lambda: fit_again(dataset.bars.symbol),
                pool=record,
                fitter=fitting.fitter,
            )

        markets = [fitted(dataset) for dataset in self.markets]
        return Trained(markets, secs, _TOLD, self.notes(), self.facts(), loggers)
