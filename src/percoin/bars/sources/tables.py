"""Tables of bars as other programs write them: Parquet, CSV and Feather."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from percoin.bars.schema import COLUMNS
from percoin.errors import ConfigError
from percoin.types import IntArray

_TIME_COLUMNS = ("open_time", "date", "timestamp", "datetime", "time")
_BINANCE_COLUMNS = (
    "open_time",
    *COLUMNS,
    "close_time",
    "quote_volume",
    "trades",
    "taker_buy_base",
    "taker_buy_quote",
    "ignore",
)


def read_table(path: Path) -> pd.DataFrame:
    """The rows of one file, unchecked, with their times in the column ``open_time``.

    Column names are matched in lower case. The time column may also be called
    date, timestamp, datetime or time, or be the index. Whole numbers in it are
    milliseconds or microseconds since 1970, told apart by their size; times
    without a zone are UTC.

    Raises:
        ConfigError: Not a file of a known kind.
        ValueError, OSError, pyarrow.ArrowException: It cannot be read, or has
            no usable time column.
    """
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"source.path={path} is not one of {', '.join(SUFFIXES)}")
    return _with_open_time(_READERS[path.suffix](path))


def _read_csv(path: Path) -> pd.DataFrame:
    """A CSV file with a header line, or Binance's twelve columns without one."""
    with path.open(encoding="utf-8") as file:
        first = file.readline().strip().split(",")
    if not first[0].strip().isdigit():
        return pd.read_csv(path)
    if len(first) != len(_BINANCE_COLUMNS):
        raise ValueError(
            f"no header line, and {len(first)} columns where Binance has {len(_BINANCE_COLUMNS)}"
        )
    return pd.read_csv(path, header=None, names=list(_BINANCE_COLUMNS))


def _with_open_time(table: pd.DataFrame) -> pd.DataFrame:
    """The table with ``open_time`` as a column of times, whatever it was called."""
    if isinstance(table.index, pd.DatetimeIndex):
        table = table.reset_index(names="open_time")
    table = table.rename(columns=lambda name: str(name).strip().lower().replace(" ", "_"))
    name = next((name for name in _TIME_COLUMNS if name in table.columns), None)
    if name is None:
        raise ValueError(f"no time column, looked for {', '.join(_TIME_COLUMNS)}")
    return table.drop(columns=name).assign(open_time=_to_times(table[name]))


def _to_times(values: pd.Series) -> pd.Series | pd.DatetimeIndex:
    """Numbers since 1970, texts or times as times; without a zone they are UTC."""
    if pd.api.types.is_integer_dtype(values.dtype):
        return from_epoch(values.to_numpy(dtype=np.int64))
    if pd.api.types.is_numeric_dtype(values.dtype):
        raise ValueError(f"column {values.name} is {values.dtype}, neither times nor whole numbers")
    if pd.api.types.is_datetime64_any_dtype(values.dtype):
        return values
    return pd.to_datetime(values, utc=True, format="ISO8601")


def from_epoch(numbers: IntArray) -> pd.DatetimeIndex:
    """Milliseconds or microseconds since 1970 as times, told apart by their size.

    Binance's spot files count microseconds from 2025-01-01 on and milliseconds
    before. Both read as a date from 2001 to 2286 in one way only; a number that
    does in neither is refused.
    """
    is_ms = (numbers >= 10**12) & (numbers < 10**13)
    is_us = (numbers >= 10**15) & (numbers < 10**16)
    unknown = numbers[~(is_ms | is_us)]
    if len(unknown):
        raise ValueError(f"open time {unknown[0]} is neither in milliseconds nor microseconds")
    microseconds = np.where(is_ms, numbers * 1000, numbers)
    return pd.DatetimeIndex(microseconds.astype("datetime64[us]")).tz_localize("UTC")


_READERS: dict[str, Callable[[Path], pd.DataFrame]] = {
    ".parquet": pd.read_parquet,
    ".csv": _read_csv,
    ".feather": pd.read_feather,
}
SUFFIXES = tuple(_READERS)
