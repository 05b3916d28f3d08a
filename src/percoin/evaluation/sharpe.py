"""Sharpe ratio, and what is left of it after luck and the number of tries."""

from __future__ import annotations

from dataclasses import dataclass
from math import e, sqrt
from statistics import NormalDist

import numpy as np

from percoin.types import FloatArray

_NORMAL = NormalDist()


def sharpe_ratio(returns: FloatArray, periods_per_year: float = 1.0) -> float | None:
    """Mean over standard deviation of returns, annualised; None if they never vary.

    Args:
        returns: Return of each period as a fraction, shape (n,).
        periods_per_year: 35,040 for 15m bars; 1 leaves the ratio per period.
    """
    if len(returns) < 2 or np.ptp(returns) == 0:
        return None
    return float(returns.mean() / returns.std(ddof=1) * sqrt(periods_per_year))


def expected_best_sharpe(n_trials: int, trial_variance: float) -> float:
    """Sharpe ratio that the best of several worthless trials is expected to show.

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
    """Probability that the true Sharpe ratio beats the best of so many worthless trials.

    Bailey and Lopez de Prado (2014), equation 2; with one trial it is their
    probabilistic Sharpe ratio against zero. Skewed and fat-tailed returns lower it.

    Args:
        returns: Return of each period as a fraction, shape (n,).
        n_trials: Models and settings tried before this one was shown, itself included.
        trial_variance: Variance of the trials' Sharpe ratios, per period. If unknown,
            that of a worthless trial of this length, 1 / (n - 1).

    Returns:
        0 to 1, or None if the returns never vary.
    """
    moments = return_moments(returns)
    return None if moments is None else moments.deflated(n_trials, trial_variance)


@dataclass(frozen=True)
class ReturnMoments:
    """What the deflated Sharpe ratio needs of returns, all per period.

    Attributes:
        sharpe: Sharpe ratio.
        skewness: Of the returns.
        kurtosis: Of the returns; 3 for a normal distribution.
        n_periods: Number of returns.
    """

    sharpe: float
    skewness: float
    kurtosis: float
    n_periods: int

    def deflated(self, n_trials: int = 1, trial_variance: float | None = None) -> float:
        """As ``deflated_sharpe``, whose arguments these are."""
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
    """The moments of returns as fractions, shape (n,); None if they never vary."""
    sharpe = sharpe_ratio(returns)
    if sharpe is None:
        return None
    centred = (returns - returns.mean()) / returns.std()
    skewness, kurtosis = float((centred**3).mean()), float((centred**4).mean())
    return ReturnMoments(sharpe, skewness, kurtosis, len(returns))


def deflated_sharpe_from_moments(
    sharpe: float, n_periods: int, skewness: float, kurtosis: float, hurdle: float
) -> float:
    """The same from published figures, all per period.

    Args:
        sharpe: Sharpe ratio.
        n_periods: Number of returns.
        skewness: Of the returns.
        kurtosis: Of the returns; 3 for a normal distribution.
        hurdle: Sharpe ratio to beat, see ``expected_best_sharpe``.
    """
    spread = 1 - skewness * sharpe + (kurtosis - 1) / 4 * sharpe**2
    # Moments that no distribution has can make this negative; the ratio is then untold.
    spread = max(spread, float(np.finfo(np.float64).tiny))
    return _NORMAL.cdf((sharpe - hurdle) * sqrt(n_periods - 1) / sqrt(spread))
