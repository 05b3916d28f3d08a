"""Is the newest bar too old for anything to be made of it?"""

from __future__ import annotations

import math
from datetime import datetime, timedelta

from percoin.bars.schema import Bars, format_time
from percoin.types import Timeframe

# An exchange's newest closed bar is one bar old before the next one takes its place.
EXCHANGE_AGE_BARS = 2.0
# Within this time a source is expected to have handed out a bar that closed.
_ARRIVAL = timedelta(seconds=60)
# These end where they end: nobody takes their newest bar for the present.
_HISTORICAL_SOURCES = {"files", "sample", "simulated"}


def find_staleness(bars: Bars, max_age_bars: float | None, now: datetime) -> str:
    """Say why the newest bar is too old to act on; empty if it is not.

    Args:
        bars: Closed bars of one market.
        max_age_bars: How long ago the newest bar may have closed, in bar lengths.
            None is ``EXCHANGE_AGE_BARS`` for bars of an exchange, and no limit for
            files, the sample and simulated bars.
        now: With a zone.
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
        f"and max_age_bars is {max_age_bars:g} (max_age_bars={math.ceil(age_bars) + 1} asks "
        "all the same)"
    )


def is_overdue(closed: datetime, timeframe: Timeframe, now: datetime) -> bool:
    """Whether a newer bar than the one that closed then closed a minute ago or earlier.

    Whatever the bars are and may be used for: this is about time alone.

    Args:
        closed: When the newest bar closed, with a zone.
        timeframe: Length of the bars.
        now: With a zone.
    """
    return now - closed >= timeframe.timedelta + _ARRIVAL
