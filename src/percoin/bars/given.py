"""Tables that callers of the library hand over, as bars, whatever they call their columns."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from percoin.bars.renames import current_symbol, stored_names
from percoin.bars.schema import COLUMNS, Bars
from percoin.errors import ConfigError, InvalidBarsError, NotEnoughBarsError
from percoin.printable import printable
from percoin.types import Timeframe

log = logging.getLogger(__name__)

# A data frame, or rows such as those of ccxt's fetch_ohlcv.
Table = pd.DataFrame | Sequence[Sequence[Any]]
_ONE_TIME = "give the one that is meant: reset_index(drop=True), or drop(columns=...)"
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
        symbol: The market, such as ``BTCUSDT``, ``BTC/USDT`` or, of a perpetual, ``BTC/USDT:USDT``;
            needed with a table.
        tf: Length of the bars, such as ``15m``; needed with a table.

    Raises:
        ConfigError: No table of bars, or no market or length beside it.
        InvalidBarsError: A column is missing or cannot be read.
        NotEnoughBarsError: No rows.
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
    name, _, settled = str(symbol).partition(":")
    # A perpetual of ccxt is BTC/USDT:USDT; a contract that ends has its day behind the colon.
    name = name if settled == name.rpartition("/")[2] else str(symbol)
    return _read(table, current_symbol(name.replace("/", "")), _timeframe(tf))


def _read(table: Table, symbol: str, timeframe: Timeframe) -> Bars:
    # Half a second of imports that bars in the form of the schema do without.
    from percoin.bars.sources.files.checks import of_market
    from percoin.bars.sources.files.columns import differing_times, understand
    from percoin.bars.sources.files.errors import FileError
    from percoin.bars.sources.files.table import RawTable
    from percoin.bars.sources.files.times import Zone

    frame = table if isinstance(table, pd.DataFrame) else pd.DataFrame(list(table))
    if frame.shape == (0, 0):
        raise NotEnoughBarsError(symbol, timeframe, "no rows were given", "load its bars first")
    is_unnamed = frame.index.name is None and isinstance(frame.index, pd.DatetimeIndex)
    if is_unnamed:
        frame = frame.rename_axis("open_time")
    frame = _without_index(frame, symbol, timeframe)
    names = tuple(map(str, frame.columns)) if isinstance(table, pd.DataFrame) else None
    if isinstance(frame.columns, pd.RangeIndex):
        names = None
    numbered = frame.set_axis(range(frame.shape[1]), axis=1)
    try:
        raw = RawTable(names, numbered, lambda position: f"row {position}")
        columns, notes = of_market(understand(raw, symbol), stored_names(symbol))
        other = differing_times(raw, columns.times) if is_unnamed else None
    except FileError as error:
        raise InvalidBarsError(symbol, timeframe, error.found, error.action) from error
    if other is not None:
        at = int(np.flatnonzero(other.values != columns.times.values)[0])
        found = (
            f"the index, which has no name, and column {other.name} differ in row {at}: "
            f"{columns.times.values[at]} and {other.values[at]}"
        )
        raise InvalidBarsError(symbol, timeframe, found, _ONE_TIME)
    if columns.times.zone is Zone.ASSUMED_UTC:
        notes = (*notes, f"times of {columns.times.name} have no zone and are read as UTC")
    for note in (*columns.notes, *notes):
        log.info("%s %s: %s", symbol, timeframe, note)
    index = pd.DatetimeIndex(columns.table["open_time"], name="open_time")
    values = columns.table[list(COLUMNS)].set_axis(index, axis=0)
    return Bars(symbol, timeframe, values, "given")


def _without_index(frame: pd.DataFrame, symbol: str, timeframe: Timeframe) -> pd.DataFrame:
    """The table with its index as a column, unless a column of the same name says the same.

    Raises:
        InvalidBarsError: Such a column says something else.
    """
    for name in frame.index.names:
        if name is None or frame.columns.nlevels > 1 or name not in frame.columns:
            continue
        index = frame.index.get_level_values(frame.index.names.index(name)).astype(object)
        for column in frame.loc[:, frame.columns == name].astype(object).to_numpy().T:
            differs = np.flatnonzero(index != column)
            if len(differs):
                at = int(differs[0])
                shown = printable(f"{name} differ in row {at}: {index[at]} and {column[at]}", 200)
                found = f"the index and column {shown}"
                raise InvalidBarsError(symbol, timeframe, found, _ONE_TIME)
        frame = frame.reset_index(level=name, drop=True)
    if frame.index.names == [None] and isinstance(frame.index, pd.RangeIndex):
        return frame
    return frame.reset_index()


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
