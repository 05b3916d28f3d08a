"""Prepare a pool: several markets for one network, with common time cuts and one scaling.

The test part begins at the same time for all markets. Markets move together, so with different
cuts the train rows of one market would leak the test days of another.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from percoin.bars.panel import MarketPanel
from percoin.bars.schema import Bars
from percoin.config.dates import moment_ms
from percoin.dataset import (
    DatasetSpec,
    MarketDataset,
    PreparedMarket,
    SplitSpec,
    cut_history,
)
from percoin.errors import (
    ConfigError,
    MissingClassError,
    NotEnoughBarsError,
    PercoinError,
    PoolError,
)
from percoin.features.scaling import Scaling
from percoin.labels import label_rule_from_json
from percoin.registry.manifest import Manifest
from percoin.splits import Split, split_at
from percoin.types import Float32Array

log = logging.getLogger(__name__)

# Errors that broken settings in a manifest can raise.
UNUSABLE = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, PercoinError)


@dataclass(frozen=True)
class CalendarCuts:
    """The time cuts shared by all markets of a pool, in milliseconds since 1970-01-01 UTC.

    Attributes:
        first_time: Earliest open time of a row.
        validation_time: Open time of the first validation bar.
        test_time: Open time of the first test bar.
    """

    first_time: int
    validation_time: int
    test_time: int

    def __post_init__(self) -> None:
        if not self.first_time < self.validation_time < self.test_time:
            raise ValueError("the cuts are not in time order")

    def split(self, market: PreparedMarket) -> Split:
        """Split a market's rows, with purge and embargo around both cuts.

        Raises:
            ValueError: A part would be empty.
        """
        opened, spec = market.bars.open_time, market.spec.split_spec
        validation, test = opened.searchsorted([self.validation_time, self.test_time]).tolist()
        return split_at(market.rows, validation, test, spec.purge_bars, spec.embargo_bars)


@dataclass(frozen=True, eq=False)
class Pool:
    """The markets to train one network on, and further markets only to test it on.

    Attributes:
        cuts: Time cuts of every market.
        scaling: Fitted only on the train rows of the seen markets.
        seen: The markets to train on; their features are views of ``features``.
        unseen: Markets only for testing, with the same cuts and scaling.
        refused: Markets left out: symbol to reason.
        features: Scaled features of the seen markets, stacked by rows, shape
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
        """All markets, the seen ones first."""
        return (*self.seen, *self.unseen)

    @property
    def name(self) -> tuple[str, str]:
        """Name and timeframe in messages, in place of a market's symbol and timeframe."""
        return f"pool of {len(self.markets)} markets", self.seen[0].bars.timeframe.value

    @classmethod
    def of(
        cls,
        cuts: CalendarCuts,
        scaling: Scaling,
        markets: Sequence[MarketDataset],
        left_out: Collection[str],
        refused: Mapping[str, str],
    ) -> Pool:
        """Stack the features of the markets that are not left out of the training."""
        seen = [dataset for dataset in markets if dataset.bars.symbol not in left_out]
        features = np.concatenate([dataset.features for dataset in seen])
        ends = np.cumsum([len(dataset.features) for dataset in seen])
        return cls(
            cuts=cuts,
            scaling=scaling,
            seen=tuple(
                replace(dataset, features=features[end - len(dataset.features) : end])
                for dataset, end in zip(seen, ends.tolist(), strict=True)
            ),
            unseen=tuple(dataset for dataset in markets if dataset.bars.symbol in left_out),
            refused=refused,
            features=features,
        )

    def without_holdout(self) -> Pool:
        """The same pool with every row in train, and one scaling fitted on all of them."""
        prepared = {dataset.bars.symbol: PreparedMarket.again(dataset) for dataset in self.markets}
        seen = [prepared[dataset.bars.symbol] for dataset in self.seen]
        scaling = Scaling.fit_together(market.features[market.rows] for market in seen)
        made = [market.without_holdout(scaling) for market in prepared.values()]
        left_out = {dataset.bars.symbol for dataset in self.unseen}
        return Pool.of(self.cuts, scaling, made, left_out, self.refused)


def spec_of(manifest: Manifest) -> DatasetSpec:
    """Rebuild the dataset spec of a model from its manifest.

    Raises:
        Exception: One of ``UNUSABLE``: a setting in the manifest's config is missing, out of
            range or of the wrong type.
    """
    config: Mapping[str, Any] = manifest.config
    split = config["split"]
    return DatasetSpec(
        label_rule_from_json(manifest.label_rule),
        manifest.features.feature_set,
        manifest.lookback,
        SplitSpec(
            fractions=(split["train"], split["validation"], split["test"]),
            purge_bars=split["purge_bars"],
            embargo_bars=split["embargo_bars"],
        ),
        float(config["history_days"]),
        # Its bars are those that the manifest names, and end where they ended.
        start=moment_ms("start", config.get("start")),
    )


def build_pool(
    markets: Sequence[Bars],
    left_out: Sequence[str],
    spec: DatasetSpec,
    beside: Sequence[Bars] = (),
) -> Pool:
    """Cut all markets at the same times and fit one scaling on the seen markets' train rows.

    A market with a shorter history joins with the rows it has. A market without rows in one of
    the three parts, or without one of the classes, is refused because it cannot be judged.
    Refused markets do not influence the cuts.

    Args:
        markets: Closed bars of each market, all of one timeframe, each market once.
        left_out: Symbols of the markets not to train on.
        spec: Dataset rules of each market. The split fractions apply to the time from the
            earliest first row to the latest last row of all markets. The history ends with the
            newest bar of all markets. Labels that compare markets take the mean of the markets
            that are trained on.
        beside: Bars of further markets for the features.

    Raises:
        PoolError: Fewer than two markets are left to train on; the message names the refused.
    """
    newest_close = max(int(bars.open_time[-1]) + bars.timeframe.milliseconds for bars in markets)
    since = int(spec.first_time(newest_close))
    left = {bars.symbol: bars for bars in _side_by_side(markets, beside, spec, since)}
    prepared: dict[str, PreparedMarket] = {}
    refused: dict[str, str] = {}
    while True:
        _check_left(left, left_out, refused)
        prepared = _prepare(left, left_out, spec, since, prepared)
        cuts = _common_cuts(list(prepared.values()), since, spec.split_spec.fractions)
        reasons = _refusals(prepared, cuts)
        if not reasons:
            break
        refused |= reasons
        left = {name: bars for name, bars in left.items() if name not in reasons}
    scaling = fit_scaling(
        [market for name, market in prepared.items() if name not in left_out], cuts
    )
    made = [market.with_split(cuts.split(market), scaling) for market in prepared.values()]
    for symbol, reason in refused.items():
        log.warning("%s is left out of the pool: %s", symbol, reason)
    return Pool.of(cuts, scaling, made, left_out, refused)


def build_pooled_market(
    bars: Bars, spec: DatasetSpec, cuts: CalendarCuts, scaling: Scaling
) -> MarketDataset:
    """Build one market's dataset with a pool's cuts and scaling; it need not be in the pool.

    Raises:
        NotEnoughBarsError: The market has no rows in one of the three parts.
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


def _side_by_side(
    markets: Sequence[Bars], beside: Sequence[Bars], spec: DatasetSpec, since: int
) -> Sequence[Bars]:
    """The markets with the bars of all others at hand, if labels or features compare them.

    Only bars in use are at hand, so that the bars that a manifest names are enough to make the
    same labels again.
    """
    if spec.label_rule.among(["POOL"]) == spec.label_rule and not spec.feature_set.references:
        return markets
    cut = [cut_history(bars, spec, since)[0] for bars in markets]
    first = min(int(bars.open_time[0]) for bars in cut)
    further = [bars.slice(int(bars.open_time.searchsorted(first))) for bars in beside]
    panel = MarketPanel.of([*cut, *(bars for bars in further if len(bars))])
    return [replace(bars, panel=panel) for bars in markets]


def _prepare(
    markets: Mapping[str, Bars],
    left_out: Sequence[str],
    spec: DatasetSpec,
    since: int,
    known: Mapping[str, PreparedMarket],
) -> dict[str, PreparedMarket]:
    """Prepare each market, or take those known if fewer markets change no label."""
    rule = spec.label_rule.among([name for name in markets if name not in left_out])
    if known and next(iter(known.values())).spec.label_rule == rule:
        return {name: known[name] for name in markets}
    spec = replace(spec, label_rule=rule)
    return {name: PreparedMarket.prepare(bars, spec, since) for name, bars in markets.items()}


def fit_scaling(markets: Sequence[PreparedMarket], cuts: CalendarCuts) -> Scaling:
    """Fit one scaling on the train rows of several markets together.

    Raises:
        ValueError: A market has no rows in one of its parts.
    """
    return Scaling.fit_together(market.features[cuts.split(market).train] for market in markets)


def _check_left(
    left: Mapping[str, Bars], left_out: Sequence[str], refused: Mapping[str, str]
) -> None:
    n_seen = sum(name not in left_out for name in left)
    if n_seen < 2:
        reasons = "".join(f"; {name}: {reason}" for name, reason in refused.items())
        raise PoolError(
            f"a pool takes at least 2 markets to train on, and {n_seen} is left{reasons}"
        )


def _common_cuts(
    markets: Sequence[PreparedMarket], since: int, fractions: Sequence[float]
) -> CalendarCuts:
    """Cut the time from the earliest first row to the latest last row of all markets."""
    times = [market.bars.open_time[market.rows] for market in markets if len(market.rows)]
    step = markets[0].bars.timeframe.milliseconds
    if not times:
        # Any cuts will do: every market is refused because it has no rows.
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
    """Markets that cannot be judged with these cuts: symbol to reason."""
    reasons = {}
    for symbol, market in prepared.items():
        n_features = market.features.shape[1]
        neutral = Scaling(np.zeros(n_features), np.ones(n_features))
        try:
            split = cuts.split(market)
            # The check for missing classes does not depend on the scaling.
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
