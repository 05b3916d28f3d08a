"""The last source: it always answers."""

from __future__ import annotations

from percoin.signals.protocol import MarketBars
from percoin.types import Prediction, Signal, Source


class HoldSource:
    """Always answers, and always the same: do nothing."""

    def answer(self, market: MarketBars) -> Prediction:
        """NO_TRADE without a claim."""
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
