"""A volatility forecast as plain numbers; applying it needs only numpy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from percoin.bars.schema import Bars
from percoin.expected_move.inputs import MoveInputs, bars_needed, count_columns, move_columns
from percoin.types import Band, ExpectedMove, FloatArray, Timeframe

# Shares of all cases, in percent, that the bands are made to hold.
LEVELS = (50, 80, 95)


@dataclass(frozen=True)
class MoveModel:
    """Forecasts the log variance of the return over the horizon, and bands around the price.

    Attributes:
        horizon: Bars from a close to the close that is forecast.
        inputs: Groups of columns, in their order.
        coefficients: One per column.
        intercept: Log variance where every column is 0.
        range_factor: Variance of the horizon's return over the sum of its bars' range variances
            (Parkinson, 1980), measured on train rows.
        quantiles: By level in percent, how many standard deviations a return stays within.

    Raises:
        ValueError: No inputs, a number is not finite, or the quantiles do not rise.
    """

    horizon: int
    inputs: tuple[MoveInputs, ...]
    coefficients: tuple[float, ...]
    intercept: float
    range_factor: float
    quantiles: Mapping[str, float]

    def __post_init__(self) -> None:
        numbers = (*self.coefficients, self.intercept, self.range_factor, *self.quantiles.values())
        if not np.isfinite(numbers).all():
            raise ValueError("a number of the expected move is not finite")
        if self.horizon < 1 or not self.inputs or not self.coefficients:
            raise ValueError("the expected move has no horizon, no inputs or no coefficients")
        if tuple(self.quantiles) != tuple(map(str, LEVELS)):
            raise ValueError(f"the quantiles are not of {LEVELS}")
        rising = (0.0, *self.quantiles.values())
        if self.range_factor <= 0 or list(rising) != sorted(rising):
            raise ValueError("range_factor is not positive, or the quantiles do not rise")

    def fits(self, timeframe: Timeframe) -> bool:
        """Whether the coefficients are as many as bars of this length have columns."""
        return len(self.coefficients) == count_columns(timeframe, self.inputs)

    def deviations(self, bars: Bars) -> FloatArray:
        """Forecast standard deviation of the log return over the horizon, at each close.

        Args:
            bars: Closed bars of the market.

        Returns:
            Shape (n_bars,), as a fraction; NaN where earlier bars are missing.

        Raises:
            ValueError: The coefficients do not fit the timeframe of the bars.
        """
        if not self.fits(bars.timeframe):
            raise ValueError(f"the expected move has no coefficients for bars of {bars.timeframe}")
        columns = move_columns(bars, self.inputs)
        # einsum gives a row the same sum for any number of rows; a BLAS product does not.
        logs = np.einsum("nf,f->n", columns, np.array(self.coefficients)) + self.intercept
        with np.errstate(over="ignore"):
            deviations: FloatArray = np.exp(logs / 2)
        return deviations

    def newest(self, bars: Bars) -> ExpectedMove | None:
        """The forecast at the newest close; None if earlier bars are missing.

        None also if it is too small or too large to be scored.

        Raises:
            ValueError: As ``deviations``.
        """
        recent = bars.slice(max(0, len(bars) - bars_needed(bars.timeframe)))
        deviation = float(self.deviations(recent)[-1])
        close = float(recent.column("close")[-1])
        reached = np.array([self.quantiles[str(level)] for level in LEVELS]) * deviation
        with np.errstate(over="ignore"):
            lower, upper = close * np.exp(-reached), close * np.exp(reached)
        if not (np.isfinite(upper).all() and (lower > 0).all()):
            return None
        bands = zip(LEVELS, lower.tolist(), upper.tolist(), strict=True)
        move = ExpectedMove(
            100 * deviation,
            self.horizon,
            tuple(Band(*band) for band in bands),
            self.range_factor,
        )
        return move if move.can_be_scored else None
