"""With which bar forecasts change: what tells forecasts that are stamped a few bars off.

A forecast that looks at the market changes when the market moves: from one bar to the next it
hears of one more bar, its own. If it moves with a later bar instead, it has seen that bar, and
its stamp is too early. How well it fits the outcome cannot tell: forecasts that know what has
just happened fit the outcome that has just happened better than what is to come.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from percoin.bars.schema import Bars
from percoin.evaluation.block_length import varies
from percoin.evaluation.uncertainty import Bootstrap, Estimate
from percoin.types import DAY_MILLISECONDS, BoolArray, FloatArray, IntArray, Signal

# Anything smaller tells nothing, however sure it is: bars that follow each other are alike.
_LEAST_CORRELATION = 0.2
_LEAST_EXCESS = 0.1
# Of two series that have nothing to do with each other; on few rows chance makes a large one.
_LEAST_STANDARD_ERRORS = 4.0
_SMALLEST_RANGE = 1e-6
_SMALLEST_PROBABILITY = 1e-4


class Reaction:
    """Rank correlations of changes of the forecasts with the range and the return of bars.

    The range is in logarithms, without the usual one of its time of day and its weekday, which
    anybody can know. Only forecasts that follow a forecast of the bar before count.
    """

    def __init__(
        self, bars: Bars, rows: IntArray, probabilities: FloatArray, bootstrap: Bootstrap
    ) -> None:
        """Measure the changes.

        Args:
            bars: Of the market.
            rows: The bars of the forecasts, in time order, shape (n,).
            probabilities: Forecasts, shape (n, C).
            bootstrap: Makes the intervals.
        """
        opened, step = bars.open_time, bars.timeframe.milliseconds
        follows = (np.diff(rows) == 1) & (np.diff(opened[rows]) == step)
        self._rows = rows[1:][follows]
        self._bars = bars
        self._bootstrap = bootstrap
        still = np.clip(
            probabilities[:, Signal.NO_TRADE], _SMALLEST_PROBABILITY, 1 - _SMALLEST_PROBABILITY
        )
        expected_move = np.log1p(-still) - np.log(still)
        direction = probabilities[:, Signal.LONG] - probabilities[:, Signal.SHORT]
        self._move_change = np.diff(expected_move)[follows]
        self._direction_change = np.diff(direction)[follows]
        self._range = _unusual_range(bars)
        close = bars.frame["close"].to_numpy()
        self._return = np.diff(np.log(close), prepend=np.log(close[0]))

    def to_range(self, shifts: range) -> tuple[int, Estimate] | None:
        """Which other bar's range the forecasts change with, if they surely do.

        Args:
            shifts: How many bars later the bars to look at lie; without 0.

        Returns:
            The shift, and by how much the correlation there exceeds the one with the forecast's
            own bar; None if none does for sure.
        """
        return self._best(shifts, self._move_change, self._range)

    def to_return(self, shifts: range) -> tuple[int, Estimate] | None:
        """As ``to_range``, for the direction of the forecasts and the returns of the bars.

        Of no use for earlier bars: what looks at how returns change moves with the one before.
        """
        return self._best(shifts, self._direction_change, self._return, either_sign=True)

    def _best(
        self, shifts: range, change: FloatArray, moved: FloatArray, either_sign: bool = False
    ) -> tuple[int, Estimate] | None:
        """The shift with the strongest correlation, if it surely exceeds that without a shift."""
        is_known = self._all_known(min(*shifts, 0), max(*shifts, 0))
        rows, changes = self._rows[is_known], change[is_known]
        if len(rows) < self._bootstrap.shortest_block or not varies(changes):
            return None
        ranked, products = _ranked(changes), {}
        for shift in (0, *shifts):
            product = ranked * _ranked(moved[rows + shift])
            products[shift] = -product if either_sign and product.mean() < 0 else product
        best = max(shifts, key=lambda shift: float(products[shift].mean()))
        # The best of several shifts needs the same certainty as a single one (Bonferroni).
        error = (1 - self._bootstrap.confidence) / len(shifts)
        of_best = replace(self._bootstrap, confidence=1 - error)
        excess = of_best.estimate(products[best] - products[0])
        is_sure = excess.lower is not None and excess.lower >= _LEAST_EXCESS
        by_chance = _LEAST_STANDARD_ERRORS / math.sqrt(len(rows))
        is_strong = products[best].mean() >= max(_LEAST_CORRELATION, by_chance)
        return (best, excess) if is_sure and is_strong else None

    def _all_known(self, first: int, last: int) -> BoolArray:
        """Of which rows all bars from ``first`` to ``last`` bars later are there, without a gap."""
        opened, step = self._bars.open_time, self._bars.timeframe.milliseconds
        before, after = self._rows + first, self._rows + last
        is_inside = (before >= 0) & (after < len(opened))
        span = opened[np.minimum(after, len(opened) - 1)] - opened[np.maximum(before, 0)]
        known: BoolArray = is_inside & (span == (last - first) * step)
        return known


def _unusual_range(bars: Bars) -> FloatArray:
    """Log of high over low, without the mean of its time of day and of its weekday."""
    high, low = (bars.frame[name].to_numpy() for name in ("high", "low"))
    found: FloatArray = np.log(np.maximum(high / low - 1, _SMALLEST_RANGE))
    for season in (bars.open_time % DAY_MILLISECONDS, bars.open_time // DAY_MILLISECONDS % 7):
        _, place = np.unique(season, return_inverse=True)
        found = found - (np.bincount(place, found) / np.bincount(place))[place]
    return found


def _ranked(values: FloatArray) -> FloatArray:
    """Ranks with mean 0 and variance 1; 0 if all are equal."""
    from scipy.stats import rankdata

    ranks = rankdata(values)
    spread = ranks.std()
    centred: FloatArray = (ranks - ranks.mean()) / (spread if spread > 0 else 1.0)
    return centred
