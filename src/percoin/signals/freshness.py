"""Check whether the newest bar is too old to act on."""

from __future__ import annotations

import math
from datetime import datetime, timedelta

from percoin.bars.schema import Bars, format_time
from percoin.types import Timeframe

# An exchange's newest closed bar gets one bar old before the next one replaces it.
EXCHANGE_AGE_BARS = 2.0
# A source should deliver a closed bar within this time.
_ARRIVAL = timedelta(seconds=60)
# Bars of these sources are history: nobody takes their newest bar for the present.
_HISTORICAL_SOURCES = {"files", "sample", "simulated"}


def find_staleness(bars: Bars, max_age_bars: float | None, now: datetime) -> str:
    """Return why the newest bar is too old to act on; empty if it is not.

    Args:
        bars: Closed bars of one market.
        max_age_bars: Maximum time since the newest bar closed, in bar lengths. None means
            ``EXCHANGE_AGE_BARS`` for bars of an exchange, and no limit for files, the
            sample and simulated bars.
        now: Current time, with a zone.
    """
    if max_age_bars is None:
        if bars.source in _HISTORICAL_SOURCES:
            return ""
        max_age_bars = EXCHANGE_AGE_BARS
    age_bars = (now - bars.close_time().to_pydatetime()) / bars.timeframe.timedelta
    if age_bars <= max_age_bars:
        return ""
    return (
        f"the newest bar closed {format_time(bars.close_time())} UTC, {age_bars:,.1f} bars ago, "
        f"and max_age_bars is {max_age_bars:g} (max_age_bars={math.ceil(age_bars) + 1} asks anyway)"
    )


def is_overdue(closed: datetime, timeframe: Timeframe, now: datetime) -> bool:
    """Whether the next bar closed at least a minute ago.

    Only the time counts; the source of the bars does not matter.

    Args:
        closed: When the newest bar closed, with a zone.
        timeframe: Length of the bars.
        now: Current time, with a zone.
    """
    return now - closed >= timeframe.timedelta + _ARRIVAL
