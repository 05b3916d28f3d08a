"""Bars as arrays, with the ATR as the unit of distance for all parts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from percoin.bars.schema import Bars
from percoin.features import indicators
from percoin.types import FloatArray


@dataclass(frozen=True, eq=False)
class Candles:
    """One timeframe of a market, each field of shape (n_bars,).

    Attributes:
        atr: ATR(14) in price units; NaN during warm-up, 0 if the price has never moved.
    """

    high: FloatArray
    low: FloatArray
    close: FloatArray
    volume: FloatArray
    atr: FloatArray

    @classmethod
    def of(cls, bars: Bars) -> Candles:
        """Take the columns of bars and compute the ATR."""
        high, low, close = (bars.column(name) for name in ("high", "low", "close"))
        unit = indicators.atr(high, low, close)
        return cls(high, low, close, bars.column("volume"), unit)

    def in_atr(self, distance: FloatArray) -> FloatArray:
        """Return a price distance in units of the ATR; NaN where the ATR is 0 or unknown."""
        unknown = np.full(len(self.atr), np.nan)
        multiple: FloatArray = np.divide(distance, self.atr, out=unknown, where=self.atr > 0)
        return multiple


def limited(values: FloatArray) -> FloatArray:
    """Clip the values to -1 and 1; NaN stays NaN."""
    return np.clip(values, -1.0, 1.0)
