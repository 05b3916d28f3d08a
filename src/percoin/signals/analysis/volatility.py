"""Volatility: position of the close in its bands, and growth of the bars' range."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from percoin.features import indicators
from percoin.signals.analysis.candles import Candles, limited
from percoin.types import FloatArray

USUAL_ATR_BARS = 100


def volatility_score(candles: Candles) -> FloatArray:
    """Position of the close in its Bollinger bands, scaled by the growth of the range.

    The position is the distance from the middle band divided by that of the outer bands. The
    factor depends on ATR(14) divided by its mean of 100 bars: 0 at a ratio of 0.5, 1 at 1.5.
    So a quiet market counts as no breakout. If the close has not moved for 20 bars, the position
    is 0.
    """
    bands = indicators.bollinger(candles.close)
    half = (bands.upper - bands.lower) / 2
    at_rest = np.where(half == 0, 0.0, np.nan)
    position = np.divide(candles.close - bands.middle, half, out=at_rest, where=half > 0)
    usual = _usual(candles.atr)
    ratio = np.divide(candles.atr, usual, out=np.full(len(usual), np.nan), where=usual > 0)
    score: FloatArray = limited(position) * np.clip(ratio - 0.5, 0.0, 1.0)
    return score


def _usual(atr: FloatArray) -> FloatArray:
    """Mean of the last 100 values and no older ones; NaN before there are 100."""
    means = np.full(len(atr), np.nan)
    if len(atr) >= USUAL_ATR_BARS:
        means[USUAL_ATR_BARS - 1 :] = sliding_window_view(atr, USUAL_ATR_BARS).mean(axis=1)
    return means
