"""The fourth source: follow a large move of the last 14 bars of 15m."""

from __future__ import annotations

from collections.abc import Mapping

from percoin.bars.schema import Bars
from percoin.features.rules import MOMENTUM_BARS, MOMENTUM_CHANGE, Readings, read_momentum
from percoin.signals.market import newest_closed
from percoin.types import IntArray, Source, Timeframe


class MomentumRule:
    """``read_momentum`` on 15m; the score is the share of the change beyond the threshold."""

    source = Source.MOMENTUM
    timeframes: tuple[Timeframe, ...] = (Timeframe.M15,)
    level_timeframe = Timeframe.M15
    min_bars = MOMENTUM_BARS + 1
    # More bars than the rule itself reads: the ATR of its levels depends on a longer history.
    memory_bars = 500
    silence = "no_signal"

    def read(self, frames: Mapping[Timeframe, Bars], moments: IntArray) -> Readings:
        """Apply the rule to the newest closed 15m bar at each moment."""
        bars = frames[Timeframe.M15]
        return read_momentum(bars).take(newest_closed(bars, moments))

    def describe(self, readings: Readings, row: int) -> str:
        """Return the price change and its threshold."""
        change = float(readings.values["change_14"][row])
        mark = f"{MOMENTUM_CHANGE:.1%} up or down is needed"
        return f"15m: {change:+.2%} over {MOMENTUM_BARS} bars, {mark}"
