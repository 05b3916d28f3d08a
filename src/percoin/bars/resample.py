"""Longer bars from shorter ones."""

from __future__ import annotations

import numpy as np
import pandas as pd

from percoin.bars.schema import COLUMNS, Bars
from percoin.errors import NotEnoughBarsError
from percoin.types import BarLength, FloatArray, IntArray, Timeframe

# A longer history does not help if every longer bar lacks a shorter one.
NOT_FILLED = "give it bars without gaps, or a longer history"


def divides(finer: BarLength, timeframe: BarLength) -> bool:
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
    frame = resample_frame(bars.frame, bars.timeframe, timeframe)
    if frame.empty:
        found = f"{len(bars):,} {bars.timeframe} bars do not fill one of {timeframe}"
        raise NotEnoughBarsError(bars.symbol, timeframe, found, NOT_FILLED)
    origin = f"{bars.origin}, resampled from {bars.timeframe}"
    return Bars(bars.symbol, timeframe, frame, origin)


def resample_frame(frame: pd.DataFrame, finer: BarLength, timeframe: BarLength) -> pd.DataFrame:
    """As ``resample``, on frames as in ``Bars.frame``; empty if no longer bar is complete.

    Args:
        frame: Bars of the length ``finer``.
        finer: Any length that divides ``timeframe``.
        timeframe: Length of the longer bars.
    """
    open_times: IntArray = frame.index.to_numpy(dtype="datetime64[ms]").astype(np.int64)
    per_bar = timeframe.milliseconds // finer.milliseconds
    bin_start = open_times // timeframe.milliseconds * timeframe.milliseconds
    starts, counts = np.unique(bin_start, return_counts=True)
    complete = counts == per_bar
    rows = np.repeat(complete, counts)
    shorter = {
        name: frame[name].to_numpy(dtype=np.float64)[rows].reshape(-1, per_bar) for name in COLUMNS
    }
    open_time = pd.DatetimeIndex(starts[complete].astype("datetime64[ms]"), name="open_time")
    return pd.DataFrame(_joined(shorter), index=open_time.tz_localize("UTC"))


def _joined(shorter: dict[str, FloatArray]) -> dict[str, FloatArray]:
    """The values of each longer bar from its shorter ones, each (n_bars, per_bar)."""
    return {
        "open": shorter["open"][:, 0],
        "high": shorter["high"].max(axis=1),
        "low": shorter["low"].min(axis=1),
        "close": shorter["close"][:, -1],
        "volume": shorter["volume"].sum(axis=1),
    }
