"""What a volatility forecast looks at: the cascade, the clock and the last returns.

Markets that never close still have a day: the volatility of 15-minute bars doubles between its
quietest and its busiest hour, and the rhythm of a weekend is another one. A few sine waves
follow such a shape (Andersen and Bollerslev, 1997).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from enum import StrEnum

import numpy as np

from percoin.bars.schema import COLUMNS, Bars
from percoin.bars.stacked import StackedBars
from percoin.features.indicators import before
from percoin.features.volatility import (
    DAYS_PER_WEEK,
    MINUTE_MILLISECONDS,
    MINUTES_PER_DAY,
    minutes_at_close,
    newest_minutes,
    sines_and_cosines,
    volatility_columns,
    volatility_memory_bars,
    volatility_spans,
    weekdays,
)
from percoin.types import FloatArray, IntArray, Timeframe

_MINUTES_PER_HOUR = 60
_SATURDAY = 5
_CLOSE = COLUMNS.index("close")

# Sine waves of a day; one of a weekend's own needs fewer.
_MOST_WAVES = 10
_WEEKEND_WAVES = 2
# In deviations of the return over that span; a wider one says no more.
_WIDEST_RETURN = 6.0


class MoveInputs(StrEnum):
    """A group of columns."""

    SPANS = "spans"
    """Log variance of the bars' ranges over nested spans."""
    CASCADE = "cascade"
    """The same, and log variance of the last 50 returns."""
    CLOCK = "clock"
    """The hour of the day in sine waves, a weekend's apart; the weekday; the part of the hour."""
    RETURNS = "returns"
    """Returns over all but the longest span in units of volatility, and their sizes."""


# Side by side without one twice.
ALL_INPUTS = (MoveInputs.CASCADE, MoveInputs.CLOCK, MoveInputs.RETURNS)


def bars_needed(timeframe: Timeframe) -> int:
    """Bars up to the newest one without which its columns are unknown."""
    return volatility_memory_bars(timeframe) + 1


def count_columns(timeframe: Timeframe, groups: tuple[MoveInputs, ...]) -> int:
    """How many columns bars of this length have."""
    n_spans, n_waves = len(volatility_spans(timeframe)), _n_waves(timeframe)
    n_parts = max(1, _MINUTES_PER_HOUR // _bar_minutes(timeframe))
    counts = {
        MoveInputs.SPANS: n_spans,
        MoveInputs.CASCADE: n_spans + 1,
        MoveInputs.CLOCK: 2 * n_waves
        + 2 * min(n_waves, _WEEKEND_WAVES)
        + (DAYS_PER_WEEK - 1)
        + (n_parts - 1),
        MoveInputs.RETURNS: 2 * (n_spans - 1),
    }
    return sum(counts[group] for group in groups)


def move_columns(bars: Bars, groups: tuple[MoveInputs, ...] = ALL_INPUTS) -> FloatArray:
    """The columns of these groups, side by side, known when each bar closes.

    Args:
        bars: Closed bars of one market, checked against the schema.
        groups: At least one.

    Returns:
        Shape (n_bars, n_columns), NaN in every row that lacks earlier bars.
    """
    cascade = 2 * volatility_columns(bars)
    close = np.log(bars.column("close"))
    *shorter, _ = volatility_spans(bars.timeframe)
    changes = [close - before(close, span) for span in shorter]
    return _side_by_side(groups, cascade, minutes_at_close(bars), changes, bars.timeframe)


def newest_move_columns(
    markets: StackedBars, volatility: FloatArray, groups: tuple[MoveInputs, ...]
) -> FloatArray:
    """The last row of ``move_columns`` for several markets in one go, to the same bits.

    Args:
        markets: All of one bar length, with at least one bar.
        volatility: Their ``newest_volatility``.
        groups: At least one.

    Returns:
        Shape (n_markets, n_columns).
    """
    timeframe = markets.timeframes[0]
    *shorter, _ = volatility_spans(timeframe)
    # Too few bars for a span leave the volatility unknown, and with it all columns.
    rows = [-1, *(max(-1 - span, -len(markets.values)) for span in shorter)]
    close = np.log(markets.values[rows, _CLOSE])
    changes = [close[0] - earlier for earlier in close[1:]]
    return _side_by_side(groups, 2 * volatility, newest_minutes(markets), changes, timeframe)


def _side_by_side(
    groups: tuple[MoveInputs, ...],
    cascade: FloatArray,
    minutes: IntArray,
    changes: Sequence[FloatArray],
    timeframe: Timeframe,
) -> FloatArray:
    """The columns of these groups at n closes.

    Args:
        groups: At least one.
        cascade: Shape (n, n_spans + 1); NaN where earlier bars are missing, and so are all columns.
        minutes: See ``minutes_at_close``.
        changes: Log return over each but the longest span, shape (n,) each.
        timeframe: Bar length.
    """
    made: dict[MoveInputs, Callable[[], FloatArray]] = {
        MoveInputs.SPANS: lambda: cascade[:, :-1],
        MoveInputs.CASCADE: lambda: cascade,
        MoveInputs.CLOCK: lambda: _clock(minutes, timeframe),
        MoveInputs.RETURNS: lambda: _returns(changes, cascade, timeframe),
    }
    columns = np.concatenate([made[group]() for group in groups], axis=1)
    columns[~np.isfinite(cascade).all(axis=1)] = np.nan
    return columns


def _clock(minutes: IntArray, timeframe: Timeframe) -> FloatArray:
    weekday = weekdays(minutes)
    of_day = _waves(minutes % MINUTES_PER_DAY / MINUTES_PER_DAY, _n_waves(timeframe))
    is_weekend = (weekday >= _SATURDAY)[:, None]
    bar_minutes = _bar_minutes(timeframe)
    of_hour = minutes % _MINUTES_PER_HOUR // bar_minutes
    return np.concatenate(
        [
            of_day,
            is_weekend * of_day[:, : 2 * _WEEKEND_WAVES],
            _is_each(weekday, DAYS_PER_WEEK),
            _is_each(of_hour, _MINUTES_PER_HOUR // bar_minutes),
        ],
        axis=1,
    )


def _n_waves(timeframe: Timeframe) -> int:
    """More waves than half the bars of a day cannot be told apart."""
    return min(_MOST_WAVES, math.ceil(timeframe.bars_per_day / 2) - 1)


def _bar_minutes(timeframe: Timeframe) -> int:
    return timeframe.milliseconds // MINUTE_MILLISECONDS


def _waves(share: FloatArray, n_waves: int) -> FloatArray:
    """Sine and cosine of 1 to ``n_waves`` turns, shape (n, 2 ``n_waves``)."""
    return sines_and_cosines(2 * np.pi * share[:, None] * np.arange(1, n_waves + 1))


def _is_each(number: IntArray, n_numbers: int) -> FloatArray:
    """1 in the column of the number, shape (n, ``n_numbers`` - 1): the last has none."""
    columns: FloatArray = number[:, None] == np.arange(max(0, n_numbers - 1))
    return columns.astype(np.float64)


def _returns(
    changes: Sequence[FloatArray], cascade: FloatArray, timeframe: Timeframe
) -> FloatArray:
    *shorter, _ = volatility_spans(timeframe)
    deviation = np.exp(cascade[:, len(shorter) - 1] / 2)
    columns = [
        change / (deviation * math.sqrt(span))
        for change, span in zip(changes, shorter, strict=True)
    ]
    signed = np.clip(np.stack(columns, axis=1), -_WIDEST_RETURN, _WIDEST_RETURN)
    return np.concatenate([signed, np.abs(signed)], axis=1)
