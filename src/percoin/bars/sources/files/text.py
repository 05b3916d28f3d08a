"""CSV: what separates its columns, which line names them, where its rows begin."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice

import pandas as pd

from percoin.bars.schema import PRICE_COLUMNS
from percoin.bars.sources.files.errors import FileError
from percoin.bars.sources.files.table import RawTable
from percoin.bars.sources.files.words import simple
from percoin.printable import printable

_HEAD_BYTES = 64 * 1024
_LONGEST_LINE = 32 * 1024
_MOST_COLUMNS = 1_000
_LINES_BEFORE_ROWS = 30
_LINES_SAMPLED = 100
_SEPARATORS = ",;\t|"
_FEWEST_COLUMNS = 5
_LEAST_TIME = 10**7
_YEAR_FIRST = re.compile(r"\d{4}[-./]\d\d[-./]\d\d")
_DECIMAL_COMMA = re.compile(r"-?\d+,\d+")
_THOUSANDS = re.compile(r"-?\d{1,3}(,\d{3})+")


@dataclass(frozen=True)
class _Line:
    """One line of the beginning: its number in the file, the byte where it starts, its text."""

    number: int
    start: int
    text: str


@dataclass(frozen=True)
class _Form:
    """How a text is to be read."""

    separator: str
    names: tuple[str, ...] | None
    first: _Line | None
    decimal: str = "."
    market: str | None = None


def read_csv(content: bytes) -> RawTable:
    """The rows of a CSV file.

    The separator is the one by which a line of the beginning names open, high,
    low and close, or by which it is a row of numbers. Lines above that hold no
    column (a title, an address, a comment) are left out.

    Raises:
        FileError: It is no text, or its beginning shows no row of bars.
        ValueError: pandas cannot read it.
    """
    content = content.removeprefix(b"\xef\xbb\xbf")
    if b"\n" not in content[:_HEAD_BYTES]:
        content = content.replace(b"\r", b"\n")
    lines = list(islice(_first_lines(content), _LINES_SAMPLED))
    form = _form_of(lines)
    first = form.first
    if first is None:
        return RawTable(form.names, pd.DataFrame(columns=range(len(form.names or ()))), str)
    form = _with_decimal(form, [line for line in lines if line.start >= first.start])
    width = len(_cells(first.text, form.separator))
    form = _with_width(form, width)
    rows = content[first.start :]
    place = _Places(rows, first.number, form.separator)
    try:
        frame = pd.read_csv(
            io.BytesIO(rows),
            sep=form.separator,
            header=None,
            names=range(len(form.names) if form.names else width),
            index_col=False,
            decimal=form.decimal,
            low_memory=False,
        )
    except UnicodeDecodeError as error:
        raise FileError("it is not UTF-8 text", "save it as UTF-8") from error
    except pd.errors.ParserError as error:
        raise _parse_error(error, place) from error
    return RawTable(form.names, frame, place, form.market)


class _Places:
    """Which line of the file a row stands in; counted only when it is asked for."""

    def __init__(self, rows: bytes, first: int, separator: str) -> None:
        self._rows = rows
        self._first = first
        self._separator = separator.encode()

    def __call__(self, position: int) -> str:
        for at, (number, _) in enumerate(self.lines()):
            if at == position:
                return f"line {number:,}"
        return f"row {position + 1:,}"

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Number and content of each line that is a row."""
        for number, line in enumerate(io.BytesIO(self._rows), self._first):
            if line.strip():
                yield number, line

    def wider(self) -> tuple[int, int] | None:
        """The first line with more columns than the first row has: its number, how many."""
        limit = None
        for number, line in self.lines():
            width = line.count(self._separator) + 1
            limit = width if limit is None else limit
            if width > limit and b'"' not in line:
                return number, width
        return None


def _parse_error(error: pd.errors.ParserError, place: _Places) -> FileError:
    if wider := place.wider():
        number, width = wider
        return FileError(f"line {number:,} has {width:,} columns, more than the rows above it")
    return FileError(f"it cannot be read as CSV ({printable(str(error), 200)})")


def _first_lines(content: bytes) -> Iterator[_Line]:
    """The lines of the beginning that hold anything."""
    head = content[:_HEAD_BYTES]
    if len(head) < len(content) and b"\n" in head:
        end = head.rindex(b"\n")
        # The line that is cut there is left out, unless it is too long already.
        head = head[:end] if len(head) - end <= _LONGEST_LINE else head
    start = 0
    for number, line in enumerate(head.split(b"\n"), 1):
        if len(line) > _LONGEST_LINE:
            raise FileError(f"line {number} is {len(line):,} characters long, no row of bars is")
        if b"\0" in line:
            raise FileError(f"line {number} holds bytes that are no text")
        try:
            text = line.decode("utf-8").strip("\r\n ")
        except UnicodeDecodeError:
            raise FileError(f"line {number} is not UTF-8 text", "save it as UTF-8") from None
        if text.strip():
            yield _Line(number, start, text)
        start += len(line) + 1


def _form_of(lines: list[_Line]) -> _Form:
    """The separator, the names and the first row."""
    beginning = lines[:_LINES_BEFORE_ROWS]
    if not beginning:
        raise FileError("the file is empty")
    for position, line in enumerate(beginning):
        for separator in _SEPARATORS:
            cells = _cells(line.text, separator)
            if _names_prices(cells):
                return _below_header(cells, separator, lines[position + 1 :])
            if _is_row(cells):
                return _without_prices(lines[:position], line, separator)
    separator = max(_SEPARATORS, key=beginning[0].text.count)
    rest = lines[1] if lines[1:] else None
    return _Form(separator, tuple(_cells(beginning[0].text, separator)), rest)


def _below_header(cells: list[str], separator: str, below: list[_Line]) -> _Form:
    """The form of a text whose header names the prices."""
    names = (cells[0].removeprefix("#").strip(), *cells[1:])
    market = None
    # yfinance names its index in the third line: Price,Close,.../Ticker,BTC-USD,.../Date,,,
    if names[0] == "Price" and len(below) > 1:
        ticker, index = (_cells(line.text, separator) for line in below[:2])
        if ticker[0] == "Ticker" and not any(index[1:]):
            names, below, market = (index[0], *names[1:]), below[2:], ticker[-1]
    return _Form(separator, names, below[0] if below else None, market=market)


def _without_prices(above: list[_Line], first: _Line, separator: str) -> _Form:
    """The form of a text in which no line above the first row names the prices."""
    headers = [cells for line in above if (cells := _header_of(line.text, separator))]
    return _Form(separator, tuple(headers[-1]) if headers else None, first)


def _header_of(text: str, separator: str) -> list[str]:
    """The names in a line above the rows; none in a title, a comment or numbers from 0 on."""
    cells = _cells(text, separator)
    counted = [cell for cell in cells if cell]
    is_count = counted == [str(number) for number in range(len(counted))]
    return [] if text.startswith("#") or len(cells) == 1 or is_count else cells


def _with_decimal(form: _Form, rows: list[_Line]) -> _Form:
    """The form with a decimal comma, if its numbers have one beyond doubt."""
    if form.separator == ",":
        return form
    sample = [cell for row in rows for cell in _cells(row.text, form.separator)]
    with_comma = [cell for cell in sample if "," in cell]
    if not with_comma or not all(_DECIMAL_COMMA.fullmatch(cell) for cell in with_comma):
        return form
    if all(_THOUSANDS.fullmatch(cell) for cell in with_comma):
        found = f"{with_comma[0]} has a comma that may mean thousands or decimals"
        raise FileError(found, "write numbers with a decimal point")
    return replace(form, decimal=",")


def _with_width(form: _Form, width: int) -> _Form:
    """The form with as many names as rows have columns."""
    if width > _MOST_COLUMNS:
        raise FileError(f"it has {width:,} columns, more than bars have")
    if form.names is None or width <= len(form.names) or form.first is None:
        return form
    extra = _cells(form.first.text, form.separator)[len(form.names) :]
    if any(extra):
        found = f"its header names {len(form.names)} columns and its rows have {width}"
        raise FileError(found, "give each column a name")
    return replace(form, names=form.names + ("",) * len(extra))


def _cells(line: str, separator: str) -> list[str]:
    """One line in its columns, without quotes and blanks around them; broken quotes are none."""
    try:
        return [cell.strip() for cell in next(csv.reader([line], delimiter=separator), [])]
    except csv.Error:
        return line.split(separator)


def _names_prices(cells: list[str]) -> bool:
    words = {simple(cell) for cell in cells}
    return words >= set(PRICE_COLUMNS) or words >= {"o", "h", "l", "c"}


def _is_row(cells: list[str]) -> bool:
    """A time, and numbers after it; the number of the row may lie before it."""
    numbers = sum(_is_number(cell) or _is_time(cell) for cell in cells)
    return any(map(_is_time, cells[:2])) and numbers >= _FEWEST_COLUMNS


def _is_time(cell: str) -> bool:
    """``2025-06-30 ...``, or a number of at least as many digits as 20250630."""
    if _YEAR_FIRST.match(cell):
        return True
    return _is_number(cell) and float(cell.replace(",", ".")) >= _LEAST_TIME


def _is_number(cell: str) -> bool:
    try:
        float(cell.replace(",", "."))
    except ValueError:
        return False
    return "_" not in cell
