"""Hit rate: how often directions are right, with an interval from a bootstrap over days.

Equal signals come in runs: a rule that follows one move gives the same signal for hours, and
labels of neighbouring bars overlap. So the bootstrap draws whole UTC days, not single signals.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from percoin.evaluation.uncertainty import Bootstrap, Estimate
from percoin.intervals import KnownInterval
from percoin.types import DAY_MILLISECONDS, FloatArray, IntArray, Signal, Timeframe


@dataclass(frozen=True)
class HitRate(KnownInterval):
    """A hit rate with its interval.

    Attributes:
        n_moves: Number of LONG or SHORT signals that a move followed.
    """

    n_moves: int


def moves_after(signals: IntArray, labels: IntArray) -> tuple[IntArray, FloatArray]:
    """Find the LONG and SHORT signals that a move followed, and whether each was right.

    Args:
        signals: Shape (n,).
        labels: Shape (n,); unknown labels count as no move.

    Returns:
        Positions, and 1.0 (right) or 0.0 (wrong) for each; both of shape (n_moves,).
    """
    directions = (Signal.SHORT, Signal.LONG)
    rows = np.flatnonzero(np.isin(signals, directions) & np.isin(labels, directions))
    return rows, (signals[rows] == labels[rows]).astype(np.float64)


def hit_rate(
    hits: FloatArray, open_time: IntArray, timeframe: Timeframe, bootstrap: Bootstrap
) -> Estimate | None:
    """The share of hits, estimated from daily counts and tested against one half.

    Args:
        hits: From ``moves_after``, shape (n_moves,).
        open_time: Open times of the signals' bars, in milliseconds, ascending,
            shape (n_moves,).
        timeframe: Length of the bars.
        bootstrap: Settings with the horizon in bars, like the label's.

    Returns:
        None without hits or misses; an estimate without interval if there are too few days.
    """
    if len(hits) == 0:
        return None
    _, day = np.unique(open_time // DAY_MILLISECONDS, return_inverse=True)
    n_moves, n_hits = np.bincount(day).astype(np.float64), np.bincount(day, weights=hits)
    rate = float(hits.mean())
    # The rate is a ratio of means: add each day's influence to its value (the delta method).
    by_day = rate + (n_hits - rate * n_moves) / n_moves.mean()
    reach_days = math.ceil(bootstrap.horizon * timeframe.milliseconds / DAY_MILLISECONDS)
    of_days = Bootstrap(reach_days, bootstrap.seed, bootstrap.repetitions, bootstrap.confidence)
    return of_days.estimate_share(by_day, null=0.5)
