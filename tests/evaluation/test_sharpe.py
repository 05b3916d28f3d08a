import numpy as np
import pytest

from percoin.evaluation.sharpe import (
    deflated_sharpe,
    deflated_sharpe_from_moments,
    expected_best_sharpe,
    sharpe_ratio,
)


@pytest.mark.parametrize(("n_trials", "expected"), [(100, 0.9004), (46, 0.9505)])
def test_the_example_of_bailey_and_lopez_de_prado(n_trials, expected):
    # Sharpe 2.5 a year over 1250 days, skewness -3, kurtosis 10, variance of trials 1/2 a year.
    hurdle = expected_best_sharpe(n_trials, 0.5 / 250)
    found = deflated_sharpe_from_moments(2.5 / np.sqrt(250), 1250, -3, 10, hurdle)
    assert found == pytest.approx(expected, abs=5e-5)


def test_hurdle_of_the_example():
    assert expected_best_sharpe(100, 0.5 / 250) == pytest.approx(0.1132, abs=5e-5)


def test_hurdle_is_near_the_mean_best_of_simulated_trials():
    best = np.random.default_rng(0).standard_normal((20_000, 50)).max(axis=1).mean()
    assert expected_best_sharpe(50, 1.0) == pytest.approx(best, rel=0.02)


def test_one_trial_has_no_hurdle_and_two_have_one():
    assert expected_best_sharpe(1, 1.0) == 0.0
    # The larger of two standard normals: 1 / sqrt(pi) in the mean; the formula says a little less.
    assert expected_best_sharpe(2, 1.0) == pytest.approx(0.564, abs=0.06)


def test_sharpe_by_hand():
    # Mean .01, sample standard deviation .02
    assert sharpe_ratio(np.array([0.03, -0.01, 0.01])) == pytest.approx(0.5)
    assert sharpe_ratio(np.array([0.03, -0.01, 0.01]), 365) == pytest.approx(0.5 * np.sqrt(365))


def test_returns_that_never_vary_have_no_sharpe():
    assert sharpe_ratio(np.zeros(10)) is None
    assert deflated_sharpe(np.zeros(10)) is None


def test_more_trials_deflate_more():
    returns = np.random.default_rng(0).normal(0.001, 0.01, 1000)
    deflated = [deflated_sharpe(returns, n_trials) for n_trials in (1, 10, 1000)]
    assert deflated[0] > 0.95
    assert deflated[0] > deflated[1] > deflated[2]


def test_luck_alone_rarely_looks_significant():
    returns = np.random.default_rng(1).normal(size=(400, 500)) * 0.01
    single = [deflated_sharpe(row) for row in returns]
    assert np.mean(np.array(single) > 0.95) == pytest.approx(0.05, abs=0.03)
    best_of_20 = [max(rows, key=sharpe_ratio) for rows in returns.reshape(20, 20, 500)]
    assert sum(deflated_sharpe(row, n_trials=20) > 0.95 for row in best_of_20) <= 2
