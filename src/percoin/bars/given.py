"""Tables that callers of the library hand over, as bars, whatever they call their columns."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import pandas as pd

from percoin.bars.renames import current_symbol, stored_names
from percoin.bars.schema import COLUMNS, Bars
from percoin.errors import ConfigError, InvalidBarsError
from percoin.printable import printable
from percoin.types import Timeframe

log = logging.getLogger(__name__)

# A data frame, or rows such as those of ccxt's fetch_ohlcv.
Table = pd.DataFrame | Sequence[Sequence[Any]]
_WANTED = "wanted are Bars, a pandas DataFrame, or rows as ccxt's fetch_ohlcv returns them"


def as_bars(
    table: Bars | Table, symbol: str | None = None, tf: Timeframe | str | None = None
) -> Bars:
    """Bars of a table; bars stay as they are.

    The columns may have any name that ``source=files`` knows (``timestamp``, ``date``, ``Open``,
    ``vol``, ...), and times may be the index or a column: of any zone, or numbers since 1970.
    Times without a zone are UTC, and a log line says so. Rows without names are those of ccxt:
    time, open, high, low, close, volume. Rules of the schema are not checked here.

    Args:
        table: Of one market.
        symbol: The market, such as ``BTCUSDT`` or ``BTC/USDT``; needed with a table.
        tf: Length of the bars, such as ``15m``; needed with a table.

    Raises:
        ConfigError: No table of bars, or no market or length beside it.
        InvalidBarsError: A column is missing or cannot be read.
    """
    if isinstance(table, Bars):
        stated = {"symbol": (symbol, table.symbol), "tf": (tf, table.timeframe)}
        for name, (given, own) in stated.items():
            if given is not None and given != own:
                raise ConfigError(f"{name}={given} was given beside bars of {own}: leave it out")
        return table
    if not isinstance(table, pd.DataFrame) and not _are_rows(table):
        raise ConfigError(f"{_kind(table)} was given for bars; {_WANTED}")
    if symbol is None or tf is None:
        raise ConfigError(
            "a table does not say its market and the length of its bars: give both, for example "
            "symbol='BTCUSDT', tf='15m'"
        )
    return _read(table, current_symbol(str(symbol).replace("/", "")), _timeframe(tf))


def _read(table: Table, symbol: str, timeframe: Timeframe) -> Bars:
    # Half a second of imports that bars in the form of the schema do without.
    from percoin.bars.sources.files.checks import of_market
    from percoin.bars.sources.files.columns import understand
    from percoin.bars.sources.files.errors import FileError
    from percoin.bars.sources.files.table import RawTable
    from percoin.bars.sources.files.times import Zone

    frame = table if isinstance(table, pd.DataFrame) else pd.DataFrame(list(table))
    if frame.index.name is None and isinstance(frame.index, pd.DatetimeIndex):
        frame = frame.rename_axis("open_time")
    if frame.index.name is not None or not isinstance(frame.index, pd.RangeIndex):
        frame = frame.reset_index()
    names = tuple(map(str, frame.columns)) if isinstance(table, pd.DataFrame) else None
    if isinstance(frame.columns, pd.RangeIndex):
        names = None
    numbered = frame.set_axis(range(frame.shape[1]), axis=1)
    try:
        raw = RawTable(names, numbered, lambda position: f"row {position}")
        columns, notes = of_market(understand(raw, symbol), stored_names(symbol))
    except FileError as error:
        raise InvalidBarsError(symbol, timeframe, error.found, error.action) from error
    if columns.times.zone is Zone.ASSUMED_UTC:
        notes = (*notes, f"times of {columns.times.name} have no zone and are read as UTC")
    for note in (*columns.notes, *notes):
        log.info("%s %s: %s", symbol, timeframe, note)
    index = pd.DatetimeIndex(columns.table["open_time"], name="open_time")
    values = columns.table[list(COLUMNS)].set_axis(index, axis=0)
    return Bars(symbol, timeframe, values, "given")


def _timeframe(tf: Timeframe | str) -> Timeframe:
    try:
        return Timeframe(tf)
    except ValueError:
        known = ", ".join(Timeframe)
        raise ConfigError(
            f"tf={printable(str(tf), 30)} is no length of bars; known are {known}"
        ) from None


def _are_rows(table: object) -> bool:
    if not isinstance(table, Sequence) or isinstance(table, str | bytes):
        return False
    return all(isinstance(row, Sequence) and not isinstance(row, str) for row in table)


def _kind(value: object) -> str:
    kind = type(value)
    article = "an" if kind.__name__[0].lower() in "aeiou" else "a"
    return f"{article} {kind.__name__}"
