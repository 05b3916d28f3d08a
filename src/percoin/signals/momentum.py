"""The fourth source: go with a large move of the last 14 quarter hours."""

from __future__ import annotations

from collections.abc import Mapping

from percoin.bars.schema import Bars
from percoin.features.rules import MOMENTUM_BARS, MOMENTUM_CHANGE, Readings, read_momentum
from percoin.signals.market import newest_closed
from percoin.types import IntArray, Source, Timeframe


class MomentumRule:
    """``read_momentum`` on 15m. Its score is the share of the change beyond the mark."""

    source = Source.MOMENTUM
    timeframes: tuple[Timeframe, ...] = (Timeframe.M15,)
    level_timeframe = Timeframe.M15
    min_bars = MOMENTUM_BARS + 1
    # More than the rule itself looks at: the ATR behind its levels remembers longer.
    memory_bars = 500
    silence = "no_signal"

    def read(self, frames: Mapping[Timeframe, Bars], moments: IntArray) -> Readings:
        """What the newest closed quarter of an hour says."""
        bars = frames[Timeframe.M15]
        return read_momentum(bars).take(newest_closed(bars, moments))

    def describe(self, readings: Readings, row: int) -> str:
        """The change, beside what it takes."""
        change = float(readings.values["change_14"][row])
        mark = f"{MOMENTUM_CHANGE:.1%} either way is the mark"
        return f"15m: {change:+.2%} over {MOMENTUM_BARS} bars, {mark}"
