"""What a file says against how it is read: its market, its clock, its price."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from builders import drop_bars, make_bars

from percoin.bars.schema import Bars
from percoin.bars.sources.files import FilesSource
from percoin.errors import InvalidBarsError
from percoin.types import Timeframe

M15, H1 = Timeframe.M15, Timeframe.H1


def _load(path: Path, symbol: str = "BTCUSDT", timeframe: Timeframe = M15) -> Bars:
    return FilesSource(path).load(symbol, timeframe)


def _write(frame: pd.DataFrame, path: Path, **columns: object) -> Path:
    frame.assign(**columns).to_csv(path)
    return path


def _refusal(path: Path, symbol: str = "BTCUSDT", timeframe: Timeframe = M15) -> InvalidBarsError:
    with pytest.raises(InvalidBarsError) as caught:
        _load(path, symbol, timeframe)
    assert str(path) in caught.value.found
    return caught.value


@pytest.mark.parametrize("column", ["symbol", "Pair", "ticker", "market", "instId"])
def test_a_column_that_names_another_market_is_refused(tmp_path: Path, column: str) -> None:
    path = _write(make_bars(40).frame, tmp_path / "x.csv", **{column: "BTC/USDT"})
    assert len(_load(path)) == 40
    error = _refusal(path, "ETHUSDT")
    assert "its rows are of BTC/USDT, not of ETHUSDT" in error.found


@pytest.mark.parametrize(
    "written",
    ["BTCUSDT", "btcusdt", "BTC/USDT", "BTC/USDT:USDT", "BTC-USDT", "BINANCE:BTCUSDT", "BTC"],
)
def test_the_market_may_be_spelt_in_many_ways(
    tmp_path: Path, written: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert len(_load(_write(make_bars(40).frame, tmp_path / "x.csv", symbol=written))) == 40
    assert caplog.messages == []


@pytest.mark.parametrize("written", ["spot", "Binance", None, "LINEAR"])
def test_a_market_column_that_names_no_market_says_nothing(tmp_path: Path, written: str) -> None:
    assert len(_load(_write(make_bars(40).frame, tmp_path / "x.csv", market=written))) == 40


def test_rows_of_other_markets_are_left_out_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bars, others = make_bars(40), make_bars(30, seed=1)
    frame = pd.concat([bars.frame.assign(symbol="BTCUSDT"), others.frame.assign(symbol="ETHUSDT")])
    path = _write(frame, tmp_path / "x.csv")
    pd.testing.assert_frame_equal(_load(path).frame, bars.frame)
    assert "40 of 70 rows are taken, the others are of ETHUSDT" in caplog.text
    pd.testing.assert_frame_equal(_load(path, "ETHUSDT").frame, others.frame)
    assert "not of SOLUSDT" in _refusal(path, "SOLUSDT").found


def test_the_same_coin_in_other_dollars_is_read_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert len(_load(_write(make_bars(40).frame, tmp_path / "x.csv", symbol="BTCUSD"))) == 40
    assert caplog.messages == ["BTCUSDT 15m: x.csv: its rows are of BTCUSD, read as BTCUSDT"]


def test_an_old_name_in_the_rows_is_the_market_of_today(tmp_path: Path) -> None:
    path = _write(make_bars(40).frame, tmp_path / "x.csv", symbol="MATICUSDT")
    assert len(_load(path, "POLUSDT")) == 40


def _local(start: str, n_bars: int, zone: str, timeframe: Timeframe = M15) -> pd.DataFrame:
    bars = make_bars(n_bars, timeframe=timeframe, start=pd.Timestamp(start, tz="UTC"))
    index = bars.frame.index.tz_convert(zone).tz_localize(None)
    return bars.frame.set_axis(index.rename("time"))


@pytest.mark.parametrize("timeframe", [Timeframe.M1, M15, Timeframe.M30, H1])
@pytest.mark.parametrize(
    ("day", "zone", "hour"),
    [
        ("2024-10-26", "Europe/Berlin", "2024-10-27 02:00"),
        ("2024-11-02", "America/New_York", "2024-11-03 01:00"),
        ("2024-04-06", "Australia/Sydney", "2024-04-07 02:00"),
    ],
)
def test_an_hour_that_is_there_twice_is_a_change_of_clocks(
    tmp_path: Path, day: str, zone: str, hour: str, timeframe: Timeframe
) -> None:
    n_bars = 2 * 86_400_000 // timeframe.milliseconds
    frame = _local(day, n_bars, zone, timeframe)
    error = _refusal(_write(frame, tmp_path / "x.csv"), timeframe=timeframe)
    assert f"time is in local time: the hour from {hour} is there twice" in error.found
    assert error.action == "write the times in UTC, or with their offset"
    with_offset = frame.set_axis(make_bars(n_bars, timeframe=timeframe).frame.index.rename("time"))
    assert len(_load(_write(with_offset, tmp_path / "utc.csv"), timeframe=timeframe)) == n_bars


def test_a_bar_twice_at_another_time_is_no_change_of_clocks(tmp_path: Path) -> None:
    frame = make_bars(60, timeframe=H1).frame
    path = _write(pd.concat([frame.iloc[:30], frame.iloc[29:]]), tmp_path / "x.csv")
    assert "duplicate open_time in 1 bar (2024-01-02 05:00)" in _refusal(path, timeframe=H1).found


def test_an_hour_that_is_missing_in_spring_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    frame = _local("2025-03-29", 200, "Europe/Berlin")
    assert len(_load(_write(frame, tmp_path / "x.csv"))) == 200
    assert "the hour from 2025-03-30 02:00 is missing, when clocks go forward" in caplog.text
    caplog.clear()
    zoned = frame.set_axis(frame.index.tz_localize("UTC"))
    _load(_write(zoned, tmp_path / "zoned.csv"))
    summer = make_bars(200, start=pd.Timestamp("2025-06-29", tz="UTC"))
    gap = drop_bars(summer, range(8, 12)).frame
    _load(_write(gap.set_axis(gap.index.tz_localize(None)), tmp_path / "gap.csv"))
    assert caplog.messages == []


def _jumping(factor: float, at: int = 50, n_bars: int = 100) -> Bars:
    bars = make_bars(n_bars)
    prices = ["open", "high", "low", "close"]
    frame = bars.frame.copy()
    frame.loc[frame.index[at:], prices] *= factor
    return replace(bars, frame=frame)


@pytest.mark.parametrize("factor", [1000, 1 / 1000, 100, 0.01])
def test_a_price_in_another_unit_from_one_bar_on_is_refused(tmp_path: Path, factor: float) -> None:
    error = _refusal(_write(_jumping(factor).frame, tmp_path / "x.csv"))
    assert "the price jumps from " in error.found
    assert "at 2024-01-01 12:30, a factor of" in error.found


def test_one_bar_in_another_unit_is_refused(tmp_path: Path) -> None:
    bars = _jumping(1000)
    frame = pd.concat([bars.frame.iloc[:51], make_bars(100).frame.iloc[51:]])
    assert "at 2024-01-01 12:30, a factor" in _refusal(_write(frame, tmp_path / "x.csv")).found


def test_a_price_in_another_unit_after_a_gap_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    frame = drop_bars(_jumping(10_000), range(50, 60)).frame
    assert len(_load(_write(frame, tmp_path / "x.csv"))) == 90
    assert "at 2024-01-01 15:00 after a gap: before and after may be two coins" in caplog.text


def test_a_crash_within_bars_passes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A coin that loses all but a ten-thousandth in three bars, and opens where it closed."""
    close = np.concatenate([np.full(30, 80.0), [8.0, 0.1, 0.0008], np.full(30, 0.0008)])
    opened = np.concatenate([close[:1], close[:-1] * 0.8])
    frame = make_bars(len(close)).frame.assign(open=opened, close=close)
    frame = frame.assign(high=np.maximum(opened, close) * 1.5, low=np.minimum(opened, close) * 0.5)
    assert len(_load(_write(frame, tmp_path / "x.csv"))) == len(close)
    assert caplog.messages == []


def test_bars_without_any_volume_are_no_bars_of_trades(tmp_path: Path) -> None:
    frame = make_bars(40).frame
    error = _refusal(_write(frame, tmp_path / "x.csv", volume=0.0))
    assert "none of 40 bars has volume" in error.found
    flat = frame.assign(open=2.5, high=2.5, low=2.5, close=2.5, volume=0.0)
    error = _refusal(_write(flat, tmp_path / "x.csv"))
    assert "all 40 bars are flat at 2.5 without volume" in error.found
    quiet = frame.assign(volume=np.where(np.arange(40) == 7, 1.0, 0.0))
    assert len(_load(_write(quiet, tmp_path / "x.csv"))) == 40
    assert len(_load(_write(flat.tail(3), tmp_path / "BTCUSDT-15m.csv"))) == 3


def test_a_name_that_says_another_length_than_the_bars_is_refused(tmp_path: Path) -> None:
    path = _write(make_bars(40).frame, tmp_path / "BTCUSDT-5m.csv")
    error = _refusal(path)
    assert "its name says 5m, its bars are 15m apart" in error.found
    assert error.action == "call it 15m in place of 5m"
    path = _write(make_bars(40, timeframe=Timeframe.M5).frame, tmp_path / "BTCUSDT-15m.csv")
    assert "its name says 15m, its bars are 5m apart" in _refusal(path).found


@pytest.mark.parametrize(
    ("shift", "found"),
    [
        ("16h", "every bar opens 16:00 off the 1d grid of UTC (2024-01-01 16:00)"),
        ("5h30min", "every bar opens 05:30 off the 1d grid"),
        ("23:59:59.999", "every bar has the time at which it closes (2024-01-01 23:59:59.999000)"),
        ("23:59:59", "every bar has the time at which it closes (2024-01-01 23:59:59)"),
    ],
)
def test_days_of_another_zone_and_close_times_are_told(
    tmp_path: Path, shift: str, found: str
) -> None:
    frame = make_bars(40, timeframe=Timeframe.D1).frame
    path = _write(frame.set_axis(frame.index + pd.Timedelta(shift)), tmp_path / "x.csv")
    error = _refusal(path, timeframe=Timeframe.D1)
    assert found in error.found
    assert ("open_time = that time + 1 " in error.action) == ("closes" in found)


def test_some_bars_off_the_grid_are_still_counted(tmp_path: Path) -> None:
    frame = make_bars(40).frame
    index = frame.index.where(np.arange(40) != 9, frame.index + pd.Timedelta("1min"))
    path = _write(frame.set_axis(index.rename("open_time")), tmp_path / "x.csv")
    assert "open_time off the 15m grid in 1 bar (2024-01-01 02:16)" in _refusal(path).found


def test_newest_first_is_turned_round_and_any_other_order_refused(tmp_path: Path) -> None:
    frame = make_bars(40).frame
    pd.testing.assert_frame_equal(_load(_write(frame.iloc[::-1], tmp_path / "x.csv")).frame, frame)
    halves = pd.concat([frame.iloc[20:], frame.iloc[:20]])
    error = _refusal(_write(halves, tmp_path / "x.csv"))
    assert "open_time before that of the row above in 1 bar" in error.found


def test_holes_that_are_not_the_last_row_alone_are_counted(tmp_path: Path) -> None:
    frame = make_bars(40).frame
    volume = frame["volume"].where(~np.isin(np.arange(40), [5, 39]))
    path = _write(frame, tmp_path / "x.csv", volume=volume)
    assert "volume NaN or infinite in 2 bars (2024-01-01 01:15, " in _refusal(path).found
