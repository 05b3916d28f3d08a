"""Many markets made ready to train one network on: common cuts in time, one scaling.

A market's test part begins for all of them at the same moment. Markets move together, so
with cuts of its own one market's train rows would tell the network how another's test
days went.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from percoin.bars.schema import Bars
from percoin.dataset import DatasetSpec, MarketDataset, PreparedMarket, SplitSpec
from percoin.errors import (
    ConfigError,
    MissingClassError,
    NotEnoughBarsError,
    PercoinError,
    PoolError,
)
from percoin.features.feature_set import FEATURE_NAMES
from percoin.features.scaling import Scaling
from percoin.labels import label_rule_from_json
from percoin.registry.manifest import Manifest
from percoin.splits import Split, split_at
from percoin.types import Float32Array

log = logging.getLogger(__name__)

_DAY_MILLISECONDS = 86_400_000
# What becomes of settings in a manifest that are none.
UNUSABLE = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, PercoinError)


@dataclass(frozen=True)
class CalendarCuts:
    """Moments that all markets of a pool share, in milliseconds since 1970-01-01 UTC.

    Attributes:
        first_time: Rows open no earlier.
        validation_time: Validation begins with the bar that opens then.
        test_time: The same of the test part.
    """

    first_time: int
    validation_time: int
    test_time: int

    def __post_init__(self) -> None:
        if not self.first_time < self.validation_time < self.test_time:
            raise ValueError("the cuts are not in time order")

    def split(self, market: PreparedMarket) -> Split:
        """Share out a market's rows, purged and embargoed around both cuts.

        Raises:
            ValueError: A part would be empty.
        """
        opened, spec = market.bars.open_time, market.spec.split_spec
        validation, test = opened.searchsorted([self.validation_time, self.test_time]).tolist()
        return split_at(market.rows, validation, test, spec.purge_bars, spec.embargo_bars)


@dataclass(frozen=True, eq=False)
class Pool:
    """What one network is trained on, and the markets it is to be tried on besides.

    Attributes:
        cuts: Of every market.
        scaling: Fitted on the train rows of the seen markets alone.
        seen: The markets to train on; their features are views of ``features``.
        unseen: Markets with the same cuts and scaling that no weight may learn from.
        refused: Why a market is none of these, by symbol.
        features: Scaled features of the seen markets one below the other, shape
            (n_bars of all, F).
    """

    cuts: CalendarCuts
    scaling: Scaling
    seen: tuple[MarketDataset, ...]
    unseen: tuple[MarketDataset, ...]
    refused: Mapping[str, str]
    features: Float32Array

    @property
    def markets(self) -> tuple[MarketDataset, ...]:
        """All of them, those seen first."""
        return (*self.seen, *self.unseen)


def spec_of(manifest: Manifest) -> DatasetSpec:
    """How the dataset of a model was made, by what its manifest says.

    Raises:
        Exception: One of ``UNUSABLE``: the manifest's config lacks a setting, or has one out of
            its range or of another type.
    """
    config: Mapping[str, Any] = manifest.config
    split = config["split"]
    return DatasetSpec(
        label_rule_from_json(manifest.label_rule),
        manifest.features.definition,
        manifest.lookback,
        SplitSpec(
            fractions=(split["train"], split["validation"], split["test"]),
            purge_bars=split["purge_bars"],
            embargo_bars=split["embargo_bars"],
        ),
        float(config["history_days"]),
    )


def build_pool(markets: Sequence[Bars], left_out: Sequence[str], spec: DatasetSpec) -> Pool:
    """Cut all markets at the same moments and fit one scaling on the train rows of those seen.

    A market with a shorter history joins with what it has. One without rows in one of the
    three parts, or without one of the classes, is refused: it could not be judged. It has
    no say in where the cuts lie.

    Args:
        markets: Closed bars of each market, all of one timeframe, each market once.
        left_out: Symbols of those that are not to be learnt from.
        spec: How each is made; the shares of its split are of the time from the first row of
            any market to the last one, and the history ends with the newest bar of any.

    Raises:
        PoolError: Fewer than two markets are left to train on; names what was refused.
    """
    newest_close = max(int(bars.open_time[-1]) + bars.timeframe.milliseconds for bars in markets)
    since = int(newest_close - spec.history_days * _DAY_MILLISECONDS)
    prepared = {bars.symbol: PreparedMarket.prepare(bars, spec, since) for bars in markets}
    refused: dict[str, str] = {}
    while True:
        _check_left(prepared, left_out, refused)
        cuts = _common_cuts(list(prepared.values()), since, spec.split_spec.fractions)
        reasons = _refusals(prepared, cuts)
        if not reasons:
            break
        refused |= reasons
        prepared = {name: market for name, market in prepared.items() if name not in reasons}
    scaling = fit_scaling(
        [market for name, market in prepared.items() if name not in left_out], cuts
    )
    made = {
        name: market.with_split(cuts.split(market), scaling) for name, market in prepared.items()
    }
    seen = [dataset for name, dataset in made.items() if name not in left_out]
    features = np.concatenate([dataset.features for dataset in seen])
    ends = np.cumsum([len(dataset.features) for dataset in seen])
    for symbol, reason in refused.items():
        log.warning("%s is left out of the pool: %s", symbol, reason)
    return Pool(
        cuts=cuts,
        scaling=scaling,
        seen=tuple(
            replace(dataset, features=features[end - len(dataset.features) : end])
            for dataset, end in zip(seen, ends.tolist(), strict=True)
        ),
        unseen=tuple(dataset for name, dataset in made.items() if name in left_out),
        refused=refused,
        features=features,
    )


def build_pooled_market(
    bars: Bars, spec: DatasetSpec, cuts: CalendarCuts, scaling: Scaling
) -> MarketDataset:
    """One market with the cuts and the scaling of a pool, whether it was in it or not.

    Raises:
        NotEnoughBarsError: It has no rows in one of the three parts.
        MissingClassError: Its train rows lack one of the three classes.
    """
    market = PreparedMarket.prepare(bars, spec, cuts.first_time)
    try:
        split = cuts.split(market)
    except ValueError as error:
        raise NotEnoughBarsError(
            bars.symbol,
            bars.timeframe,
            f"{error}; {_described(market, cuts)}",
            "load bars that reach over all three parts of the pool",
        ) from None
    return market.with_split(split, scaling)


def fit_scaling(markets: Sequence[PreparedMarket], cuts: CalendarCuts) -> Scaling:
    """The scaling of the train rows of several markets, fitted as one.

    Raises:
        ValueError: A market has no rows in one of its parts.
    """
    return Scaling.fit_together(market.features[cuts.split(market).train] for market in markets)


def _check_left(
    prepared: Mapping[str, PreparedMarket], left_out: Sequence[str], refused: Mapping[str, str]
) -> None:
    n_seen = sum(name not in left_out for name in prepared)
    if n_seen < 2:
        reasons = "".join(f"; {name}: {reason}" for name, reason in refused.items())
        raise PoolError(
            f"a pool takes at least 2 markets to train on, and {n_seen} is left{reasons}"
        )


def _common_cuts(
    markets: Sequence[PreparedMarket], since: int, fractions: Sequence[float]
) -> CalendarCuts:
    """Cut the time from the first row of any market to the end of the last one."""
    times = [market.bars.open_time[market.rows] for market in markets if len(market.rows)]
    step = markets[0].bars.timeframe.milliseconds
    if not times:
        # Wherever they lie: every market is refused for want of rows.
        return CalendarCuts(since, since + step, since + 2 * step)
    first = min(int(own[0]) for own in times)
    n_bars = (max(int(own[-1]) for own in times) - first) // step + 1
    validation, test = (
        first + round(n_bars * share) * step
        for share in (fractions[0], fractions[0] + fractions[1])
    )
    try:
        return CalendarCuts(first, validation, test)
    except ValueError:
        raise ConfigError(f"{n_bars} bars cannot be cut into three parts") from None


def _refusals(prepared: Mapping[str, PreparedMarket], cuts: CalendarCuts) -> dict[str, str]:
    """Why markets cannot be judged with these cuts, by symbol."""
    reasons = {}
    neutral = Scaling(np.zeros(len(FEATURE_NAMES)), np.ones(len(FEATURE_NAMES)))
    for symbol, market in prepared.items():
        try:
            split = cuts.split(market)
            # Scaling has no say in which classes there are.
            market.with_split(split, neutral)
        except ValueError as error:
            reasons[symbol] = f"{error}; {_described(market, cuts)}"
        except MissingClassError as error:
            reasons[symbol] = error.found
    return reasons


def _described(market: PreparedMarket, cuts: CalendarCuts) -> str:
    opened, rows = market.bars.open_time, market.rows
    parts = (
        f"the pool's validation begins {_day(cuts.validation_time)}, its test "
        f"{_day(cuts.test_time)}"
    )
    if len(rows) == 0:
        last = _day(int(opened[-1]))
        return f"no bar of its history, which ends {last}, can be used; {parts}"
    return (
        f"its rows go from {_day(int(opened[rows[0]]))} to {_day(int(opened[rows[-1]]))}; {parts}"
    )


def _day(moment: int) -> str:
    return str(np.datetime64(moment, "ms").astype("datetime64[D]"))
