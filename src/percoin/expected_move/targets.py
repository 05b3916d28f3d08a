"""What a volatility forecast is fitted to and held against, known once the horizon is over."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from percoin.bars.gaps import contiguous_run
from percoin.bars.schema import Bars
from percoin.types import FloatArray


@dataclass(frozen=True, eq=False)
class MoveTargets:
    """What came after each bar; NaN where a bar of the horizon is missing, shape (n_bars,) each.

    Attributes:
        log_return: From the bar's close to the close at the horizon.
        range_variance: Sum of the variances of the horizon's bars by their ranges (Parkinson,
            1980). It tells how much a market moved several times as exactly as one squared
            return.
    """

    log_return: FloatArray
    range_variance: FloatArray


def move_targets(bars: Bars, horizon: int) -> MoveTargets:
    """Measure what came after each bar.

    Args:
        bars: Closed bars of one market.
        horizon: At least 1 bar.
    """
    close, high, low = (np.log(bars.column(name)) for name in ("close", "high", "low"))
    variance = (high - low) ** 2 / (4 * math.log(2))
    # Bar by bar: a difference of running sums would round small variances away.
    summed = np.sum([_later(variance, ahead) for ahead in range(1, horizon + 1)], axis=0)
    run = contiguous_run(bars.open_time, bars.timeframe).astype(np.float64)
    is_known = _later(run, horizon) > horizon
    log_return = np.where(is_known, _later(close, horizon) - close, np.nan)
    return MoveTargets(log_return, np.where(is_known, summed, np.nan))


def _later(values: FloatArray, n_bars: int) -> FloatArray:
    """Each bar's value ``n_bars`` later, NaN beyond the end."""
    return np.concatenate([values[n_bars:], np.full(min(n_bars, len(values)), np.nan)])
