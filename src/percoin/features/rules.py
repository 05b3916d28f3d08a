"""The two hand-made trading rules: what each says at every bar.

Each serves three times by this one definition: as a fallback behind the model, as a baseline
that the model must beat, and in the table of sources. What it says at a bar is known when that
bar closes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from percoin.bars.gaps import contiguous_run
from percoin.bars.schema import Bars
from percoin.features import indicators
from percoin.types import BoolArray, FloatArray, IntArray, Signal

RSI_OVERSOLD = 30.0
RSI_OVERBOUGHT = 70.0
MA_FAST_BARS = 5
MA_SLOW_BARS = 20
MOMENTUM_CHANGE = 0.025
MOMENTUM_BARS = 14


@dataclass(frozen=True, eq=False)
class Readings:
    """What a rule says at each of some bars.

    Attributes:
        signal: NO_TRADE where it has nothing to say, shape (n,).
        score: From -1 to 1, its sign that of the signal, shape (n,); 0 or NaN where the
            rule has nothing to say. How firm an answer is by the rule's own measure,
            not a probability.
        is_known: Whether all that the rule looks at is there, shape (n,). Where it is
            not, the signal is NO_TRADE.
        values: What the answer rests on, by name, each of shape (n,).
    """

    signal: IntArray
    score: FloatArray
    is_known: BoolArray
    values: Mapping[str, FloatArray]

    def __len__(self) -> int:
        return len(self.signal)

    def take(self, rows: IntArray) -> Readings:
        """The same for some of the bars; -1 stands for a bar that is not there."""
        is_there = rows >= 0
        taken = np.where(is_there, rows, 0)
        return Readings(
            np.where(is_there, self.signal[taken], Signal.NO_TRADE).astype(np.int64),
            np.where(is_there, self.score[taken], np.nan),
            is_there & self.is_known[taken],
            {
                name: np.where(is_there, values[taken], np.nan)
                for name, values in self.values.items()
            },
        )

    def known_where(self, condition: BoolArray) -> Readings:
        """The same, silent where the condition does not hold."""
        signal = np.where(condition, self.signal, Signal.NO_TRADE).astype(np.int64)
        return replace(self, signal=signal, is_known=self.is_known & condition)


def read_rsi_ma(bars: Bars) -> Readings:
    """Oversold in a rising market is LONG, overbought in a falling one is SHORT.

    RSI(14) below 30 while the mean of 5 closes lies above that of 20; above 70 while it
    lies below. The score is how far the RSI is beyond its mark, as a share of what is
    left of its scale. Unknown while a gap lies within the 20 bars.
    """
    close = bars.column("close")
    rsi_14 = indicators.rsi(close)
    fast, slow = _mean(close, MA_FAST_BARS), _mean(close, MA_SLOW_BARS)
    run = contiguous_run(bars.open_time, bars.timeframe)
    is_known = np.isfinite(rsi_14) & np.isfinite(slow) & (run >= MA_SLOW_BARS)
    long = (rsi_14 < RSI_OVERSOLD) & (fast > slow)
    short = (rsi_14 > RSI_OVERBOUGHT) & (fast < slow)
    oversold = (RSI_OVERSOLD - rsi_14) / RSI_OVERSOLD
    overbought = (rsi_14 - RSI_OVERBOUGHT) / (100.0 - RSI_OVERBOUGHT)
    values = {"rsi_14": rsi_14, "ma_5": fast, "ma_20": slow}
    return _readings(is_known, long, short, oversold, overbought, values)


def read_momentum(bars: Bars) -> Readings:
    """Follow a change of more than 2.5 % over 14 bars.

    The score is the share of the change that lies beyond 2.5 %: one half at 5 %. Unknown
    while a gap lies within the 14 bars.
    """
    close = bars.column("close")
    change = np.full(len(close), np.nan)
    change[MOMENTUM_BARS:] = close[MOMENTUM_BARS:] / close[:-MOMENTUM_BARS] - 1
    run = contiguous_run(bars.open_time, bars.timeframe)
    long, short = change > MOMENTUM_CHANGE, change < -MOMENTUM_CHANGE
    size = np.abs(change)
    beyond = np.divide(size - MOMENTUM_CHANGE, size, out=np.zeros(len(size)), where=long | short)
    is_known = np.isfinite(change) & (run > MOMENTUM_BARS)
    return _readings(is_known, long, short, beyond, beyond, {"change_14": change})


def _readings(
    is_known: BoolArray,
    long: BoolArray,
    short: BoolArray,
    long_score: FloatArray,
    short_score: FloatArray,
    values: Mapping[str, FloatArray],
) -> Readings:
    signal = np.where(long, Signal.LONG, np.where(short, Signal.SHORT, Signal.NO_TRADE))
    score = np.where(long, long_score, np.where(short, -short_score, 0.0))
    readings = Readings(signal.astype(np.int64), score, is_known, values)
    return readings.known_where(is_known)


def _mean(close: FloatArray, n_bars: int) -> FloatArray:
    """Mean of the last closes, each from these alone, NaN before there are as many."""
    means = np.full(len(close), np.nan)
    if len(close) >= n_bars:
        means[n_bars - 1 :] = sliding_window_view(close, n_bars).mean(axis=1)
    return means
