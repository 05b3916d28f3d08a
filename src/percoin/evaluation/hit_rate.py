"""How often directions turned out right, with an interval that counts days and not answers.

Answers come in runs: a rule that follows one move says the same for hours, and labels of
neighbouring bars overlap. What is drawn again for the interval is therefore whole UTC days.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from percoin.evaluation.uncertainty import Bootstrap, Estimate
from percoin.intervals import KnownInterval
from percoin.types import FloatArray, IntArray, Signal, Timeframe

_DAY_MS = 86_400_000


@dataclass(frozen=True)
class HitRate(KnownInterval):
    """A hit rate that has an interval.

    Attributes:
        n_moves: Directions that a move followed.
    """

    n_moves: int


def moves_after(signals: IntArray, labels: IntArray) -> tuple[IntArray, FloatArray]:
    """The directions that a move followed, and whether each was right.

    Args:
        signals: Shape (n,).
        labels: Shape (n,); unknown ones count as no move.

    Returns:
        Positions, and 1.0 or 0.0 for each of them; both of shape (n_moves,).
    """
    directions = (Signal.SHORT, Signal.LONG)
    rows = np.flatnonzero(np.isin(signals, directions) & np.isin(labels, directions))
    return rows, (signals[rows] == labels[rows]).astype(np.float64)


def hit_rate(
    hits: FloatArray, open_time: IntArray, timeframe: Timeframe, bootstrap: Bootstrap
) -> Estimate | None:
    """The share of hits, from how many there were on each day; tested against one half.

    Args:
        hits: From ``moves_after``, shape (n_moves,).
        open_time: Of the bars that these answers were made on, in milliseconds, ascending,
            shape (n_moves,).
        timeframe: Length of the bars.
        bootstrap: Its horizon is in bars, as the label's.

    Returns:
        None without any; without ends where the answers lie on too few days.
    """
    if len(hits) == 0:
        return None
    _, day = np.unique(open_time // _DAY_MS, return_inverse=True)
    n_moves, n_hits = np.bincount(day).astype(np.float64), np.bincount(day, weights=hits)
    rate = float(hits.mean())
    # A ratio of means: its value plus the influence of each day on it (the delta method).
    by_day = rate + (n_hits - rate * n_moves) / n_moves.mean()
    reach_days = math.ceil(bootstrap.horizon * timeframe.milliseconds / _DAY_MS)
    of_days = Bootstrap(reach_days, bootstrap.seed, bootstrap.repetitions, bootstrap.confidence)
    return of_days.estimate(by_day, null=0.5)
