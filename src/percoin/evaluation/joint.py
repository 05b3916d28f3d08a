"""Average skill of many models, with an interval that accounts for correlated markets.

Markets rise, fall and become volatile on the same days. So the errors of thirty markets are
correlated, and thirty prove little more than a few. The bootstrap therefore draws whole days,
the same for all markets, and keeps their correlation in every draw.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from percoin.evaluation.daily import DailyLosses
from percoin.evaluation.uncertainty import Bootstrap, Estimate
from percoin.intervals import Interval
from percoin.types import FloatArray


@dataclass(frozen=True)
class JointMean(Interval):
    """A mean over models with its interval.

    Attributes:
        value: The mean, with equal weight for each model.
        lower: Lower end of the interval; None with too few days for an interval.
        upper: Upper end.
        n_models: Number of models averaged.
        n_days: Calendar days with test rows of any model; None if the losses by day of some
            model are unknown. The interval then assumes fully dependent errors, which is the
            widest that the models' own intervals allow.
    """

    n_models: int
    n_days: int | None


def joint_skill(markets: Sequence[DailyLosses], bootstrap: Bootstrap) -> JointMean:
    """Mean log-loss skill over the train prior.

    The skill of each market is a ratio of sums; the delta method gives the influence of each
    day on it.

    Args:
        markets: At least one.
        bootstrap: Settings with the horizon in days.
    """
    skills, influences = [], []
    for market in markets:
        model, prior = np.array(market.model), np.array(market.train_prior)
        ratio = model.sum() / prior.sum()
        skills.append(1.0 - ratio)
        influences.append((ratio * prior - model) / prior.sum())
    return _over_days(markets, skills, influences, bootstrap)


def joint_recent_skill(markets: Sequence[DailyLosses], bootstrap: Bootstrap) -> JointMean | None:
    """Mean log-loss skill over the rolling prior; None if it is unknown for some market."""
    over_recent = [
        replace(market, train_prior=market.rolling_prior)
        for market in markets
        if market.rolling_prior is not None
    ]
    return joint_skill(over_recent, bootstrap) if len(over_recent) == len(markets) else None


def joint_lead(markets: Sequence[DailyLosses], bootstrap: Bootstrap) -> JointMean:
    """Mean of the rivals' log-losses minus the models', in nats a row.

    The rival is the strongest baseline on validation rows; in older records it is the best
    baseline on test rows.

    Args:
        markets: At least one.
        bootstrap: Settings with the horizon in days.
    """
    leads, influences = [], []
    for market in markets:
        gains, n_rows = _gains(market), np.array(market.n_rows)
        leads.append(gains.sum() / n_rows.sum())
        influences.append((gains - leads[-1] * n_rows) / n_rows.sum())
    return _over_days(markets, leads, influences, bootstrap)


def joint_network_lead(markets: Sequence[DailyLosses], bootstrap: Bootstrap) -> JointMean | None:
    """Mean of the log-losses without the networks minus the models', in nats a row.

    None if no market has a model with a network and something else.
    """
    known = [
        replace(market, rival=market.without_network)
        for market in markets
        if market.without_network is not None
    ]
    return joint_lead(known, bootstrap) if known else None


def widest_mean(estimates: Sequence[Estimate]) -> JointMean:
    """The mean of estimates whose correlation is unknown.

    The interval assumes complete dependence, where errors add up in full: its ends are the
    mean of the lower ends and the mean of the upper ends. No other dependence gives a larger
    standard error.

    Args:
        estimates: At least one.
    """
    ends = [estimate.ends for estimate in estimates if estimate.ends is not None]
    value = float(np.mean([estimate.value for estimate in estimates]))
    if len(ends) < len(estimates):
        return JointMean(value, None, None, len(estimates), None)
    lower, upper = np.mean(ends, axis=0).tolist()
    return JointMean(value, lower, upper, len(estimates), None)


def days_of(n_bars: int, bars_per_day: float) -> int:
    """Days after its own that a label with a reach of ``n_bars`` can touch."""
    return max(1, math.ceil(n_bars / bars_per_day))


def _gains(market: DailyLosses) -> FloatArray:
    rival = market.best_baseline if market.rival is None else market.rival
    gains: FloatArray = np.array(rival) - np.array(market.model)
    return gains


def _over_days(
    markets: Sequence[DailyLosses],
    values: Sequence[float],
    influences: Sequence[FloatArray],
    bootstrap: Bootstrap,
) -> JointMean:
    """Bootstrap over the days of all markets; a market adds 0 on a day without rows."""
    ordinals = [market.ordinals() for market in markets]
    days = np.unique(np.concatenate(ordinals))
    summed = np.zeros(len(days))
    for own, influence in zip(ordinals, influences, strict=True):
        summed[np.searchsorted(days, own)] += influence
    mean = float(np.mean(values))
    estimate = bootstrap.estimate(mean + len(days) * summed / len(markets))
    return JointMean(mean, estimate.lower, estimate.upper, len(markets), len(days))
