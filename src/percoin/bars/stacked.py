"""Several markets side by side in arrays: what one costs serves them all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from percoin.bars.schema import Bars
from percoin.types import FloatArray, IntArray, Timeframe


@dataclass(frozen=True, eq=False)
class StackedBars:
    """Bars of markets that have the same number of them; they need share no dates.

    Attributes:
        timeframes: Bar length of each market.
        values: The ``COLUMNS`` of each bar, shape (n_bars, 5, n_markets).
        open_time: Start of each bar in milliseconds, shape (n_bars, n_markets).
    """

    timeframes: tuple[Timeframe, ...]
    values: FloatArray
    open_time: IntArray

    @classmethod
    def of(cls, markets: Sequence[Bars]) -> StackedBars:
        """Put markets side by side; at least one."""
        return cls(
            tuple(bars.timeframe for bars in markets),
            np.stack([bars.values for bars in markets], axis=-1),
            np.stack([bars.open_time for bars in markets], axis=-1),
        )

    @property
    def milliseconds(self) -> IntArray:
        """Bar length of each market, shape (n_markets,)."""
        return np.array([timeframe.milliseconds for timeframe in self.timeframes])

    def newest(self, n_bars: int) -> StackedBars:
        """The newest bars alone, or all there are."""
        first = max(0, len(self.values) - n_bars)
        return StackedBars(self.timeframes, self.values[first:], self.open_time[first:])
