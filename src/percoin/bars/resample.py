"""Longer bars from shorter ones."""

from __future__ import annotations

import numpy as np
import pandas as pd

from percoin.bars.schema import COLUMNS, Bars
from percoin.errors import NotEnoughBarsError
from percoin.types import FloatArray, Timeframe


def divides(finer: Timeframe, timeframe: Timeframe) -> bool:
    """Whether bars of ``timeframe`` can be made from bars of ``finer``."""
    return (
        finer.milliseconds < timeframe.milliseconds
        and timeframe.milliseconds % finer.milliseconds == 0
    )


def resample(bars: Bars, timeframe: Timeframe) -> Bars:
    """Make longer bars, each from all of its shorter ones.

    A longer bar of which any shorter bar is missing is left out: at the start,
    at the end and at a gap, so that a gap in ``bars`` is one in the result.
    Open is the first open, high and low are the extremes, close is the last
    close, volume is the sum.

    Args:
        bars: Shorter bars; returned unchanged if they already have ``timeframe``.
        timeframe: Length of the longer bars, a multiple of that of ``bars``.

    Raises:
        ValueError: ``timeframe`` is no multiple.
        NotEnoughBarsError: Not one longer bar is complete.
    """
    if bars.timeframe == timeframe:
        return bars
    if not divides(bars.timeframe, timeframe):
        raise ValueError(f"{timeframe} bars cannot be made from {bars.timeframe} bars")
    per_bar = timeframe.milliseconds // bars.timeframe.milliseconds
    bin_start = bars.open_time // timeframe.milliseconds * timeframe.milliseconds
    starts, counts = np.unique(bin_start, return_counts=True)
    complete = counts == per_bar
    if not complete.any():
        found = f"{len(bars):,} {bars.timeframe} bars do not fill one of {timeframe}"
        raise NotEnoughBarsError(bars.symbol, timeframe, found, "give it a longer history")
    rows = np.repeat(complete, counts)
    shorter = {name: bars.column(name)[rows].reshape(-1, per_bar) for name in COLUMNS}
    open_time = pd.DatetimeIndex(starts[complete].astype("datetime64[ms]"), name="open_time")
    frame = pd.DataFrame(_joined(shorter), index=open_time.tz_localize("UTC"))
    origin = f"{bars.origin}, resampled from {bars.timeframe}"
    return Bars(bars.symbol, timeframe, frame, origin)


def _joined(shorter: dict[str, FloatArray]) -> dict[str, FloatArray]:
    """The values of each longer bar from its shorter ones, each (n_bars, per_bar)."""
    return {
        "open": shorter["open"][:, 0],
        "high": shorter["high"].max(axis=1),
        "low": shorter["low"].min(axis=1),
        "close": shorter["close"][:, -1],
        "volume": shorter["volume"].sum(axis=1),
    }
