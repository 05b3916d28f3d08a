"""Fit a volatility forecast on train rows, choose its inputs and its bands on validation rows.

The regression is that of a cascade (Corsi, 2009) in logarithms: the log of how much the next
bars moved on the log of how much the last ones did, over several spans. Logarithms keep one
violent hour from deciding all coefficients. Overlapping horizons are all used.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from percoin.bars.schema import Bars
from percoin.expected_move.inputs import ALL_INPUTS, MoveInputs, move_columns
from percoin.expected_move.model import LEVELS, MoveModel
from percoin.expected_move.scores import qlike
from percoin.expected_move.targets import MoveTargets, move_targets
from percoin.types import FloatArray, IntArray

# With fewer, the regression has hardly more rows than columns, and a band of 95 % no rank.
FEWEST_ROWS = 100
# In rows of a column with deviation 1: keeps columns that never change from mattering.
_RIDGE = 1.0
# Those of which validation rows choose one; the first is the cascade alone.
CANDIDATES = tuple(ALL_INPUTS[: n_groups + 1] for n_groups in range(len(ALL_INPUTS)))


@dataclass(frozen=True, eq=False)
class MoveRows:
    """Rows of a market whose horizon is known and has moved.

    Attributes:
        bars: The market.
        horizon: Bars from a close to the close that is forecast.
        targets: What came after each bar.
        train: Positions of the rows that the regression is fitted on.
        validation: Positions of the rows that choose and calibrate.
    """

    bars: Bars
    horizon: int
    targets: MoveTargets
    train: IntArray
    validation: IntArray

    @classmethod
    def of(cls, bars: Bars, horizon: int, train: IntArray, validation: IntArray) -> MoveRows:
        """Leave out rows without a known horizon, without its move, or without earlier bars."""
        targets = move_targets(bars, horizon)
        has_past = np.isfinite(move_columns(bars, (MoveInputs.CASCADE,))).all(axis=1)
        is_usable = has_past & (targets.range_variance > 0)
        return cls(
            bars, horizon, targets, train[is_usable[train]], validation[is_usable[validation]]
        )

    @property
    def are_enough(self) -> bool:
        """Whether a forecast can be fitted and calibrated on them."""
        has_moved = bool((self.targets.log_return[self.train] != 0).any())
        return min(len(self.train), len(self.validation)) >= FEWEST_ROWS and has_moved

    @property
    def range_factor(self) -> float:
        """Variance of the horizon's return over the sum of its bars' range variances."""
        squares = self.targets.log_return[self.train] ** 2
        return float(squares.mean() / self.targets.range_variance[self.train].mean())

    @property
    def realized(self) -> FloatArray:
        """Variance of each horizon by its bars' ranges, in the size of its squared return."""
        return self.targets.range_variance * self.range_factor

    def scale(self, variance: FloatArray) -> float:
        """The factor with the smallest QLIKE on validation rows.

        Train rows would know it better over some months, and worse over years: markets calm down.

        Args:
            variance: A forecast for each bar, shape (n_bars,).
        """
        known = self.validation
        return float(np.mean(self.realized[known] / variance[known]))


def choose_move(
    rows: MoveRows, candidates: Sequence[tuple[MoveInputs, ...]] = CANDIDATES
) -> MoveModel | None:
    """Fit each candidate and take the one with the smallest QLIKE on validation rows.

    Args:
        rows: Of one market.
        candidates: Groups of inputs to choose from.

    Returns:
        None if too few rows are known, or the price stands still.
    """
    if not rows.are_enough:
        return None
    fitted = [_fit(rows, inputs) for inputs in candidates]
    realized = rows.realized[rows.validation]
    losses = [
        qlike(realized, model.deviations(rows.bars)[rows.validation] ** 2).mean()
        for model in fitted
    ]
    return fitted[int(np.argmin(losses))]


def conformal_quantile(scores: FloatArray, level: int) -> float:
    """The score that a new one stays within in ``level`` of 100 cases (split conformal).

    The rank is that of Vovk, Gammerman and Shafer (2005): one row more than there is, so that
    few rows give a wider band and not one that is too narrow.

    Args:
        scores: Of rows that the model has not seen, shape (n,).
        level: In percent.
    """
    rank = math.ceil((len(scores) + 1) * level / 100)
    return float(np.partition(scores, rank - 1)[rank - 1])


def _fit(rows: MoveRows, inputs: tuple[MoveInputs, ...]) -> MoveModel:
    columns, train, validation = move_columns(rows.bars, inputs), rows.train, rows.validation
    coefficients, intercept = _ridge(columns[train], np.log(rows.realized[train]))
    # The mean of logs is not the log of the mean.
    intercept += math.log(rows.scale(np.exp(columns @ coefficients + intercept)))
    deviations = np.exp((columns[validation] @ coefficients + intercept) / 2)
    scores = np.abs(rows.targets.log_return[validation]) / deviations
    quantiles = {str(level): conformal_quantile(scores, level) for level in LEVELS}
    return MoveModel(
        rows.horizon, inputs, tuple(coefficients.tolist()), intercept, rows.range_factor, quantiles
    )


def _ridge(columns: FloatArray, target: FloatArray) -> tuple[FloatArray, float]:
    """Coefficients and intercept of a linear regression with a small penalty."""
    mean, deviation = columns.mean(axis=0), columns.std(axis=0)
    scale = np.where(deviation > 0, deviation, 1.0)
    scaled = (columns - mean) / scale
    penalized = scaled.T @ scaled + _RIDGE * np.eye(scaled.shape[1])
    coefficients = np.linalg.solve(penalized, scaled.T @ (target - target.mean())) / scale
    return coefficients, float(target.mean() - mean @ coefficients)
