"""First how far the price will move, then which class: a model in two stages, as plain numbers.

Three classes teach little: a row says only whether the move crossed a threshold. The range of the
next bars says how far. So boosted trees and a linear regression forecast its logarithm, and a
multinomial logit learns the classes from the volatility and these two forecasts.
``percoin.evaluation.moves_fitting`` fits it; applying it needs only numpy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from percoin.bars.gaps import contiguous_run
from percoin.bars.schema import Bars
from percoin.evaluation.regression import Regression
from percoin.evaluation.trees import Trees
from percoin.types import Float32Array, FloatArray

# The forecasts of the range that the logit takes after the volatility: of trees, of a line.
N_RANGES = 2
# A tenth of a basis point, less than a tick: bars without a range have no logarithm.
_FLOOR = 1e-5


@dataclass(frozen=True)
class RangeRegression:
    """A linear regression for the log range of the next bars.

    Attributes:
        coefficients: One per column.
        intercept: Log range where every column is 0.

    Raises:
        ValueError: No coefficients, or a number is not finite.
    """

    coefficients: tuple[float, ...]
    intercept: float

    def __post_init__(self) -> None:
        if not self.coefficients or not np.isfinite((*self.coefficients, self.intercept)).all():
            raise ValueError("a regression of the range has no coefficients, or none finite")

    @property
    def n_columns(self) -> int:
        """Number of input columns."""
        return len(self.coefficients)

    def log_range(self, rows: FloatArray) -> FloatArray:
        """The forecast of each row, shape (n,).

        Args:
            rows: Shape (n, ``n_columns``).
        """
        # einsum gives a row the same sum for any number of rows; a BLAS product does not.
        with np.errstate(over="ignore", invalid="ignore"):
            line: FloatArray = np.einsum("nf,f->n", rows, np.array(self.coefficients))
        return line + self.intercept


@dataclass(frozen=True, eq=False)
class Moves:
    """The classes from the volatility and from how far the price is expected to move.

    Attributes:
        trees: Forecast the log range from all columns.
        ridge: Forecasts it from the first columns, the volatility and the clock.
        classes: A logit on the volatility alone, which comes first, and on both forecasts.
    """

    trees: Trees
    ridge: RangeRegression
    classes: Regression

    @property
    def n_columns(self) -> int:
        """Number of input columns."""
        return self.trees.n_columns

    def logits(self, rows: FloatArray | Float32Array) -> FloatArray:
        """Log-odds up to a constant, shape (n, C).

        Args:
            rows: Volatility, clock and features, shape (n, ``n_columns``).
        """
        values = np.asarray(rows, dtype=np.float64)
        ranges = np.column_stack(
            [self.log_range(values), self.ridge.log_range(values[:, : self.ridge.n_columns])]
        )
        volatility = values[:, : self.classes.n_columns - N_RANGES]
        return self.classes.logits(np.concatenate([volatility, ranges], axis=1))

    def log_range(self, rows: FloatArray | Float32Array) -> FloatArray:
        """What the trees forecast of each row, shape (n,); NaN where an input is unknown.

        Args:
            rows: As ``logits``.
        """
        found: FloatArray = np.where(
            np.isfinite(rows).all(axis=1), self.trees.logits(rows)[:, 0], np.nan
        )
        return found


def log_range_ahead(bars: Bars, horizon: int) -> FloatArray:
    """Log of the range of the next bars, from their lowest to their highest price.

    Args:
        bars: Closed bars of one market.
        horizon: At least 1 bar.

    Returns:
        Shape (n_bars,); NaN where a bar of the horizon is missing.
    """
    found: FloatArray = np.full(len(bars), np.nan)
    if len(bars) > horizon:
        windows = np.lib.stride_tricks.sliding_window_view
        highest = windows(bars.column("high")[1:], horizon).max(axis=1)
        lowest = windows(bars.column("low")[1:], horizon).min(axis=1)
        run = contiguous_run(bars.open_time, bars.timeframe)[horizon:]
        log_range = np.log(np.maximum(np.log(highest / lowest), _FLOOR))
        found[: len(log_range)] = np.where(run > horizon, log_range, np.nan)
    return found
