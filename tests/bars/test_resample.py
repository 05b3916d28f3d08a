from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from builders import drop_bars, make_bars
from hypothesis import given
from hypothesis import strategies as st

from percoin.bars.resample import divides, resample
from percoin.bars.schema import Bars, check_bars
from percoin.errors import NotEnoughBarsError
from percoin.types import Timeframe


def _slow(bars: Bars, timeframe: Timeframe) -> list[tuple[float, ...]]:
    """The reference: a loop over groups, complete ones only."""
    per_bar = timeframe.milliseconds // bars.timeframe.milliseconds
    groups: dict[int, list[tuple[float, ...]]] = {}
    for moment, row in zip(bars.open_time.tolist(), bars.frame.to_numpy().tolist(), strict=True):
        groups.setdefault(moment - moment % timeframe.milliseconds, []).append(tuple(row))
    return [
        (
            start,
            rows[0][0],
            max(row[1] for row in rows),
            min(row[2] for row in rows),
            rows[-1][3],
            sum(row[4] for row in rows),
        )
        for start, rows in groups.items()
        if len(rows) == per_bar
    ]


@given(
    missing=st.sets(st.integers(0, 199), max_size=60),
    offset=st.integers(0, 7),
    pair=st.sampled_from(
        [
            (Timeframe.M5, Timeframe.M15),
            (Timeframe.M15, Timeframe.H1),
            (Timeframe.M30, Timeframe.H1),
            (Timeframe.M30, Timeframe.H4),
            (Timeframe.H1, Timeframe.D1),
        ]
    ),
)
def test_equal_to_a_loop_over_groups_with_incomplete_ones_left_out(
    missing: set[int], offset: int, pair: tuple[Timeframe, Timeframe]
) -> None:
    finer, timeframe = pair
    start = pd.Timestamp("2024-01-01", tz="UTC") + offset * finer.timedelta
    bars = drop_bars(make_bars(200, timeframe=finer, start=start), sorted(missing))
    expected = _slow(bars, timeframe)
    if not expected:
        with pytest.raises(NotEnoughBarsError):
            resample(bars, timeframe)
        return
    longer = resample(bars, timeframe)
    assert longer.open_time.tolist() == [row[0] for row in expected]
    np.testing.assert_allclose(longer.frame.to_numpy(), [row[1:] for row in expected], rtol=1e-13)


def test_result_is_valid_and_says_what_it_was_made_from() -> None:
    bars = make_bars(200, timeframe=Timeframe.M30)
    longer = resample(bars, Timeframe.H4)
    checked = check_bars(longer.frame, "BTCUSDT", Timeframe.H4)
    pd.testing.assert_frame_equal(checked, longer.frame)
    assert longer.timeframe is Timeframe.H4
    assert longer.origin == "test: builders, resampled from 30m"


def test_a_gap_stays_a_gap() -> None:
    bars = drop_bars(make_bars(40), [9])
    hours = resample(bars, Timeframe.H1).frame.index.hour.tolist()
    assert hours == [0, 1, 3, 4, 5, 6, 7, 8, 9]


def test_in_two_steps_as_in_one() -> None:
    bars = make_bars(2000, timeframe=Timeframe.M5)
    once = resample(bars, Timeframe.H1).frame
    twice = resample(resample(bars, Timeframe.M15), Timeframe.H1).frame
    pd.testing.assert_frame_equal(once, twice, rtol=1e-13)


def test_same_timeframe_gives_the_same_bars() -> None:
    bars = make_bars(10)
    assert resample(bars, Timeframe.M15) is bars


def test_shorter_bars_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="5m bars cannot be made from 15m bars"):
        resample(make_bars(10), Timeframe.M5)


def test_too_few_bars_say_so() -> None:
    with pytest.raises(NotEnoughBarsError, match=r"BTCUSDT 4h: 15 15m bars do not fill one of 4h;"):
        resample(make_bars(15), Timeframe.H4)


def test_every_timeframe_divides_the_longer_ones_only() -> None:
    order = list(Timeframe)
    for finer in order:
        for longer in order:
            assert divides(finer, longer) == (order.index(finer) < order.index(longer))
