"""Trend: direction by moving averages and directional movement, scaled by the trend strength."""

from __future__ import annotations

import numpy as np

from percoin.features import indicators
from percoin.signals.analysis.candles import Candles
from percoin.types import FloatArray

FAST_EMA_BARS = 20
SLOW_EMA_BARS = 50
# Wilder: an ADX above 25 is a trend, below 20 is none. The strength rises from 0 to 1 across both.
_NO_TREND = 15.0
_FULL_TREND = 30.0


def trend_score(candles: Candles) -> FloatArray:
    """Mean of three votes on the direction, times the strength of the trend.

    The votes are ``(sign(close - EMA20) + sign(EMA20 - EMA50) + sign(+DI - -DI)) / 3``. The
    strength grows from 0 at an ADX of 15 to 1 at 30.
    """
    fast = indicators.ema(candles.close, FAST_EMA_BARS)
    slow = indicators.ema(candles.close, SLOW_EMA_BARS)
    lines = indicators.directional_movement(candles.high, candles.low, candles.close)
    votes = np.sign(candles.close - fast) + np.sign(fast - slow) + np.sign(lines.plus - lines.minus)
    strength = np.clip((lines.adx - _NO_TREND) / (_FULL_TREND - _NO_TREND), 0.0, 1.0)
    score: FloatArray = votes / 3 * strength
    return score
