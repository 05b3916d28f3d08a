"""Checks that a file is what it is read as: the market, the order, the clock, the price."""

from __future__ import annotations

import numpy as np
import pandas as pd

from percoin.bars.schema import COLUMNS, PRICE_COLUMNS, format_time
from percoin.bars.sources.files.columns import Columns
from percoin.bars.sources.files.errors import FileError
from percoin.bars.sources.files.names import length_of_step, names_market, same_coin, same_market
from percoin.bars.sources.files.times import Times, Zone
from percoin.printable import printable
from percoin.types import BarLength, IntArray

# A lost decimal point, cents beside dollars, another coin under one name. A crash happens within
# bars: from a close to the next open the largest factor in 133 real histories is 1.07.
_JUMP = 50
_HOUR_MS = 3_600_000
_SURE_SHARE = 0.9
_FEWEST_BARS = 20
_MARKETS_SHOWN = 5


def of_market(columns: Columns, names: tuple[str, ...]) -> tuple[Columns, tuple[str, ...]]:
    """The rows of the market that was asked for, by the column that names it.

    Args:
        columns: Of the whole file.
        names: The market as it is called, today's name first.

    Returns:
        The rows, and what to tell of it.

    Raises:
        FileError: All rows are of other markets; names them.
    """
    if columns.symbols is None:
        return columns, ()
    stated = columns.symbols.astype(str).str.strip().where(columns.symbols.notna(), "")
    markets = [text for text in stated.unique() if names_market(text)]
    own = [text for text in markets if any(same_market(text, name) for name in names)]
    others = [text for text in markets if text not in own]
    if not others:
        return columns, ()
    listed = ", ".join(printable(text, 30) for text in others[:_MARKETS_SHOWN])
    listed += ", ..." if len(others) > _MARKETS_SHOWN else ""
    if own:
        rows = stated.isin(own).to_numpy()
        note = f"{int(rows.sum()):,} of {len(rows):,} rows are taken, the others are of {listed}"
        return columns.of_rows(rows), (note,)
    if len(markets) == 1 and any(same_coin(markets[0], name) for name in names):
        return columns, (f"its rows are of {listed}, read as {names[0]}",)
    raise FileError(f"its rows are of {listed}, not of {names[0]}", "ask for that market")


def in_order(table: pd.DataFrame) -> pd.DataFrame:
    """The rows oldest first, if they are newest first; any other order is left as it is."""
    moments = table["open_time"]
    if len(table) < 2 or moments.iloc[0] <= moments.iloc[-1]:
        return table
    falling = (moments.diff().iloc[1:] < pd.Timedelta(0)).mean()
    return table.iloc[::-1].reset_index(drop=True) if falling > _SURE_SHARE else table


def step_of(open_times: IntArray) -> tuple[int, float]:
    """The most frequent step between bars in milliseconds, and how frequent it is; 0 if none."""
    diffs = np.diff(open_times)
    if not len(diffs):
        return 0, 0.0
    if (share := float((diffs == diffs[0]).mean())) > _SURE_SHARE:
        return int(diffs[0]), share
    steps, counts = np.unique(diffs, return_counts=True)
    return int(steps[counts.argmax()]), float(counts.max() / counts.sum())


def check_spacing(open_times: IntArray, length: BarLength) -> None:
    """Refuse bars that are clearly of another length, or open at another minute of the day.

    Raises:
        FileError: Says which.
    """
    step, share = step_of(open_times)
    other = length_of_step(step)
    if len(open_times) >= _FEWEST_BARS and share > _SURE_SHARE and other and other != length:
        found = f"its name says {length}, its bars are {other} apart"
        raise FileError(found, f"call it {other} in place of {length}")
    offsets = open_times % length.milliseconds
    if len(offsets) < _FEWEST_BARS or not offsets[0] or not (offsets == offsets[0]).all():
        return
    offset = pd.Timedelta(int(offsets[0]), "ms")
    if length.milliseconds - offsets[0] in (1, 1_000):
        found = f"every bar has the time at which it closes ({_moment(open_times[0])})"
        late = "1 ms" if length.milliseconds - offsets[0] == 1 else "1 s"
        raise FileError(found, f"write open_time = that time + {late} - {length}")
    found = (
        f"every bar opens {_span(offset)} off the {length} grid of UTC ({_moment(open_times[0])})"
    )
    raise FileError(found, "take bars cut in UTC (of OKX: 1Dutc)")


def check_last(columns: Columns) -> None:
    """Refuse a file that ends in the middle of its last row.

    Raises:
        FileError: Names the row and what it lacks.
    """
    values = columns.table[list(COLUMNS)]
    lacking = [name for name in COLUMNS if values[name].iloc[-1:].isna().any()]
    if not lacking or values.iloc[:-1].isna().any(axis=None):
        return
    found = f"its last row, {columns.place(len(values) - 1)}, is cut off: no {', '.join(lacking)}"
    raise FileError(found, "leave that row out, or download the file again")


def check_clocks(open_times: IntArray, length: BarLength, times: Times) -> tuple[str, ...]:
    """Look for local times across a change of clocks; only texts without a zone can be.

    Returns:
        A warning where an hour is missing just when clocks go forward.

    Raises:
        FileError: An hour is there twice just when clocks go back.
    """
    if times.zone is not Zone.ASSUMED_UTC or length.milliseconds > _HOUR_MS:
        return ()
    steps = np.diff(open_times)
    back = np.flatnonzero(steps <= 0)
    if len(back) and (steps[back] == length.milliseconds - _HOUR_MS).all():
        moments = [pd.Timestamp(int(open_times[at + 1]), unit="ms") for at in back]
        if all(_may_change(moment) for moment in moments):
            found = (
                f"{times.name} is in local time: the hour from {format_time(moments[0])} "
                "is there twice, as clocks go back"
            )
            raise FileError(found, "write the times in UTC, or with their offset")
    for at in np.flatnonzero(steps == length.milliseconds + _HOUR_MS):
        moment = pd.Timestamp(int(open_times[at]) + length.milliseconds, unit="ms")
        if _may_change(moment) and moment.month == 3:
            return (
                f"the hour from {format_time(moment)} is missing, when clocks go forward: "
                f"if {times.name} is in local time, write it in UTC or with its offset",
            )
    return ()


def check_prices(frame: pd.DataFrame, length: BarLength) -> tuple[str, ...]:
    """Look for prices that no real market has.

    Args:
        frame: As in ``Bars.frame``.
        length: Of its bars.

    Returns:
        A warning where the price is another one after a gap.

    Raises:
        FileError: No bar was traded, or a price jumps by a factor of ``_JUMP``
            from one bar to the next.
    """
    _check_traded(frame)
    close, opened = frame["close"].to_numpy()[:-1], frame["open"].to_numpy()[1:]
    ratio = np.maximum(opened / close, close / opened)
    jumps = np.flatnonzero(ratio >= _JUMP)
    if not len(jumps):
        return ()
    steps = np.diff(frame.index.to_numpy(dtype="datetime64[ms]").astype(np.int64))
    near = [at for at in jumps if steps[at] == length.milliseconds]
    at = int(near[0] if near else jumps[0])
    moment = format_time(frame.index[at + 1])
    found = f"the price jumps from {close[at]:g} to {opened[at]:g} at {moment}"
    if near:
        action = "bring both sides to one unit, or keep the rows of one side in a file of their own"
        raise FileError(f"{found}, a factor of {ratio[at]:,.0f} between two bars", action)
    return (f"{found} after a gap: before and after may be two coins",)


def _check_traded(frame: pd.DataFrame) -> None:
    if len(frame) < _FEWEST_BARS or frame["volume"].any():
        return
    prices = frame[list(PRICE_COLUMNS)].to_numpy()
    if (prices == prices[0, 0]).all():
        found = f"all {len(frame):,} bars are flat at {prices[0, 0]:g} without volume"
        raise FileError(found, "take a time in which the market was traded")
    found = f"none of {len(frame):,} bars has volume, so these are not bars of trades"
    raise FileError(found, "take the bars of the market, not of its mark price or index")


def _may_change(moment: pd.Timestamp) -> bool:
    """Whether clocks change there: a Sunday of spring or autumn, at night."""
    return moment.day_of_week == 6 and moment.hour <= 3 and moment.month in (3, 4, 9, 10, 11)


def _moment(open_time: int) -> str:
    return format_time(pd.Timestamp(int(open_time), unit="ms"))


def _span(offset: pd.Timedelta) -> str:
    """``16:00`` for whole minutes, else with seconds."""
    return str(offset).removeprefix("0 days ").removesuffix(":00")
