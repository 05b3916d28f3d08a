"""The third source: LONG if oversold in a rising hour, SHORT if overbought in a falling one."""

from __future__ import annotations

from collections.abc import Mapping

from percoin.bars.schema import Bars
from percoin.features.feature_set import history_bars
from percoin.features.rules import Readings, read_rsi_ma
from percoin.signals.market import newest_closed
from percoin.types import IntArray, Source, Timeframe


class RsiMaRule:
    """``read_rsi_ma`` on 1h; the score is the distance of the RSI beyond its threshold."""

    source = Source.RSI_MA
    timeframes: tuple[Timeframe, ...] = (Timeframe.H1,)
    level_timeframe = Timeframe.H1
    # With this many bars, the RSI is within 0.1 of the value from a longer history.
    min_bars = 100
    memory_bars = history_bars(60)
    silence = "no_signal"

    def read(self, frames: Mapping[Timeframe, Bars], moments: IntArray) -> Readings:
        """Apply the rule to the newest closed 1h bar at each moment."""
        bars = frames[Timeframe.H1]
        return read_rsi_ma(bars).take(newest_closed(bars, moments))

    def describe(self, readings: Readings, row: int) -> str:
        """Return the RSI and which of the two moving averages is higher."""
        values = {name: float(column[row]) for name, column in readings.values.items()}
        side = "above" if values["ma_5"] > values["ma_20"] else "not above"
        return (
            f"1h: RSI(14) {values['rsi_14']:.1f}, the mean of 5 closes is {side} that of 20 "
            "(LONG below 30 and above, SHORT above 70 and below)"
        )
