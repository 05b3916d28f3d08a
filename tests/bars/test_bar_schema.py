from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from builders import bars_from_closes, make_bars
from hypothesis import given, settings
from hypothesis import strategies as st

from percoin.bars import schema
from percoin.bars.schema import COLUMNS, PRICE_COLUMNS, Bars, check_bars, format_time
from percoin.errors import InvalidBarsError
from percoin.types import Timeframe

N_BARS = 60
# A refusal takes pandera about 50 ms.
few_examples = settings(max_examples=10)


def _frame() -> pd.DataFrame:
    return make_bars(N_BARS).frame


def _refusal(frame: pd.DataFrame, timeframe: Timeframe = Timeframe.M15) -> InvalidBarsError:
    with pytest.raises(InvalidBarsError) as caught:
        check_bars(frame, "BTCUSDT", timeframe)
    assert "\n" not in str(caught.value)
    return caught.value


def test_valid_bars_come_back_unchanged() -> None:
    frame = _frame()
    pd.testing.assert_frame_equal(check_bars(frame, "BTCUSDT", Timeframe.M15), frame)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Kolkata"])
def test_open_times_of_any_unit_and_zone_become_milliseconds_in_utc(
    unit: str, zone: str | None
) -> None:
    frame = _frame()
    frame.index = frame.index.as_unit(unit).tz_convert(zone)
    checked = check_bars(frame, "BTCUSDT", Timeframe.M15)
    pd.testing.assert_frame_equal(checked, _frame())


def test_open_time_may_be_a_column_and_other_columns_are_left_out() -> None:
    frame = _frame().reset_index().assign(trades=1)
    pd.testing.assert_frame_equal(check_bars(frame, "BTCUSDT", Timeframe.M15), _frame())


def test_whole_numbers_become_float64() -> None:
    frame = bars_from_closes([100, 101, 102]).frame.astype("int32")
    assert set(check_bars(frame, "BTCUSDT", Timeframe.M15).dtypes) == {np.dtype("float64")}


@few_examples
@given(first=st.integers(0, N_BARS - 2), n_repeated=st.integers(1, 5))
def test_repeated_rows_are_named(first: int, n_repeated: int) -> None:
    frame = _frame()
    rows = frame.iloc[first : first + n_repeated]
    error = _refusal(pd.concat([frame, rows]).sort_index(kind="stable"))
    assert f"duplicate open_time in {len(rows)} bar" in error.found
    assert format_time(rows.index[0]) in error.found


@few_examples
@given(order=st.permutations(range(8)).filter(lambda order: list(order) != sorted(order)))
def test_rows_in_any_other_order_are_refused(order: list[int]) -> None:
    assert "open_time before that of the row above" in _refusal(_frame().iloc[order]).found


@few_examples
@given(position=st.integers(0, N_BARS - 1), column=st.sampled_from(COLUMNS))
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_named(value: float, position: int, column: str) -> None:
    frame = _frame()
    frame.iloc[position, frame.columns.get_loc(column)] = value
    error = _refusal(frame)
    when = format_time(frame.index[position])
    assert f"{column} NaN or infinite in 1 bar ({when})" in error.found


@few_examples
@given(
    position=st.integers(0, N_BARS - 1),
    column=st.sampled_from(PRICE_COLUMNS),
    price=st.floats(-1e9, 0),
)
def test_prices_not_above_zero_are_named(position: int, column: str, price: float) -> None:
    frame = _frame()
    frame.iloc[position, frame.columns.get_loc(column)] = price
    assert f"{column} not above zero in 1 bar" in _refusal(frame).found


@few_examples
@given(position=st.integers(0, N_BARS - 1), excess=st.floats(1e-9, 0.5))
@pytest.mark.parametrize("column", ["open", "close"])
def test_prices_outside_high_and_low_are_named(column: str, position: int, excess: float) -> None:
    frame = _frame()
    place = (frame.index[position], column)
    frame.loc[place] = frame["high"].iloc[position] * (1 + excess)
    assert "high below open or close in 1 bar" in _refusal(frame).found
    frame.loc[place] = frame["low"].iloc[position] * (1 - excess)
    assert "low above open or close in 1 bar" in _refusal(frame).found


def test_negative_volume_is_named_and_zero_volume_is_allowed() -> None:
    frame = _frame()
    frame.iloc[3, 4] = 0.0
    check_bars(frame, "BTCUSDT", Timeframe.M15)
    frame.iloc[3, 4] = -1e-9
    assert _refusal(frame).found == "negative volume in 1 bar (2024-01-01 00:45)"


def test_open_times_off_the_grid_are_named() -> None:
    frame = _frame()
    frame.index = frame.index + pd.Timedelta(seconds=1)
    error = _refusal(frame)
    assert error.found == (
        "open_time off the 15m grid in 60 bars "
        "(2024-01-01 00:00:01, 2024-01-01 00:15:01, 2024-01-01 00:30:01, ...)"
    )


def test_open_times_between_milliseconds_are_not_rounded_away() -> None:
    frame = _frame()
    frame.index = frame.index.as_unit("us") + pd.Timedelta(microseconds=1)
    assert "60 open times are not whole milliseconds" in _refusal(frame).found


def test_bars_of_a_finer_timeframe_are_off_the_grid_of_a_longer_one() -> None:
    assert "off the 1h grid in 45 bars" in _refusal(_frame(), Timeframe.H1).found


def test_several_broken_rules_make_one_short_line() -> None:
    frame = pd.concat([_frame()] * 40).sample(frac=1, random_state=0)
    frame[["high", "volume"]] = [-1.0, np.nan]
    error = _refusal(frame)
    for rule in ("duplicate", "before", "high not above zero", "high below", "volume NaN"):
        assert rule in error.found
    assert len(str(error)) < 1000


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (lambda frame: frame.iloc[:0], "no bars, the table is empty"),
        (lambda frame: frame.drop(columns=["low", "volume"]), "no column low, volume"),
        (lambda frame: frame.reset_index(drop=True), "no column open_time"),
        (lambda frame: frame.assign(close="cheap"), "column close holds something other than"),
        (lambda frame: frame.assign(open_time=1), "open_time is int64, not a time"),
        (lambda frame: frame.assign(open_time=pd.NaT), "60 open times are missing"),
    ],
)
def test_tables_that_are_no_bars_are_refused(
    spoil: Callable[[pd.DataFrame], pd.DataFrame], found: str
) -> None:
    error = _refusal(spoil(_frame()))
    assert found in error.found
    assert str(error).startswith("BTCUSDT 15m: ")
    assert str(error).endswith("; correct the source; bars are never repaired silently")


def test_the_given_frame_is_not_changed() -> None:
    frame = _frame().reset_index()
    before = frame.copy(deep=True)
    check_bars(frame, "BTCUSDT", Timeframe.M15)
    pd.testing.assert_frame_equal(frame, before)


def test_importing_the_store_does_not_import_pandera() -> None:
    code = "import sys, percoin.bars.store; sys.exit('pandera' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_hash_depends_on_every_value_and_time() -> None:
    bars = make_bars(20)
    hashes = {bars.sha256(), bars.slice(1).sha256()}
    for column in range(5):
        frame = bars.frame.copy()
        frame.iloc[7, column] = np.nextafter(frame.iloc[7, column], np.inf)
        hashes.add(Bars(bars.symbol, bars.timeframe, frame, bars.origin).sha256())
    later = bars.frame.set_axis(bars.frame.index + pd.Timedelta(days=1))
    hashes.add(Bars(bars.symbol, bars.timeframe, later, bars.origin).sha256())
    assert len(hashes) == 8


def test_moments_of_damaged_files_have_a_text_too() -> None:
    moments = pd.DatetimeIndex(np.array([0, 90_000, 10**15], dtype="datetime64[ms]"))
    assert [format_time(moment) for moment in moments] == [
        "1970-01-01 00:00",
        "1970-01-01 00:01:30",
        "33658-09-27 01:46:40",
    ]


VALUES = st.one_of(
    st.sampled_from([0.0, -1.0, 1e15, 1.1e15, 1e20, 1.1e20, math.nan, math.inf, -math.inf]),
    st.floats(90, 110),
)


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_what_is_told_at_once_to_keep_the_rules_has_no_broken_rule(data: st.DataObject) -> None:
    frame = bars_from_closes([100, 101, 102, 103]).frame.reset_index()
    for _ in range(data.draw(st.integers(0, 2))):
        row, name = data.draw(st.integers(0, 3)), data.draw(st.sampled_from(schema.COLUMNS))
        frame.loc[row, name] = data.draw(VALUES)
    moved = data.draw(st.sampled_from([0, 0, 0, 1, 15, -15, 30, 60 * 24 * 365 * 300]))
    frame.loc[2, "open_time"] += pd.Timedelta(minutes=moved)
    rows = schema._normalised(frame)
    at_once = schema.keeps_rules(
        rows["open_time"].to_numpy(dtype="datetime64[ms]").astype(np.int64),
        rows[list(COLUMNS)].to_numpy(),
        Timeframe.M15.milliseconds,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schema, "keeps_rules", lambda *_: False)
        try:
            schema._check_rules(rows, "BTCUSDT", Timeframe.M15)
            is_sound = True
        except InvalidBarsError:
            is_sound = False
    assert at_once == is_sound
