"""Losses of test rows summed by calendar day, so that markets can be held side by side.

Rows of different markets and bar lengths share nothing but the time in which they lie.
Days are few enough to be kept with a model and long enough for a block bootstrap over
them: markets move together within a day, and hardly remember more than some days.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np

from percoin.types import FloatArray, IntArray

_MILLISECONDS_PER_DAY = 86_400_000
_FIRST_DAY, _LAST_DAY = date(1970, 1, 1).toordinal(), date(2261, 12, 31).toordinal()


@dataclass(frozen=True)
class DailyLosses:
    """Log-losses of a model and of its rivals on its test rows, one entry per day with rows.

    Attributes:
        days: As in ``2025-08-31`` (UTC), in time order: when the last bar of the row's
            window opened.
        n_rows: Test rows of each day.
        model: Sum of the model's log-losses over them, in nats.
        train_prior: Of the train prior.
        best_baseline: Of the baseline with the smallest log-loss on all test rows.
        rolling_prior: Of the rolling prior; None in records from before there was one.
        rival: Of the baseline that was strongest on validation rows; None as above.
    """

    days: tuple[str, ...]
    n_rows: tuple[int, ...]
    model: tuple[float, ...]
    train_prior: tuple[float, ...]
    best_baseline: tuple[float, ...]
    rolling_prior: tuple[float, ...] | None = None
    rival: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        known = (column for column in (self.rolling_prior, self.rival) if column is not None)
        columns = (self.n_rows, self.model, self.train_prior, self.best_baseline, *known)
        if not self.days or {len(column) for column in columns} != {len(self.days)}:
            raise ValueError("the columns are not of one length of at least one day")
        ordinals = self.ordinals()
        if (np.diff(ordinals) <= 0).any():
            raise ValueError("the days are not in time order")
        # Every day between the first and the last is drawn from.
        if ordinals[0] < _FIRST_DAY or ordinals[-1] > _LAST_DAY:
            raise ValueError("a day lies in no year of a market")
        if min(self.n_rows) < 1 or sum(self.train_prior) <= 0:
            raise ValueError("a day without rows, or no loss at all")

    def ordinals(self) -> IntArray:
        """The days as consecutive numbers, shape (n_days,)."""
        return np.array([date.fromisoformat(day).toordinal() for day in self.days])


def sum_by_day(open_time: IntArray, losses: Sequence[FloatArray]) -> DailyLosses:
    """Sum row losses by day.

    Args:
        open_time: Milliseconds since 1970 (UTC) of each row, rising, shape (n,).
        losses: Of the model, the train prior, the best baseline and, where there are any,
            the rolling prior and the rival, in nats, each of shape (n,).
    """
    numbers, first, counts = np.unique(
        open_time // _MILLISECONDS_PER_DAY, return_index=True, return_counts=True
    )
    days = np.datetime_as_string(numbers.astype("datetime64[D]"))
    sums = [tuple(np.add.reduceat(column, first).tolist()) for column in losses]
    return DailyLosses(tuple(days.tolist()), tuple(counts.tolist()), *sums)
