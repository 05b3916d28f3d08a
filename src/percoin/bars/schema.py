"""What a bar is: one schema, checked wherever bars come in."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from percoin.errors import InvalidBarsError
from percoin.types import BarLength, FloatArray, IntArray, Timeframe

if TYPE_CHECKING:
    import pandera.pandas as pa

    from percoin.bars.panel import MarketPanel

PRICE_COLUMNS = ("open", "high", "low", "close")
COLUMNS = (*PRICE_COLUMNS, "volume")
# The origin of made-up bars begins with this word.
SIMULATED = "simulated"
# If the clock is a little slow, the bar before the running one seems to run too.
RUNNING_AT_MOST = 2

_REPAIR = "correct the source; bars are never repaired silently"
_TIMES_SHOWN = 3
_END_OF_9999_MS = 253_402_300_800_000
_TIMES = (pd.Timestamp("1970", tz="UTC"), pd.Timestamp("2200", tz="UTC"))
# Far beyond any market: one bitcoin is some 1e11 of the weakest currencies, and what a day trades
# of the cheapest coins is 1e15 of them. Larger numbers overflow in what is computed of them.
_LARGEST_PRICE = 1e15
_LARGEST_VOLUME = 1e20


@dataclass(frozen=True)
class Bars:
    """Closed bars of one market, oldest first.

    Attributes:
        symbol: Market under today's name, for example ``POLUSDT``.
        timeframe: Length of each bar.
        frame: Columns ``open, high, low, close, volume`` in float64; the index
            is ``open_time``, datetime64[ms, UTC], the start of each bar.
        origin: Where the bars came from, in one phrase for people, for example
            ``files: klines/BTCUSDT/15m.parquet``. Its first word is the source.
        panel: Bars of other markets at the same moments, for what compares markets; None
            without any.
    """

    symbol: str
    timeframe: Timeframe
    frame: pd.DataFrame
    origin: str
    panel: MarketPanel | None = None

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def open_time(self) -> IntArray:
        """Start of each bar in milliseconds since 1970-01-01 UTC, shape (n_bars,)."""
        return self.frame.index.to_numpy(dtype="datetime64[ms]").astype(np.int64)

    @property
    def source(self) -> str:
        """First word of the origin: files, sample, simulated, binance."""
        return self.origin.split(":", 1)[0].split(" ", 1)[0]

    def column(self, name: str) -> FloatArray:
        """One of ``COLUMNS`` as an array, shape (n_bars,)."""
        return self.frame[name].to_numpy(dtype=np.float64)

    @property
    def values(self) -> FloatArray:
        """All of ``COLUMNS`` side by side, shape (n_bars, 5); not to be written to."""
        frame = self.frame
        if tuple(frame.columns) != COLUMNS:
            frame = frame[list(COLUMNS)]
        return frame.to_numpy(dtype=np.float64)

    def slice(self, start: int, stop: int | None = None) -> Bars:
        """The bars at positions ``start`` to ``stop``, as with a list.

        With a ``stop`` the panel has only what was known at the last of these bars.
        """
        part = replace(self, frame=self.frame.iloc[start:stop])
        if self.panel is None or stop is None or not len(part):
            return part
        first, last = (int(part.open_time[end]) for end in (0, -1))
        return replace(part, panel=self.panel.between(first, last))

    def close_time(self, position: int = -1) -> pd.Timestamp:
        """When the bar at ``position`` closed: the moment a decision can be made (UTC)."""
        opened: pd.Timestamp = self.frame.index[position]
        return opened + self.timeframe.timedelta

    def sha256(self) -> str:
        """Hash of the open times and the values; the file format does not matter."""
        digest = hashlib.sha256(self.open_time.astype("<i8").tobytes())
        for name in COLUMNS:
            digest.update(self.column(name).astype("<f8").tobytes())
        return digest.hexdigest()


def is_simulated(origin: str) -> bool:
    """Whether an ``origin`` says that its bars were made up."""
    return origin.startswith(SIMULATED)


def kind_of_origin(origin: str) -> str:
    """The kind of source: the exchange and type of market, or ``files`` or ``sample``.

    Each simulated market is its own kind.
    """
    return origin if is_simulated(origin) else origin.split(":", 1)[0]


class _MalformedError(Exception):
    """A table that cannot be read as bars at all; the message says why."""


def format_time(moment: pd.Timestamp) -> str:
    """A moment as text for people; seconds appear only where there are any."""
    try:
        text = moment.strftime("%Y-%m-%d %H:%M:%S.%f")
    except NotImplementedError:
        # A year beyond Python's dates, as found in damaged files.
        return str(moment)
    return text.removesuffix(".000000").removesuffix(":00")


def check_bars(frame: pd.DataFrame, symbol: str, timeframe: BarLength) -> pd.DataFrame:
    """Bring bars into the one schema, and refuse what breaks its rules.

    Numbers become float64 and open times milliseconds in UTC; other columns
    are left out. Nothing else is changed: rows in a wrong order, duplicates and
    impossible values are errors.

    Args:
        frame: Columns ``open, high, low, close, volume`` of any number type and
            ``open_time``, as a column or as the index. Open times without a
            zone are UTC.
        symbol: Market, for the message.
        timeframe: Length of each bar; open times must be whole multiples of it
            since 1970-01-01 UTC.

    Returns:
        A new frame as in ``Bars.frame``.

    Raises:
        InvalidBarsError: No rows, a missing column, text in place of numbers,
            or broken rules: each is named with its count and first open times.
    """
    try:
        rows = _normalised(frame)
    except _MalformedError as error:
        raise InvalidBarsError(symbol, str(timeframe), str(error), _REPAIR) from error
    _check_rules(rows, symbol, timeframe)
    return rows.set_index("open_time")


def _normalised(frame: pd.DataFrame) -> pd.DataFrame:
    """The columns of a bar in their final types, ``open_time`` still a column."""
    if "open_time" not in frame.columns and isinstance(frame.index, pd.DatetimeIndex):
        frame = frame.rename_axis("open_time").reset_index()
    missing = [name for name in ("open_time", *COLUMNS) if name not in frame.columns]
    if missing:
        raise _MalformedError(f"no column {', '.join(missing)}")
    names = list(frame.columns)
    twice = [name for name in ("open_time", *COLUMNS) if names.count(name) > 1]
    if twice:
        raise _MalformedError(f"more than one column {', '.join(twice)}")
    if frame.empty:
        raise _MalformedError("no bars, the table is empty")
    columns = {name: _as_floats(frame[name]) for name in COLUMNS}
    return pd.DataFrame({"open_time": _as_milliseconds(frame["open_time"]), **columns})


def _as_floats(values: pd.Series) -> FloatArray:
    """One column as float64."""
    dtype = values.dtype
    if isinstance(dtype, np.dtype) and dtype.kind in "bmMc":
        raise _MalformedError(f"column {values.name} is {dtype}, not numbers")
    if isinstance(dtype, pd.DatetimeTZDtype | pd.BooleanDtype | pd.ArrowDtype):
        raise _MalformedError(f"column {values.name} is {dtype}, not numbers")
    try:
        if pd.api.types.is_object_dtype(dtype) or isinstance(dtype, pd.StringDtype):
            values = pd.to_numeric(values)
        return values.to_numpy(dtype=np.float64, na_value=np.nan)
    except (ValueError, TypeError) as error:
        raise _MalformedError(f"column {values.name} holds something other than numbers") from error


def _as_milliseconds(open_time: pd.Series) -> pd.DatetimeIndex:
    """Open times as datetime64[ms, UTC]; a bare number has no unit and is refused."""
    if not pd.api.types.is_datetime64_any_dtype(open_time.dtype):
        raise _MalformedError(f"open_time is {open_time.dtype}, not a time")
    if open_time.isna().any():
        raise _MalformedError(f"{open_time.isna().sum():,} open times are missing")
    exact = pd.DatetimeIndex(open_time)
    exact = exact.tz_localize("UTC") if exact.tz is None else exact.tz_convert("UTC")
    rounded = exact.as_unit("ms")
    n_outside = int(((rounded.asi8 < 0) | (rounded.asi8 >= _END_OF_9999_MS)).sum())
    if n_outside:
        raise _MalformedError(f"{n_outside:,} open times are outside the years 1970 to 9999")
    n_finer = int((rounded != exact).sum())
    if n_finer:
        raise _MalformedError(f"{n_finer:,} open times are not whole milliseconds")
    return rounded


def _check_rules(rows: pd.DataFrame, symbol: str, timeframe: BarLength) -> None:
    """Run the pandera schema and turn its report into one line."""
    open_time = rows["open_time"].to_numpy(dtype="datetime64[ms]").astype(np.int64)
    if keeps_rules(open_time, rows[list(COLUMNS)].to_numpy(), timeframe.milliseconds):
        return
    from pandera.errors import SchemaErrors

    body = rows[["open", "close"]]
    # Columns of their own: a rule on the whole frame would report every cell of a bad row.
    high_room = rows["high"] - body.max(axis=1)
    low_room = body.min(axis=1) - rows["low"]
    try:
        rules = _rules(timeframe.milliseconds, str(timeframe))
        rules.validate(rows.assign(high_room=high_room, low_room=low_room), lazy=True)
    except SchemaErrors as errors:
        broken = errors.failure_cases.groupby("check", sort=False)["index"]
        found = ", ".join(
            _describe_broken(str(rule), rows["open_time"].iloc[sorted(positions)])
            for rule, positions in broken
        )
        raise InvalidBarsError(symbol, str(timeframe), found, _REPAIR) from None


def keeps_rules(open_time: IntArray, values: FloatArray, step: int) -> bool:
    """Whether the pandera schema has nothing to report, in a hundredth of its time.

    Args:
        open_time: Milliseconds since 1970-01-01 UTC, shape (n_bars,), at least one.
        values: The ``COLUMNS``, shape (n_bars, 5).
        step: Length of each bar in milliseconds.
    """
    first, end = (int(moment.timestamp() * 1000) for moment in _TIMES)
    opened, high, low, close, volume = values.T
    # Comparisons with NaN are false.
    return bool(
        (open_time[0] >= first and open_time[-1] < end)
        and (np.diff(open_time) > 0).all()
        and (open_time % step == 0).all()
        and (low > 0).all()
        and (high <= _LARGEST_PRICE).all()
        and (high >= np.maximum(opened, close)).all()
        and (low <= np.minimum(opened, close)).all()
        and ((volume >= 0) & (volume <= _LARGEST_VOLUME)).all()
    )


def _describe_broken(rule: str, open_times: pd.Series) -> str:
    """``negative volume in 2 bars (2024-01-01 00:15, 2024-01-01 00:30)``."""
    n_broken = len(open_times)
    bars = "1 bar" if n_broken == 1 else f"{n_broken:,} bars"
    shown = [format_time(moment) for moment in open_times[:_TIMES_SHOWN]]
    more = ", ..." if n_broken > _TIMES_SHOWN else ""
    return f"{rule} in {bars} ({', '.join(shown)}{more})"


@cache
def _rules(step: int, length: str) -> pa.DataFrameSchema:
    """The schema; importing pandera takes half a second, so only a check pays for it."""
    import pandera.pandas as pa

    def rule(text: str, check: Callable[..., Any], ignore_na: bool = True) -> pa.Check:
        return pa.Check(check, name=text, error=text, ignore_na=ignore_na)

    def at_least_zero(values: pd.Series) -> pd.Series:
        return values >= 0

    nothing = pd.Timedelta(0)
    open_time = [
        rule(
            f"open_time not between {_TIMES[0]:%Y} and {_TIMES[1]:%Y}",
            lambda times: (times >= _TIMES[0]) & (times < _TIMES[1]),
        ),
        rule("duplicate open_time", lambda times: ~times.duplicated()),
        rule("open_time before that of the row above", lambda times: ~(times.diff() < nothing)),
        rule(f"open_time off the {length} grid", lambda times: times.astype("int64") % step == 0),
    ]
    prices = {
        name: [
            rule(f"{name} NaN or infinite", np.isfinite, ignore_na=False),
            rule(f"{name} not above zero", lambda values: values > 0),
            rule(
                f"{name} above {_LARGEST_PRICE:g}",
                lambda values: ~(values > _LARGEST_PRICE) | np.isinf(values),
            ),
        ]
        for name in PRICE_COLUMNS
    }
    volume = [
        rule("volume NaN or infinite", np.isfinite, ignore_na=False),
        rule("negative volume", at_least_zero),
        rule(
            f"volume above {_LARGEST_VOLUME:g}",
            lambda values: ~(values > _LARGEST_VOLUME) | np.isinf(values),
        ),
    ]
    return pa.DataFrameSchema(
        {
            "open_time": pa.Column("datetime64[ms, UTC]", open_time),
            **{name: pa.Column(float, checks, nullable=True) for name, checks in prices.items()},
            "volume": pa.Column(float, volume, nullable=True),
            "high_room": pa.Column(
                float, rule("high below open or close", at_least_zero), nullable=True
            ),
            "low_room": pa.Column(
                float, rule("low above open or close", at_least_zero), nullable=True
            ),
        }
    )
