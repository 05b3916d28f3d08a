"""Sharpe ratio, and the deflated Sharpe ratio, which corrects for luck and number of trials."""

from __future__ import annotations

from dataclasses import dataclass
from math import e, sqrt
from statistics import NormalDist

import numpy as np

from percoin.types import FloatArray

_NORMAL = NormalDist()


def sharpe_ratio(returns: FloatArray, periods_per_year: float = 1.0) -> float | None:
    """Mean of returns over their standard deviation, annualised; None if they never vary.

    Args:
        returns: Return of each period as a fraction, shape (n,).
        periods_per_year: 35,040 for 15m bars; 1 leaves the ratio per period.
    """
    if len(returns) < 2 or np.ptp(returns) == 0:
        return None
    return float(returns.mean() / returns.std(ddof=1) * sqrt(periods_per_year))


def expected_best_sharpe(n_trials: int, trial_variance: float) -> float:
    """Expected Sharpe ratio of the best of several trials without skill.

    Bailey and Lopez de Prado (2014), equation 1.

    Args:
        n_trials: Independent trials; 1 gives 0.
        trial_variance: Variance of the Sharpe ratio between trials, per period.
    """
    if n_trials < 2:
        return 0.0
    gamma = float(np.euler_gamma)
    quantiles = (1 - gamma) * _NORMAL.inv_cdf(1 - 1 / n_trials)
    quantiles += gamma * _NORMAL.inv_cdf(1 - 1 / (n_trials * e))
    return sqrt(trial_variance) * quantiles


def deflated_sharpe(
    returns: FloatArray, n_trials: int = 1, trial_variance: float | None = None
) -> float | None:
    """Probability that the true Sharpe ratio beats the best of ``n_trials`` without skill.

    Bailey and Lopez de Prado (2014), equation 2; with one trial it is their
    probabilistic Sharpe ratio against zero. Skewed and fat-tailed returns lower it.

    Args:
        returns: Return of each period as a fraction, shape (n,).
        n_trials: Number of models and settings tried, including this one.
        trial_variance: Variance of the trials' Sharpe ratios, per period. None takes the
            variance of a trial of this length without skill, 1 / (n - 1).

    Returns:
        0 to 1, or None if the returns never vary.
    """
    moments = return_moments(returns)
    return None if moments is None else moments.deflated(n_trials, trial_variance)


@dataclass(frozen=True)
class ReturnMoments:
    """Moments of returns for the deflated Sharpe ratio, all per period.

    Attributes:
        sharpe: Sharpe ratio.
        skewness: Skewness of the returns.
        kurtosis: Kurtosis of the returns; 3 for a normal distribution.
        n_periods: Number of returns.
    """

    sharpe: float
    skewness: float
    kurtosis: float
    n_periods: int

    def deflated(self, n_trials: int = 1, trial_variance: float | None = None) -> float:
        """The deflated Sharpe ratio; same arguments as ``deflated_sharpe``."""
        steps = self.n_periods - 1
        variance = 1.0 / steps if trial_variance is None else trial_variance
        return deflated_sharpe_from_moments(
            self.sharpe,
            self.n_periods,
            self.skewness,
            self.kurtosis,
            expected_best_sharpe(n_trials, variance),
        )


def return_moments(returns: FloatArray) -> ReturnMoments | None:
    """Moments of returns given as fractions, shape (n,); None if they never vary."""
    sharpe = sharpe_ratio(returns)
    if sharpe is None:
        return None
    centred = (returns - returns.mean()) / returns.std()
    skewness, kurtosis = float((centred**3).mean()), float((centred**4).mean())
    return ReturnMoments(sharpe, skewness, kurtosis, len(returns))


def deflated_sharpe_from_moments(
    sharpe: float, n_periods: int, skewness: float, kurtosis: float, hurdle: float
) -> float:
    """The deflated Sharpe ratio from published moments, all per period.

    Args:
        sharpe: Sharpe ratio.
        n_periods: Number of returns.
        skewness: Skewness of the returns.
        kurtosis: Kurtosis of the returns; 3 for a normal distribution.
        hurdle: Sharpe ratio to beat, see ``expected_best_sharpe``.
    """
    spread = 1 - skewness * sharpe + (kurtosis - 1) / 4 * sharpe**2
    # Impossible moments can make this negative; the result then has no meaning.
    spread = max(spread, float(np.finfo(np.float64).tiny))
    return _NORMAL.cdf((sharpe - hurdle) * sqrt(n_periods - 1) / sqrt(spread))
