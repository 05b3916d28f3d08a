import math

import numpy as np
import pandas as pd
import pytest
from builders import drop_bars, make_bars

from percoin.features.volatility import (
    CLOCK_NAMES,
    clock_columns,
    volatility_columns,
    volatility_spans,
)
from percoin.types import Timeframe

BARS = make_bars(1500)


def by_loops(bars, row):
    """The columns of one row, by the definitions, with one sum after another."""
    high, low, close = (bars.column(name) for name in ("high", "low", "close"))
    columns = []
    for span in volatility_spans(bars.timeframe):
        total = 0.0
        for bar in range(row - span + 1, row + 1):
            total += math.log(high[bar] / low[bar]) ** 2 / (4 * math.log(2))
        columns.append(math.log(max(math.sqrt(total / span), 1e-5)))
    returns = [math.log(close[bar] / close[bar - 1]) for bar in range(row - 49, row + 1)]
    mean = sum(returns) / 50
    variance = sum((value - mean) ** 2 for value in returns) / 49
    return [*columns, math.log(max(math.sqrt(variance), 1e-5))]


@pytest.mark.parametrize("row", [671, 800, 1499])
def test_the_columns_are_those_of_a_slow_loop(row):
    np.testing.assert_allclose(volatility_columns(BARS)[row], by_loops(BARS, row), rtol=1e-9)


@pytest.mark.parametrize(
    ("timeframe", "spans"),
    [
        ("5m", (1, 3, 12, 48, 288, 2016)),
        ("15m", (1, 4, 16, 96, 672)),
        ("1h", (1, 4, 24, 168)),
        ("4h", (1, 6, 42, 168)),
        ("1d", (1, 7, 28)),
    ],
)
def test_spans_are_the_same_in_time_on_every_bar_length(timeframe, spans):
    assert volatility_spans(Timeframe(timeframe)) == spans


def test_a_column_is_unknown_until_its_span_is_full():
    known = np.isfinite(volatility_columns(BARS))
    first = [int(np.flatnonzero(column)[0]) for column in known.T]
    assert first == [0, 3, 15, 95, 671, 50]
    assert all(column[start:].all() for column, start in zip(known.T, first, strict=True))


@pytest.mark.parametrize("cut", [1, 100, 777])
def test_nothing_depends_on_where_the_history_begins(cut):
    later = volatility_columns(BARS.slice(cut))
    np.testing.assert_array_equal(later[672:], volatility_columns(BARS)[cut + 672 :])


def test_nothing_depends_on_later_bars():
    frame = BARS.frame.copy()
    frame.iloc[1000:] *= 1.7
    changed = volatility_columns(type(BARS)(BARS.symbol, BARS.timeframe, frame, BARS.origin))
    np.testing.assert_array_equal(changed[:1000], volatility_columns(BARS)[:1000])


def test_a_return_across_a_gap_is_no_return():
    frame = BARS.frame.copy()
    frame.iloc[1000:] *= 2.0
    jumped = type(BARS)(BARS.symbol, BARS.timeframe, frame, BARS.origin)
    gapped = drop_bars(jumped, range(990, 1000))
    deviation = volatility_columns(gapped)[:, -1]
    assert deviation[990:1100].max() < math.log(0.1)
    assert volatility_columns(jumped)[1000, -1] > deviation[990:1100].max()


def test_a_bar_without_a_range_has_the_floor_and_no_infinity():
    frame = BARS.frame.copy()
    frame.iloc[700:900, :4] = 100.0
    flat = volatility_columns(type(BARS)(BARS.symbol, BARS.timeframe, frame, BARS.origin))
    assert flat[800, 0] == pytest.approx(math.log(1e-5))
    assert flat[890, -1] == pytest.approx(math.log(1e-5))
    assert np.isfinite(flat[671:]).all()


def test_the_clock_is_that_of_the_close():
    columns = clock_columns(BARS)
    closes = BARS.frame.index + pd.Timedelta("15min")
    for row in (0, 3, 700):
        moment = closes[row]
        shares = (moment.hour / 24, moment.weekday() / 7, moment.minute / 60)
        expected = [f(2 * math.pi * share) for share in shares for f in (math.sin, math.cos)]
        np.testing.assert_allclose(columns[row], expected, atol=1e-12)
    assert columns.shape == (len(BARS), len(CLOCK_NAMES))
