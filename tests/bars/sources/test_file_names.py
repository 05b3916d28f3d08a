"""Which files of a folder are a market's, and which of several bars are meant."""

from __future__ import annotations

import logging
import os
import zipfile
from pathlib import Path

import pandas as pd
import pytest
from builders import make_bars

from percoin.bars.schema import Bars
from percoin.bars.sources.files import FilesSource
from percoin.bars.sources.files.names import length_named, market_file, market_named, same_coin
from percoin.errors import BarsNotFoundError, ConfigError, InvalidBarsError
from percoin.types import Timeframe

M5, M15, H1, D1 = Timeframe.M5, Timeframe.M15, Timeframe.H1, Timeframe.D1


def _load(path: Path, symbol: str = "BTCUSDT", timeframe: Timeframe = M15) -> Bars:
    return FilesSource(path).load(symbol, timeframe)


def _write(bars: Bars, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    bars.frame.to_csv(path)
    return path


def _write_zip(bars: Bars, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{path.stem}.csv", bars.frame.to_csv())
    path.with_name(f"{path.name}.CHECKSUM").write_text("0  x")
    return path


@pytest.mark.parametrize(
    "name",
    [
        *("BTCUSDT-15m.csv", "BTCUSDT_15m.csv", "btcusdt-15m.csv", "BTC-USDT-15m.csv"),
        *("BTC_USDT-15m.csv", "btc_usdt_15m.csv", "BTCUSDT 15m.csv", "BTCUSDT-15m.CSV"),
        *("BTCUSDT.csv", "BTC-USDT.csv", "BINANCE_BTCUSDT, 15.csv", "BTCUSDT_15.csv"),
        *("BTC_USDT_USDT-15m-futures.csv", "futures/BTC_USDT_USDT-15m-futures.csv"),
        *("BTCUSDT/15m.csv", "btcusdt/15m.csv", "BTC_USDT/15m.csv", "spot/BTCUSDT-15m.csv"),
        *("BTCUSDT/15m/BTCUSDT-15m.csv", "deep/below/BTCUSDT-15m.csv", "BTCUSDT-15m-spot.csv"),
    ],
)
def test_a_market_is_found_by_the_names_that_people_give(tmp_path: Path, name: str) -> None:
    bars = make_bars(40)
    _write(bars, tmp_path / "data" / name)
    _write(make_bars(30, seed=1), tmp_path / "data" / "ETHUSDT-15m.csv")
    found = _load(tmp_path / "data")
    pd.testing.assert_frame_equal(found.frame, bars.frame)
    assert found.origin == f"files: data/{name}"


@pytest.mark.parametrize(
    "name",
    [
        *("BTCUSDT-15m-old.csv", "BTCUSDT-15m (1).csv", "old_BTCUSDT-15m.csv", "BTCUSDT-1w.csv"),
        *("BTCUSDT-15m.xlsx", "BTCUSDT-1M.csv", "BTCUSDT_15m_365.csv", "BTCUSDT-trades.csv"),
    ],
)
def test_a_name_with_more_in_it_is_never_read_but_shown(tmp_path: Path, name: str) -> None:
    _write(make_bars(40), tmp_path / name)
    with pytest.raises(BarsNotFoundError) as caught:
        _load(tmp_path)
    assert f"{tmp_path.name}/{name}" in caught.value.found
    assert "source.path=<file>" in caught.value.action or ".parquet" in caught.value.action


def test_a_name_with_more_in_it_leaves_the_plain_one_alone(tmp_path: Path) -> None:
    _write(make_bars(40), tmp_path / "BTCUSDT-15m.csv")
    _write(make_bars(30), tmp_path / "BTCUSDT-15m-old.csv")
    assert len(_load(tmp_path)) == 40


@pytest.mark.parametrize(
    ("text", "length"),
    [
        *(("15m", "15m"), ("1H", "1h"), ("1D", "1d"), ("60", "1h"), ("240", "4h"), ("1s", "1s")),
        *(("1M", "None"), ("1w", "None"), ("m", "None"), ("2024", "None"), ("45m", "None")),
        ("0", "None"),
    ],
)
def test_lengths_go_by_the_exchange_or_their_minutes(text: str, length: str) -> None:
    assert str(length_named(text)) == length


def test_two_names_of_one_market_are_refused_by_name(tmp_path: Path) -> None:
    _write(make_bars(40), tmp_path / "BTCUSDT-15m.csv")
    _write(make_bars(40), tmp_path / "BTCUSDT_15m.csv")
    with pytest.raises(InvalidBarsError) as caught:
        _load(tmp_path)
    shown = f"{tmp_path.name}/BTCUSDT-15m.csv, {tmp_path.name}/BTCUSDT_15m.csv"
    assert caught.value.found == f"any of 2 files could be meant ({shown})"


def test_bars_of_another_length_and_an_older_time_never_take_the_place(tmp_path: Path) -> None:
    old = pd.Timestamp("2023-01-01", tz="UTC")
    _write(make_bars(300, timeframe=M5, start=old), tmp_path / "LINKUSDT" / "5m.csv")
    newer = make_bars(40, start=pd.Timestamp("2025-01-01", tz="UTC"))
    path = _write(newer, tmp_path / "LINKUSDT_15m.csv")
    pd.testing.assert_frame_equal(_load(tmp_path, "LINKUSDT").frame, newer.frame)
    path.rename(tmp_path / "LINKUSDT.csv")
    pd.testing.assert_frame_equal(_load(tmp_path, "LINKUSDT").frame, newer.frame)
    deeper = tmp_path / "more" / "LINKUSDT-15m.csv"
    deeper.parent.mkdir()
    (tmp_path / "LINKUSDT.csv").rename(deeper)
    pd.testing.assert_frame_equal(_load(tmp_path, "LINKUSDT").frame, newer.frame)


def test_of_several_finer_bars_the_newest_are_taken(tmp_path: Path) -> None:
    _write(make_bars(100, timeframe=Timeframe.M30), tmp_path / "BTCUSDT-30m.csv")
    newer = make_bars(300, timeframe=M5, start=pd.Timestamp("2025-01-01", tz="UTC"))
    path = _write(newer, tmp_path / "BTCUSDT-5m.csv")
    assert _load(tmp_path, timeframe=H1).origin.endswith("BTCUSDT-5m.csv, resampled from 5m")
    _write(make_bars(600, timeframe=M5), path)
    assert _load(tmp_path, timeframe=H1).origin.endswith("resampled from 30m")


def test_finer_bars_that_cannot_be_read_do_not_stop_the_coarser(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _write(make_bars(100, timeframe=Timeframe.M30), tmp_path / "BTCUSDT-30m.csv")
    (tmp_path / "BTCUSDT-5m.csv").write_text("nonsense")
    (tmp_path / "BTCUSDT.csv").write_text("nonsense")
    assert len(_load(tmp_path, timeframe=H1)) == 50
    assert [text.endswith("; it is left out") for text in caplog.messages] == [True, True]


@pytest.mark.parametrize(
    ("name", "step_ms", "timeframe"),
    [
        *(("1s", 1_000, Timeframe.M1), ("3m", 180_000, M15), ("10m", 600_000, H1)),
        *(("2h", 7_200_000, Timeframe.H4), ("6h", 21_600_000, D1), ("12h", 43_200_000, D1)),
        *(("3h", 10_800_000, D1), ("8h", 28_800_000, D1)),
    ],
)
@pytest.mark.parametrize("named", [True, False])
def test_other_lengths_are_made_longer(
    tmp_path: Path, name: str, step_ms: int, timeframe: Timeframe, named: bool
) -> None:
    per_bar = timeframe.milliseconds // step_ms
    frame = make_bars(3 * per_bar).frame.reset_index()
    frame["open_time"] = 1_704_067_200_000 + step_ms * frame.index
    frame.to_csv(tmp_path / (f"BTCUSDT-{name}.csv" if named else "BTCUSDT.csv"), index=False)
    bars = _load(tmp_path, timeframe=timeframe)
    assert len(bars) == 3
    assert bars.origin.endswith(f"resampled from {name}")
    volume = frame["volume"].to_numpy().reshape(3, per_bar).sum(axis=1)
    assert bars.column("volume") == pytest.approx(volume)


def test_longer_bars_alone_say_which_timeframe_they_make(tmp_path: Path) -> None:
    frame = make_bars(10).frame.reset_index()
    frame["open_time"] = 1_704_067_200_000 + 7_200_000 * frame.index
    frame.to_csv(tmp_path / "BTCUSDT-2h.csv", index=False)
    with pytest.raises(BarsNotFoundError, match="has only 2h, none that makes up 1h; use tf=4h"):
        _load(tmp_path, timeframe=H1)


@pytest.mark.parametrize("root", ["", "data", "data/spot", "data/spot/monthly/klines"])
def test_the_tree_of_the_archive_is_read_with_its_months_and_days(
    tmp_path: Path, root: str
) -> None:
    bars = make_bars(96 * 33)
    klines = "klines/BTCUSDT/15m/BTCUSDT-15m"
    monthly, daily = tmp_path / "data/spot/monthly", tmp_path / "data/spot/daily"
    _write_zip(bars.slice(0, 96 * 31), monthly / f"{klines}-2024-01.zip")
    _write_zip(bars.slice(96 * 30, 96 * 31), daily / f"{klines}-2024-01-31.zip")
    _write_zip(bars.slice(96 * 31, 96 * 32), daily / f"{klines}-2024-02-01.zip")
    _write_zip(bars.slice(96 * 32), daily / f"{klines}-2024-02-02.zip")
    _write_zip(make_bars(40, seed=1), monthly / "klines/ETHUSDT/15m/ETHUSDT-15m-2024-01.zip")
    n_bars = 96 * 31 if "monthly" in root else 96 * 33
    pd.testing.assert_frame_equal(_load(tmp_path / root).frame, bars.frame.iloc[:n_bars])


def test_mark_prices_of_the_archive_are_no_bars(tmp_path: Path) -> None:
    um = tmp_path / "data/futures/um/monthly"
    for table, seed in (("klines", 0), ("markPriceKlines", 1), ("indexPriceKlines", 2)):
        path = um / table / "BTCUSDT/15m/BTCUSDT-15m-2024-01.zip"
        _write_zip(make_bars(100, seed=seed), path)
    pd.testing.assert_frame_equal(_load(tmp_path).frame, make_bars(100).frame)


def test_months_of_spot_and_of_futures_are_never_joined(tmp_path: Path) -> None:
    bars, klines = make_bars(200), "monthly/klines/BTCUSDT/15m/BTCUSDT-15m"
    for month in range(4, 9):
        _write_zip(bars.slice(0, 10), tmp_path / f"spot/{klines}-2024-0{month}.zip")
    _write_zip(bars.slice(100), tmp_path / f"futures/um/{klines}-2024-02.zip")
    with pytest.raises(InvalidBarsError) as caught:
        _load(tmp_path)
    assert "spot/monthly" in caught.value.found
    assert "futures/um" in caught.value.found


def test_a_month_unpacked_beside_its_zip_is_read_once(tmp_path: Path) -> None:
    bars = make_bars(100)
    _write_zip(bars, tmp_path / "BTCUSDT-15m-2024-01.zip")
    _write(bars, tmp_path / "BTCUSDT-15m-2024-01.csv")
    pd.testing.assert_frame_equal(_load(tmp_path).frame, bars.frame)


@pytest.mark.parametrize(
    ("name", "market"),
    [
        *(
            ("BTCUSDT-15m.csv", "BTCUSDT"),
            ("btcusdt_15m.csv", "BTCUSDT"),
            ("BTC-USD.csv", "BTCUSD"),
        ),
        *(("Kraken_XBTUSD_60.csv", "XBTUSD"), ("export.csv", None), ("my_usdt_bars.csv", None)),
        *(("15minutes.csv", None), ("BTC.csv", None), ("", None), ("_.csv", None)),
    ],
)
def test_a_market_is_read_out_of_plain_names_only(name: str, market: str | None) -> None:
    assert market_named(Path("/bars") / name) == market


def test_a_single_file_of_the_same_coin_in_other_dollars_is_read_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = _write(make_bars(40), tmp_path / "XBTUSD_15.csv")
    assert len(_load(path)) == 40
    assert caplog.messages == ["BTCUSDT 15m: XBTUSD_15.csv: it is of XBTUSD, read as BTCUSDT"]
    with pytest.raises(BarsNotFoundError, match=r"is of XBTUSD 15m; give another"):
        _load(path, "ETHUSDT")
    assert same_coin("BTC/USD", "BTCUSDT")
    assert not same_coin("ETHUSD", "BTCUSDT")
    assert not same_coin("USDCUSDT", "USDTUSDC")


@pytest.mark.parametrize(
    ("name", "symbol"),
    [("BTCUSDT-15m-old.csv", "BTCUSDT"), ("ETHBTC-15m (1).csv", "ETHBTC"), ("x.csv", "ETHBTC")],
)
def test_a_single_file_may_have_more_in_its_name(
    tmp_path: Path, name: str, symbol: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert len(_load(_write(make_bars(40), tmp_path / name), symbol)) == 40
    assert caplog.messages == []


def test_what_a_folder_holds_is_said_where_the_market_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BarsNotFoundError, match="holds BTCUSDT, it holds no regular file"):
        _load(tmp_path)
    for name in ("ETHUSDT-15m.csv", "SOLUSDT/15m.csv", "a.txt", "notes.md"):
        _write(make_bars(3), tmp_path / name)
    with pytest.raises(BarsNotFoundError) as caught:
        _load(tmp_path)
    assert "holds BTCUSDT, there is " in caught.value.found
    assert "ETHUSDT-15m.csv" in caught.value.found
    assert caught.value.found.endswith(", ...")


def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "BTCUSDT-15m.csv")
    with pytest.raises(BarsNotFoundError, match="neither a folder nor a regular file"):
        _load(tmp_path / "BTCUSDT-15m.csv")
    with pytest.raises(BarsNotFoundError, match="holds no regular file"):
        _load(tmp_path)


def test_a_folder_that_holds_itself_is_walked_once(tmp_path: Path) -> None:
    (tmp_path / "again").symlink_to(tmp_path)
    _write(make_bars(40), tmp_path / "deep" / "BTCUSDT-15m.csv")
    assert len(_load(tmp_path)) == 40


def test_links_that_lead_nowhere_do_not_stop_the_market(tmp_path: Path) -> None:
    (tmp_path / "BTCUSDT-5m.csv").symlink_to(tmp_path / "BTCUSDT-5m.csv")
    (tmp_path / "gone.csv").symlink_to(tmp_path / "nowhere")
    (tmp_path / "link.csv").symlink_to(_write(make_bars(40), tmp_path / "deep" / "x.csv"))
    (tmp_path / "BTCUSDT-15m.csv").symlink_to(tmp_path / "link.csv")
    assert len(_load(tmp_path)) == 40
    with pytest.raises(BarsNotFoundError):
        _load(tmp_path, "ETHUSDT")


def test_a_folder_below_that_cannot_be_listed_is_left_out_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _write(make_bars(40), tmp_path / "deep" / "BTCUSDT-15m.csv")
    (tmp_path / "locked").mkdir()
    scandir = os.scandir

    def locked(folder: Path) -> object:
        if Path(folder).name == "locked":
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", locked)
    assert len(_load(tmp_path)) == 40
    assert caplog.messages == [f"{tmp_path / 'locked'} is left out: Permission denied"]
    with pytest.raises(InvalidBarsError, match=r"locked cannot be read \(Permission denied"):
        _load(tmp_path / "locked")


@pytest.mark.parametrize("path", ["~nosuchuser/x", "x" * 5000, "a\0b", "/dev/null"])
def test_paths_that_lead_nowhere_are_one_line(path: str) -> None:
    with pytest.raises((ConfigError, BarsNotFoundError, InvalidBarsError)) as caught:
        _load(Path(path))
    assert str(caught.value).isprintable()


def test_names_with_control_characters_are_printed_safely(tmp_path: Path) -> None:
    folder = tmp_path / "bad\x1b[31m\udcff"
    _write(make_bars(4), folder / "export.csv")
    assert _load(folder / "export.csv").origin.isprintable()
    with pytest.raises(BarsNotFoundError) as caught:
        _load(folder, "ETHUSDT")
    assert str(caught.value).isprintable()


def test_nothing_is_logged_for_a_plain_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = _write(make_bars(40), tmp_path / "BTCUSDT-15m.csv")
    with caplog.at_level(logging.INFO):
        _load(path)
    assert caplog.messages == []
    assert market_file(path, "BTCUSDT") is not None
