"""Entry, stop and targets of a directional signal, for one bar or for many.

The unit is an ATR(14), or the expected move: the stop lies 1.5 units from the entry, the targets
1, 2 and 3. All of them are rounded to the market's tick, away from the entry: a target is never
easier to reach and a stop never tighter than meant, so the shares that are measured for them
flatter nobody.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from percoin.bars.schema import Bars
from percoin.bars.tick import Ticks, find_ticks, newest_tick
from percoin.features.feature_set import history_bars
from percoin.features.indicators import atr
from percoin.types import BoolArray, FloatArray, IntArray, Levels, Signal


class LevelUnit(StrEnum):
    """What the stop and the targets of a model's signal are measured in."""

    ATR = "atr"
    """The mean range of the last 14 bars."""
    BANDS = "bands"
    """The expected move, as the bands are: the forecast standard deviation over the horizon."""


# In units, in the direction of the signal; the stop first, then the targets.
_DISTANCES = np.array([-1.5, 1.0, 2.0, 3.0])
STOP, FIRST_TARGET = 0, 1


@dataclass(frozen=True, eq=False)
class LevelPrices:
    """Stop and targets at each of some bars.

    Attributes:
        prices: Stop loss, tp1, tp2, tp3, shape (n, 4); NaN in rows without levels.
        is_long: Whether each row's levels are those of a LONG, shape (n,); else of a SHORT.
    """

    prices: FloatArray
    is_long: BoolArray

    def take(self, chosen: IntArray) -> LevelPrices:
        """The same for some of the rows."""
        return LevelPrices(self.prices[chosen], self.is_long[chosen])


def find_levels(bars: Bars, signal: Signal, entry_price: float | None = None) -> Levels | None:
    """Entry at a price, stop and targets in multiples of the newest ATR(14).

    Args:
        bars: Whose ATR is the unit, and whose prices show the tick.
        signal: The direction.
        entry_price: None is the newest close of the bars.

    Returns:
        As ``levels_at``; None also where the history is too short for an ATR.
    """
    if signal is Signal.NO_TRADE:
        return None
    recent = bars.slice(max(0, len(bars) - history_bars(1)))
    entry = float(recent.column("close")[-1]) if entry_price is None else entry_price
    return levels_at(signal, entry, float(atr_of(recent)[-1]), newest_tick(recent))


def levels_at(signal: Signal, entry_price: float, unit: float, tick: Ticks) -> Levels | None:
    """Stop 1.5 units from the entry, targets 1, 2 and 3, rounded away from it to the tick.

    Args:
        signal: The direction.
        entry_price: In the quote currency.
        unit: An ATR(14) or an expected move, in the same.
        tick: Of the market, at one bar.

    Returns:
        None without a direction, for a unit that is none, and where a target would lie
        below a price of 0 or beyond all numbers.
    """
    if signal is Signal.NO_TRADE:
        return None
    is_long = np.array([signal is Signal.LONG])
    found = level_prices(np.array([entry_price]), np.array([unit]), tick, is_long)
    stop, first, second, third = found.prices[0].tolist()
    if np.isnan(stop):
        return None
    return Levels(entry_price, stop, first, second, third)


def levels_along(bars: Bars, rows: IntArray, signals: IntArray) -> LevelPrices:
    """The levels that signals at the close of some bars have, with what was known by then.

    Args:
        bars: Bars of one market.
        rows: Positions of the bars, shape (n,).
        signals: LONG or SHORT at each, shape (n,).
    """
    close, unit = bars.column("close")[rows], atr_of(bars)[rows]
    return level_prices(close, unit, find_ticks(bars).take(rows), signals == Signal.LONG)


def level_prices(
    entry: FloatArray, unit: FloatArray, ticks: Ticks, is_long: BoolArray
) -> LevelPrices:
    """Stop and targets of many entries; NaN in all four where ``levels_at`` has None.

    Args:
        entry: Entry prices, shape (n,).
        unit: ATR(14) or expected move of each, shape (n,).
        ticks: Of each, shape (n,).
        is_long: Whether each is a LONG, shape (n,).
    """
    side = np.where(is_long, 1.0, -1.0)
    with np.errstate(over="ignore", invalid="ignore"):
        meant = entry[:, None] + side[:, None] * _DISTANCES * unit[:, None]
        prices = np.stack(
            [
                ticks.round(price, is_long == (distance > 0))
                for price, distance in zip(meant.T, _DISTANCES, strict=True)
            ],
            axis=1,
        )
        # A unit of less than what a float tells from the entry leaves no level beside it.
        is_beside = (np.sign(prices - entry[:, None]) == side[:, None] * np.sign(_DISTANCES)).all(1)
        is_there = is_beside & (unit > 0) & (meant[:, -1] > 0) & np.isfinite(meant[:, -1])
    return LevelPrices(np.where(is_there[:, None], prices, np.nan), is_long)


def atr_of(bars: Bars) -> FloatArray:
    """ATR(14) at each bar, in price units, shape (n_bars,); NaN at the first 13."""
    return atr(*(bars.column(name) for name in ("high", "low", "close")))
