"""Volatility: where the close stands in its bands, and whether the bars grow wider."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from percoin.features import indicators
from percoin.signals.analysis.candles import Candles, limited
from percoin.types import FloatArray

USUAL_ATR_BARS = 100


def volatility_score(candles: Candles) -> FloatArray:
    """A close at an edge of its Bollinger bands counts as far as the market is awake.

    The distance from the middle band over that of the outer ones, times the expansion:
    ATR(14) over its mean of 100 bars, from 0 at half the usual range to 1 at one and a
    half of it. A market at rest breaks out of nothing, and a close that has stood still for
    20 bars is at no edge.
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
    """Mean of the last 100 values, each from these alone, NaN before there are as many."""
    means = np.full(len(atr), np.nan)
    if len(atr) >= USUAL_ATR_BARS:
        means[USUAL_ATR_BARS - 1 :] = sliding_window_view(atr, USUAL_ATR_BARS).mean(axis=1)
    return means
