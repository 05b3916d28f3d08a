"""Sum the losses of test rows by calendar day, to compare markets.

Rows of different markets and bar lengths have only their time in common. A daily sum is small
enough to store with a model. A day is long enough for a block bootstrap over days: markets
move together within a day, and dependence lasts only a few days.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np

from percoin.types import DAY_MILLISECONDS, FloatArray, IntArray

_FIRST_DAY, _LAST_DAY = date(1970, 1, 1).toordinal(), date(2261, 12, 31).toordinal()


@dataclass(frozen=True)
class DailyLosses:
    """Log-losses of a model and its baselines on its test rows, one entry per day with rows.

    Attributes:
        days: Days such as ``2025-08-31`` (UTC), in time order. A row belongs to the day on
            which the last bar of its window opens.
        n_rows: Number of test rows of each day.
        model: Sum of the model's log-losses over the day's rows, in nats.
        train_prior: The same sum for the train prior.
        best_baseline: For the baseline with the smallest log-loss on all test rows.
        rolling_prior: For the rolling prior; None in older records.
        rival: For the baseline with the smallest log-loss on validation rows; None in older
            records.
        without_network: For the same model without its network; None if it has none, or nothing
            else, and in older records.
    """

    days: tuple[str, ...]
    n_rows: tuple[int, ...]
    model: tuple[float, ...]
    train_prior: tuple[float, ...]
    best_baseline: tuple[float, ...]
    rolling_prior: tuple[float, ...] | None = None
    rival: tuple[float, ...] | None = None
    without_network: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        further = (self.rolling_prior, self.rival, self.without_network)
        known = (column for column in further if column is not None)
        columns = (self.n_rows, self.model, self.train_prior, self.best_baseline, *known)
        if not self.days or {len(column) for column in columns} != {len(self.days)}:
            raise ValueError("the columns are not of one length of at least one day")
        ordinals = self.ordinals()
        if (np.diff(ordinals) <= 0).any():
            raise ValueError("the days are not in time order")
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
        open_time: Open time of each row's bar in milliseconds since 1970 (UTC), rising,
            shape (n,).
        losses: Losses of the model, the train prior, the best baseline and, if known, the
            rolling prior, the rival and the model without its network, in this order, in nats,
            each of shape (n,).
    """
    numbers, first, counts = np.unique(
        open_time // DAY_MILLISECONDS, return_index=True, return_counts=True
    )
    days = np.datetime_as_string(numbers.astype("datetime64[D]"))
    sums = [tuple(np.add.reduceat(column, first).tolist()) for column in losses]
    return DailyLosses(tuple(days.tolist()), tuple(counts.tolist()), *sums)
