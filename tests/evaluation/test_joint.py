from datetime import date, timedelta

import numpy as np
import pytest

from percoin.evaluation.daily import DailyLosses
from percoin.evaluation.joint import days_of, joint_lead, joint_skill, widest_mean
from percoin.evaluation.uncertainty import Bootstrap

BOOTSTRAP = Bootstrap(1, seed=1, repetitions=400)
ROWS = 24


def market(gains, first=date(2025, 1, 1), n_rows=ROWS):
    """A market whose model gains so much a row over prior and baseline, day by day."""
    days = tuple((first + timedelta(days=k)).isoformat() for k in range(len(gains)))
    flat = (float(n_rows),) * len(gains)
    model = tuple((n_rows * (1.0 - np.asarray(gains))).tolist())
    return DailyLosses(days, (n_rows,) * len(gains), model, flat, flat)


def test_one_market_has_the_interval_of_its_own_days():
    gains = np.random.default_rng(0).normal(0.02, 0.1, 60)
    joint, alone = joint_skill([market(gains)], BOOTSTRAP), BOOTSTRAP.estimate(gains)

    assert joint.value == pytest.approx(alone.value)
    assert (joint.lower, joint.upper) == pytest.approx((alone.lower, alone.upper))
    assert (joint.n_models, joint.n_days) == (1, 60)


def test_the_mean_counts_each_market_the_same_however_many_rows_it_has():
    large, small = market(np.full(20, 0.1), n_rows=96), market(np.full(10, 0.3), n_rows=1)

    assert joint_skill([large, small], BOOTSTRAP).value == pytest.approx(0.2)
    assert joint_lead([large, small], BOOTSTRAP).value == pytest.approx(0.2)


def test_the_interval_covers_the_truth_where_markets_move_together():
    rng = np.random.default_rng(2)
    covered, naive = [], []
    for _ in range(200):
        common = rng.normal(0, 0.1, (1, 50))
        gains = 0.02 + common + rng.normal(0, 0.05, (8, 50))
        joint = joint_skill([market(own) for own in gains], BOOTSTRAP)
        covered.append(joint.lower <= 0.02 <= joint.upper)
        reach = 1.96 * gains.std() / np.sqrt(gains.size)
        naive.append(abs(gains.mean() - 0.02) <= reach)

    assert 0.90 <= np.mean(covered) <= 0.99
    assert np.mean(naive) < 0.7


def test_markets_on_other_days_are_taken_for_independent():
    rng = np.random.default_rng(3)
    first, second = rng.normal(0.02, 0.1, (2, 60))
    together = joint_skill([market(first), market(second)], BOOTSTRAP)
    apart = joint_skill([market(first), market(second, date(2026, 1, 1))], BOOTSTRAP)
    same = joint_skill([market(first), market(first)], BOOTSTRAP)

    assert apart.n_days == 120
    widths = [mean.upper - mean.lower for mean in (together, apart, same)]
    assert widths[1] == pytest.approx(widths[0], rel=0.25)
    assert widths[1] < 0.85 * widths[2]


def test_days_are_matched_by_the_calendar():
    rng = np.random.default_rng(5)
    gains = rng.normal(0, 0.1, 61)
    opposite = rng.normal(0, 0.02, 60) - gains[1:]

    joint = joint_skill([market(gains[:-1]), market(opposite, date(2025, 1, 2))], BOOTSTRAP)
    moved = joint_skill([market(gains[:-1]), market(opposite)], BOOTSTRAP)

    assert (joint.n_days, moved.n_days) == (61, 60)
    assert joint.upper - joint.lower < 0.5 * (moved.upper - moved.lower)


def test_what_is_unknown_of_the_dependence_is_taken_for_the_worst():
    rng = np.random.default_rng(4)
    estimates = [BOOTSTRAP.estimate(rng.normal(0.02, 0.1, 60)) for _ in range(5)]
    widest = widest_mean(estimates)

    assert widest.value == pytest.approx(np.mean([e.value for e in estimates]))
    assert widest.upper - widest.lower == pytest.approx(
        np.mean([e.upper - e.lower for e in estimates])
    )
    assert widest_mean([*estimates, BOOTSTRAP.estimate(np.ones(3))]).lower is None


def test_a_label_reaches_at_least_one_day():
    assert [days_of(3, 96), days_of(96, 96), days_of(97, 96), days_of(3, 1)] == [1, 1, 2, 3]
