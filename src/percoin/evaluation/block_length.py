"""How many neighbouring rows a block of the bootstrap holds."""

from __future__ import annotations

import math

import numpy as np

from percoin.types import FloatArray

MIN_BLOCKS = 8


def choose_block_length(values: FloatArray, shortest: int) -> int:
    """Block length for the circular bootstrap, from the rows themselves.

    Long blocks are cut so that at least ``MIN_BLOCKS`` blocks remain, but to no less than
    ``shortest``.

    Args:
        values: Finite numbers, shape (n,).
        shortest: Minimum rows of a block: the label's reach, or a day.
    """
    ceiling = len(values) // MIN_BLOCKS
    if ceiling <= shortest or not varies(values):
        return max(1, shortest)
    wanted = optimal_block_length(values)
    if not math.isfinite(wanted):
        return ceiling
    return int(np.clip(math.ceil(wanted), max(1, shortest), ceiling))


def optimal_block_length(values: FloatArray) -> float:
    """Block length of the circular bootstrap with the least error of the variance of a mean.

    Politis and White (2004), corrected by Patton, Politis and White (2009). The autocovariances
    are summed up to twice the lag behind which no correlation is significant.

    Args:
        values: Finite numbers, at least 9 of them, shape (n,).

    Returns:
        At most ``3 sqrt(n)``; NaN for values that do not vary.
    """
    n_rows = len(values)
    rows = values - values.mean()
    n_quiet = max(5, int(math.log10(n_rows)))
    most_lags = math.ceil(math.sqrt(n_rows)) + n_quiet
    # No more lags than are needed: of rows that hardly depend on each other they are few.
    n_lags = _n_lags(rows, n_quiet, most_lags)
    covariances = (
        np.array([rows[lag:] @ rows[: n_rows - lag] for lag in range(n_lags + 1)]) / n_rows
    )
    lags = np.arange(1, n_lags + 1)
    weights = np.where(lags <= n_lags / 2, 1.0, 2 * (1 - lags / n_lags))
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = 2 * float(weights * lags @ covariances[1:])
        variance = covariances[0] + 2 * float(weights @ covariances[1:])
        wanted = float(np.cbrt(1.5 * (spread / variance) ** 2 * n_rows))
    return min(wanted, math.ceil(min(3 * math.sqrt(n_rows), n_rows / 3)))


def varies(rows: FloatArray) -> bool:
    """Whether rows vary by more than rounding; a forecast minus itself varies by rounding only."""
    return bool(np.ptp(rows) > 1e-12 * max(1.0, abs(float(rows[0]))))


def _n_lags(rows: FloatArray, n_quiet: int, most_lags: int) -> int:
    """Twice the first lag before ``n_quiet`` insignificant ones, at most ``most_lags``."""
    n_rows, quiet = len(rows), 0
    significant = 2 * math.sqrt(math.log10(n_rows) / n_rows)
    for lag in range(most_lags):
        earlier, later = rows[: n_rows - lag - 1], rows[lag + 1 :]
        scale = math.sqrt(float(earlier @ earlier) * float(later @ later))
        correlated = abs(float(rows[lag:] @ rows[: n_rows - lag]))
        quiet = quiet + 1 if correlated < significant * scale else 0
        if quiet == n_quiet:
            return min(2 * max(lag + 1 - n_quiet, 1), most_lags)
    return most_lags
