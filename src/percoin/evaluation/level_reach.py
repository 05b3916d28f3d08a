"""How often the stop and the targets of a signal are reached within its horizon."""

from __future__ import annotations

import numpy as np

from percoin.bars.schema import Bars
from percoin.evaluation.hit_rate import hit_rate
from percoin.evaluation.uncertainty import Bootstrap
from percoin.features.levels import STOP, LevelPrices
from percoin.intervals import KnownInterval, interval_text
from percoin.types import BoolArray, FloatArray, IntArray, LevelsReached


def levels_reached(
    bars: Bars, rows: IntArray, levels: LevelPrices, bootstrap: Bootstrap
) -> LevelsReached | None:
    """Share of the signals whose stop, and each of whose targets, was reached.

    Args:
        bars: Bars of the market.
        rows: Positions of the signals' bars, ascending, shape (n,); the bars of the horizon
            follow each without a gap.
        levels: Stop and targets of each; a row without levels is left out.
        bootstrap: Settings of the intervals, with the horizon.

    Returns:
        None if there are too few days with signals for an interval.
    """
    known = np.flatnonzero(np.isfinite(levels.prices).all(axis=1))
    rows, levels = rows[known], levels.take(known)
    reached = find_reached(bars, rows, levels, bootstrap.horizon).astype(np.float64)
    shares = [_share(column, bars, rows, bootstrap) for column in reached.T]
    measured = [share for share in shares if share is not None]
    return LevelsReached(len(rows), *measured) if len(measured) == len(shares) else None


def reached_text(reached: LevelsReached, horizon: int) -> str:
    """The shares with their intervals, as a phrase for people."""
    stop, *targets = (
        interval_text(share, 3, signed=False)
        for share in (reached.stop_loss, reached.tp1, reached.tp2, reached.tp3)
    )
    n_bars = "1 bar" if horizon == 1 else f"{horizon} bars"
    return (
        f"within {n_bars} {reached.n_signals:,} judged signals reached the stop in {stop}, "
        f"the targets before the stop in {', '.join(targets)}"
    )


def find_reached(bars: Bars, rows: IntArray, levels: LevelPrices, horizon: int) -> BoolArray:
    """Whether the next bars reach the stop, and each target before the stop, shape (n, 4).

    A price is reached if the high or low of a bar touches it. If one bar touches the stop and a
    target, their order is unknown, and the stop counts as the first.

    Args:
        bars: Bars of the market.
        rows: Positions of the bars of the decisions, shape (n,).
        levels: Stop and targets at each, shape (n, 4).
        horizon: Number of bars after the decision.
    """
    high, low = bars.column("high"), bars.column("low")
    # The stop of a SHORT lies above, like the targets of a LONG.
    is_stop = np.arange(levels.prices.shape[1]) == STOP
    is_above = levels.is_long[:, None] != is_stop
    first = np.full(levels.prices.shape, horizon + 1)
    for ahead in range(horizon, 0, -1):
        above = high[rows + ahead, None] >= levels.prices
        below = low[rows + ahead, None] <= levels.prices
        first[np.where(is_above, above, below)] = ahead
    is_in_time = (first < first[:, [STOP]]) | is_stop
    reached: BoolArray = (first <= horizon) & is_in_time
    return reached


def _share(
    reached: FloatArray, bars: Bars, rows: IntArray, bootstrap: Bootstrap
) -> KnownInterval | None:
    """The share with an interval over days; None with too few of them."""
    share = hit_rate(reached, bars.open_time[rows], bars.timeframe, bootstrap)
    return None if share is None else share.known
