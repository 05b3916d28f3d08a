"""One market's files read: each once, checked, and joined where they are parts of one history."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import pyarrow as pa  # type: ignore[import-untyped]

from percoin.bars.schema import check_bars, format_time
from percoin.bars.sources.files.checks import (
    check_clocks,
    check_last,
    check_prices,
    check_spacing,
    in_order,
    of_market,
    step_of,
)
from percoin.bars.sources.files.columns import Columns, understand
from percoin.bars.sources.files.errors import REWRITE, FileError, reason_of
from percoin.bars.sources.files.names import LENGTHS, length_of_step
from percoin.bars.sources.files.raw import read_raw
from percoin.errors import InvalidBarsError
from percoin.printable import printable
from percoin.types import BarLength, IntArray

_OUT_OF_RANGE = re.compile("high below open or close|low above open or close")
_NO_HEADER = (
    "it has no header line, so its columns were taken as time, open, high, low, close, volume"
)
_ADD_HEADER = (
    "if they are in another order, add a header line such as timestamp,open,close,high,low,volume"
)


@dataclass(frozen=True)
class PartBars:
    """The bars of one file, as in ``Bars.frame``.

    Attributes:
        path: The file.
        frame: Its bars.
        written_ms: When it was last written, milliseconds since 1970-01-01 UTC.
    """

    path: Path
    frame: pd.DataFrame
    written_ms: int


class MarketReader:
    """Reads files of one market, each once.

    Args:
        symbol: Today's name, for messages.
        names: The market as files may call it.
        timeframe: What was asked for, for messages.
    """

    def __init__(self, symbol: str, names: tuple[str, ...], timeframe: BarLength) -> None:
        self.symbol = symbol
        self.names = names
        self.timeframe = timeframe
        self._notes: dict[Path, list[str]] = {}
        self._columns: dict[Path, Columns] = {}
        self._written_ms: dict[Path, int] = {}

    def length(self, path: Path) -> BarLength:
        """The length of the bars of a file, by their most frequent step.

        Raises:
            InvalidBarsError: It cannot be read, or has no such step.
        """
        table = self._read(path).table
        if table.empty:
            raise self._error(path, "no bars, the table is empty", REWRITE)
        step, _ = step_of(_milliseconds(table["open_time"]))
        length = length_of_step(step)
        if length is None:
            found = f"the bars in {printable(str(path))} are not spaced by a known length"
            known = ", ".join(map(str, LENGTHS))
            action = f"use one of {known}, or name the file {self.symbol}-<tf>{path.suffix}"
            raise InvalidBarsError(self.symbol, str(self.timeframe), found, printable(action))
        return length

    def bars(self, path: Path, length: BarLength) -> PartBars:
        """The bars of one file, checked.

        Raises:
            InvalidBarsError: They cannot be read or break a rule.
        """
        columns = self._read(path)
        try:
            moments = _milliseconds(columns.table["open_time"])
            check_last(columns)
            self.note(path, *check_clocks(moments, length, columns.times))
            check_spacing(moments, length)
            frame = self._checked(columns, length)
            self.note(path, *check_prices(frame, length))
        except FileError as error:
            raise self._error(path, error.found, error.action) from error
        except InvalidBarsError as error:
            raise self._error(path, error.found, error.action) from error
        return PartBars(path, frame, self._written_ms[path])

    def _checked(self, columns: Columns, length: BarLength) -> pd.DataFrame:
        """As ``check_bars``; columns without names may be in another order."""
        try:
            return check_bars(columns.table, self.symbol, length)
        except InvalidBarsError as error:
            is_order = _OUT_OF_RANGE.match(error.found) is not None
            if columns.by_position and is_order:
                raise FileError(f"{error.found}; {_NO_HEADER}", _ADD_HEADER) from error
            raise

    def _read(self, path: Path) -> Columns:
        """The columns of one file, its rows oldest first."""
        if path not in self._columns:
            try:
                # Before the file is read: it may be replaced meanwhile.
                self._written_ms[path] = path.stat().st_mtime_ns // 1_000_000
                columns, notes = of_market(understand(read_raw(path), self.names[0]), self.names)
            except FileError as error:
                raise self._error(path, error.found, error.action) from error
            except (pa.ArrowException, OSError, ValueError, TypeError, OverflowError) as error:
                found = f"{printable(str(path))} cannot be read ({reason_of(error)})"
                raise InvalidBarsError(
                    self.symbol, str(self.timeframe), found, "download or write it again"
                ) from error
            self.note(path, *columns.notes, *notes)
            self._columns[path] = replace(columns, table=in_order(columns.table))
        return self._columns[path]

    def note(self, path: Path, *notes: str) -> None:
        """Keep warnings about a file until its bars are used."""
        self._notes.setdefault(path, []).extend(notes)

    def notes(self, paths: list[Path]) -> list[str]:
        """The warnings about these files."""
        return [
            f"{printable(path.name)}: {note}"
            for path in paths
            for note in self._notes.get(path, [])
        ]

    def _error(self, path: Path, found: str, action: str) -> InvalidBarsError:
        return InvalidBarsError(
            self.symbol, str(self.timeframe), f"{printable(str(path))}: {found}", action
        )


def newest_written_ms(parts: list[PartBars]) -> int:
    """When the file with the newest bar was last written; of several that have it, the last."""
    newest = max(part.frame.index[-1] for part in parts)
    return max(part.written_ms for part in parts if part.frame.index[-1] == newest)


def join(parts: list[PartBars]) -> pd.DataFrame:
    """Files of one market in the order of time; a bar that two of them have is one bar.

    Args:
        parts: Sorted by their first bar.

    Raises:
        FileError: Two files have different values for one time; names both.
    """
    frame = pd.concat([part.frame for part in parts]) if len(parts) > 1 else parts[0].frame
    if frame.index.is_unique and frame.index.is_monotonic_increasing:
        return frame
    whole = frame.reset_index().drop_duplicates().set_index("open_time")
    differing = whole.index[whole.index.duplicated()]
    if not len(differing):
        return whole.sort_index()
    moment = differing.min()
    holders = [printable(part.path.name) for part in parts if moment in part.frame.index]
    n_bars = len(differing.unique())
    bars = "1 bar" if n_bars == 1 else f"{n_bars:,} bars, the first is that of"
    found = f"{holders[0]} and {holders[1]} differ in {bars} {format_time(moment)}"
    raise FileError(found, "correct one of them, or move the one that is wrong out of the folder")


def _milliseconds(open_time: pd.Series) -> IntArray:
    """Times as whole milliseconds, for looking at their spacing."""
    moments: IntArray = pd.DatetimeIndex(open_time).as_unit("ms").asi8
    return moments
