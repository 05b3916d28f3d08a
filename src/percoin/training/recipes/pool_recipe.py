"""What all recipes of a pool share: its bars, its datasets and its record."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Self

from percoin.assembly import dataset_spec
from percoin.bars.panel import load_beside
from percoin.bars.schema import Bars
from percoin.config import TrainConfig
from percoin.dataset import MarketDataset
from percoin.errors import DataError
from percoin.evaluation.baselines import POOLED_MOVES
from percoin.evaluation.fold_forecasts import PooledBaseline, fit_pooled_baselines
from percoin.registry.field_checks import open_time_text
from percoin.registry.pool_record import PoolRecord
from percoin.training.early import without_bars
from percoin.training.folds import LoadBars
from percoin.training.recipes.pool import Pool, build_pool
from percoin.training.recipes.recipe import Recipe, known_bars, market_settings

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PoolRecipe(Recipe):
    """Several markets with common time cuts and one scaling.

    Attributes:
        pool: The prepared markets.
    """

    is_set: ClassVar[bool] = True
    is_pool: ClassVar[bool] = True
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

    def settings_of(self, settings: TrainConfig, symbol: str) -> TrainConfig:
        """The pool's settings, with the number of looks at this market's test rows."""
        return replace(settings, looks=settings.looks_of(symbol))

    def notes(self) -> tuple[str, ...]:
        """Lines for the summary: refused markets and the cuts in time."""
        cuts = self.pool.cuts
        moments = (cuts.first_time, cuts.validation_time, cuts.test_time)
        first, validation, test = (open_time_text(moment)[:16] for moment in moments)
        return (
            *(f"refused {symbol}: {reason}" for symbol, reason in self.pool.refused.items()),
            f"cuts of all markets (UTC): train from {first}, validation from {validation}, "
            f"test from {test}",
        )

    def facts(self) -> dict[str, Any]:
        """The same for programs."""
        return {"refused": dict(self.pool.refused), "cuts": asdict(self.pool.cuts)}


@dataclass(frozen=True)
class PoolAgain:
    """A pool on all rows, made when the first market asks for its refit and once for all of them.

    Attributes:
        pool: As it was judged.
        settings: Of the run.
        seed: For the baselines.
    """

    pool: Pool
    settings: TrainConfig
    seed: int

    def dataset(self, symbol: str) -> MarketDataset:
        """All rows of one market."""
        [dataset] = [each for each in self.whole.markets if each.bars.symbol == symbol]
        return dataset

    @cached_property
    def whole(self) -> Pool:
        """The pool with every row in train."""
        return self.pool.without_holdout()

    @cached_property
    def baselines(self) -> Sequence[PooledBaseline]:
        """Those that learn from all markets, fitted to all rows."""
        log.info("fitting the baselines that learn from all markets again, on all rows")
        return fit_together(self.whole, self.settings, self.seed)


def fit_together(pool: Pool, settings: TrainConfig, seed: int) -> Sequence[PooledBaseline]:
    """Fit the baselines that learn from the train rows of all markets of a pool."""
    return tuple(fit_pooled_baselines(pool.seen, seed, POOLED_MOVES in settings.blended))


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
