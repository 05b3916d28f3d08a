"""Standardisation with numbers that live in JSON, not in a pickle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
        n_rows = len(features)
        mean = features.mean(axis=0)
        variance = features.var(axis=0)
        # The rounding error that the variance of a constant can show (scikit-learn's bound).
        eps = np.finfo(np.float64).eps
        is_constant = variance <= n_rows * eps * variance + (n_rows * mean * eps) ** 2
        return cls(mean_=mean, scale_=np.where(is_constant, 1.0, np.sqrt(variance)))

    def transform(self, features: FloatArray) -> Float32Array:
        """Scale features, shape (..., F); NaN stays NaN."""
        return ((features - self.mean_) / self.scale_).astype(np.float32)

    def to_json(self) -> dict[str, list[float]]:
        """Plain lists; ``from_json`` gives back the same bits."""
        return {"mean": self.mean_.tolist(), "scale": self.scale_.tolist()}

    @classmethod
    def from_json(cls, values: Mapping[str, Sequence[float]]) -> Scaling:
        """Inverse of ``to_json``.

        Raises:
            ValueError: The two differ in length, a value is not finite or a
                scale is not positive.
            KeyError: ``mean`` or ``scale`` is missing.
        """
        mean = np.asarray(values["mean"], dtype=np.float64)
        scale = np.asarray(values["scale"], dtype=np.float64)
        is_sound = (
            mean.ndim == 1
            and mean.shape == scale.shape
            and bool(np.isfinite(mean).all() and np.isfinite(scale).all() and (scale > 0).all())
        )
        if not is_sound:
            raise ValueError("scaling needs one finite mean and one positive scale per feature")
        return cls(mean_=mean, scale_=scale)
