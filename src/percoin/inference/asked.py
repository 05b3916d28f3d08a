"""Checks the bars that callers of the library pass in, and drops a bar that still runs.

The sources of percoin leave out what has not closed. Others do not: ccxt's ``fetch_ohlcv``
ends with the running bar, whose close is no close yet, and no model was trained on such bars.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pandas as pd

from percoin.bars.schema import (
    COLUMNS,
    RUNNING_AT_MOST,
    Bars,
    check_bars,
    format_time,
    is_simulated,
    keeps_rules,
)
from percoin.errors import InvalidBarsError
from percoin.types import Timeframe

log = logging.getLogger(__name__)


def closed_bars(bars: Bars, now: datetime | None = None) -> Bars:
    """The bars that had closed by then, in the form of the schema.

    A bar that still runs is left out with a warning. Simulated bars know no clock.

    Args:
        bars: Of one market; open times without a zone are UTC, as in ``check_bars``.
        now: With a zone; None is this machine's clock.

    Raises:
        InvalidBarsError: They break the schema, or open later than the next bar can.
        ValueError: ``now`` has no zone.
    """
    moment = pd.Timestamp(now or datetime.now(UTC))
    if moment.tz is None:
        raise ValueError(f"now={moment} has no time zone: give datetime.now(UTC) or the like")
    bars = checked_bars(bars)
    n_after = int((bars.open_time + bars.timeframe.milliseconds > moment.timestamp() * 1000).sum())
    if n_after == 0 or is_simulated(bars.origin):
        return bars
    newest = format_time(bars.frame.index[-1])
    clock = format_time(moment.tz_convert("UTC"))
    if n_after > RUNNING_AT_MOST:
        raise InvalidBarsError(
            bars.symbol,
            bars.timeframe,
            f"{n_after:,} bars had not closed at {clock} UTC, the newest opens {newest} UTC",
            "give open times in UTC, set this machine's clock, or pass now=",
        )
    n_closed = len(bars) - n_after
    log.warning(
        "%s %s: the bar that opened %s UTC has not closed at %s UTC and is left out",
        bars.symbol,
        bars.timeframe,
        format_time(bars.frame.index[n_closed]),
        clock,
    )
    return bars.slice(0, n_closed)


def checked_bars(bars: Bars) -> Bars:
    """The bars in the form of the schema; bars that have it already are not copied.

    Raises:
        InvalidBarsError: They cannot be brought into it.
    """
    try:
        if len(bars) == 0 or _is_sound(bars):
            return bars
        timeframe = Timeframe(bars.timeframe)
        frame = check_bars(bars.frame, bars.symbol, timeframe)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InvalidBarsError(
            bars.symbol,
            bars.timeframe,
            f"these are no bars: {error}",
            "load them from a source, or check them with percoin.bars.schema.check_bars",
        ) from error
    return replace(bars, timeframe=timeframe, frame=frame)


def _is_sound(bars: Bars) -> bool:
    """Whether they keep every rule of the schema; told in a fraction of a millisecond."""
    frame, timeframe = bars.frame, bars.timeframe
    is_form = (
        isinstance(timeframe, Timeframe)
        and frame.index.dtype == "datetime64[ms, UTC]"
        and tuple(frame.columns) == COLUMNS
        and all(dtype == np.float64 for dtype in frame.dtypes)
    )
    return is_form and keeps_rules(bars.open_time, bars.values, timeframe.milliseconds)
