"""The forms in which people have files of bars: each is read as the same bars, or refused."""

from __future__ import annotations

import gzip
import json
import logging
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders import make_bars, make_index

from percoin.bars.schema import COLUMNS, Bars
from percoin.bars.sources.files import FilesSource
from percoin.errors import InvalidBarsError
from percoin.types import Timeframe

M15 = Timeframe.M15
BARS = make_bars(60)
MS = BARS.open_time
NAMES = ("open_time", *COLUMNS)
_UTC = BARS.frame.index.strftime("%Y-%m-%d %H:%M:%S")


def _table(times: object = MS, time_name: str = "timestamp") -> pd.DataFrame:
    """The bars with their times in the first column, written as they are given."""
    frame = BARS.frame.reset_index(drop=True)
    frame.insert(0, time_name, np.asarray(times))
    return frame


def _csv(table: pd.DataFrame, **options: object) -> str:
    text: str = table.to_csv(index=False, **options)
    return text


def _twelve(first: str = "") -> str:
    """Binance's twelve columns without a header, each line begun with ``first``."""
    table = _table().assign(a=MS + 899_999, b=1.5, c=7, d=0.5, e=0.25, f=0)
    return "".join(f"{first}{line}\n" for line in _csv(table, header=False).splitlines())


def _load(path: Path, symbol: str = "BTCUSDT", timeframe: Timeframe = M15) -> Bars:
    return FilesSource(path).load(symbol, timeframe)


def _read(tmp_path: Path, content: str | bytes, name: str = "export.csv") -> Bars:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return _load(path)


def _refusal(tmp_path: Path, content: str | bytes, name: str = "export.csv") -> InvalidBarsError:
    with pytest.raises(InvalidBarsError) as caught:
        _read(tmp_path, content, name)
    assert "\n" not in str(caught.value)
    assert str(tmp_path / name) in caught.value.found
    return caught.value


def _assert_bars(found: Bars, expected: pd.DataFrame = BARS.frame) -> None:
    pd.testing.assert_frame_equal(found.frame, expected, rtol=1e-12)


TIMES = {
    "seconds": MS // 1000,
    "milliseconds": MS,
    "microseconds": MS * 1000,
    "nanoseconds": MS * 10**6,
    "float seconds": (MS // 1000).astype(float),
    "float milliseconds": MS.astype(float),
    "float nanoseconds": (MS * 10**6).astype(float),
    "texts": _UTC,
    "texts with T and Z": BARS.frame.index.strftime("%Y-%m-%dT%H:%M:%SZ"),
    "texts that say UTC": _UTC + " UTC",
    "texts with slashes": BARS.frame.index.strftime("%Y/%m/%d %H:%M"),
    "texts with dots": BARS.frame.index.strftime("%Y.%m.%d %H:%M"),
    "digits of date and minute": BARS.frame.index.strftime("%Y%m%d%H%M"),
    "digits of date and second": BARS.frame.index.strftime("%Y%m%d%H%M%S"),
    "an offset": BARS.frame.index.tz_convert("Asia/Kolkata").strftime("%Y-%m-%d %H:%M:%S%z"),
}


@pytest.mark.parametrize("form", TIMES)
@pytest.mark.parametrize("kind", [".csv", ".parquet", ".json"])
def test_times_are_told_by_their_digits_or_their_text(tmp_path: Path, form: str, kind: str) -> None:
    path = tmp_path / f"export{kind}"
    table = _table(TIMES[form])
    if kind == ".csv":
        table.to_csv(path, index=False)
    elif kind == ".parquet":
        table.to_parquet(path)
    else:
        path.write_text(json.dumps(table.to_dict("records")))
    _assert_bars(_load(path))


def test_days_as_eight_digits(tmp_path: Path) -> None:
    bars = make_bars(60, timeframe=Timeframe.D1)
    table = bars.frame.set_axis(bars.frame.index.strftime("%Y%m%d").astype(int)).rename_axis("day")
    table.to_csv(tmp_path / "export.csv")
    pd.testing.assert_frame_equal(
        _load(tmp_path / "export.csv", timeframe=Timeframe.D1).frame, bars.frame
    )


def test_floats_in_the_notation_of_numpy(tmp_path: Path) -> None:
    np.savetxt(
        tmp_path / "export.csv",
        _table().to_numpy(),
        delimiter=",",
        header="timestamp,open,high,low,close,volume",
    )
    _assert_bars(_load(tmp_path / "export.csv"))


@pytest.mark.parametrize(
    "name",
    [
        *("time", "Date", "DateTime", "timestamp", "unix", "Unix Timestamp", "ts", "t", "<TIME>"),
        *("open_time_ms", "openTime", "Open Time (UTC)", "startAt", "gmt time", "timestamp_ms", ""),
    ],
)
def test_the_time_column_goes_by_many_names(tmp_path: Path, name: str) -> None:
    _assert_bars(_read(tmp_path, _csv(_table(time_name=name))))


def _metatrader() -> str:
    day, clock = BARS.frame.index.strftime("%Y.%m.%d"), BARS.frame.index.strftime("%H:%M:%S")
    table = _table(day, "<DATE>")
    table.insert(1, "<TIME>", clock)
    return _csv(table.rename(columns=lambda name: f"<{name.strip('<>').upper()}>"), sep="\t")


def _cryptodatadownload() -> str:
    table = _table(time_name="unix").rename(columns={"volume": "Volume BTC"})
    table.insert(1, "date", _UTC)
    table.insert(2, "symbol", "BTC/USDT")
    table = table.assign(**{"Volume USDT": 1e9}).iloc[::-1]
    return "https://www.example.com\n" + _csv(table)


def _yfinance() -> str:
    table = _table(_UTC, "Price").rename(columns=str.capitalize)
    ticker, index = "Ticker" + ",BTCUSDT" * 5, "Date" + "," * 5
    header, *rows = _csv(table).splitlines()
    return "\n".join([header, ticker, index, *rows])


TEXTS: dict[str, Callable[[], str | bytes]] = {
    "a mark of UTF-8 before the header": lambda: b"\xef\xbb\xbf" + _csv(_table()).encode(),
    "a mark of UTF-8 before the first row": lambda: b"\xef\xbb\xbf" + _twelve().encode(),
    "quotes": lambda: _csv(_table(), quoting=1),
    "quotes without a header": lambda: _csv(_table(), quoting=1, header=False),
    "blanks before the rows": lambda: _twelve(first=" "),
    "blanks after commas": lambda: _csv(_table()).replace(",", ", "),
    "tabs": lambda: _csv(_table(), sep="\t"),
    "semicolons": lambda: _csv(_table(), sep=";"),
    "semicolons and decimal commas": lambda: _csv(_table(), sep=";", decimal=","),
    "bars between columns": lambda: _csv(_table(), sep="|"),
    "row numbers": lambda: _table().to_csv(),
    "a title above the header": lambda: "# exported by a bot\n\n" + _csv(_table()),
    "a title above rows without a header": lambda: "exported by a bot\n" + _twelve(),
    "line ends of Windows and blank lines": lambda: _csv(_table()).replace("\n", "\r\n") + "\r\n",
    "line ends of an old Mac": lambda: _csv(_table()).replace("\n", "\r"),
    "a comma at each line's end": lambda: "".join(f"{row},\n" for row in _twelve().splitlines()),
    "newest first": lambda: _csv(_table().iloc[::-1]),
    "ccxt's six columns": lambda: _csv(_table(), header=False),
    "Kraken's seven columns": lambda: _csv(_table(MS // 1000).assign(n=9), header=False),
    "Binance's twelve columns": _twelve,
    "Binance's twelve with row numbers": lambda: "".join(
        f"{number},{row}\n" for number, row in enumerate(_twelve().splitlines())
    ),
    "ccxt's six with row numbers from one": lambda: _csv(
        _table().set_index(np.arange(1, 61)).reset_index(), header=False
    ),
    "numbers as a header": lambda: _table().set_axis(range(6), axis=1).to_csv(),
    "MetaTrader": _metatrader,
    "CryptoDataDownload": _cryptodatadownload,
    "three header lines of yfinance": _yfinance,
    "another order of columns": lambda: _csv(
        _table()[["volume", "close", "low", "high", "open", "timestamp"]]
    ),
    "one letter each": lambda: _csv(_table().set_axis(list("tohlcv"), axis=1)),
}


@pytest.mark.parametrize("form", TEXTS)
def test_texts_that_people_have(tmp_path: Path, form: str) -> None:
    _assert_bars(_read(tmp_path, TEXTS[form]()))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (_csv(_table(BARS.frame.index.strftime("%d/%m/%Y %H:%M"))), "'01/01/2024 00:00' of line 2"),
        (_csv(_table(BARS.frame.index.strftime("%d.%m.%Y %H:%M"))), "'01.01.2024 00:00' of line 2"),
        (_csv(_table(BARS.frame.index.strftime("%Y-%m-%d %I-%p"))), "'2024-01-01 12-AM' of line 2"),
        (_csv(_table().assign(open="105,607.60")), "('105,607.60' in line 2)"),
        (_csv(_table()) + _csv(_table()), "the header line is there again in line 62"),
        (_twelve() + _csv(_table()), "the header line is there again in line 61"),
        (_csv(_table().assign(open="105,607"), sep=";"), "may mean thousands or decimals"),
        (_csv(_table()) + "1704121200000,1,1\n", "line 62, is cut off: no low, close, volume"),
        (_csv(_table()) + "1704121200000,1,1,1,1,1,1\n", "line 62 has 7 columns"),
        (_csv(_table().assign(timestamp=_table()["timestamp"].where(MS[9] != MS))), "of line 11"),
        (_csv(_table()[["timestamp", "open", "close", "high", "low", "volume"]], header=False), ""),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:4d\n", "a pointer of Git LFS"),
        ("\n<!DOCTYPE html><html></html>", "a page of HTML"),
        (b"PK\x03\x04abc", "an Excel workbook"),
        (_csv(_table()).encode("utf-16"), "UTF-16"),
        (_csv(_table()).encode() + b"\xff\xff,1,1,1,1,1\n", "not UTF-8"),
        (_csv(_table()).encode() + b"\0\0\0\n", "no text"),
        (gzip.compress(b"timestamp", mtime=0), "packed with gzip"),
        ("Zeit,Auf\n1704067200000,1\n", "the columns are Zeit, Auf"),
        ("Zeit,Auf,Ab\n# in UTC\n" + _twelve(), "its header names 3 columns and its rows have 12"),
        (_twelve()[:900] + "\n" + _csv(_table()), "the header line is there again in line 8"),
    ],
)
def test_texts_that_could_mean_two_things_are_refused_by_name(
    tmp_path: Path, text: str | bytes, found: str
) -> None:
    assert found in _refusal(tmp_path, text).found


def test_six_columns_in_another_order_are_told_by_their_prices(tmp_path: Path) -> None:
    table = _table()[["timestamp", "open", "close", "high", "low", "volume"]]
    error = _refusal(tmp_path, _csv(table, header=False))
    assert "no header line" in error.found
    assert "add a header line such as timestamp,open,close,high,low,volume" in error.action


def test_json_of_ccxt_and_freqtrade(tmp_path: Path) -> None:
    rows = json.dumps(_table().to_numpy().tolist())
    _assert_bars(_read(tmp_path, rows, "ohlcv.json"))
    _assert_bars(_read(tmp_path, _table().to_json(), "columns.json"))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "BTC_USDT-15m.json.gz").write_bytes(gzip.compress(rows.encode()))
    _assert_bars(_load(tmp_path / "data"))


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"retCode": 0, "result": {"list": []}}', "one JSON object with retCode"),
        ("[[1, 2], [1]]", "row 2 has 1 values, row 1 has 2"),
        ("[1, [2]]", "neither a list of rows nor one of objects"),
        ("[]", "without a row"),
        ('"\\ud800"', "without a row"),
        ('[{"time": "\\ud800", "open": 1}]', ".json"),
        ("[[" + "9" * 5000 + ", 1, 1, 1, 1, 1]]", "cannot be read"),
        ("[[1704067200000, " + "9" * 400 + ", 1, 1, 1, 1]]", ".json"),
        ("[[1704067200000, 1, 1, 1, 1, true]]", "volume is bool, not numbers"),
        ("[[1704067200000, 1, 1, 1, 1, [1]]]", "other than numbers"),
        ("[[NaN, 1, 1, 1, 1, 1]]", "the time of row 1 is missing"),
    ],
)
def test_json_that_is_no_bars_is_one_clear_error(tmp_path: Path, content: str, found: str) -> None:
    assert found in _refusal(tmp_path, content, "BTCUSDT-15m.json").found


def test_packed_files_are_read(tmp_path: Path) -> None:
    _assert_bars(_read(tmp_path, gzip.compress(_twelve().encode()), "BTCUSDT-15m.csv.gz"))
    path = tmp_path / "BTCUSDT-15m.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("__MACOSX/._BTCUSDT-15m.csv", "x")
        archive.writestr("BTCUSDT-15m.csv", _twelve())
    _assert_bars(_load(path))


def test_a_zip_of_several_tables_names_them(tmp_path: Path) -> None:
    path = tmp_path / "export.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("one.csv", "")
        archive.writestr("two.csv", "")
    with pytest.raises(InvalidBarsError, match=r"holds 2 of them \(one\.csv, two\.csv\); unpack"):
        _load(path)


@pytest.mark.parametrize("kind", [".csv.gz", ".zip"])
def test_a_bomb_is_not_unpacked(tmp_path: Path, kind: str) -> None:
    path, zeros = tmp_path / f"export{kind}", b"0" * 70 * 1024**2
    if kind == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            archive.writestr("export.csv", zeros)
    else:
        path.write_bytes(gzip.compress(zeros, 1, mtime=0))
    with pytest.raises(InvalidBarsError, match="unpack to more than 64 MB"):
        _load(path)


@pytest.mark.parametrize("kind", [".csv", ".json", ".csv.gz", ".zip", ".parquet", ".feather"])
def test_a_huge_file_is_refused_before_it_is_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"export{kind}"
    with path.open("wb") as file:
        file.write(b"x")
        file.truncate(50 * 1024**3)
    with pytest.raises(InvalidBarsError, match=r"larger than 2 GB|is no "):
        _load(path)


def test_huge_lines_are_refused(tmp_path: Path) -> None:
    assert "line 1 is" in _refusal(tmp_path, "a," * 100_000).found
    assert "line 2 is" in _refusal(tmp_path, ",".join(NAMES) + "\n" + "1," * 100_000).found
    assert "1,500 columns" in _refusal(tmp_path, "17040672," * 1499 + "1\n").found


def _arrow(**columns: pa.Array) -> pa.Table:
    table = pa.Table.from_pandas(BARS.frame.reset_index())
    for name, values in columns.items():
        table = table.set_column(table.column_names.index(name), name, values)
    return table


@pytest.mark.parametrize(
    ("table", "found"),
    [
        (_arrow(open_time=pa.array([3] * 60, pa.duration("s"))), "is timedelta64[s], neither"),
        (_arrow(open_time=pa.array([True] * 60)), "open_time is bool, neither"),
        (_arrow(open_time=pa.array([2**64 - 1] * 60, pa.uint64())), "holds 18446744073709551615"),
        (_arrow(open_time=pa.array([2**60] * 60, pa.timestamp("ms"))), "years 1970 to 9999"),
        (_arrow(open_time=pa.array([np.inf] * 60)), "is inf in row 1"),
        (_arrow(open_time=pa.array([b"\xff"] * 60)), "export.parquet"),
        (_arrow(volume=pa.array([True] * 60)), "volume is bool, not numbers"),
        (_arrow(volume=pa.array([1] * 60, pa.timestamp("ms"))), "volume is datetime64[ms], not"),
        (_arrow(volume=pa.array([1] * 60, pa.duration("ms"))), "volume is timedelta64[ms], not"),
        (_arrow(volume=pa.array([[1.0]] * 60)), "other than numbers ('[1.]' in row 1)"),
        (_arrow(volume=pa.array(["1_0"] * 60)), "other than numbers ('1_0' in row 1)"),
        (_arrow(volume=pa.nulls(60)), "volume NaN or infinite in 60 bars"),
        (_arrow().append_column("Open", pa.array([1.0] * 60)), "open is there 2 times (open and"),
        (
            _arrow().append_column("Open_Time", _arrow()["open_time"]),
            "open_time is there 2 times (open_time and Open_Time)",
        ),
        (_arrow().slice(0, 0), "no bars, the table is empty"),
        (pa.table({}), "it has no columns"),
    ],
)
def test_odd_columns_of_parquet_are_refused_by_name(
    tmp_path: Path, table: pa.Table, found: str
) -> None:
    path = tmp_path / "export.parquet"
    pq.write_table(table, path)
    with pytest.raises(InvalidBarsError) as caught:
        _load(path)
    assert found in caught.value.found


@pytest.mark.parametrize(
    "note",
    [
        *(b"{", b"null", b"\xff\xfe", b'{"index_columns": 5}'),
        b'{"index_columns": ["nope"], "columns": [{"name": null}], "column_indexes": []}',
        b'{"index_columns": [{"kind": "range", "step": 0}], "columns": [], "column_indexes": []}',
    ],
)
def test_what_pandas_noted_in_a_file_is_not_needed(tmp_path: Path, note: bytes) -> None:
    pq.write_table(_arrow().replace_schema_metadata({"pandas": note}), tmp_path / "export.parquet")
    _assert_bars(_load(tmp_path / "export.parquet"))


def test_folders_named_as_partitions_give_no_columns(tmp_path: Path) -> None:
    folder = tmp_path / "symbol=ETHUSDT" / "tf=1h"
    folder.mkdir(parents=True)
    BARS.frame.reset_index().to_parquet(folder / "bars.parquet")
    _assert_bars(_load(folder / "bars.parquet"))


def _is_refused(path: Path) -> bool:
    """Whether a file is refused in one line; a flipped digit may as well be another bar."""
    try:
        _load(path)
    except InvalidBarsError:
        return True
    return False


@pytest.mark.parametrize("kind", [".parquet", ".feather", ".csv", ".json", ".csv.gz", ".zip"])
def test_flipped_bytes_never_end_in_a_traceback(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"export{kind}"
    if kind == ".parquet":
        BARS.frame.to_parquet(path)
    elif kind == ".feather":
        BARS.frame.reset_index().to_feather(path)
    elif kind == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("export.csv", _twelve())
    else:
        text = json.dumps(_table().to_numpy().tolist()) if kind == ".json" else _twelve()
        path.write_bytes(gzip.compress(text.encode()) if kind == ".csv.gz" else text.encode())
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    n_refused = 0
    for _ in range(40):
        content = bytearray(whole)
        # Headers and footers are where most depends on each byte.
        edge = int(rng.integers(0, min(400, len(content))))
        for position in (edge, -edge - 1, int(rng.integers(len(content)))):
            content[position] = int(rng.integers(256))
        path.write_bytes(content)
        n_refused += _is_refused(path)
    assert n_refused > 5


def test_several_time_columns_give_the_one_that_tells_the_bars_apart(tmp_path: Path) -> None:
    table = _table().assign(date=BARS.frame.index.strftime("%Y-%m-%d"))
    _assert_bars(_read(tmp_path, _csv(table)))


def test_numbers_since_1970_come_before_texts_without_a_zone(tmp_path: Path) -> None:
    local = BARS.frame.index.tz_convert("Asia/Tokyo").strftime("%Y-%m-%d %H:%M:%S")
    table = _table(local, "datetime").assign(timestamp=MS)
    _assert_bars(_read(tmp_path, _csv(table)))


def test_a_day_and_a_clock_beside_numbers_give_the_numbers(tmp_path: Path) -> None:
    local = BARS.frame.index.tz_convert("Asia/Tokyo")
    table = _table(local.strftime("%Y-%m-%d"), "date").assign(timestamp=MS)
    table.insert(1, "time", local.strftime("%H:%M"))
    _assert_bars(_read(tmp_path, _csv(table)))


def test_two_texts_that_say_different_times_are_refused_by_name(tmp_path: Path) -> None:
    local = BARS.frame.index.tz_convert("Asia/Tokyo").strftime("%Y-%m-%d %H:%M:%S")
    error = _refusal(tmp_path, _csv(_table(_UTC, "date").assign(datetime=local)))
    assert "columns date and datetime say different times" in error.found


def test_close_times_alone_say_how_to_get_open_times(tmp_path: Path) -> None:
    error = _refusal(tmp_path, _csv(_table(MS + 899_999, "close_time")))
    assert "no time column but close_time" in error.found
    assert error.action == "write open_time = close_time - 15m + 1 ms"


def test_a_volume_named_for_the_coin_comes_before_money(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = _table().rename(columns={"volume": "volume_btc"}).assign(volume=1e9)
    _assert_bars(_read(tmp_path, _csv(table)))
    assert caplog.messages == [
        "BTCUSDT 15m: export.csv: column volume_btc is taken as the volume, "
        "volume beside it for money and left out"
    ]


def test_volume_in_money_alone_is_no_volume(tmp_path: Path) -> None:
    table = _table().rename(columns={"volume": "Volume USDT"})
    error = _refusal(tmp_path, _csv(table))
    assert "no column volume, the columns are timestamp, open" in error.found
    assert "Volume USDT" in error.found


def test_reading_says_nothing_where_there_is_nothing_to_say(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        _read(tmp_path, _cryptodatadownload())
    assert caplog.messages == []


def test_three_minutes_make_fifteen(tmp_path: Path) -> None:
    n_bars = 300
    rows = {name: np.full(n_bars, 10.0) for name in COLUMNS}
    start = BARS.open_time[0]
    frame = pd.DataFrame({"open_time": start + np.arange(n_bars) * 180_000} | rows)
    frame.to_csv(tmp_path / "BTCUSDT-3m.csv", index=False)
    bars = _load(tmp_path)
    assert bars.frame.index.equals(make_index(60, M15))
    assert (bars.column("volume") == 50).all()
    assert bars.origin.endswith("BTCUSDT-3m.csv, resampled from 3m")
