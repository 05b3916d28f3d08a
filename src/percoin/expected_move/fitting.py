"""Fit a volatility forecast on train rows, choose its inputs and its bands on validation rows.

The regression is that of a cascade (Corsi, 2009): how much the next bars moved on how much the
last ones did, over several spans. In logarithms, which keep one violent hour from deciding all
coefficients, further inputs may join; in roots or variances it stands alone. Overlapping horizons
are all used. Where the classifier has trees that forecast the range, validation rows may prefer an
average with these.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np

from percoin.bars.schema import Bars
from percoin.evaluation.regression import fit_ridge
from percoin.expected_move.inputs import ALL_INPUTS, MoveInputs, move_columns
from percoin.expected_move.model import LEVELS, MoveForm, MoveModel, MoveRegression, RangeForecast
from percoin.expected_move.scores import qlike
from percoin.expected_move.targets import MoveTargets, move_targets
from percoin.types import FloatArray, IntArray

# With fewer, the regression has hardly more rows than columns, and a band of 95 % no rank.
FEWEST_ROWS = 100
# In rows of a column with deviation 1: keeps columns that never change from mattering.
_RIDGE = 1.0
# The cascade of Corsi in each form.
CASCADES = tuple(MoveRegression((MoveInputs.SPANS,), form) for form in MoveForm)
# Of trees in the average, the rest is the regression's: trees cannot go beyond what they have seen,
# and those of one market have seen little (``benchmarks/expected_move.py --more``).
TREES_WEIGHT = 0.25
# Those of which validation rows choose one.
CANDIDATES = (
    *(MoveRegression(ALL_INPUTS[: n_groups + 1]) for n_groups in range(len(ALL_INPUTS))),
    *CASCADES,
)


@dataclass(frozen=True, eq=False)
class MoveRows:
    """Rows of a market whose horizon is known and has moved.

    Attributes:
        bars: The market.
        horizon: Bars from a close to the close that is forecast.
        targets: What came after each bar.
        train: Positions of the rows that the regression is fitted on.
        validation: Positions of the rows that choose and calibrate.
        log_ranges: ``Moves.log_range`` at each bar, by the part of the classifier that has it,
            shape (n_bars,) each.
    """

    bars: Bars
    horizon: int
    targets: MoveTargets
    train: IntArray
    validation: IntArray
    log_ranges: Mapping[str, FloatArray] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        bars: Bars,
        horizon: int,
        train: IntArray,
        validation: IntArray,
        log_ranges: Mapping[str, FloatArray] = MappingProxyType({}),
    ) -> MoveRows:
        """Leave out rows without a known horizon, without its move, or without earlier bars."""
        targets = move_targets(bars, horizon)
        has_past = np.isfinite(move_columns(bars, (MoveInputs.CASCADE,))).all(axis=1)
        is_usable = has_past & (targets.range_variance > 0)
        known, chosen = train[is_usable[train]], validation[is_usable[validation]]
        return cls(bars, horizon, targets, known, chosen, log_ranges)

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

    def deviations(self, model: MoveModel) -> FloatArray:
        """What a model forecasts at each close, shape (n_bars,)."""
        return model.deviations(self.bars, self.log_ranges)

    def scale(self, variance: FloatArray) -> float:
        """The factor with the smallest QLIKE on validation rows.

        Train rows would know it better over some months, and worse over years: markets calm down.

        Args:
            variance: A forecast for each bar, shape (n_bars,).
        """
        known = self.validation
        return float(np.mean(self.realized[known] / variance[known]))


def choose_move(
    rows: MoveRows, candidates: Sequence[MoveRegression] = CANDIDATES
) -> MoveModel | None:
    """Fit each candidate and take the one with the smallest QLIKE on validation rows.

    Args:
        rows: Of one market.
        candidates: To choose from.

    Returns:
        None if too few rows are known, or the price stands still.
    """
    if not rows.are_enough:
        return None
    return _best(rows, [_fit(rows, candidate) for candidate in candidates])


def average_with_trees(rows: MoveRows, regression: MoveModel) -> MoveModel:
    """Average a regression with a forecast of trees, if its QLIKE on validation rows is smaller.

    Args:
        rows: Of one market; every log range is known on the validation rows.
        regression: Fitted on them.

    Returns:
        The regression itself without trees, or if it is better alone.
    """
    beside = [RangeForecast(part, TREES_WEIGHT, 0.0) for part in rows.log_ranges]
    averaged = [_calibrated(rows, replace(regression, range_forecast=each)) for each in beside]
    return _best(rows, [regression, *averaged])


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


def _fit(rows: MoveRows, regression: MoveRegression) -> MoveModel:
    form, train = regression.form, rows.train
    columns = form.of_log(move_columns(rows.bars, regression.inputs))
    shaped = form.of_log(np.log(rows.realized[train]))
    bounds = None if form is MoveForm.LOG else (float(shaped.min()), float(shaped.max()))
    coefficients, intercept = fit_ridge(columns[train], shaped, _RIDGE)
    model = MoveModel(
        rows.horizon,
        regression.inputs,
        tuple(coefficients.tolist()),
        intercept,
        rows.range_factor,
        dict.fromkeys(map(str, LEVELS), 1.0),
        form,
        bounds,
    )
    return _calibrated(rows, model)


def _calibrated(rows: MoveRows, model: MoveModel) -> MoveModel:
    """Of the size of what came on validation rows, with bands that held it as often as they say."""
    # The mean of logs is not the log of the mean.
    model = model.scaled(rows.scale(rows.deviations(model) ** 2))
    validation = rows.validation
    scores = np.abs(rows.targets.log_return[validation]) / rows.deviations(model)[validation]
    return replace(model, quantiles={str(k): conformal_quantile(scores, k) for k in LEVELS})


def _best(rows: MoveRows, models: Sequence[MoveModel]) -> MoveModel:
    """The one with the smallest QLIKE on validation rows, the first among equals."""
    known = rows.validation
    losses = [
        qlike(rows.realized[known], rows.deviations(model)[known] ** 2).mean() for model in models
    ]
    return models[int(np.argmin(losses))]
