"""A few numbers that say how much a market moves, and the clock: the inputs of simple rivals.

The volatility of a market comes in runs on several scales at once, from minutes to weeks. A
regression on the mean volatility over a few nested spans, a cascade (Corsi, 2009), is hard to
beat as a forecast of how much the next bars will move. Here the volatility of a span is that of
its bars' ranges (Parkinson, 1980), which says more than the closes alone.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from percoin.bars.gaps import follows_gap
from percoin.bars.schema import COLUMNS, Bars
from percoin.bars.stacked import StackedBars
from percoin.features.indicators import before
from percoin.types import FloatArray, IntArray, Timeframe

MINUTE_MILLISECONDS = 60_000
MINUTES_PER_DAY = 1440
DAYS_PER_WEEK = 7
# 1970-01-01 was a Thursday; weeks are counted from Monday.
_EPOCH_WEEKDAY = 3

# 1, 4, 16, 96 and 672 bars of 15 minutes.
_SPAN_MINUTES = (15, 60, 240, 1440, 10_080)
# Corsi's third scale, for bars so long that the shorter spans fit into one.
_MONTH_MINUTES = 4 * 10_080
_FEWEST_SPANS = 4
_DEVIATION_BARS = 50
# A tenth of a basis point, less than a tick: a bar without a range has no logarithm.
_FLOOR = 1e-5

CLOCK_NAMES = (
    "hour_sin",
    "hour_cos",
    "weekday_sin",
    "weekday_cos",
    "minute_sin",
    "minute_cos",
)

_HIGH, _LOW, _CLOSE = map(COLUMNS.index, ("high", "low", "close"))


@cache
def volatility_spans(timeframe: Timeframe) -> tuple[int, ...]:
    """The spans of the cascade in bars, shortest first: 1, 4, 16, 96 and 672 on 15m.

    Other bar lengths have the same spans in time, without those shorter than a bar, and with
    four weeks added if fewer than four spans are left. The first span is always one bar.
    """
    minutes = timeframe.milliseconds // MINUTE_MILLISECONDS
    spans = {1, *(span // minutes for span in _SPAN_MINUTES if span >= minutes)}
    if len(spans) < _FEWEST_SPANS:
        spans.add(_MONTH_MINUTES // minutes)
    return tuple(sorted(spans))


def volatility_names(timeframe: Timeframe) -> tuple[str, ...]:
    """The names of ``volatility_columns``, with their bars: ``range_volatility_672`` and so on."""
    spans = (f"range_volatility_{span}" for span in volatility_spans(timeframe))
    return (*spans, f"return_volatility_{_DEVIATION_BARS}")


def volatility_memory_bars(timeframe: Timeframe) -> int:
    """How many bars before a row ``volatility_columns`` looks at: 671 on 15m."""
    # 50 returns take 51 closes.
    return max(volatility_spans(timeframe)[-1] - 1, _DEVIATION_BARS)


def volatility_columns(bars: Bars) -> FloatArray:
    """Logarithms of how much the market moved over each span, known when each bar closes.

    For each span the root of the mean of Parkinson's (1980) variance of a bar,
    ``ln(high / low)^2 / (4 ln 2)``. The last column is the sample standard deviation of the
    last 50 log returns without those across a gap. Both as a fraction a bar, at least 0.00001.

    Args:
        bars: Closed bars of one market, checked against the schema.

    Returns:
        Shape (n_bars, n_spans + 1), NaN until a span is full.
    """
    return log_deviation(_variances(StackedBars.of([bars]), bars.timeframe, len(bars))[:, 0])


def newest_volatility(markets: StackedBars) -> FloatArray:
    """The last row of ``volatility_columns`` for several markets in one go, to the same bits.

    Args:
        markets: All of one bar length, with at least one bar.

    Returns:
        Shape (n_markets, n_spans + 1).
    """
    return log_deviation(_variances(markets, markets.timeframes[0], 1)[0])


def _variances(markets: StackedBars, timeframe: Timeframe, n_rows: int) -> FloatArray:
    """Variances a bar at the newest rows, shape (n_rows, n_markets, n_spans + 1)."""
    spans = volatility_spans(timeframe)
    recent = markets.newest(n_rows + max(spans[-1] - 1, _DEVIATION_BARS))
    variance = parkinson_variance(recent.values[:, _HIGH], recent.values[:, _LOW])
    columns = [
        mean_of_last(variance[max(0, len(variance) - n_rows - span + 1) :], span)[-n_rows:]
        for span in spans
    ]
    columns.append(_variance_of_returns(markets.newest(n_rows + _DEVIATION_BARS))[-n_rows:])
    return np.stack(columns, axis=-1)


def parkinson_variance(high: FloatArray, low: FloatArray) -> FloatArray:
    """Variance of a bar by its range (Parkinson, 1980)."""
    return np.log(high / low) ** 2 / (4 * math.log(2))


def log_deviation(variance: FloatArray) -> FloatArray:
    """Log of the root of a variance a bar, which counts as a hundred-thousandth at least."""
    return np.log(np.sqrt(np.maximum(variance, _FLOOR**2)))


def clock_columns(bars: Bars) -> FloatArray:
    """Hour of the day, day of the week and minute of the hour at each bar's close, UTC.

    Each as sine and cosine of its share of the day, week or hour, in the order of
    ``CLOCK_NAMES``; shape (n_bars, 6).
    """
    return _clock(minutes_at_close(bars))


def newest_clock(markets: StackedBars) -> FloatArray:
    """The last row of ``clock_columns`` for several markets, to the same bits, (n_markets, 6)."""
    return _clock(newest_minutes(markets))


def _clock(minutes: IntArray) -> FloatArray:
    shares = (
        minutes % MINUTES_PER_DAY // 60 / 24,
        weekdays(minutes) / DAYS_PER_WEEK,
        minutes % 60 / 60,
    )
    return sines_and_cosines(2 * np.pi * np.stack(shares, axis=1))


def minutes_at_close(bars: Bars) -> IntArray:
    """Minutes from 1970-01-01 UTC to the close of each bar, shape (n_bars,)."""
    minutes: IntArray = (bars.open_time + bars.timeframe.milliseconds) // MINUTE_MILLISECONDS
    return minutes


def newest_minutes(markets: StackedBars) -> IntArray:
    """The last of ``minutes_at_close`` for several markets, shape (n_markets,)."""
    minutes: IntArray = (markets.open_time[-1] + markets.milliseconds) // MINUTE_MILLISECONDS
    return minutes


def weekdays(minutes: IntArray) -> IntArray:
    """Day of the week of each of ``minutes_at_close``; Monday is 0."""
    days: IntArray = (minutes // MINUTES_PER_DAY + _EPOCH_WEEKDAY) % DAYS_PER_WEEK
    return days


def sines_and_cosines(angles: FloatArray) -> FloatArray:
    """The sine and the cosine of each angle, from shape (n, D) to (n, 2 D)."""
    columns: FloatArray = np.stack([np.sin(angles), np.cos(angles)], axis=2)
    return columns.reshape(len(angles), 2 * angles.shape[1])


def _variance_of_returns(markets: StackedBars) -> FloatArray:
    close = markets.values[:, _CLOSE]
    returns = np.log(close / before(close))
    known = ~(follows_gap(markets.open_time, markets.milliseconds) | np.isnan(returns))
    counted: FloatArray = np.where(known, returns, 0.0)
    n_known = _sum_of_last(known.astype(np.float64), _DEVIATION_BARS)
    sums, squares = (_sum_of_last(column, _DEVIATION_BARS) for column in (counted, counted**2))
    # The newest 50 bars hold 50 returns once there is one bar more.
    n_known[:_DEVIATION_BARS] = np.nan
    return np.where(n_known > 1, squares - sums**2 / n_known, np.nan) / (n_known - 1)


def mean_of_last(values: FloatArray, n_bars: int) -> FloatArray:
    """Mean of each last ``n_bars`` values along the first axis; the same bits in any history."""
    return _sum_of_last(values, n_bars) / n_bars


def _sum_of_last(values: FloatArray, n_bars: int) -> FloatArray:
    """Sum of each last ``n_bars`` values; the same bits wherever the history begins."""
    sums: FloatArray = np.full(values.shape, np.nan)
    if len(values) >= n_bars:
        # One addition for each power of two in n_bars, in an order that no other bar changes.
        doubled, width, done = values, 1, 0
        total = np.zeros((len(values) - n_bars + 1, *values.shape[1:]))
        while width <= n_bars:
            if n_bars & width:
                start = n_bars - done - width
                total += doubled[start : start + len(total)]
                done += width
            doubled = doubled[:-width] + doubled[width:]
            width *= 2
        sums[n_bars - 1 :] = total
    return sums
