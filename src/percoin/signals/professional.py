"""The second source: technical analysis of three timeframes; it answers where they agree.

On each of 15m, 1h and 4h, five parts give a score from -1 to 1 (``percoin.signals.analysis``)::

    part         weight   input
    trend          .30    EMA20, EMA50, +DI and -DI, scaled by the trend strength (ADX)
    momentum       .25    RSI(14) and the MACD difference
    levels         .20    room up to resistance minus room down to support, from swing points
    volume         .15    Chaikin money flow over 20 bars
    volatility     .10    position within the Bollinger bands, scaled by the growth of the ATR

The score of a timeframe is the weighted mean of its parts. The score of the market is the
weighted mean of its timeframes (15m .25, 1h .35, 4h .40). The weights are conventions. They were
chosen before any result was seen and are not fitted to data.

The rule answers LONG or SHORT by the sign of the market's score if three conditions hold: the
score is at least 0.40 away from 0; all three timeframes have the same sign; at least four of the
five parts, each averaged over the timeframes, have the same sign. Else it gives no answer
(``no_confluence``). The confidence is the absolute score: it says how well the parts agree and is
not a probability. ``python -m percoin.signals`` measures how good such answers were. Entry is the
newest close of the asked timeframe; stop and targets are multiples of the 1h ATR.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from percoin.bars.schema import Bars
from percoin.features.feature_set import history_bars
from percoin.features.rules import Readings
from percoin.signals.analysis.candles import Candles
from percoin.signals.analysis.levels import levels_score
from percoin.signals.analysis.momentum import momentum_score
from percoin.signals.analysis.trend import trend_score
from percoin.signals.analysis.volatility import volatility_score
from percoin.signals.analysis.volume import volume_score
from percoin.signals.market import newest_closed
from percoin.types import BoolArray, FloatArray, IntArray, Signal, Source, Timeframe

PARTS: Mapping[str, tuple[float, Callable[[Candles], FloatArray]]] = {
    "trend": (0.30, trend_score),
    "momentum": (0.25, momentum_score),
    "levels": (0.20, levels_score),
    "volume": (0.15, volume_score),
    "volatility": (0.10, volatility_score),
}
TIMEFRAMES = {Timeframe.M15: 0.25, Timeframe.H1: 0.35, Timeframe.H4: 0.40}
MIN_SCORE = 0.40
MIN_PARTS = 4

_PART_WEIGHTS = np.array([weight for weight, _ in PARTS.values()])
_TIMEFRAME_WEIGHTS = np.array(list(TIMEFRAMES.values()))


class ProfessionalRule:
    """Agreement of five parts over three timeframes; see the module docstring."""

    source = Source.PRO
    timeframes: tuple[Timeframe, ...] = tuple(TIMEFRAMES)
    level_timeframe = Timeframe.H1
    # 33 days of 4h: earlier bars then weigh 0.3 % in the slowest average.
    min_bars = 200
    memory_bars = history_bars(60)
    silence = "no_confluence"

    def read(self, frames: Mapping[Timeframe, Bars], moments: IntArray) -> Readings:
        """Score every part on the newest closed bar of each timeframe, and combine the scores."""
        scores = np.stack(
            [_analyse(frames[timeframe], moments) for timeframe in TIMEFRAMES], axis=1
        )  # (n, timeframes, parts)
        by_timeframe = scores @ _PART_WEIGHTS
        by_part = np.einsum("t,ntp->np", _TIMEFRAME_WEIGHTS, scores)
        total = by_timeframe @ _TIMEFRAME_WEIGHTS
        agrees = _confluence(total, by_timeframe, by_part)
        signal = np.where(agrees, np.where(total > 0, Signal.LONG, Signal.SHORT), Signal.NO_TRADE)
        values = {
            "score": total,
            **{tf.value: by_timeframe[:, k] for k, tf in enumerate(TIMEFRAMES)},
            **{name: by_part[:, k] for k, name in enumerate(PARTS)},
        }
        is_known: BoolArray = np.isfinite(total)
        return Readings(signal.astype(np.int64), total, is_known, values).known_where(is_known)

    def describe(self, readings: Readings, row: int) -> str:
        """Return the score of the market, of each timeframe and of each part."""
        values = {name: f"{float(column[row]):+.2f}" for name, column in readings.values.items()}
        score = values.pop("score")
        each = ", ".join(f"{name} {value}" for name, value in values.items())
        return f"score {score} ({each}; {MIN_SCORE:.2f} and agreement are needed)"


def _analyse(bars: Bars, moments: IntArray) -> FloatArray:
    """Scores of all parts on the bar that closed last at each moment, shape (n, parts)."""
    candles = Candles.of(bars)
    scores = np.stack([score(candles) for _, score in PARTS.values()], axis=1)
    rows = newest_closed(bars, moments)
    found: FloatArray = np.where(rows[:, np.newaxis] >= 0, scores[rows], np.nan)
    return found


def _confluence(total: FloatArray, by_timeframe: FloatArray, by_part: FloatArray) -> BoolArray:
    """Where the score is large enough, and all timeframes and enough parts share its sign."""
    side = np.sign(total)[:, np.newaxis]
    timeframes_agree = (np.sign(by_timeframe) == side).all(axis=1)
    n_parts = (np.sign(by_part) == side).sum(axis=1)
    agrees: BoolArray = (np.abs(total) >= MIN_SCORE) & timeframes_agree & (n_parts >= MIN_PARTS)
    return agrees
