"""One file of the archive: which of its lines are bars."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pandas as pd
import pytest

from percoin.bars.sources.binance.klines import KlineReader
from percoin.errors import InvalidBarsError
from percoin.types import Timeframe

START, END = 1_735_689_600_000, 1_738_368_000_000
HEADER = (
    "open_time,open,high,low,close,volume,close_time,quote_volume,count,"
    "taker_buy_volume,taker_buy_quote_volume,ignore\n"
)


def _rows(before: str = "", after: str = "") -> str:
    row = "{},1,1,1,1,1,0,0,0,0,0,0\n".format
    return row(f"{before}{START}{after}") + row(START + 900_000)


def _read(folder: Path, content: str) -> pd.DataFrame:
    path = folder / "BTCUSDT-15m-2025-01.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("BTCUSDT-15m-2025-01.csv", content)
    return KlineReader("BTCUSDT", Timeframe.M15, "try again").read_zip(path, START, END)


@pytest.mark.parametrize(
    "content",
    [
        *(_rows(), "\ufeff" + _rows(), _rows('"', '"'), _rows(" "), "\n" + _rows()),
        *(HEADER + _rows(), "\ufeff" + HEADER + _rows(), "\r\n" + HEADER + _rows()),
        HEADER.title().replace("_", " ") + _rows(),
    ],
)
def test_a_header_is_what_has_names_and_no_first_bar_is_lost(tmp_path: Path, content: str) -> None:
    assert len(_read(tmp_path, content)) == 2


@pytest.mark.parametrize("content", [_rows("-"), _rows("+"), "Zeit,Auf\n" + _rows(), "x" + _rows()])
def test_a_first_line_that_is_neither_names_nor_a_bar_is_refused(
    tmp_path: Path, content: str
) -> None:
    with pytest.raises(InvalidBarsError):
        _read(tmp_path, content)
