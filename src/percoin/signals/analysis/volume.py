"""Volume: whether it came with closes near the high or near the low."""

from __future__ import annotations

from percoin.features import indicators
from percoin.signals.analysis.candles import Candles, limited
from percoin.types import FloatArray

# Chaikin's own threshold for strong buying or selling pressure.
_FULL_MONEY_FLOW = 0.25


def volume_score(candles: Candles) -> FloatArray:
    """Chaikin money flow over 20 bars, full score at 0.25; NaN where nothing was traded."""
    flow = indicators.money_flow(candles.high, candles.low, candles.close, candles.volume)
    return limited(flow / _FULL_MONEY_FLOW)
