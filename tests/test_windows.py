import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from percoin.types import Timeframe
from percoin.windows import eligible_rows, make_windows

STEP = Timeframe.M15.milliseconds


@settings(deadline=None)
@given(n_bars=st.integers(1, 30), lookback=st.integers(1, 30))
def test_window_i_ends_on_row_i_plus_lookback_minus_1(n_bars, lookback):
    features = np.arange(n_bars * 3, dtype=np.float64).reshape(n_bars, 3)
    if lookback > n_bars:
        with pytest.raises(ValueError, match="no window"):
            make_windows(features, lookback)
        return
    windows = make_windows(features, lookback)
    assert windows.shape == (n_bars - lookback + 1, lookback, 3)
    for i, window in enumerate(windows):
        np.testing.assert_array_equal(window, features[i : i + lookback])
    np.testing.assert_array_equal(windows[-1, -1], features[-1])


def test_a_lookback_below_1_is_refused():
    with pytest.raises(ValueError, match="no window of 0 bars"):
        make_windows(np.zeros((5, 2)), 0)


def test_windows_are_a_read_only_view_and_take_no_memory():
    features = np.zeros((10_000, 15), dtype=np.float32)
    windows = make_windows(features, 60)
    assert np.shares_memory(windows, features)
    assert windows.dtype == np.float32
    with pytest.raises(ValueError, match="read-only"):
        windows[0, 0, 0] = 1.0


@settings(deadline=None)
@given(
    steps=st.lists(st.sampled_from([1, 1, 1, 1, 1, 2, 5]), max_size=60),
    undefined=st.sets(st.integers(0, 60)),
    lookback=st.integers(1, 12),
)
def test_eligible_rows_equal_a_slow_look_at_every_window(steps, undefined, lookback):
    open_time = np.cumsum([0, *steps]) * STEP
    n_bars = len(open_time)
    features = np.ones((n_bars, 2))
    features[[row for row in undefined if row < n_bars], 1] = np.nan
    expected = [
        end
        for end in range(lookback - 1, n_bars)
        if np.isfinite(features[end - lookback + 1 : end + 1]).all()
        and open_time[end] - open_time[end - lookback + 1] == (lookback - 1) * STEP
    ]
    assert eligible_rows(features, open_time, Timeframe.M15, lookback).tolist() == expected


def test_no_bars_have_no_eligible_rows():
    rows = eligible_rows(np.empty((0, 15)), np.empty(0, dtype=np.int64), Timeframe.M15, 60)
    assert rows.tolist() == []


def test_infinite_features_are_not_eligible():
    features = np.zeros((4, 1))
    features[1] = np.inf
    rows = eligible_rows(features, np.arange(4) * STEP, Timeframe.M15, 2)
    assert rows.tolist() == [3]
