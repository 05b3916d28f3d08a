"""Momentum: how one-sided the last moves were, and whether they accelerate."""

from __future__ import annotations

from percoin.features import indicators
from percoin.signals.analysis.candles import Candles, limited
from percoin.types import FloatArray

_NEUTRAL_RSI = 50.0
# RSI 70 and 30 (Wilder's thresholds) give a full score.
_FULL_RSI = 20.0
# This difference between MACD and its signal line, in ATR, gives a full score.
_FULL_MACD_ATR = 0.5


def momentum_score(candles: Candles) -> FloatArray:
    """Mean of two scores: RSI(14) from 30 to 70, and the MACD difference up to half an ATR."""
    strength = limited((indicators.rsi(candles.close) - _NEUTRAL_RSI) / _FULL_RSI)
    difference = candles.in_atr(indicators.macd(candles.close).difference)
    score: FloatArray = (strength + limited(difference / _FULL_MACD_ATR)) / 2
    return score
