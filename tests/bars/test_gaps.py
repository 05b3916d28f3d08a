from __future__ import annotations

import numpy as np
import pandas as pd
from builders import drop_bars, make_bars
from hypothesis import given
from hypothesis import strategies as st

from percoin.bars.gaps import Gap, contiguous_run, describe_gaps, find_gaps
from percoin.types import Timeframe


def test_bars_without_a_gap_have_none() -> None:
    bars = make_bars(50)
    assert find_gaps(bars) == ()
    assert describe_gaps(bars, find_gaps(bars)) == "BTCUSDT 15m: no gaps"


def test_each_gap_has_its_dates_and_length() -> None:
    bars = drop_bars(make_bars(10), [2, 3, 4, 7])
    at = [pd.Timestamp("2024-01-01", tz="UTC") + k * pd.Timedelta("15min") for k in range(10)]
    gaps = find_gaps(bars)
    assert gaps == (Gap(at[1], at[5], 3), Gap(at[6], at[8], 1))
    assert describe_gaps(bars, gaps) == (
        "BTCUSDT 15m: 2 gaps, 4 of 10 bars missing: "
        "3 between 2024-01-01 00:15 and 2024-01-01 01:15 UTC, "
        "1 between 2024-01-01 01:30 and 2024-01-01 02:00 UTC"
    )


def test_many_gaps_are_told_in_one_short_line_with_the_longest_in_order_of_time() -> None:
    bars = drop_bars(make_bars(400), [*range(10, 300, 5), 311, 312, 313, 350, 351])
    text = describe_gaps(bars, find_gaps(bars))
    assert "60 gaps, 63 of 400 bars missing: the longest " in text
    assert text.index("3 between") < text.index("2 between")
    assert text.count("between") == 3


@given(missing=st.sets(st.integers(1, 78), max_size=40))
def test_contiguous_run_counts_the_bars_since_the_last_gap(missing: set[int]) -> None:
    bars = drop_bars(make_bars(80), sorted(missing))
    expected, previous = [], None
    for moment in bars.open_time:
        follows = previous is not None and moment - previous == Timeframe.M15.milliseconds
        expected.append(expected[-1] + 1 if follows else 1)
        previous = moment
    run = contiguous_run(bars.open_time, bars.timeframe)
    assert run.dtype == np.int64
    assert run.tolist() == expected


@given(missing=st.sets(st.integers(0, 79), max_size=79))
def test_gaps_account_for_every_missing_bar_inside(missing: set[int]) -> None:
    bars = drop_bars(make_bars(80), sorted(missing))
    inside = (bars.open_time[-1] - bars.open_time[0]) // Timeframe.M15.milliseconds + 1
    assert len(bars) + sum(gap.n_missing for gap in find_gaps(bars)) == inside


def test_no_bars_have_no_runs() -> None:
    assert contiguous_run(np.array([], dtype=np.int64), Timeframe.H1).tolist() == []
