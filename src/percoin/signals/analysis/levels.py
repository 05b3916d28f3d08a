"""Support and resistance from swing points; a swing is known only after later bars confirm it."""

from __future__ import annotations

import numpy as np

from percoin.signals.analysis.candles import Candles
from percoin.types import BoolArray, FloatArray, IntArray

SWING_BARS = 5
N_SWINGS = 6
_FULL_ROOM_ATR = 3.0


def swing_highs(high: FloatArray) -> BoolArray:
    """Bars higher than the 5 bars before and at least as high as the 5 after, shape (n_bars,).

    The last 5 bars are never swings, because their later bars are not known yet. Of
    consecutive bars with the same high, the first one counts.
    """
    is_swing = np.ones(len(high), dtype=np.bool_)
    is_swing[:SWING_BARS] = is_swing[len(high) - min(SWING_BARS, len(high)) :] = False
    for distance in range(1, SWING_BARS + 1):
        is_swing[distance:] &= high[distance:] > high[:-distance]
        is_swing[:-distance] &= high[:-distance] >= high[distance:]
    return is_swing


def known_swings(prices: FloatArray, is_swing: BoolArray) -> FloatArray:
    """Return the newest 6 swing prices confirmed by the close of each bar.

    Args:
        prices: Price of every bar, shape (n_bars,).
        is_swing: Shape (n_bars,); a swing is known 5 bars later.

    Returns:
        Shape (n_bars, 6), newest first; NaN where there are fewer.
    """
    positions = np.flatnonzero(is_swing)
    n_known = np.searchsorted(positions, np.arange(len(prices)) - SWING_BARS, side="right")
    nth: IntArray = n_known[:, np.newaxis] - 1 - np.arange(N_SWINGS)
    swings = np.append(prices[positions], np.nan)
    # The last entry is NaN, for bars with too few swings (negative ``nth``).
    return swings[np.where(nth >= 0, nth, len(positions))]


def room(candles: Candles) -> tuple[FloatArray, FloatArray]:
    """Distance up to the nearest resistance and down to the nearest support, in ATR.

    Resistance is a swing high above the close, support a swing low below it. The distance is
    at most 3, and 3 if there is no such level. Shape (n_bars,) each.
    """
    close = candles.close[:, np.newaxis]
    highs = known_swings(candles.high, swing_highs(candles.high)) - close
    lows = close - known_swings(candles.low, swing_highs(-candles.low))
    up, down = (_nearest(distances) for distances in (highs, lows))
    return (
        np.minimum(candles.in_atr(up), _FULL_ROOM_ATR),
        np.minimum(candles.in_atr(down), _FULL_ROOM_ATR),
    )


def levels_score(candles: Candles) -> FloatArray:
    """Room above minus room below, divided by the maximum of 3 ATR.

    1 at a support with no resistance above, -1 at a resistance with no support below.
    """
    above, below = room(candles)
    return (above - below) / _FULL_ROOM_ATR


def _nearest(distances: FloatArray) -> FloatArray:
    """Smallest positive distance of each row; infinite if there is none."""
    ahead = np.where(distances > 0, distances, np.inf)
    nearest: FloatArray = ahead.min(axis=1)
    return nearest
