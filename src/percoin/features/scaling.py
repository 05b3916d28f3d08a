"""Standardisation by mean and deviation of the train rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from percoin.types import Float32Array, FloatArray


@dataclass(frozen=True, eq=False)
class Scaling:
    """Mean and standard deviation of each feature over the train rows.

    Attributes:
        mean_: Shape (F,).
        scale_: Population standard deviation, shape (F,); 1 for a feature that
            never varied, as in scikit-learn's ``StandardScaler``.
    """

    mean_: FloatArray
    scale_: FloatArray

    @classmethod
    def fit(cls, features: FloatArray) -> Scaling:
        """Measure features, shape (n_rows, F), all finite.

        Raises:
            ValueError: No rows, or a value that is not finite.
        """
        if len(features) == 0 or not np.isfinite(features).all():
            raise ValueError("scaling is fitted on at least one row, all values finite")
        return cls._of(len(features), features.mean(axis=0), features.var(axis=0))

    @classmethod
    def fit_together(cls, markets: Iterable[FloatArray]) -> Scaling:
        """Measure the rows of several markets as if they were one array.

        Means and sums of squares are merged market by market (Chan, Golub and LeVeque, 1983).

        Args:
            markets: Each of shape (n_rows, F), all finite; one at a time is in memory.

        Raises:
            ValueError: No rows, or a value that is not finite.
        """
        n_rows, mean, squares = 0, np.zeros(()), np.zeros(())
        for features in markets:
            if not np.isfinite(features).all():
                raise ValueError("scaling is fitted on rows whose values are all finite")
            if len(features) == 0:
                continue
            n_both = n_rows + len(features)
            apart = features.mean(axis=0) - mean
            squares = squares + features.var(axis=0) * len(features)
            squares = squares + apart**2 * (n_rows * len(features) / n_both)
            mean = mean + apart * (len(features) / n_both)
            n_rows = n_both
        if n_rows == 0:
            raise ValueError("scaling is fitted on at least one row")
        return cls._of(n_rows, mean, squares / n_rows)

    @classmethod
    def _of(cls, n_rows: int, mean: FloatArray, variance: FloatArray) -> Scaling:
        # A constant may have a variance as large as its rounding error (scikit-learn's bound).
        eps = np.finfo(np.float64).eps
        is_constant = variance <= n_rows * eps * variance + (n_rows * mean * eps) ** 2
        return cls(mean_=mean, scale_=np.where(is_constant, 1.0, np.sqrt(variance)))

    def transform(self, features: FloatArray) -> Float32Array:
        """Scale features, shape (..., F); NaN stays NaN, too large a value becomes infinite."""
        with np.errstate(over="ignore"):
            return ((features - self.mean_) / self.scale_).astype(np.float32)
