"""Missing bars: found and reported with their dates, never filled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from percoin.bars.schema import Bars, format_time
from percoin.types import BoolArray, IntArray, Timeframe

_GAPS_SHOWN = 3


@dataclass(frozen=True)
class Gap:
    """A run of missing bars.

    Attributes:
        last_before: Open time of the last bar before the gap (UTC).
        first_after: Open time of the first bar after it (UTC).
        n_missing: Bars that are missing between the two.
    """

    last_before: pd.Timestamp
    first_after: pd.Timestamp
    n_missing: int


def find_gaps(bars: Bars) -> tuple[Gap, ...]:
    """Every gap between the first and the last bar, oldest first."""
    n_steps = np.diff(bars.open_time) // bars.timeframe.milliseconds
    index = bars.frame.index
    return tuple(
        Gap(index[position], index[position + 1], int(n_steps[position]) - 1)
        for position in np.flatnonzero(n_steps > 1).tolist()
    )


def describe_gaps(bars: Bars, gaps: Sequence[Gap]) -> str:
    """One line on the gaps of ``bars`` for people; at most three are shown, the longest."""
    market = f"{bars.symbol} {bars.timeframe}"
    if not gaps:
        return f"{market}: no gaps"
    n_missing = sum(gap.n_missing for gap in gaps)
    longest = sorted(gaps, key=lambda gap: gap.n_missing, reverse=True)[:_GAPS_SHOWN]
    shown = ", ".join(
        f"{gap.n_missing:,} between {format_time(gap.last_before)} "
        f"and {format_time(gap.first_after)} UTC"
        for gap in sorted(longest, key=lambda gap: gap.last_before)
    )
    counted = f"{len(gaps):,} gap{'s' * (len(gaps) > 1)}"
    which = "" if len(gaps) <= _GAPS_SHOWN else "the longest "
    missing = f"{n_missing:,} of {len(bars) + n_missing:,} bars missing"
    return f"{market}: {counted}, {missing}: {which}{shown}"


def follows_gap(open_time: IntArray, milliseconds: int | IntArray) -> BoolArray:
    """Whether each bar is the first after a gap, or the first there is.

    Args:
        open_time: Milliseconds since 1970-01-01 UTC, rising along the first axis; a
            second axis may hold markets.
        milliseconds: Length of each bar, of each market.

    Returns:
        Shape of ``open_time``.
    """
    starts = np.ones(open_time.shape, dtype=np.bool_)
    starts[1:] = np.diff(open_time, axis=0) != milliseconds
    return starts


def contiguous_run(open_time: IntArray, timeframe: Timeframe) -> IntArray:
    """How many bars without a gap end on each bar, that bar included.

    A window of ``lookback`` bars that ends on bar ``i`` spans no gap exactly
    when ``contiguous_run(...)[i] >= lookback``.

    Args:
        open_time: Milliseconds since 1970-01-01 UTC, rising, shape (n_bars,).
        timeframe: Length of each bar.

    Returns:
        Counts from 1, shape (n_bars,).
    """
    position = np.arange(len(open_time), dtype=np.int64)
    starts = follows_gap(open_time, timeframe.milliseconds)
    run_start = np.maximum.accumulate(np.where(starts, position, 0))
    return position - run_start + 1
