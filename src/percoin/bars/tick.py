"""The tick of a market: the step in which its prices are quoted, found in the prices themselves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from percoin.bars.schema import PRICE_COLUMNS, Bars
from percoin.types import BoolArray, FloatArray, IntArray

# 1,024 prices or more; an exchange that changes a tick is followed within as many bars.
_RECENT_BARS = 256
# Of one quote to the next: more digits are noise of a calculation, not a price of an exchange.
_MOST_DIGITS = 12
# The cheapest coins have 10 decimals.
_MOST_DECIMALS = 14


@dataclass(frozen=True, eq=False)
class Ticks:
    """The tick at each of some bars.

    Attributes:
        units: Tick in units of ``10 ** -decimals``, shape (n_bars,); 0 where it is not known.
        decimals: Decimals that write every price.
    """

    units: IntArray
    decimals: int

    def take(self, rows: IntArray) -> Ticks:
        """The same for some of the bars."""
        return Ticks(self.units[rows], self.decimals)

    def round(self, prices: FloatArray, is_up: BoolArray) -> FloatArray:
        """Round each price up or down to a multiple of its tick, but never to 0.

        A price without a known tick, or of 0 and less, stays as it is.

        Args:
            prices: Shape (n_bars,).
            is_up: Whether to round up, shape (n_bars,).
        """
        is_known = (self.units > 0) & (prices > 0)
        units = np.where(is_known, self.units, 1)
        scale = 10.0**self.decimals
        with np.errstate(over="ignore", invalid="ignore"):
            n_ticks = prices * scale / units
            n_ticks = np.maximum(np.where(is_up, np.ceil(n_ticks), np.floor(n_ticks)), 1.0)
            # Two whole numbers, divided once: the very float that the price's decimals stand for.
            rounded = n_ticks * units / scale
        return np.where(is_known & np.isfinite(rounded), rounded, prices)


def find_ticks(bars: Bars) -> Ticks:
    """The tick at each bar: the largest step that all prices of the last 256 bars are multiples of.

    Where all of them are the same price, nothing shows the tick; prices that are results of a
    calculation have none. It is then unknown.

    Args:
        bars: Bars of one market.
    """
    found = _whole_numbers(bars)
    if found is None:
        return Ticks(np.zeros(len(bars), dtype=np.int64), 0)
    whole, decimals = found
    units = _recent(np.gcd, np.gcd.reduce(whole, axis=1))
    highest, lowest = _recent(np.maximum, whole.max(axis=1)), _recent(np.minimum, whole.min(axis=1))
    return Ticks(np.where(highest > lowest, units, 0), decimals)


def newest_tick(bars: Bars) -> Ticks:
    """The tick at the newest bar alone; the same as the last of ``find_ticks``, but sooner.

    Args:
        bars: At least one bar of one market.
    """
    found = _whole_numbers(bars.slice(max(0, len(bars) - _RECENT_BARS)))
    if found is None:
        return Ticks(np.zeros(1, dtype=np.int64), 0)
    whole, decimals = found
    unit = np.gcd.reduce(whole, axis=None) if whole.max() > whole.min() else 0
    return Ticks(np.array([unit]), decimals)


def _whole_numbers(bars: Bars) -> tuple[IntArray, int] | None:
    """All prices times ``10 ** decimals``, shape (n_bars, 4), and the decimals; None without."""
    prices = bars.values[:, : len(PRICE_COLUMNS)]
    decimals = _find_decimals(prices)
    if decimals is None:
        return None
    return np.rint(prices * 10.0**decimals).astype(np.int64), decimals


def _find_decimals(prices: FloatArray) -> int | None:
    """The fewest decimals that write every price exactly; None if they are too many digits."""
    if prices.size == 0 or not np.isfinite(prices).all():
        return None
    largest = float(prices.max())
    for decimals in range(_MOST_DECIMALS + 1):
        scale = 10.0**decimals
        if largest * scale >= 10.0**_MOST_DIGITS:
            return None
        # The newest bar tells at once that most numbers of decimals are too few.
        if all(_are_written(each, scale) for each in (prices[-1:], prices)):
            return decimals
    return None


def _are_written(prices: FloatArray, scale: float) -> bool:
    # A whole number over a power of ten is the very float that the decimals stand for.
    return bool((np.rint(prices * scale) / scale == prices).all())


def _recent(combine: np.ufunc, values: IntArray) -> IntArray:
    """Combine the values of the last 256 bars at each bar; the first bars have fewer.

    The ranges double in length each round: an operation that may meet a value twice, such as the
    greatest common divisor, needs no more.
    """
    found, length = values.copy(), 1
    while length < _RECENT_BARS:
        found[length:] = combine(found[length:], found[:-length])
        length *= 2
    return found
