"""Bars as arrays, with the range that all parts measure distances in."""

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
        atr: ATR(14) in price units, NaN while it warms up and 0 on a price that has
            never moved.
    """

    high: FloatArray
    low: FloatArray
    close: FloatArray
    volume: FloatArray
    atr: FloatArray

    @classmethod
    def of(cls, bars: Bars) -> Candles:
        """The columns of bars."""
        high, low, close = (bars.column(name) for name in ("high", "low", "close"))
        unit = indicators.atr(high, low, close)
        return cls(high, low, close, bars.column("volume"), unit)

    def in_atr(self, distance: FloatArray) -> FloatArray:
        """A price distance as a multiple of the ATR; NaN where that is 0 or unknown."""
        unknown = np.full(len(self.atr), np.nan)
        multiple: FloatArray = np.divide(distance, self.atr, out=unknown, where=self.atr > 0)
        return multiple


def limited(values: FloatArray) -> FloatArray:
    """The values, no lower than -1 and no higher than 1; NaN stays."""
    return np.clip(values, -1.0, 1.0)
