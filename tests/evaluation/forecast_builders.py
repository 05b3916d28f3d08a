"""Made-up markets and forecasts, from a seed, for the tests of the evaluation."""

from __future__ import annotations

import numpy as np

from percoin.evaluation.baselines import TRAIN_PRIOR, class_shares
from percoin.evaluation.evaluate import Forecast
from percoin.types import FloatArray, IntArray


def random_probabilities(n_rows: int, seed: int = 0) -> FloatArray:
    return np.random.default_rng(seed).dirichlet([1.0, 2.0, 1.5], size=n_rows)


def draw_labels(probabilities: FloatArray, seed: int = 0) -> IntArray:
    """Labels that came with exactly these probabilities."""
    uniform = np.random.default_rng(seed).random((len(probabilities), 1))
    return (uniform > probabilities.cumsum(axis=1)).sum(axis=1).clip(max=2).astype(np.int64)


def true_probabilities(n_rows: int, edge: float, seed: int = 0) -> FloatArray:
    """A market whose activity comes in runs; ``edge`` 0 has nothing to know."""
    rng = np.random.default_rng(seed)
    level = np.zeros(n_rows)
    shocks = rng.standard_normal(n_rows)
    for k in range(1, n_rows):
        level[k] = 0.9 * level[k - 1] + shocks[k] * np.sqrt(1 - 0.9**2)
    move = 1 / (1 + np.exp(-(0.4 + edge * level)))
    return np.stack([move / 2, 1 - move, move / 2], axis=1)


def prior_forecast(labels: IntArray) -> Forecast:
    return Forecast(TRAIN_PRIOR, np.tile(class_shares(labels), (len(labels), 1)))
