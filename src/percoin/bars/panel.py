"""Prices of several markets at the same moments, for labels and features that compare markets."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from percoin.bars.schema import PRICE_COLUMNS, Bars
from percoin.errors import BarsNotFoundError, DataError
from percoin.types import FloatArray, IntArray, Timeframe


@dataclass(frozen=True, eq=False)
class MarketPanel:
    """Bars of several markets on one grid of time, NaN where a market has no bar.

    Attributes:
        symbols: The markets in the order of their columns, K of them.
        timeframe: Length of each bar.
        first_time: Open time of the first row, in milliseconds since 1970-01-01 UTC. Rows follow
            each other without gaps.
        prices: Open, high, low and close, shape (n_times, K, 4).
    """

    symbols: tuple[str, ...]
    timeframe: Timeframe
    first_time: int
    prices: FloatArray
    _computed: dict[Hashable, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, markets: Iterable[Bars]) -> MarketPanel:
        """Put the bars of several markets side by side.

        Args:
            markets: At least one; all of one timeframe, each market once, none without bars.
        """
        each = list(markets)
        timeframe = each[0].timeframe
        step = timeframe.milliseconds
        first = min(int(bars.open_time[0]) for bars in each)
        last = max(int(bars.open_time[-1]) for bars in each)
        prices = np.full(((last - first) // step + 1, len(each), len(PRICE_COLUMNS)), np.nan)
        for k, bars in enumerate(each):
            prices[(bars.open_time - first) // step, k] = bars.values[:, : len(PRICE_COLUMNS)]
        return cls(tuple(bars.symbol for bars in each), timeframe, first, prices)

    def __len__(self) -> int:
        return len(self.prices)

    def lacks(self, symbols: Iterable[str]) -> list[str]:
        """Those of the markets that are not in the panel."""
        return [symbol for symbol in symbols if symbol not in self.symbols]

    def column(self, name: str, symbols: Sequence[str]) -> FloatArray:
        """One of the prices of some markets, shape (n_times, n_symbols)."""
        places = [self.symbols.index(symbol) for symbol in symbols]
        return self.prices[:, places, PRICE_COLUMNS.index(name)]

    def rows_at(self, values: FloatArray, open_time: IntArray) -> FloatArray:
        """Rows of something that has one row a moment of the panel; NaN outside of it.

        Args:
            values: Shape (n_times, ...).
            open_time: Milliseconds since 1970-01-01 UTC, shape (n,).
        """
        row = (open_time - self.first_time) // self.timeframe.milliseconds
        found: FloatArray = np.full((len(row), *values.shape[1:]), np.nan)
        is_inside = (row >= 0) & (row < len(self))
        found[is_inside] = values[row[is_inside]]
        return found

    def between(self, first: int, last: int) -> MarketPanel:
        """The rows that open from ``first`` to ``last``, both included."""
        step = self.timeframe.milliseconds
        start = min(max(0, -(-(first - self.first_time) // step)), len(self))
        stop = max(start, (last - self.first_time) // step + 1)
        if (start, stop) == (0, len(self)):
            return self
        begins = self.first_time + start * step
        return replace(self, first_time=begins, prices=self.prices[start:stop], _computed={})

    def newest(self, symbol: str) -> int | None:
        """Open time of a market's newest bar; None if it has none here."""
        rows = np.flatnonzero(np.isfinite(self.column("close", [symbol])[:, 0]))
        step = self.timeframe.milliseconds
        return None if not len(rows) else self.first_time + int(rows[-1]) * step

    def computed(self, key: Hashable, make: Callable[[], FloatArray]) -> FloatArray:
        """What ``make`` gives; it is called once for each key and panel."""
        if key not in self._computed:
            self._computed[key] = make()
        found: FloatArray = self._computed[key]
        return found

    def sha256(self, symbol: str, first: int, last: int) -> str:
        """Hash of a market's prices that open from ``first`` to ``last``."""
        part = self.between(first, last)
        prices = part.prices[:, part.symbols.index(symbol)]
        # One NaN is not always the other.
        known = np.where(np.isnan(prices), 0.0, prices).astype("<f8")
        return hashlib.sha256(str(part.first_time).encode() + known.tobytes()).hexdigest()


def with_panel(bars: Bars, others: Iterable[Bars]) -> Bars:
    """The bars with those of other markets at hand; a market of its own symbol is not replaced.

    Args:
        bars: Of the market itself.
        others: Of other markets, of the same timeframe.
    """
    rest = [other for other in others if other.symbol != bars.symbol and len(other)]
    return replace(bars, panel=MarketPanel.of([bars, *rest]))


def hash_beside(bars: Bars, symbols: Iterable[str]) -> dict[str, str]:
    """Hashes of the prices of other markets at hand, over the span of the bars; empty if none are.

    Args:
        bars: Of the market itself.
        symbols: The markets that it is compared with.
    """
    if bars.panel is None:
        return {}
    first, last = (int(bars.open_time[end]) for end in (0, -1))
    return {symbol: bars.panel.sha256(symbol, first, last) for symbol in symbols}


def load_panel(bars: Bars, symbols: Sequence[str], load: Callable[[str], Bars]) -> Bars:
    """The bars with those of the named markets at hand; the same bars if none is named.

    Args:
        bars: Of the market itself, at least one.
        symbols: The markets to compare with; may hold the market itself.
        load: Loads the bars of one market.

    Raises:
        BarsNotFoundError: A market has no bars, or some of another source; names it.
    """
    if not symbols:
        return bars
    return with_panel(bars, [load_beside(bars, symbol, load) for symbol in symbols])


def load_beside(bars: Bars, symbol: str, load: Callable[[str], Bars]) -> Bars:
    """Bars of another market that may be compared with these.

    Raises:
        BarsNotFoundError: There are none, or they are of another source; names the market.
    """
    if symbol == bars.symbol:
        return bars
    try:
        other = load(symbol)
    except DataError as error:
        found = error.found
    else:
        if len(other) and other.origin.split(":", 1)[0] == bars.origin.split(":", 1)[0]:
            return other
        found = f"its {len(other)} bars are {other.origin!r}, not {bars.origin!r}"
    raise BarsNotFoundError(
        bars.symbol,
        bars.timeframe,
        f"the market {symbol}, which it is compared with, is missing: {found}",
        f"bring the {bars.timeframe} bars of {symbol} to the same source",
    )
