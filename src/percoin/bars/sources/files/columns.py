"""Which columns of a table are the open time, the prices, the volume and the market."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from percoin.bars.schema import COLUMNS, PRICE_COLUMNS
from percoin.bars.sources.files.errors import FileError, header_again
from percoin.bars.sources.files.names import length_of_step, split_symbol
from percoin.bars.sources.files.table import RawTable, native
from percoin.bars.sources.files.times import FORMS, Times, to_times
from percoin.bars.sources.files.words import (
    CLOSE_TIMES,
    OPEN_TIMES,
    OTHER_NAMES,
    SYMBOLS,
    TIMES,
    UNNAMED,
    is_name,
    simple,
    without_unit,
)
from percoin.printable import printable
from percoin.types import BoolArray

_CLOCK = re.compile(r"\d{1,2}:\d\d(:\d\d(\.\d+)?)?")
_NAMED_FOR_COIN = re.compile(r"(?:volume|vol)([a-z0-9]{2,})|([a-z0-9]{2,})(?:volume|vol)")
_LOOKED_FOR = "open_time, timestamp, datetime, date, time"

_SIX = ("open_time", *COLUMNS)
# Rows without names: ccxt and freqtrade, Kraken and Bybit, Binance.
_BY_WIDTH = {
    6: _SIX,
    7: (*_SIX, "other"),
    12: (*_SIX, "close_time", "quote_volume", "trades", "taker_base", "taker_quote", "ignore"),
}


@dataclass(frozen=True)
class Columns:
    """A table whose columns have been recognised.

    Attributes:
        table: ``open_time`` and ``COLUMNS``; the values are those of the file.
        times: Where ``open_time`` comes from.
        symbols: What the column of the market says in each row, or None.
        notes: What was decided and a reader should know.
        by_position: Whether the file gave no names.
        place: Where the row at a position stands.
    """

    table: pd.DataFrame
    times: Times
    symbols: pd.Series | None
    notes: tuple[str, ...]
    by_position: bool
    place: Callable[[int], str]

    def of_rows(self, rows: BoolArray) -> Columns:
        """The same of some rows only."""
        return replace(
            self,
            table=self.table[rows].reset_index(drop=True),
            times=replace(self.times, values=self.times.values[rows]),
            symbols=None,
        )


def understand(raw: RawTable, symbol: str) -> Columns:
    """Find the columns of bars.

    Args:
        raw: As its file has it.
        symbol: The market that is asked for: ``volume_btc`` is the volume of BTCUSDT.

    Raises:
        FileError: A column is missing, there twice, or no times and numbers.
    """
    by_position = raw.names is None
    if by_position:
        raw = _with_names(raw)
    simples = [simple(name) for name in raw.names or ()]
    chosen = {name: _find(name, simples, raw) for name in PRICE_COLUMNS}
    chosen["volume"], notes = _find_volume(simples, raw, symbol)
    missing = [name for name, position in chosen.items() if position is None]
    times = _find_times(simples, raw)
    if missing:
        raise FileError(f"no column {', '.join(missing)}, {raw.listing()}", "name the columns")
    columns = {
        name: _numbers(raw, position) for name, position in chosen.items() if position is not None
    }
    table = pd.DataFrame({"open_time": times.values, **columns})
    at = next((n for n, word in enumerate(simples) if word in SYMBOLS), None)
    stated = None if raw.market is None else pd.Series([raw.market] * len(table))
    symbols = stated if at is None else raw.frame[at]
    return Columns(table, times, symbols, notes, by_position, raw.place)


def _with_names(raw: RawTable) -> RawTable:
    """Names for columns that have none, by how many there are."""
    frame = raw.frame
    while frame.shape[1] > min(_BY_WIDTH) and frame.iloc[:, -1].isna().all():
        frame = frame.iloc[:, :-1]
    if frame.shape[1] - 1 in _BY_WIDTH and _counts_rows(frame[0]):
        frame = frame.iloc[:, 1:]
    names = _BY_WIDTH.get(frame.shape[1])
    if names is None:
        found = f"no header line, and {frame.shape[1]} columns where {_widths()} are known"
        raise FileError(found, "add a header line such as timestamp,open,high,low,close,volume")
    return replace(raw, names=names, frame=frame.set_axis(range(len(names)), axis=1))


def _widths() -> str:
    *others, last = _BY_WIDTH
    return f"{', '.join(map(str, others))} or {last}"


def _counts_rows(column: pd.Series) -> bool:
    """Whether a column is 0, 1, 2, ... or 1, 2, 3, ..."""
    if not pd.api.types.is_integer_dtype(column.dtype):
        return False
    values = column.to_numpy(dtype=np.int64)
    return values[0] in (0, 1) and bool((np.diff(values) == 1).all())


def _find(name: str, simples: list[str], raw: RawTable) -> int | None:
    """The position of one column; the same name twice is an error, whatever it holds."""
    for known in (name, *OTHER_NAMES[name]):
        positions = [n for n, word in enumerate(simples) if word == known]
        if len(positions) > 1:
            raise _twice(name, positions, raw)
        if positions:
            return positions[0]
    return None


def _twice(name: str, positions: list[int], raw: RawTable) -> FileError:
    written = " and ".join(map(raw.name, positions))
    found = f"column {name} is there {len(positions)} times ({written})"
    return FileError(found, "leave one of them, the one that is meant")


def _find_volume(
    simples: list[str], raw: RawTable, symbol: str
) -> tuple[int | None, tuple[str, ...]]:
    """The volume in coins; where a column is named for the coin, ``volume`` alone is money."""
    named = []
    for position, word in enumerate(simples):
        match = _NAMED_FOR_COIN.fullmatch(word)
        if match and split_symbol(symbol, (match[1] or match[2]).upper()):
            named.append(position)
    plain = _find("volume", simples, raw)
    if not named:
        return plain, ()
    if len(named) > 1:
        raise _twice("volume", named, raw)
    if plain is None:
        return named[0], ()
    note = (
        f"column {raw.name(named[0])} is taken as the volume, "
        f"{raw.name(plain)} beside it for money and left out"
    )
    return named[0], (note,)


def _find_times(simples: list[str], raw: RawTable) -> Times:
    """The open times: a column named so, else the one that tells the bars apart."""
    pairs = list(enumerate((word, without_unit(word)) for word in simples))
    openings = [n for n, (full, word) in pairs if OPEN_TIMES & {full, word}]
    others = [n for n, (full, word) in pairs if TIMES & {full, word}]
    unnamed = [n for n, (full, _) in pairs if UNNAMED.fullmatch(full)]
    if positions := openings or others:
        for word, count in Counter(simples[n] for n in positions).items():
            if count > 1:
                twice = [n for n in positions if simples[n] == word]
                raise _twice("open_time" if openings else word, twice, raw)
        return _best_times(_parsed(positions, simples, raw))
    if unnamed and (times := _parsed_quietly(unnamed[0], raw)) is not None:
        return times
    closes = [n for n, (full, word) in pairs if CLOSE_TIMES & {full, word}]
    raise _no_times(raw, closes)


def _parsed(positions: list[int], simples: list[str], raw: RawTable) -> list[Times]:
    """Each column that holds times; if none does, the error of the first."""
    parsed, errors = [], []
    if (day_and_clock := _day_and_clock(positions, simples, raw)) is not None:
        parsed.append(day_and_clock)
        positions = [n for n in positions if simples[n] not in ("date", "time")]
    for position in positions:
        try:
            parsed.append(_parse(position, raw))
        except FileError as error:
            errors.append(error)
    if not parsed:
        raise errors[0]
    return parsed


def _parse(position: int, raw: RawTable) -> Times:
    return to_times(raw.frame[position], raw.name(position), raw.place)


def _parsed_quietly(position: int, raw: RawTable) -> Times | None:
    """The times of a column without a name; it may also hold row numbers."""
    try:
        return _parse(position, raw)
    except FileError:
        return None


def _day_and_clock(positions: list[int], simples: list[str], raw: RawTable) -> Times | None:
    """The times of a day in one column and the time of day in another, as of MetaTrader."""
    by_word = {simples[n]: n for n in positions}
    if not {"date", "time"} <= set(by_word) or raw.frame.empty:
        return None
    clock = raw.frame[by_word["time"]]
    if not _CLOCK.fullmatch(str(clock.iloc[0]).strip()) or clock.isna().any():
        return None
    day = raw.frame[by_word["date"]].astype(str).str.strip()
    if day.str.fullmatch(r"\d{8}").all():
        day = day.str.replace(r"(\d{4})(\d\d)(\d\d)", r"\1-\2-\3", regex=True)
    clock = clock.astype(str).str.strip().str.replace(r"^(\d):", r"0\1:", regex=True)
    return to_times(day + " " + clock, "date and time", raw.place)


def _best_times(parsed: list[Times]) -> Times:
    """The surest time column in which no time is there twice; two that differ are an error."""
    if len(parsed) == 1:
        return parsed[0]
    able = [times for times in parsed if times.tells_apart()] or parsed[:1]
    surest = min(times.zone for times in able)
    first, *others = [times for times in able if times.zone == surest]
    for other in others:
        if not (other.values == first.values).all():
            at = int(np.flatnonzero(other.values != first.values)[0])
            found = (
                f"columns {first.name} and {other.name} say different times, "
                f"{first.values[at]} and {other.values[at]}"
            )
            raise FileError(found, "call the one that is meant open_time")
    return first


def differing_times(raw: RawTable, chosen: Times) -> Times | None:
    """Times of another column that tell the bars apart and are not the chosen ones, if any."""
    for position, name in enumerate(raw.names or ()):
        word = simple(name)
        if not (OPEN_TIMES | TIMES) & {word, without_unit(word)} or name == chosen.name:
            continue
        other = _parsed_quietly(position, raw)
        if other and other.tells_apart() and not (other.values == chosen.values).all():
            return other
    return None


def _no_times(raw: RawTable, closes: list[int]) -> FileError:
    """The error for a table without open times; close times say how to get them."""
    found = f"no time column, looked for {_LOOKED_FOR}; {raw.listing()}"
    if not closes:
        return FileError(found, f"name it open_time, and {FORMS}")
    try:
        moments = _parse(closes[0], raw).values.as_unit("ms").asi8
    except FileError:
        return FileError(found, "write an open_time")
    steps, counts = np.unique(np.diff(moments), return_counts=True)
    length = length_of_step(int(steps[counts.argmax()])) if len(steps) else None
    end = " + 1 ms" if length and (moments[0] + 1) % length.milliseconds == 0 else ""
    name = raw.name(closes[0])
    formula = f"open_time = {name} - {length or 'the length of a bar'}{end}"
    return FileError(f"no time column but {name}; {raw.listing()}", f"write {formula}")


def _numbers(raw: RawTable, position: int) -> pd.Series:
    """One column, its texts turned into numbers."""
    column = native(raw.frame[position])
    if not (pd.api.types.is_string_dtype(column.dtype) or column.dtype == object):
        return column
    numbers = pd.to_numeric(column, errors="coerce")
    is_broken = numbers.isna() & column.notna()
    if column.dtype == object:
        is_broken |= column.map(lambda value: isinstance(value, bool))
    broken = np.flatnonzero(is_broken.to_numpy())
    if not len(broken):
        return numbers
    at = int(broken[0])
    value = column.iloc[at]
    shown = printable(str(value)[:60], 60)
    found = (
        f"column {raw.name(position)} holds something other than numbers "
        f"({shown!r} in {raw.place(at)})"
    )
    if is_name(value):
        raise header_again(raw.place(at))
    raise FileError(found, "write plain numbers with a decimal point there")
