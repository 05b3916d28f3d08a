"""Read and check a file of forecasts: one row per bar, identified by the bar's open time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa  # type: ignore[import-untyped]

from percoin.bars.sources.files.errors import FileError, reason_of
from percoin.bars.sources.files.raw import read_raw
from percoin.bars.sources.files.times import to_times
from percoin.errors import InvalidForecastsError
from percoin.printable import printable
from percoin.types import CLASS_NAMES, FloatArray, IntArray, Signal, Timeframe

PROBABILITY_COLUMNS = tuple(f"p_{name.lower()}" for name in CLASS_NAMES)
SIGNAL_COLUMN = "signal"
CONFIDENCE_COLUMN = "confidence"
# Allows rounding to two decimals: three probabilities of .33 are valid.
_SUM_TOLERANCE = 0.011
Refusal = Callable[[str, str], InvalidForecastsError]

_NEEDS = (
    f"it needs open_time and {', '.join(PROBABILITY_COLUMNS)}, or open_time and {SIGNAL_COLUMN}"
)
_NUMBERED_SIGNALS = {str(int(signal)): int(signal) for signal in Signal}
_NAMED_SIGNALS = {signal.name: int(signal) for signal in Signal}


@dataclass(frozen=True, eq=False)
class Forecasts:
    """Forecasts for the bars of one market; each row is known when its bar closes.

    Attributes:
        open_time: Open times of the bars, milliseconds since 1970 (UTC), rising, shape (n,).
        probabilities: In class order, rows sum to one, shape (n, C); None if only signals
            are given.
        signal: One class per row, shape (n,); empty if probabilities are given.
        confidence: Probability of that class, shape (n,); None if not given.
        unused: Other forecast columns of the file, which are ignored.
    """

    open_time: IntArray
    probabilities: FloatArray | None = None
    signal: IntArray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    confidence: FloatArray | None = None
    unused: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.open_time)


def read_forecasts(path: Path, symbol: str, timeframe: Timeframe) -> Forecasts:
    """Read a CSV, Parquet or Feather file of forecasts.

    The file has ``open_time`` and either ``p_short, p_no_trade, p_long``, or ``signal`` (SHORT,
    NO_TRADE, LONG, or 0, 1, 2), with or without ``confidence``. Rows can be in any order.

    Raises:
        InvalidForecastsError: The file cannot be read or has no rows, a column is missing, a
            bar has two rows, or a value is no probability or no signal.
    """

    def refuse(found: str, action: str) -> InvalidForecastsError:
        where = printable(str(path))
        return InvalidForecastsError(symbol, timeframe.value, f"{where}: {found}", action)

    try:
        table = _read_table(path)
    except FileError as error:
        raise refuse(error.found, error.action) from error
    except FileNotFoundError as error:
        raise refuse("there is no such file", "name the file of forecasts") from error
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise refuse(f"cannot be read ({reason})", "name a file that can") from error
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
        raise refuse(f"cannot be read ({reason_of(error)})", _NEEDS) from error
    if not len(table):
        raise refuse("holds no row", "give one row for each bar that was forecast")
    table = table.sort_values("open_time")
    opened = table["open_time"].to_numpy(dtype=np.int64)
    twice = np.flatnonzero(np.diff(opened) == 0)
    if len(twice):
        raise refuse(
            f"{len(twice)} bars have more than one row, first {_minute(opened[twice[0]])}",
            "keep the row that was made when the bar closed",
        )
    columns = set(table.columns)
    if columns >= set(PROBABILITY_COLUMNS):
        unused = _known(columns, (SIGNAL_COLUMN, CONFIDENCE_COLUMN))
        return Forecasts(opened, _probabilities(table, opened, refuse), unused=unused)
    if SIGNAL_COLUMN in columns:
        signal = _signals(table, opened, refuse)
        confidence = None
        if CONFIDENCE_COLUMN in columns:
            confidence = _numbers(table[CONFIDENCE_COLUMN], opened, refuse)
        unused = _known(columns, PROBABILITY_COLUMNS)
        return Forecasts(opened, signal=signal, confidence=confidence, unused=unused)
    raise refuse(
        f"has the columns {printable(', '.join(table.columns), 300)}",
        _NEEDS,
    )


def _known(columns: set[str], names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in names if name in columns)


def _read_table(path: Path) -> pd.DataFrame:
    """Read the table, with lower-case column names and times in milliseconds since 1970 (UTC)."""
    raw = read_raw(path)
    names = [name.strip().lower() for name in raw.names or ()]
    if "open_time" not in names:
        raise FileError(f"has no column open_time; {raw.listing()}", _NEEDS)
    if len(set(names)) < len(names):
        raise FileError(f"has a column twice; {raw.listing()}", "keep one of the two")
    table = raw.frame.set_axis(names, axis=1)
    times = to_times(table["open_time"], "open_time", raw.place).values.as_unit("ms")
    return table.assign(open_time=times.asi8)


def _probabilities(table: pd.DataFrame, opened: IntArray, refuse: Refusal) -> FloatArray:
    shares = np.stack([_numbers(table[name], opened, refuse) for name in PROBABILITY_COLUMNS], 1)
    sums = shares.sum(axis=1)
    wrong = np.flatnonzero(np.abs(sums - 1) > _SUM_TOLERANCE)
    if len(wrong):
        raise refuse(
            f"the probabilities of {len(wrong)} rows do not sum to 1, first "
            f"{_minute(opened[wrong[0]])}: {sums[wrong[0]]:g}",
            "give probabilities, not logits or percent",
        )
    normalised: FloatArray = shares / sums[:, None]
    return normalised


def _numbers(column: pd.Series, opened: IntArray, refuse: Refusal) -> FloatArray:
    try:
        numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64)
    except OverflowError as error:
        found = f"{column.name} holds a number of hundreds of digits, which is no probability"
        raise refuse(found, "give numbers from 0 to 1") from error
    wrong = np.flatnonzero(~((numbers >= 0) & (numbers <= 1)))
    if len(wrong):
        raise refuse(
            f"{column.name} of {len(wrong)} rows is no probability, first "
            f"{_minute(opened[wrong[0]])}: {printable(str(column.iloc[wrong[0]]), 40)}",
            "give numbers from 0 to 1",
        )
    return numbers


def _signals(table: pd.DataFrame, opened: IntArray, refuse: Refusal) -> IntArray:
    said = table[SIGNAL_COLUMN]
    words = said.astype(str).str.strip().str.upper().str.removesuffix(".0")
    classes = words.map(_NAMED_SIGNALS | _NUMBERED_SIGNALS)
    wrong = np.flatnonzero(classes.isna())
    if len(wrong):
        raise refuse(
            f"{SIGNAL_COLUMN} of {len(wrong)} rows is no signal, first "
            f"{_minute(opened[wrong[0]])}: "
            f"{printable(str(said.iloc[wrong[0]]), 40)}",
            "write SHORT, NO_TRADE or LONG, or 0, 1 or 2 in that order",
        )
    return np.array(classes, dtype=np.int64)


def _minute(opened: int) -> str:
    return f"{pd.Timestamp(opened, unit='ms'):%Y-%m-%d %H:%M} UTC"
