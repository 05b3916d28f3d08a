"""Parquet, Feather, CSV and JSON as one kind of table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.feather as feather  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from percoin.bars.sources.files.content import check_beginning, read_content
from percoin.bars.sources.files.errors import FileError
from percoin.bars.sources.files.names import suffix
from percoin.bars.sources.files.table import RawTable
from percoin.bars.sources.files.text import read_csv
from percoin.printable import printable

# Three years of 1s bars; a Parquet file of a few bytes can claim any number.
_MOST_ROWS = 100_000_000
_MOST_COLUMNS = 1_000
# Of both together: 5 GB as floats.
_MOST_CELLS = 600_000_000
_KEYS_SHOWN = 20


def read_raw(path: Path) -> RawTable:
    """One file of any known kind.

    Raises:
        FileError: It is something else than a table, or too large to be bars.
        OSError, ValueError, pyarrow.ArrowException: It cannot be read.
    """
    check_beginning(path)
    kind = suffix(path)
    if kind == ".parquet":
        return _from_arrow(_read_parquet(path))
    if kind == ".feather":
        return _from_arrow(feather.read_table(path, memory_map=False))
    content, inner = read_content(path)
    if inner == ".json":
        return _from_json(content)
    return read_csv(content)


def _read_parquet(path: Path) -> pa.Table:
    """A Parquet file by itself: folders called ``tf=15m`` above it give no columns."""
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        _check_size(file.metadata.num_rows, file.metadata.num_columns)
        return file.read()


def _from_arrow(table: pa.Table) -> RawTable:
    """A table of Arrow, without the notes of pandas on its index."""
    _check_size(table.num_rows, table.num_columns)
    names = tuple(table.column_names)
    numbered = table.rename_columns([str(position) for position in range(len(names))])
    frame = numbered.to_pandas(ignore_metadata=True, date_as_object=False)
    return RawTable(names, frame.set_axis(range(len(names)), axis=1), _row)


def _from_json(content: bytes) -> RawTable:
    """Rows of ccxt and freqtrade, a list of objects, or an object of columns."""
    try:
        held = json.loads(content)
    except RecursionError:
        raise FileError("it is JSON nested too deeply to be bars") from None
    if isinstance(held, dict):
        return _from_columns(held)
    if not (isinstance(held, list) and held):
        raise FileError("it is JSON without a row of bars")
    if all(isinstance(row, list) for row in held):
        _check_widths(held)
        return RawTable(None, pd.DataFrame(held), _row)
    if all(isinstance(row, dict) for row in held):
        names = tuple(dict.fromkeys(key for row in held for key in row))
        _check_size(len(held), len(names))
        frame = pd.DataFrame(held, columns=list(names))
        return RawTable(names, frame.set_axis(range(len(names)), axis=1), _row)
    raise FileError("it is JSON that is neither a list of rows nor one of objects")


def _from_columns(held: dict[str, Any]) -> RawTable:
    """``{"open": [...], ...}``, or as pandas writes it: ``{"open": {"0": ...}, ...}``."""
    if not all(isinstance(column, list | dict) for column in held.values()):
        keys = ", ".join(printable(key, 40) for key in list(held)[:_KEYS_SHOWN])
        found = f"it is one JSON object with {keys}, not rows of bars"
        raise FileError(
            found, "write the rows alone: [[time, open, high, low, close, volume], ...]"
        )
    frame = pd.DataFrame(dict(enumerate(held.values())))
    return RawTable(tuple(held), frame.reset_index(drop=True), _row)


def _check_widths(rows: list[list[Any]]) -> None:
    """Rows of one width."""
    _check_size(len(rows), len(rows[0]))
    for position, row in enumerate(rows):
        if len(row) != len(rows[0]):
            raise FileError(f"{_row(position)} has {len(row)} values, row 1 has {len(rows[0])}")


def _check_size(n_rows: int, n_columns: int) -> None:
    is_large = n_rows > _MOST_ROWS or n_columns > _MOST_COLUMNS
    if is_large or n_rows * n_columns > _MOST_CELLS:
        found = f"it has {n_rows:,} rows and {n_columns:,} columns, more than bars have"
        raise FileError(found, "write the bars alone to a file")


def _row(position: int) -> str:
    return f"row {position + 1:,}"
