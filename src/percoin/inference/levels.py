"""Entry, stop and targets of a directional signal."""

from __future__ import annotations

import math

from percoin.bars.schema import Bars
from percoin.features.feature_set import history_bars
from percoin.features.indicators import atr
from percoin.types import Levels, Signal

# In units of ATR(14).
_STOP_ATR = 1.5
_TARGETS_ATR = (1.0, 2.0, 3.0)


def find_levels(bars: Bars, signal: Signal, entry_price: float | None = None) -> Levels | None:
    """Entry at a price, stop and targets in multiples of the newest ATR(14).

    Args:
        bars: Whose ATR is the unit.
        signal: The direction.
        entry_price: None is the newest close of the bars.

    Returns:
        As ``levels_at``; None also where the history is too short for an ATR.
    """
    if signal is Signal.NO_TRADE:
        return None
    recent = bars.slice(max(0, len(bars) - history_bars(1)))
    high, low, closes = (recent.column(name) for name in ("high", "low", "close"))
    entry = float(closes[-1]) if entry_price is None else entry_price
    return levels_at(signal, entry, float(atr(high, low, closes)[-1]))


def levels_at(signal: Signal, entry_price: float, unit: float) -> Levels | None:
    """Stop 1.5 units from the entry, targets 1, 2 and 3.

    Args:
        signal: The direction.
        entry_price: In the quote currency.
        unit: An ATR(14), in the same.

    Returns:
        None without a direction, for a unit that is none, and where a target would lie
        below a price of 0 or beyond all numbers.
    """
    if signal is Signal.NO_TRADE or not 0 < unit < math.inf:
        return None
    side = 1 if signal is Signal.LONG else -1
    first, second, third = (entry_price + side * multiple * unit for multiple in _TARGETS_ATR)
    if not 0 < third < math.inf:
        return None
    return Levels(entry_price, entry_price - side * _STOP_ATR * unit, first, second, third)
