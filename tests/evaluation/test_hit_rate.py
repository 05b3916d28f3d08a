import numpy as np
import pytest
from scipy.stats import binomtest

from percoin.evaluation.hit_rate import hit_rate, moves_after
from percoin.evaluation.uncertainty import Bootstrap
from percoin.types import UNKNOWN_LABEL, Timeframe

BOOTSTRAP = Bootstrap(horizon=3, repetitions=500)
BARS_A_DAY = 96
DAY_MS = 86_400_000


def opened(rows: np.ndarray) -> np.ndarray:
    return rows * Timeframe.M15.milliseconds


def test_only_directions_that_a_move_followed_count():
    signals = np.array([2, 2, 0, 1, 0, 2])
    labels = np.array([2, 0, 0, 2, 1, UNKNOWN_LABEL])
    rows, hits = moves_after(signals, labels)
    assert rows.tolist() == [0, 1, 2]
    assert hits.tolist() == [1.0, 0.0, 1.0]


def test_the_rate_is_the_plain_share_however_the_days_are_filled():
    rng = np.random.default_rng(0)
    rows = np.sort(rng.choice(100 * BARS_A_DAY, size=900, replace=False))
    hits = (rng.random(900) < 0.55).astype(float)
    found = hit_rate(hits, opened(rows), Timeframe.M15, BOOTSTRAP)
    assert found.value == pytest.approx(hits.mean())
    assert found.lower < found.value < found.upper
    # One value a day, and none for a day without an answer.
    assert found.n_rows == len(np.unique(opened(rows) // DAY_MS))


def test_answers_that_err_by_the_day_are_less_sure_than_as_many_that_do_not():
    rows = np.arange(120 * BARS_A_DAY)
    rng = np.random.default_rng(1)
    alone = (rng.random(len(rows)) < 0.5).astype(float)
    by_day = np.repeat((rng.random(120) < 0.5).astype(float), BARS_A_DAY)
    sure, unsure = (
        hit_rate(hits, opened(rows), Timeframe.M15, BOOTSTRAP) for hits in (alone, by_day)
    )
    assert unsure.upper - unsure.lower > 5 * (sure.upper - sure.lower)


def test_a_coin_is_called_worse_about_as_often_as_the_interval_allows():
    n_worse = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        days = np.repeat(np.arange(80), rng.integers(0, 12, 80))
        hits = (rng.random(len(days)) < 0.5).astype(float)
        rate = hit_rate(hits, days * DAY_MS, Timeframe.M15, Bootstrap(3, seed, 400))
        n_worse += rate.upper < 0.5
    # 2.5 % are 5 of them; 12 would come once in two hundred times.
    assert n_worse <= 12


def test_a_week_is_no_interval_and_no_answer_is_no_rate():
    rows = np.arange(7 * BARS_A_DAY)
    hits = (rows % 2).astype(float)
    assert hit_rate(hits, opened(rows), Timeframe.M15, BOOTSTRAP).ends is None
    nothing = np.array([], dtype=np.int64)
    assert hit_rate(nothing.astype(float), nothing, Timeframe.M15, BOOTSTRAP) is None


def test_labels_that_reach_over_days_make_blocks_of_as_many():
    days = np.arange(400)
    hits = (np.random.default_rng(3).random(400) < 0.5).astype(float)
    assert hit_rate(hits, days * DAY_MS, Timeframe.D1, BOOTSTRAP).block_length >= 3


@pytest.mark.parametrize("right", [0.0, 1.0])
def test_a_source_that_was_right_each_time_may_still_err(right):
    rows = np.arange(0, 60 * BARS_A_DAY, BARS_A_DAY)
    found = hit_rate(np.full(60, right), opened(rows), Timeframe.M15, BOOTSTRAP)
    exact = binomtest(int(60 * right), 60).proportion_ci(0.95, method="exact")
    assert found.value == right
    assert found.ends == (pytest.approx(exact.low), pytest.approx(exact.high))


def test_ends_are_shares_where_hardly_a_day_differs():
    rows = np.arange(0, 60 * BARS_A_DAY, 24)
    hits = np.ones(240)
    hits[100] = 0.0
    found = hit_rate(hits, opened(rows), Timeframe.M15, BOOTSTRAP)
    assert 0 <= found.lower < found.value < found.upper <= 1
