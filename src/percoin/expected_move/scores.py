"""How good a volatility forecast is: QLIKE, and how often a band held the price."""

from __future__ import annotations

import numpy as np

from percoin.types import FloatArray


def qlike(realized: FloatArray, forecast: FloatArray) -> FloatArray:
    """The loss of each variance forecast: ``y / h - ln(y / h) - 1`` (Patton, 2011).

    0 for a right forecast. It ranks forecasts rightly even where the realized variance is only
    an unbiased guess of the true one, and a forecast that is too small costs more than one that
    is too large.

    Args:
        realized: Variance of each horizon, positive, shape (n,).
        forecast: The forecast, positive, shape (n,).
    """
    ratio = realized / forecast
    losses: FloatArray = ratio - np.log(ratio) - 1
    return losses
