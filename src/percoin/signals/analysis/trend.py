"""Trend: which way the moving averages and the directional movement point, and how firmly."""

from __future__ import annotations

import numpy as np

from percoin.features import indicators
from percoin.signals.analysis.candles import Candles
from percoin.types import FloatArray

FAST_EMA_BARS = 20
SLOW_EMA_BARS = 50
# Wilder calls an ADX above 25 a trend and below 20 none: from nothing to all across both.
_NO_TREND = 15.0
_FULL_TREND = 30.0


def trend_score(candles: Candles) -> FloatArray:
    """Three votes on the direction, counted as far as there is a trend at all.

    ``(sign(close - EMA20) + sign(EMA20 - EMA50) + sign(+DI - -DI)) / 3`` times the
    strength, which grows from 0 at an ADX of 15 to 1 at 30.
    """
    fast = indicators.ema(candles.close, FAST_EMA_BARS)
    slow = indicators.ema(candles.close, SLOW_EMA_BARS)
    lines = indicators.directional_movement(candles.high, candles.low, candles.close)
    votes = np.sign(candles.close - fast) + np.sign(fast - slow) + np.sign(lines.plus - lines.minus)
    strength = np.clip((lines.adx - _NO_TREND) / (_FULL_TREND - _NO_TREND), 0.0, 1.0)
    score: FloatArray = votes / 3 * strength
    return score
