"""Bars without trades or without movement: counted and reported, never changed."""

from __future__ import annotations

import numpy as np

from percoin.bars.schema import Bars, format_time
from percoin.types import BoolArray

# A market that is only thin has fewer bars that stand still.
_STILL_SHARE = 0.5


def is_silent(bars: Bars) -> BoolArray:
    """Whether each bar is without volume, shape (n_bars,)."""
    silent: BoolArray = bars.column("volume") == 0
    return silent


def is_flat(bars: Bars) -> BoolArray:
    """Whether each bar has one and the same price from open to close, shape (n_bars,)."""
    flat: BoolArray = bars.column("high") == bars.column("low")
    return flat


def describe_silence(bars: Bars) -> str:
    """How many bars are without volume or stand still, as a phrase; empty if hardly any."""
    n_bars, silent, flat = len(bars), is_silent(bars), is_flat(bars)
    if silent.all() and n_bars:
        if flat.all():
            price = bars.column("close")[-1]
            return f"all {n_bars:,} bars are flat at {price:.8g} and without volume"
        return f"no bar has volume ({n_bars:,} bars), these are not traded bars"
    if silent.any():
        last = format_time(bars.frame.index[np.flatnonzero(silent)[-1]])
        return (
            f"{int(silent.sum()):,} of {n_bars:,} bars are without volume, the last at {last} UTC"
        )
    if n_bars and flat.mean() > _STILL_SHARE:
        return f"{int(flat.sum()):,} of {n_bars:,} bars are flat: the price stands still"
    return ""


def advise_on_silence(bars: Bars) -> str:
    """What to do about what ``describe_silence`` found."""
    silent, flat = is_silent(bars), is_flat(bars)
    if flat.mean() > _STILL_SHARE:
        return "take a time in which the market was traded: it has ended, or is hardly traded"
    if silent.all():
        return "give klines of trades with their volume, not those of mark or index prices"
    return "take a longer timeframe, whose bars are rarely without volume, or another market"
