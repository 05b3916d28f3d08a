"""A fitted logistic regression as plain numbers, applied by numpy alone.

It is fitted among the baselines (``percoin.evaluation.baselines``) by scikit-learn, which a
prediction does not load.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from percoin.types import CLASS_NAMES, Float32Array, FloatArray


@dataclass(frozen=True)
class Regression:
    """A multinomial logistic regression on the scaled features of a window's last bar.

    Attributes:
        coefficients: Of each class, in the order of ``Signal``, one for each feature.
        intercept: Of each class.

    Raises:
        ValueError: They are not those of three classes.
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
    def n_features(self) -> int:
        """Features of a bar."""
        return len(self.coefficients[0])

    def logits(self, rows: FloatArray | Float32Array) -> FloatArray:
        """Log-odds up to a constant, shape (n, C).

        Args:
            rows: Scaled features, shape (n, F).
        """
        # Unlike a product by BLAS, the sum of a row does not depend on how many rows come along.
        with np.errstate(over="ignore", invalid="ignore"):
            # What overflows is told by the calibration, which takes finite logits alone.
            products = np.einsum("nf,cf->nc", np.asarray(rows, np.float64), self._matrix)
            logits: FloatArray = products + np.array(self.intercept)
        return logits

    @cached_property
    def _matrix(self) -> FloatArray:
        return np.array(self.coefficients)
