"""A column of numbers, texts or times as times in UTC."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import pandas as pd

from percoin.bars.sources.epoch import ALL_UNITS, from_epoch
from percoin.bars.sources.files.errors import FileError, header_again
from percoin.bars.sources.files.table import native
from percoin.bars.sources.files.words import is_name
from percoin.printable import printable
from percoin.types import FloatArray, IntArray

FORMS = (
    "write times as 2025-06-30 23:45 in UTC, as 2025-07-01 01:45+02:00, "
    "or as whole numbers since 1970"
)
_DAYS = (19_700_101, 21_001_231)
_MINUTES = (197_001_010_000, 210_012_312_359)
_SECONDS = (19_700_101_000_000, 21_001_231_235_959)
_HAS_ZONE = re.compile(r".*\d(\s*(Z|UTC|GMT)|[+-]\d\d(:?\d\d)?)", re.IGNORECASE)
_OTHER_DATE = re.compile(r"^(\d{4})[./](\d\d)[./](\d\d)")
_ZONE_NAME = re.compile(r"\s*(UTC|GMT)$", re.IGNORECASE)
_SHOWN_CHARS = 60


_END_OF_9999 = 253_402_300_800


class Zone(IntEnum):
    """How sure it is which zone times are in, surest first."""

    SINCE_1970 = 0
    WRITTEN = 1
    ASSUMED_UTC = 2


@dataclass(frozen=True)
class Times:
    """Open times of a table's rows.

    Attributes:
        values: In UTC, one a row.
        zone: Whether a zone was written or UTC is assumed.
        name: Of the column, as the file writes it.
    """

    values: pd.DatetimeIndex
    zone: Zone
    name: str

    def tells_apart(self) -> bool:
        """Whether no two rows have the same time."""
        return self.values.is_unique


def to_times(column: pd.Series, name: str, place: Callable[[int], str]) -> Times:
    """The values of one column as times.

    Args:
        column: As the file has it.
        name: Of the column, for messages.
        place: Where the row at a position stands.

    Raises:
        FileError: A time is missing, is no time, or has a form that could mean two.
    """
    times = _to_times(_plain(column.reset_index(drop=True)), name, place)
    per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[times.values.unit]
    outside = np.flatnonzero(
        (times.values.asi8 < 0) | (times.values.asi8 // per_second >= _END_OF_9999)
    )
    if len(outside):
        found = f"the time of {place(int(outside[0]))} is not of the years 1970 to 9999"
        raise FileError(f"{found} (column {name})", FORMS)
    return times


def _to_times(column: pd.Series, name: str, place: Callable[[int], str]) -> Times:
    missing = np.flatnonzero(column.isna())
    if len(missing):
        others = f", and {len(missing) - 1:,} others" if len(missing) > 1 else ""
        found = f"the time of {place(int(missing[0]))} is missing (column {name}{others})"
        raise FileError(found, "write it there, or leave out the row")
    dtype = column.dtype
    if isinstance(dtype, pd.DatetimeTZDtype):
        return Times(pd.DatetimeIndex(column).tz_convert("UTC"), Zone.WRITTEN, name)
    if pd.api.types.is_datetime64_any_dtype(dtype):
        return Times(pd.DatetimeIndex(column).tz_localize("UTC"), Zone.ASSUMED_UTC, name)
    if pd.api.types.is_string_dtype(dtype):
        return _from_texts(column.astype(str).str.strip(), name, place)
    if pd.api.types.is_bool_dtype(dtype) or not pd.api.types.is_numeric_dtype(dtype):
        raise FileError(f"column {name} is {dtype}, neither times nor numbers", FORMS)
    return Times(_from_numbers(_whole(column, name, place), name), Zone.SINCE_1970, name)


def _plain(column: pd.Series) -> pd.Series:
    """A native column, and texts where it holds objects of one kind."""
    column = native(column)
    if column.dtype == object:
        inferred: pd.Series = column.infer_objects()
        return inferred
    return column


def _whole(column: pd.Series, name: str, place: Callable[[int], str]) -> IntArray:
    """Numbers as whole ones."""
    if pd.api.types.is_integer_dtype(column.dtype):
        if len(column) and column.max() > np.iinfo(np.int64).max:
            raise FileError(f"column {name} holds {column.max()}, which is no time", FORMS)
        whole: IntArray = column.to_numpy(dtype=np.int64)
        return whole
    values: FloatArray = column.to_numpy(dtype=np.float64)
    with np.errstate(invalid="ignore"):
        broken = np.flatnonzero((values != np.floor(values)) | (np.abs(values) >= 2.0**63))
    if len(broken):
        at = int(broken[0])
        found = f"column {name} is {values[at]} in {place(at)}, no whole number since 1970"
        raise FileError(found, FORMS)
    # Whole seconds are exact as floats even in nanoseconds, as 512 divides a billion.
    return values.astype(np.int64)


def _from_numbers(numbers: IntArray, name: str) -> pd.DatetimeIndex:
    """Since 1970, or 20250630 and the like, where all are."""
    for (least, most), form in (
        (_DAYS, "%Y%m%d"),
        (_MINUTES, "%Y%m%d%H%M"),
        (_SECONDS, "%Y%m%d%H%M%S"),
    ):
        if len(numbers) and ((numbers >= least) & (numbers <= most)).all():
            try:
                return pd.DatetimeIndex(pd.to_datetime(numbers.astype(str), format=form, utc=True))
            except ValueError as error:
                raise FileError(f"column {name} holds numbers that are no dates", FORMS) from error
    try:
        return from_epoch(numbers, ALL_UNITS)
    except ValueError as error:
        raise FileError(f"column {name}: {error}", FORMS) from error


def _from_texts(texts: pd.Series, name: str, place: Callable[[int], str]) -> Times:
    """ISO 8601, or digits."""
    is_digits = len(texts) > 0 and texts.iloc[0].isdecimal()
    if is_digits and texts.str.fullmatch(r"\d{8,19}").all():
        numbers = texts.to_numpy().astype(np.int64)
        return Times(_from_numbers(numbers, name), Zone.SINCE_1970, name)
    is_zoned = len(texts) > 0 and _HAS_ZONE.fullmatch(texts.iloc[0]) is not None
    times = _parse(texts)
    if times is None:
        texts = texts.str.replace(_OTHER_DATE, r"\1-\2-\3", regex=True)
        texts = texts.str.replace(_ZONE_NAME, "+00:00", regex=True)
        times = _parse(texts)
    if times is None:
        raise _unreadable(texts, name, place)
    return Times(times, Zone.WRITTEN if is_zoned else Zone.ASSUMED_UTC, name)


def _parse(texts: pd.Series) -> pd.DatetimeIndex | None:
    try:
        return pd.DatetimeIndex(pd.to_datetime(texts, utc=True, format="ISO8601"))
    except (ValueError, OverflowError):
        return None


def _unreadable(texts: pd.Series, name: str, place: Callable[[int], str]) -> FileError:
    """The error that shows the first text that is no time."""
    parsed = pd.to_datetime(texts, utc=True, format="ISO8601", errors="coerce")
    broken = np.flatnonzero(parsed.isna() & ~texts.str.fullmatch(r"\d+"))
    if not len(broken):
        return FileError(f"column {name} holds both dates and numbers", FORMS)
    at = int(broken[0])
    if is_name(texts.iloc[at]):
        return header_again(place(at))
    shown = printable(texts.iloc[at], _SHOWN_CHARS)
    return FileError(f"the time {shown!r} of {place(at)} is not understood (column {name})", FORMS)
