"""Fit a model in two stages: how far the price will move, then which class.

The logit learns from forecasts of the range that a model made of rows it had not seen, as it will
be asked in use: of each block of train rows by fits on the others, at least a day apart
(cross-fitting, as in stacking of Wolpert, 1992).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from percoin.dataset import MarketDataset
from percoin.evaluation.baselines import (
    MOVES,
    POOLED_MOVES,
    BaselineInputs,
    class_shares,
    make_scaled_logistic,
    most_probable,
    one_thread,
    plain_regression,
)
from percoin.evaluation.calibration import apply_calibration
from percoin.evaluation.last_row import InputColumns, LastRowModel
from percoin.evaluation.metrics import N_CLASSES
from percoin.evaluation.moves import Moves, RangeRegression, log_range_ahead
from percoin.evaluation.regression import fit_ridge
from percoin.evaluation.trees import Trees
from percoin.types import DAY_MILLISECONDS, BoolArray, FloatArray, IntArray

_COLUMNS = InputColumns.VOLATILITY_CLOCK_FEATURES
_N_BLOCKS = 5
# With fewer rows to fit on, a block has no forecasts.
_FEWEST_ROWS = 100
# In rows of a column with deviation 1.
_RIDGE = 10.0
N_TREES = 150


@dataclass(frozen=True, eq=False)
class RangeRows:
    """Train rows of a market with all inputs and a known range of the next bars.

    Attributes:
        columns: Volatility, clock and features, shape (n, D).
        n_of_ridge: How many of the first columns the linear regression takes.
        n_of_classes: How many of them the logit takes.
        log_range: Shape (n,).
        opened: Open time in milliseconds, shape (n,).
        label: Shape (n,).
        shares: Class shares of all train rows, shape (C,).
        apart: Milliseconds between rows to fit on and rows to ask: a day, or the purge.
    """

    columns: FloatArray
    n_of_ridge: int
    n_of_classes: int
    log_range: FloatArray
    opened: IntArray
    label: IntArray
    shares: FloatArray
    apart: int

    @classmethod
    def of(cls, dataset: MarketDataset, inputs: BaselineInputs) -> RangeRows:
        """Leave out train rows with an unknown input, or without a known range.

        Args:
            dataset: The market.
            inputs: Of each of its bars.
        """
        train, purge = dataset.rows("train"), dataset.spec.split_spec.purge_bars
        log_range = log_range_ahead(dataset.bars, dataset.label_rule.horizon)
        columns = inputs.columns(_COLUMNS)
        is_known = np.isfinite(columns[train]).all(axis=1) & np.isfinite(log_range[train])
        rows, n_of_classes = train[is_known], inputs.volatility.shape[1]
        return cls(
            columns[rows],
            n_of_classes + inputs.clock.shape[1],
            n_of_classes,
            log_range[rows],
            dataset.bars.open_time[rows],
            dataset.label[rows],
            class_shares(dataset.label[train]),
            max(DAY_MILLISECONDS, purge * dataset.bars.timeframe.milliseconds),
        )


@dataclass(frozen=True, eq=False)
class RangeBoosting:
    """The trees of the first stage, fitted on the train rows of one market or of many.

    Attributes:
        name: Of the model that they are a part of.
        edges: Open times between which the blocks lie, shape (6,); the first has no begin and
            the last no end, as a market may have rows before and after those fitted on.
        whole: Fitted on all rows; None if a block has too few others.
        blocks: For each block, fitted on the rows at least a day from it.
    """

    name: str
    edges: FloatArray
    whole: Any = None
    blocks: tuple[Any, ...] = ()

    @classmethod
    def fit(
        cls, markets: Sequence[RangeRows], seed: int, name: str = POOLED_MOVES
    ) -> RangeBoosting:
        """Fit them.

        Args:
            markets: At least one; all with the same bar length and the same scaling.
            seed: For the trees.
            name: Of the model.
        """
        columns, log_range, opened = (
            np.concatenate([getattr(rows, key) for rows in markets])
            for key in ("columns", "log_range", "opened")
        )
        if len(opened) < _FEWEST_ROWS:
            return cls(name, np.zeros(_N_BLOCKS + 1))
        edges = np.quantile(opened, np.linspace(0, 1, _N_BLOCKS + 1))
        edges[0], edges[-1] = -np.inf, np.inf
        far = [_is_far(edges, block, opened, markets[0].apart) for block in range(_N_BLOCKS)]
        if min(each.sum() for each in far) < _FEWEST_ROWS:
            return cls(name, edges)
        with one_thread():
            whole, *blocks = (
                _make_boosting(seed).fit(columns[rows], log_range[rows])
                for rows in (np.ones(len(opened), dtype=bool), *far)
            )
        return cls(name, edges, whole, tuple(blocks))

    def moves_of(self, rows: RangeRows) -> MovesBaseline:
        """The whole model of one market: its own line and its own logit beside these trees.

        Args:
            rows: Its train rows; the trees may have learnt from them or not.
        """
        asked = np.searchsorted(self.edges, rows.opened, "right") - 1
        far = [_is_far(self.edges, block, rows.opened, rows.apart) for block in range(_N_BLOCKS)]
        is_enough = min(each.sum() for each in far) >= _FEWEST_ROWS
        if self.whole is None or not is_enough or len(np.unique(rows.label)) < N_CLASSES:
            return MovesBaseline(self.name, rows.shares)
        line = rows.columns[:, : rows.n_of_ridge]
        ranges: FloatArray = np.empty((len(line), 2))
        with one_thread():
            for block in range(_N_BLOCKS):
                here = asked == block
                if here.any():
                    ridge = _fit_line(line[far[block]], rows.log_range[far[block]])
                    boosted = self.blocks[block].predict(rows.columns[here])
                    ranges[here] = np.column_stack([boosted, ridge.log_range(line[here])])
            inputs = np.column_stack([rows.columns[:, : rows.n_of_classes], ranges])
            scaler, logit = make_scaled_logistic().fit(inputs, rows.label)
        classes = plain_regression(logit, scaler.mean_, scaler.scale_)
        model = Moves(Trees.of(self.whole), _fit_line(line, rows.log_range), classes)
        return MovesBaseline(self.name, rows.shares, model)


class MovesBaseline:
    """A fitted model in two stages as one of the judge's baselines.

    Args:
        name: Name in tables.
        shares: Class shares of the train rows, for rows without all inputs, shape (C,).
        model: None if there were too few train rows.
    """

    columns = _COLUMNS

    def __init__(self, name: str, shares: FloatArray, model: Moves | None = None) -> None:
        self.name = name
        self._shares = shares
        self._model = model

    def predict_proba(self, inputs: BaselineInputs) -> FloatArray:
        """The model's probabilities, shape (n, C)."""
        probabilities = np.tile(self._shares, (len(inputs), 1))
        columns = inputs.columns(_COLUMNS)
        known = np.isfinite(columns).all(axis=1)
        if self._model is not None and known.any():
            logits = self._model.logits(columns[known])
            probabilities[known] = apply_calibration(logits, {"method": "none"})
        return probabilities

    def predict(self, inputs: BaselineInputs) -> IntArray:
        """The most probable class."""
        return most_probable(self.predict_proba(inputs))

    def plain(self) -> LastRowModel:
        """The model as plain numbers.

        Raises:
            ValueError: There were too few train rows.
        """
        if self._model is None:
            raise ValueError(
                f"{self.name} needs {_N_BLOCKS} blocks of train rows, each with {_FEWEST_ROWS} "
                "rows a day or more from it, and a row of each class"
            )
        return LastRowModel(_COLUMNS, self._model)


def fit_moves(dataset: MarketDataset, inputs: BaselineInputs, seed: int) -> MovesBaseline:
    """Fit both stages on one market alone.

    Args:
        dataset: The market.
        inputs: Of each of its bars.
        seed: For the trees.
    """
    rows = RangeRows.of(dataset, inputs)
    return RangeBoosting.fit([rows], seed, MOVES).moves_of(rows)


def _is_far(edges: FloatArray, block: int, opened: IntArray, apart: int) -> BoolArray:
    is_far: BoolArray = (opened < edges[block] - apart) | (opened > edges[block + 1] + apart)
    return is_far


def _fit_line(columns: FloatArray, log_range: FloatArray) -> RangeRegression:
    coefficients, intercept = fit_ridge(columns, log_range, _RIDGE)
    return RangeRegression(tuple(coefficients.tolist()), intercept)


def _make_boosting(seed: int) -> Any:
    from sklearn.ensemble import HistGradientBoostingRegressor

    return HistGradientBoostingRegressor(
        learning_rate=0.05,
        max_iter=N_TREES,
        max_leaf_nodes=8,
        min_samples_leaf=50,
        l2_regularization=1.0,
        early_stopping=False,
        random_state=seed,
    )
