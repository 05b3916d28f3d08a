"""The last source: it always answers."""

from __future__ import annotations

from percoin.signals.protocol import MarketBars
from percoin.types import Prediction, Signal, Source


class HoldSource:
    """Always answers NO_TRADE."""

    def answer(self, market: MarketBars) -> Prediction:
        """Return NO_TRADE with confidence 0 and no measured quality."""
        bars = market.asked
        return Prediction(
            symbol=bars.symbol,
            timeframe=bars.timeframe,
            signal=Signal.NO_TRADE,
            confidence=0.0,
            probabilities=None,
            source=Source.HOLD,
            model_version=None,
            ts=bars.close_time().to_pydatetime(),
        )
