"""A fitted logistic regression as plain numbers; applying it needs only numpy.

``percoin.evaluation.baselines`` fits it with scikit-learn. A prediction does not load
scikit-learn.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from percoin.types import CLASS_NAMES, Float32Array, FloatArray


@dataclass(frozen=True)
class Regression:
    """A multinomial logistic regression on numbers of a window's last bar.

    Attributes:
        coefficients: One row per class in the order of ``Signal``, one number per column.
        intercept: One number per class.

    Raises:
        ValueError: Not three classes, rows of different length, or a number is not finite.
    """

    coefficients: tuple[tuple[float, ...], ...]
    intercept: tuple[float, ...]

    def __post_init__(self) -> None:
        n_classes, widths = len(CLASS_NAMES), {len(row) for row in self.coefficients}
        if len(self.coefficients) != n_classes or len(widths) != 1 or widths == {0}:
            raise ValueError(f"coefficients are not {n_classes} rows of one length")
        if len(self.intercept) != n_classes:
            raise ValueError(f"intercept has {len(self.intercept)} entries, not {n_classes}")
        if not all(np.isfinite(numbers).all() for numbers in (*self.coefficients, self.intercept)):
            raise ValueError("a coefficient is not finite")

    @property
    def n_columns(self) -> int:
        """Number of input columns."""
        return len(self.coefficients[0])

    def logits(self, rows: FloatArray | Float32Array) -> FloatArray:
        """Log-odds up to a constant, shape (n, C).

        Args:
            rows: Shape (n, ``n_columns``).
        """
        # einsum gives a row the same sum for any number of rows; a BLAS product does not.
        with np.errstate(over="ignore", invalid="ignore"):
            # The calibration reports an overflow, because it accepts only finite logits.
            products = np.einsum("nf,cf->nc", np.asarray(rows, np.float64), self._matrix)
            logits: FloatArray = products + np.array(self.intercept)
        return logits

    @cached_property
    def _matrix(self) -> FloatArray:
        return np.array(self.coefficients)


def fit_ridge(columns: FloatArray, target: FloatArray, penalty: float) -> tuple[FloatArray, float]:
    """Coefficients and intercept of a linear regression with a small penalty.

    Args:
        columns: Shape (n, D).
        target: Shape (n,).
        penalty: In rows of a column with deviation 1; it keeps columns that never change from
            mattering.
    """
    mean, deviation = columns.mean(axis=0), columns.std(axis=0)
    scale = np.where(deviation > 0, deviation, 1.0)
    scaled = (columns - mean) / scale
    penalized = scaled.T @ scaled + penalty * np.eye(scaled.shape[1])
    coefficients = np.linalg.solve(penalized, scaled.T @ (target - target.mean())) / scale
    return coefficients, float(target.mean() - mean @ coefficients)
