import numpy as np
import pandas as pd
import pytest
from builders import bars_from_closes, drop_bars, make_bars
from hypothesis import given
from hypothesis import strategies as st
from ta.momentum import RSIIndicator

from percoin.bars.schema import Bars
from percoin.features.rules import read_momentum, read_rsi_ma
from percoin.types import Signal, Timeframe

BARS = make_bars(1500, seed=3)


def crash_and_spike() -> Bars:
    """A crash with a slow rise after it, then a spike with a slow fall after it.

    A random walk gives RSI+MA nothing to say: the RSI is below 30 while the fast mean is
    above the slow one only once a crash has left the slow mean but not yet the RSI.
    """
    crash = [100.0] * 30 + [50 + 0.05 * bar for bar in range(40)]
    spike = [52.0] * 60 + [100 - 0.05 * bar for bar in range(40)]
    return bars_from_closes(crash + spike, timeframe=Timeframe.H1)


LIVELY = crash_and_spike()


def test_rsi_ma_against_a_slow_loop():
    close = LIVELY.column("close")
    rsi = RSIIndicator(pd.Series(close), window=14).rsi().to_numpy()
    readings = read_rsi_ma(LIVELY)
    seen = set()
    for row in range(19, len(close)):
        fast, slow = close[row - 4 : row + 1].mean(), close[row - 19 : row + 1].mean()
        expected = Signal.NO_TRADE
        if rsi[row] < 30 and fast > slow:
            expected = Signal.LONG
        if rsi[row] > 70 and fast < slow:
            expected = Signal.SHORT
        assert readings.signal[row] == expected, row
        seen.add(expected)
    assert not readings.is_known[:19].any()
    assert readings.is_known[19:].all()
    assert seen == set(Signal)


def flat_then(*last: float) -> Bars:
    return bars_from_closes([100.0] * 30 + list(last))


@pytest.mark.parametrize(
    ("close", "expected"),
    [
        (102.51, Signal.LONG),
        (102.49, Signal.NO_TRADE),
        (97.51, Signal.NO_TRADE),
        (97.49, Signal.SHORT),
    ],
)
def test_momentum_follows_a_change_beyond_its_mark(close, expected):
    readings = read_momentum(flat_then(close))
    assert readings.signal[-1] == expected
    assert readings.values["change_14"][-1] == pytest.approx(close / 100 - 1)


@pytest.mark.parametrize(("close", "score"), [(105.0, 0.5), (95.0, -0.5), (101.0, 0.0)])
def test_the_score_of_momentum_is_the_share_beyond_the_mark(close, score):
    assert read_momentum(flat_then(close)).score[-1] == pytest.approx(score)


def test_momentum_looks_back_14_bars():
    closes = [100.0] * 20 + [110.0] * 20
    signal = read_momentum(bars_from_closes(closes)).signal
    assert np.flatnonzero(signal == Signal.LONG).tolist() == list(range(20, 34))


def test_the_score_of_rsi_ma_is_how_far_the_rsi_is_beyond_its_mark():
    readings = read_rsi_ma(LIVELY)
    rows = np.flatnonzero(readings.signal != Signal.NO_TRADE)
    rsi = readings.values["rsi_14"]
    for row in rows:
        if readings.signal[row] == Signal.LONG:
            assert readings.score[row] == pytest.approx((30 - rsi[row]) / 30)
        else:
            assert readings.score[row] == pytest.approx((70 - rsi[row]) / 30)
    assert (readings.score[readings.signal == Signal.NO_TRADE] == 0).all()


@pytest.mark.parametrize(("read", "n_bars"), [(read_rsi_ma, 20), (read_momentum, 15)])
def test_a_rule_is_silent_until_it_has_its_bars_and_while_a_gap_lies_in_them(read, n_bars):
    readings = read(drop_bars(BARS, [700]))
    unknown = np.flatnonzero(~readings.is_known)
    expected = [*range(n_bars - 1), *range(700, 700 + n_bars - 1)]
    assert unknown.tolist() == expected
    assert (readings.signal[unknown] == Signal.NO_TRADE).all()


@pytest.mark.parametrize("read", [read_rsi_ma, read_momentum])
@pytest.mark.parametrize("n_bars", [1, 4, 13, 14, 15])
def test_a_short_history_is_no_error(read, n_bars):
    assert len(read(BARS.slice(0, n_bars))) == n_bars


@pytest.mark.parametrize("read", [read_rsi_ma, read_momentum])
@given(n_bars=st.integers(1, 1499))
def test_what_a_rule_says_does_not_change_with_later_bars(read, n_bars):
    full, cut = read(BARS), read(BARS.slice(0, n_bars))
    np.testing.assert_array_equal(cut.signal, full.signal[:n_bars])
    np.testing.assert_array_equal(cut.score, full.score[:n_bars])
    np.testing.assert_array_equal(cut.is_known, full.is_known[:n_bars])


def test_a_bar_that_is_not_there_is_unknown():
    # The first of these is known, so that -1 cannot borrow its silence.
    readings = read_momentum(BARS.slice(0, 600)).take(np.arange(100, 600))
    assert readings.is_known[0]
    taken = readings.take(np.array([-1, 400]))
    assert taken.is_known.tolist() == [False, True]
    assert taken.signal[0] == Signal.NO_TRADE
    assert np.isnan(taken.values["change_14"][0])
    assert taken.values["change_14"][1] == read_momentum(BARS).values["change_14"][500]
