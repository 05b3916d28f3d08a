from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from builders import drop_bars, make_bars, write_parquet

from percoin.bars.schema import COLUMNS, Bars
from percoin.bars.sources.files import FilesSource
from percoin.errors import BarsNotFoundError, ConfigError, InvalidBarsError
from percoin.types import Timeframe

BINANCE_HEADER = (
    "open_time,open,high,low,close,volume,close_time,quote_volume,count,"
    "taker_buy_volume,taker_buy_quote_volume,ignore"
)


def _write_binance(bars: Bars, path: Path, header: bool = False, per_ms: int = 1) -> Path:
    """Twelve columns as the exchange writes them; ``per_ms`` 1000 for microseconds."""
    close_time = (bars.open_time + bars.timeframe.milliseconds) * per_ms - 1
    rows = [
        f"{opened},{','.join(map(repr, row))},{closed},1.5,7,0.5,0.25,0"
        for opened, closed, row in zip(
            (bars.open_time * per_ms).tolist(),
            close_time.tolist(),
            bars.frame.to_numpy().tolist(),
            strict=True,
        )
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([BINANCE_HEADER] * header + rows) + "\n")
    return path


def _write_freqtrade(bars: Bars, path: Path) -> Path:
    """Feather with the times in ``date``, as freqtrade downloads them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    frame = bars.frame.reset_index().rename(columns={"open_time": "date"})
    frame["date"] = frame["date"].dt.as_unit("ns")
    frame.to_feather(path)
    return path


def _load(path: Path, symbol: str = "BTCUSDT", timeframe: Timeframe = Timeframe.M15) -> Bars:
    return FilesSource(path).load(symbol, timeframe)


def _assert_same(bars: Bars, expected: Bars) -> None:
    pd.testing.assert_frame_equal(bars.frame, expected.frame)


@pytest.mark.parametrize(
    "name",
    [
        "BTCUSDT/15m.parquet",
        "BTCUSDT-15m.parquet",
        "BTCUSDT/BTCUSDT-15m.parquet",
        "BTCUSDT/15m/BTCUSDT-15m.parquet",
    ],
)
def test_parquet_is_found_in_every_layout(tmp_path: Path, name: str) -> None:
    bars = make_bars(100)
    write_parquet(bars, tmp_path / "data" / name)
    found = _load(tmp_path / "data")
    _assert_same(found, bars)
    assert (found.symbol, found.timeframe) == ("BTCUSDT", Timeframe.M15)
    assert found.origin == f"files: data/{name}"
    assert found.source == "files"


@pytest.mark.parametrize("header", [False, True])
@pytest.mark.parametrize("per_ms", [1, 1000])
@pytest.mark.parametrize("name", ["BTCUSDT-15m.csv", "BTCUSDT/15m.csv"])
def test_binance_csv_with_and_without_header_in_both_units(
    tmp_path: Path, name: str, per_ms: int, header: bool
) -> None:
    bars = make_bars(50)
    _write_binance(bars, tmp_path / name, header, per_ms)
    _assert_same(_load(tmp_path), bars)


def test_months_and_days_of_binance_are_joined_in_order(tmp_path: Path) -> None:
    """The spot archive changes from milliseconds to microseconds with 2025."""
    bars = make_bars(96 * 64, start=pd.Timestamp("2024-12-01", tz="UTC"))
    december, january, days = bars.slice(0, 96 * 31), bars.slice(96 * 31, 96 * 62), 96 * 62
    folder = tmp_path / "klines" / "BTCUSDT" / "15m"
    _write_binance(december, folder / "BTCUSDT-15m-2024-12.csv")
    _write_binance(january, folder / "BTCUSDT-15m-2025-01.csv", header=True, per_ms=1000)
    for day in range(2):
        part = bars.slice(days + 96 * day, days + 96 * (day + 1))
        _write_binance(part, folder / f"BTCUSDT-15m-2025-02-0{day + 1}.csv", per_ms=1000)
    found = _load(tmp_path / "klines")
    _assert_same(found, bars)
    assert found.origin == (
        "files: klines/BTCUSDT/15m/BTCUSDT-15m-2024-12.csv to BTCUSDT-15m-2025-02-02.csv (4 files)"
    )


def test_months_in_two_folders_are_joined_in_the_order_of_time(tmp_path: Path) -> None:
    bars = make_bars(300)
    _write_binance(bars.slice(200), tmp_path / "BTCUSDT-15m-2024-03.csv")
    _write_binance(bars.slice(0, 100), tmp_path / "BTCUSDT" / "BTCUSDT-15m-2024-01.csv")
    _write_binance(bars.slice(100, 200), tmp_path / "BTCUSDT" / "15m" / "BTCUSDT-15m-2024-02.csv")
    _assert_same(_load(tmp_path), bars)


def test_both_units_in_one_file_are_told_apart(tmp_path: Path) -> None:
    bars = make_bars(200, start=pd.Timestamp("2024-12-31", tz="UTC"))
    first = _write_binance(bars.slice(0, 96), tmp_path / "first").read_text()
    second = _write_binance(bars.slice(96), tmp_path / "second", per_ms=1000).read_text()
    (tmp_path / "BTCUSDT-15m.csv").write_text(first + second)
    _assert_same(_load(tmp_path), bars)


@pytest.mark.parametrize("opened", [0, 1_704_067, 17_040_672_000, 17_040_672_000_000_000_000])
def test_open_times_that_are_no_date_in_any_unit_are_refused(tmp_path: Path, opened: int) -> None:
    path = tmp_path / "BTCUSDT-15m.csv"
    path.write_text(f"open_time,open,high,low,close,volume\n{opened},1,1,1,1,1\n")
    with pytest.raises(InvalidBarsError, match=f"open_time.*{opened}.*write times as 2025-06-30"):
        _load(tmp_path)


def test_a_microsecond_off_the_grid_is_not_rounded_away(tmp_path: Path) -> None:
    opened = 1_735_689_600_000_001
    (tmp_path / "BTCUSDT-15m.csv").write_text(f"{opened},1,1,1,1,1,0,0,0,0,0,0\n")
    with pytest.raises(InvalidBarsError, match="1 open times are not whole milliseconds"):
        _load(tmp_path)


def test_a_bar_that_two_months_have_is_one_bar(tmp_path: Path) -> None:
    bars = make_bars(200)
    _write_binance(bars.slice(0, 101), tmp_path / "BTCUSDT-15m-2024-01.csv")
    _write_binance(bars.slice(90), tmp_path / "BTCUSDT-15m-2024-02.csv")
    _write_binance(bars.slice(20, 116), tmp_path / "BTCUSDT-15m-2024-01-02.csv")
    _assert_same(_load(tmp_path), bars)


def test_files_that_interleave_without_a_common_bar_lose_nothing(tmp_path: Path) -> None:
    bars = make_bars(200)
    _write_binance(drop_bars(bars, range(50, 150)), tmp_path / "BTCUSDT-15m-2024-01.csv")
    _write_binance(bars.slice(50, 150), tmp_path / "BTCUSDT-15m-2024-02.csv")
    _assert_same(_load(tmp_path), bars)


def test_months_that_differ_where_they_overlap_are_refused_by_name(tmp_path: Path) -> None:
    bars = make_bars(200)
    _write_binance(bars.slice(0, 101), tmp_path / "BTCUSDT-15m-2024-01.csv")
    other = replace(bars, frame=bars.frame.assign(volume=bars.frame["volume"] + 1))
    _write_binance(other.slice(100), tmp_path / "BTCUSDT-15m-2024-02.csv")
    with pytest.raises(InvalidBarsError) as caught:
        _load(tmp_path)
    assert caught.value.found == (
        "BTCUSDT-15m-2024-01.csv and BTCUSDT-15m-2024-02.csv differ in 1 bar 2024-01-02 01:00"
    )


def test_a_month_that_is_not_there_is_a_gap(tmp_path: Path) -> None:
    bars = make_bars(300)
    _write_binance(bars.slice(0, 100), tmp_path / "BTCUSDT-15m-2024-01.csv")
    _write_binance(bars.slice(200), tmp_path / "BTCUSDT-15m-2024-03.csv")
    _assert_same(_load(tmp_path), drop_bars(bars, range(100, 200)))


def test_the_month_with_a_bad_bar_is_named(tmp_path: Path) -> None:
    bars = make_bars(200)
    _write_binance(bars.slice(0, 100), tmp_path / "BTCUSDT-15m-2024-01.csv")
    bad = replace(bars.slice(100), frame=bars.slice(100).frame.assign(volume=-1.0))
    _write_binance(bad, tmp_path / "BTCUSDT-15m-2024-02.csv")
    with pytest.raises(InvalidBarsError, match=r"2024-02\.csv: negative volume in 100 bars"):
        _load(tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "BTC_USDT-15m.feather",
        "BTC_USDT_USDT-15m-futures.feather",
        "futures/BTC_USDT_USDT-15m-futures.feather",
    ],
)
def test_freqtrade_feather_is_read_by_its_date_column(tmp_path: Path, name: str) -> None:
    bars = make_bars(100)
    _write_freqtrade(bars, tmp_path / name)
    _write_freqtrade(make_bars(5, seed=1), tmp_path / "BTC_USDT_USDT-8h-funding_rate.feather")
    _write_freqtrade(make_bars(5, seed=1), tmp_path / "BTC_BUSD-15m.feather")
    _assert_same(_load(tmp_path), bars)


def test_spot_and_futures_side_by_side_are_never_mixed(tmp_path: Path) -> None:
    _write_freqtrade(make_bars(100), tmp_path / "BTC_USDT-15m.feather")
    path = _write_freqtrade(make_bars(90), tmp_path / "BTC_USDT_USDT-15m-futures.feather")
    with pytest.raises(InvalidBarsError) as caught:
        _load(tmp_path)
    assert "any of 2 files could be meant" in caught.value.found
    assert "BTC_USDT_USDT-15m-futures.feather" in caught.value.found
    assert "source.path=<file>" in caught.value.action
    assert len(_load(path)) == 90


def test_a_whole_file_beside_months_is_refused(tmp_path: Path) -> None:
    write_parquet(make_bars(300), tmp_path / "BTCUSDT" / "15m.parquet")
    for month in range(1, 10):
        _write_binance(make_bars(3), tmp_path / f"BTCUSDT-15m-2024-0{month}.csv")
    with pytest.raises(InvalidBarsError, match="any of 10 files could be meant") as caught:
        _load(tmp_path)
    assert caught.value.found.count(".csv") <= 3


@pytest.mark.parametrize("name", ["date", "timestamp", "Datetime", "Open Time"])
def test_csv_with_a_header_may_name_its_time_column_otherwise(tmp_path: Path, name: str) -> None:
    bars = make_bars(50)
    frame = bars.frame.reset_index().rename(columns={"open_time": name, "close": "Close"})
    frame[name] = frame[name].dt.strftime("%Y-%m-%d %H:%M:%S")
    frame.to_csv(tmp_path / "BTCUSDT-15m.csv", index=False)
    _assert_same(_load(tmp_path), bars)


def test_csv_times_with_a_zone_become_utc(tmp_path: Path) -> None:
    bars = make_bars(50)
    frame = bars.frame.set_axis(bars.frame.index.tz_convert("Asia/Kolkata"))
    frame.to_csv(tmp_path / "BTCUSDT-15m.csv")
    _assert_same(_load(tmp_path), bars)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("", "the file is empty"),
        ("\n \n", "the file is empty"),
        ("1704067200000,1,1,1,1\n", "no header line, and 5 columns where 6, 7 or 12 are known"),
        ("open,high,low,close,volume\n1,1,1,1,1\n", "no time column, looked for open_time"),
        ("zeit,auf,hoch,tief,zu\n1704067200000,1,1,1,1\n", "the columns are zeit, auf, hoch, tief"),
        ("date,open,high,low,close\n2024-01-01,1,1,1,1\n", "no column volume"),
        ("date,open,high,low,close,volume\n", "no bars, the table is empty"),
        (
            "date,open,high,low,close,volume\nyesterday,1,1,1,1,1\n",
            "the time 'yesterday' of line 2",
        ),
        ("date,open,high,low,close,volume\n1.5,1,1,1,1,1\n", "column date is 1.5 in line 2"),
        ("date,open,high,low,close,volume\n2024-01-01,1,1,1,1,\n", "line 2, is cut off: no volume"),
        ("date,open,high,low,close,volume\n2024-01-01,1,1,1,x,1\n", "numbers ('x' in line 2)"),
        ("date,open,high,low,close,volume\n2024-01-01,1,1,1,1_0,1\n", "numbers ('1_0' in line 2)"),
        (
            "date,open,high,low,close,volume\n2024-01-01,1,1,1,1,1,1\n",
            "names 6 columns and its rows",
        ),
        ("\x00\x01\x02", "it is no text"),
    ],
)
def test_a_csv_that_is_no_bars_is_one_clear_error(tmp_path: Path, content: str, found: str) -> None:
    path = tmp_path / "BTCUSDT-15m.csv"
    path.write_text(content)
    with pytest.raises(InvalidBarsError) as caught:
        _load(tmp_path)
    assert found in caught.value.found
    assert str(path) in caught.value.found
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".parquet", ".feather", ".csv"])
def test_a_corrupt_file_names_itself(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"BTCUSDT-15m{suffix}"
    path.write_bytes(bytes(range(256)) * 20)
    with pytest.raises(InvalidBarsError) as caught:
        _load(tmp_path)
    assert caught.value.found.startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def _shuffled(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.sample(frac=1, random_state=0)


def _repeated(frame: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([frame, frame.tail(2)])


def _negative(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(low=-1.0)


def _holed(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(close=frame["close"].where(np.arange(len(frame)) != 3))


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (_shuffled, "open_time before that of the row above"),
        (_repeated, "duplicate open_time in 2 bars"),
        (_negative, "low not above zero in 50 bars"),
        (_holed, "close NaN or infinite in 1 bar (2024-01-01 00:45)"),
    ],
)
def test_bad_bars_are_refused_with_file_and_rule(
    tmp_path: Path, spoil: Callable[[pd.DataFrame], pd.DataFrame], found: str
) -> None:
    bars = make_bars(50)
    path = write_parquet(replace(bars, frame=spoil(bars.frame)), tmp_path / "BTCUSDT-15m.parquet")
    with pytest.raises(InvalidBarsError) as caught:
        _load(tmp_path)
    assert caught.value.found.startswith(f"{path}: ")
    assert found in caught.value.found


def test_the_coarsest_finer_timeframe_that_divides_is_resampled(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for timeframe in (Timeframe.M5, Timeframe.M30, Timeframe.H4):
        write_parquet(
            make_bars(600, timeframe=timeframe), tmp_path / "BTCUSDT" / f"{timeframe}.parquet"
        )
    with caplog.at_level(logging.INFO):
        hours = _load(tmp_path, timeframe=Timeframe.H1)
    assert len(hours) == 300
    assert hours.origin == f"files: {tmp_path.name}/BTCUSDT/30m.parquet, resampled from 30m"
    assert caplog.messages == [
        "BTCUSDT 1h: no bars of that length in the folder, "
        "resampled 600 30m bars into 300 complete ones"
    ]
    assert "resampled from 5m" in _load(tmp_path, timeframe=Timeframe.M15).origin
    assert "resampled from 4h" in _load(tmp_path, timeframe=Timeframe.D1).origin


def test_the_exact_timeframe_comes_before_a_finer_one(tmp_path: Path) -> None:
    write_parquet(make_bars(600, timeframe=Timeframe.M5), tmp_path / "BTCUSDT" / "5m.parquet")
    write_parquet(make_bars(70), tmp_path / "BTCUSDT" / "15m.parquet")
    bars = _load(tmp_path)
    assert len(bars) == 70
    assert "resampled" not in bars.origin


def test_only_longer_bars_say_what_there_is(tmp_path: Path) -> None:
    for timeframe in (Timeframe.H4, Timeframe.H1):
        write_parquet(
            make_bars(6, timeframe=timeframe), tmp_path / "BTCUSDT" / f"{timeframe}.parquet"
        )
    with pytest.raises(BarsNotFoundError, match=r"has only 1h, 4h, none that makes up 15m; use tf"):
        _load(tmp_path)


def test_a_renamed_market_is_found_under_its_old_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_parquet(make_bars(100), tmp_path / "MATICUSDT" / "15m.parquet")
    _write_freqtrade(make_bars(100), tmp_path / "FTM_USDT-15m.feather")
    with caplog.at_level(logging.INFO):
        bars = _load(tmp_path, "POLUSDT")
    assert bars.symbol == "POLUSDT"
    assert bars.origin.endswith("MATICUSDT/15m.parquet under their old name MATICUSDT")
    assert caplog.messages == ["POLUSDT: bars found under their old name MATICUSDT"]
    assert _load(tmp_path, "SUSDT").origin.endswith(" under their old name FTMUSDT")


def test_todays_name_comes_before_the_old_one(tmp_path: Path) -> None:
    write_parquet(make_bars(100), tmp_path / "MATICUSDT" / "15m.parquet")
    write_parquet(make_bars(70), tmp_path / "POLUSDT" / "15m.parquet")
    assert len(_load(tmp_path, "POLUSDT")) == 70


def test_a_market_or_folder_that_is_not_there_says_so(tmp_path: Path) -> None:
    write_parquet(make_bars(5), tmp_path / "BTCUSDT" / "15m.parquet")
    with pytest.raises(
        BarsNotFoundError, match=r"holds POLUSDT or MATICUSDT, there is .*BTCUSDT/15m"
    ):
        _load(tmp_path, "POLUSDT")
    with pytest.raises(BarsNotFoundError, match=r"source\.path=.*nowhere does not exist"):
        _load(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="is not a market"):
        _load(tmp_path, "../BTCUSDT")


def test_a_single_file_is_read_for_its_own_market_only(tmp_path: Path) -> None:
    path = write_parquet(make_bars(50), tmp_path / "BTCUSDT" / "15m.parquet")
    assert _load(path).origin == "files: BTCUSDT/15m.parquet"
    assert len(_load(path, timeframe=Timeframe.H1)) == 12
    with pytest.raises(BarsNotFoundError, match=r"is of BTCUSDT 15m; give another"):
        _load(path, "ETHUSDT")


def test_a_single_file_of_any_name_is_spaced_by_its_timeframe(tmp_path: Path) -> None:
    path = _write_binance(drop_bars(make_bars(50), [7, 8]), tmp_path / "export.csv")
    assert len(_load(path)) == 48
    assert len(_load(path, "ETHUSDT", Timeframe.H1)) == 10
    with pytest.raises(BarsNotFoundError, match="has only 15m, none that makes up 5m; use tf=15m"):
        _load(path, timeframe=Timeframe.M5)


def test_a_single_file_without_a_clear_timeframe_is_refused(tmp_path: Path) -> None:
    path = _write_binance(make_bars(1), tmp_path / "export.csv")
    with pytest.raises(InvalidBarsError, match=r"not spaced by a known length.*BTCUSDT-<tf>"):
        _load(path)


def test_a_single_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bars.xlsx"
    path.write_bytes(b"")
    with pytest.raises(ConfigError, match=r"is not one of \.parquet, \.feather, \.csv"):
        _load(path)


def test_a_bar_that_is_still_open_is_left_out_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    now = pd.Timestamp(datetime.now(UTC)).floor("1D")
    bars = make_bars(5, timeframe=Timeframe.D1, start=now - pd.Timedelta(days=4))
    write_parquet(bars, tmp_path / "BTCUSDT" / "1d.parquet")
    _assert_same(_load(tmp_path, timeframe=Timeframe.D1), bars.slice(0, 4))
    assert "bars that have not closed yet are left out: 1 of 5 (files:" in caplog.text
    write_parquet(bars.slice(4), tmp_path / "BTCUSDT" / "1d.parquet")
    with pytest.raises(InvalidBarsError, match="has closed yet"):
        _load(tmp_path, timeframe=Timeframe.D1)


def test_many_bars_ahead_of_the_clock_are_an_error(tmp_path: Path) -> None:
    """The clock is a day behind: an answer on yesterday's newest bar would count as live."""
    now = pd.Timestamp(datetime.now(UTC)).floor("15min")
    step = pd.Timedelta(minutes=15)
    for n_running in (2, 3, 96):
        start = now - (100 - n_running) * step
        write_parquet(make_bars(100, start=start), tmp_path / "BTCUSDT" / "15m.parquet")
        if n_running == 2:
            assert len(_load(tmp_path)) == 98
            continue
        with pytest.raises(
            InvalidBarsError, match=r"BTCUSDT 15m: \d+ bars had not closed"
        ) as caught:
            _load(tmp_path)
        assert f"{n_running} bars" in caught.value.found
        assert "set this machine's clock" in caught.value.action


def test_bars_ahead_of_the_clock_are_counted_in_the_length_that_was_asked_for(
    tmp_path: Path,
) -> None:
    now = pd.Timestamp(datetime.now(UTC)).floor("15min")
    bars = make_bars(400, timeframe=Timeframe.M15, start=now - pd.Timedelta(minutes=15 * 397))
    write_parquet(bars, tmp_path / "BTCUSDT" / "15m.parquet")
    assert len(_load(tmp_path, timeframe=Timeframe.H1)) >= 98
    with pytest.raises(InvalidBarsError):
        _load(tmp_path)


def _written_at(path: Path, moment: pd.Timestamp) -> Path:
    os.utime(path, (moment.timestamp(), moment.timestamp()))
    return path


def test_a_file_that_was_written_while_its_last_bar_ran_ends_on_the_bar_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The file still shows the running bar's values after that bar has closed."""
    bars = make_bars(20)
    path = write_parquet(bars, tmp_path / "BTCUSDT" / "15m.parquet")
    _written_at(path, bars.close_time(-2) + pd.Timedelta(seconds=30))
    _assert_same(_load(tmp_path), bars.slice(0, 19))
    opened = bars.frame.index[-1]
    told = f"the bar that opened {opened:%Y-%m-%d %H:%M} UTC had not closed when its file was"
    assert told in caplog.text
    # A clock that lags a little stamps the file with a time in the bar before.
    _written_at(path, bars.close_time(-2) - pd.Timedelta(seconds=30))
    assert len(_load(tmp_path)) == 19
    _written_at(path, bars.close_time() - pd.Timedelta(seconds=1))
    _assert_same(_load(tmp_path), bars)
    _written_at(path, bars.close_time())
    _assert_same(_load(tmp_path), bars)


def test_a_file_with_the_time_of_a_copy_loses_no_bar(tmp_path: Path) -> None:
    bars = make_bars(20)
    path = write_parquet(bars, tmp_path / "BTCUSDT" / "15m.parquet")
    for moment in (bars.close_time(10), bars.frame.index[0] - pd.Timedelta(days=900)):
        _written_at(path, moment)
        _assert_same(_load(tmp_path), bars)


def test_of_several_files_the_one_with_the_newest_bar_tells_when_it_was_written(
    tmp_path: Path,
) -> None:
    bars = make_bars(200)
    names = ("BTCUSDT-15m-2024-01-01.csv", "BTCUSDT-15m-2024-01-02.csv")
    for name, part in zip(names, (bars.slice(0, 96), bars.slice(96)), strict=True):
        _written_at(_write_binance(part, tmp_path / name), part.close_time(-2))
    assert len(_load(tmp_path)) == 199


def test_a_file_of_one_bar_that_was_still_running_is_refused(tmp_path: Path) -> None:
    bars = make_bars(1)
    path = write_parquet(bars, tmp_path / "BTCUSDT" / "15m.parquet")
    _written_at(path, bars.frame.index[0])
    with pytest.raises(InvalidBarsError, match="had not closed when its file was written"):
        _load(tmp_path)


def test_other_columns_are_left_out(tmp_path: Path) -> None:
    bars = make_bars(20)
    _write_binance(bars, tmp_path / "BTCUSDT-15m.csv", header=True)
    assert tuple(_load(tmp_path).frame.columns) == COLUMNS
