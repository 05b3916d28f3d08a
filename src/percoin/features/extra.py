"""Groups of columns beside the 15 features, switched on by name with ``features.extra``.

A group is computed from the bars of one market, by the same function in training and in
predictions. The names and the number of its columns may depend on the bar length. ``market``
also takes the bars of a few reference markets, from ``Bars.panel``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from percoin.bars.schema import Bars
from percoin.features.market import MARKET_MEMORY_BARS, MARKET_NAMES, market_columns
from percoin.features.volatility import (
    CLOCK_NAMES,
    clock_columns,
    volatility_columns,
    volatility_memory_bars,
    volatility_names,
)
from percoin.types import FloatArray, Timeframe


@dataclass(frozen=True)
class FeatureGroup:
    """A named group of extra columns.

    Attributes:
        names: The names of its columns in their order, for a bar length.
        memory_bars: How many bars before a row its values look at. The rows before that are
            not complete, and more bars change nothing.
        columns: From closed bars of one market, and the names of the reference markets, to
            float64 columns, shape (n_bars, n_columns). A row is known when its bar closes, NaN
            where it is undefined, and the same bits wherever the history begins.
        compares: Whether the values take the reference markets.
    """

    names: Callable[[Timeframe], tuple[str, ...]]
    memory_bars: Callable[[Timeframe], int]
    columns: Callable[[Bars, Sequence[str]], FloatArray]
    compares: bool = False


GROUPS: Mapping[str, FeatureGroup] = {
    "volatility": FeatureGroup(
        volatility_names, volatility_memory_bars, lambda bars, references: volatility_columns(bars)
    ),
    "clock": FeatureGroup(
        lambda timeframe: CLOCK_NAMES,
        lambda timeframe: 0,
        lambda bars, references: clock_columns(bars),
    ),
    "market": FeatureGroup(
        lambda timeframe: MARKET_NAMES,
        lambda timeframe: MARKET_MEMORY_BARS,
        market_columns,
        compares=True,
    ),
}
