"""Simple forecasters that any model must beat, fitted on train rows only.

Each gives probabilities, so the same proper score judges all. A trading rule or the last known
label gives only a class. Its probabilities are the class frequencies that followed this class
on the train rows.

Two baselines are the references for skill: the class shares of the train rows
(``train_prior``) and the class shares of the last days (``rolling_prior``). If volatility has
changed since the train rows, every forecaster that knows recent volatility beats the first
one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np

from percoin.evaluation.last_row import InputColumns, LastRowModel
from percoin.evaluation.metrics import N_CLASSES
from percoin.evaluation.regression import Regression
from percoin.evaluation.trees import Trees
from percoin.types import UNKNOWN_LABEL, FloatArray, IntArray, Signal, Timeframe

TRAIN_PRIOR = "train_prior"
ROLLING_PRIOR = "rolling_prior"
MAJORITY = "majority"
LOGISTIC = "logistic"
BOOSTING = "boosting"
VOLATILITY = "volatility"
VOLATILITY_CLOCK = "volatility_clock"
MOVES = "moves"
POOLED_LOGISTIC = f"pooled_{LOGISTIC}"
POOLED_BOOSTING = f"pooled_{BOOSTING}"
POOLED_VOLATILITY_CLOCK_BOOSTING = f"pooled_{VOLATILITY_CLOCK}_{BOOSTING}"
POOLED_MOVES = f"pooled_{MOVES}"
# Those that can be a model by themselves, and those that a network can be averaged with.
ALONE = (LOGISTIC, VOLATILITY, BOOSTING, MOVES)
BESIDE = (LOGISTIC, VOLATILITY, VOLATILITY_CLOCK, BOOSTING, MOVES)
POOLED = (POOLED_LOGISTIC, POOLED_BOOSTING, POOLED_VOLATILITY_CLOCK_BOOSTING, POOLED_MOVES)
# Those that a network is averaged with by itself; docs/RECIPES.md has the evidence.
USUAL_BESIDE = BESIDE
USUAL_POOLED = (VOLATILITY, VOLATILITY_CLOCK, *POOLED)
# A network that is averaged with none.
NO_BLEND = "none"
# Never calibrated: their definition fixes their probabilities.
UNCALIBRATED = frozenset({TRAIN_PRIOR, ROLLING_PRIOR, MAJORITY})

_ROLLING_DAYS = 7
_ROLLING_ROWS = 672  # 7 days of 15 minutes
_SLOW_ROLLING_DAYS = 30

# Weight of the prior, in rows: it steadies the frequencies of answers with few train rows.
_PRIOR_ROWS = 30.0


@dataclass(frozen=True)
class BaselineInputs:
    """Data known at the close of each row's bar, without the row's own label.

    Attributes:
        features: Scaled features of that bar, without NaN, shape (n, F).
        last_known_label: See ``last_known_labels``, shape (n,), -1 if unknown.
        rsi_ma: Signal of the RSI+MA rule on these bars, NO_TRADE if it gives none,
            shape (n,).
        momentum: Signal of the momentum rule, shape (n,).
        settled_counts: See ``settled_class_counts``, shape (n, C).
        volatility: See ``features.volatility.volatility_columns``, shape (n, V).
        clock: See ``features.volatility.clock_columns``, shape (n, 6).
    """

    features: FloatArray
    last_known_label: IntArray
    rsi_ma: IntArray
    momentum: IntArray
    settled_counts: IntArray
    volatility: FloatArray
    clock: FloatArray

    def __len__(self) -> int:
        return len(self.features)

    def take(self, rows: IntArray | slice) -> BaselineInputs:
        """The inputs of some rows."""
        return replace(self, **{name: values[rows] for name, values in vars(self).items()})

    def columns(self, columns: InputColumns) -> FloatArray:
        """The inputs of a last-row model, shape (n, D)."""
        names = (*columns.groups, *(["features"] if columns.has_features else []))
        return np.concatenate([getattr(self, name) for name in names], axis=1)

    @classmethod
    def joined(cls, markets: Sequence[BaselineInputs]) -> BaselineInputs:
        """Stack the rows of several markets with the same bar length."""
        names = [entry.name for entry in fields(cls)]
        return cls(**{n: np.concatenate([getattr(entry, n) for entry in markets]) for n in names})


class FittedBaseline(Protocol):
    """A forecaster that was fitted on train rows."""

    name: str

    def predict_proba(self, inputs: BaselineInputs) -> FloatArray:
        """Class probabilities, shape (n, C); exactly zero only on purpose."""
        ...

    def predict(self, inputs: BaselineInputs) -> IntArray:
        """Signals, shape (n,): a rule's own answer, or else the most probable class."""
        ...


class Baseline(FittedBaseline, Protocol):
    """A forecaster that is fitted once on train rows."""

    def fit(self, inputs: BaselineInputs, labels: IntArray) -> None:
        """Learn from train rows; ``labels`` are theirs, shape (n,)."""
        ...


@runtime_checkable
class ServableBaseline(FittedBaseline, Protocol):
    """One that can be a part of a model: it looks at the newest bar alone."""

    columns: InputColumns

    def plain(self) -> LastRowModel:
        """What it computes with.

        Raises:
            ValueError: Its train rows were too few.
        """
        ...


def last_known_labels(labels: IntArray, horizon: int) -> IntArray:
    """The newest known label when each bar closes: the label of ``horizon`` bars ago.

    Args:
        labels: Label of every bar, without gaps between rows, shape (n_bars,).
        horizon: Number of bars that a label reaches ahead.

    Returns:
        Shape (n_bars,), -1 if no label is known yet.
    """
    settled: IntArray = np.full(len(labels), UNKNOWN_LABEL, dtype=np.int64)
    settled[horizon:] = labels[: len(labels) - horizon]
    return settled


def rolling_prior_bars(timeframe: Timeframe) -> int:
    """Number of past bars that the rolling prior counts.

    For bars of 15m or less this is 7 days. For longer bars it is 672 bars (7 days of 15m) or
    30 days, whichever is more.
    """
    week = _ROLLING_DAYS * timeframe.bars_per_day
    if week >= _ROLLING_ROWS:
        return math.ceil(week)
    return math.ceil(max(_ROLLING_ROWS, _SLOW_ROLLING_DAYS * timeframe.bars_per_day))


def rolling_prior_days(timeframe: Timeframe) -> int:
    """Length of that in days: 7 up to 15m, 30 on 30m and 1h, 112 on 4h, 672 on 1d."""
    return round(rolling_prior_bars(timeframe) / timeframe.bars_per_day)


def settled_class_counts(labels: IntArray, horizon: int, n_bars: int) -> IntArray:
    """Count the labels of each class over the newest known labels when each bar closes.

    Args:
        labels: Label of every bar, -1 if unknown, shape (n_bars,).
        horizon: Number of bars that a label reaches ahead.
        n_bars: Number of bars to count; the newest of them is ``horizon`` bars back.

    Returns:
        Shape (n_bars, C).
    """
    settled = last_known_labels(labels, horizon)
    came = settled[:, None] == np.arange(N_CLASSES)
    totals = np.cumsum(came, axis=0)
    counts: IntArray = totals.copy()
    counts[n_bars:] -= totals[:-n_bars]
    return counts


def class_shares(labels: IntArray) -> FloatArray:
    """Class frequencies with one added row of each class (Laplace smoothing), shape (C,)."""
    return shares_of(np.bincount(labels, minlength=N_CLASSES))


def shares_of(counts: IntArray) -> FloatArray:
    """Class frequencies from counts, with Laplace smoothing, shape (..., C)."""
    drawn = counts + 1.0
    shares: FloatArray = drawn / drawn.sum(axis=-1, keepdims=True)
    return shares


def rolling_shares(counts: IntArray, without: FloatArray) -> FloatArray:
    """Probabilities of the rolling prior.

    Args:
        counts: See ``settled_class_counts``, shape (n, C).
        without: Shares for rows before the first known label, shape (C,).

    Returns:
        Shape (n, C).
    """
    known = counts.sum(axis=1, keepdims=True) > 0
    shares: FloatArray = np.where(known, shares_of(counts), without)
    return shares


def most_probable(probabilities: FloatArray) -> IntArray:
    """The most probable class of each row, shape (n,)."""
    chosen: IntArray = probabilities.argmax(axis=1)
    return chosen


class TrainPrior:
    """Always gives the class frequencies of the train rows; the first reference for skill."""

    name = TRAIN_PRIOR

    def fit(self, inputs: BaselineInputs, labels: IntArray) -> None:
        """Count the classes."""
        self.shares_ = class_shares(labels)

    def predict_proba(self, inputs: BaselineInputs) -> FloatArray:
        """The same probabilities for every row."""
        return np.tile(self.shares_, (len(inputs), 1))

    def predict(self, inputs: BaselineInputs) -> IntArray:
        """The majority class."""
        return most_probable(self.predict_proba(inputs))


class RollingPrior:
    """The class shares of the known labels of the last days; the second reference for skill.

    It knows what every trader knows: how much the market has moved recently. Before the first
    known label it gives the train prior.
    """

    name = ROLLING_PRIOR

    def fit(self, inputs: BaselineInputs, labels: IntArray) -> None:
        """Count the classes, for rows before the first known label."""
        self.shares_ = class_shares(labels)

    def predict_proba(self, inputs: BaselineInputs) -> FloatArray:
        """The shares at each row."""
        return rolling_shares(inputs.settled_counts, self.shares_)

    def predict(self, inputs: BaselineInputs) -> IntArray:
        """The class with the largest share."""
        return most_probable(self.predict_proba(inputs))


class Majority:
    """Always gives the most frequent class of the train rows; compare every accuracy with it.

    It gives this class a probability of 1, so its log-loss is very large.
    """

    name = MAJORITY

    def fit(self, inputs: BaselineInputs, labels: IntArray) -> None:
        """Find the most frequent class."""
        self.majority_ = int(np.bincount(labels, minlength=N_CLASSES).argmax())

    def predict_proba(self, inputs: BaselineInputs) -> FloatArray:
        """One for that class, zero for the others."""
        return np.eye(N_CLASSES)[self.predict(inputs)]

    def predict(self, inputs: BaselineInputs) -> IntArray:
        """The most frequent class for every row."""
        return np.full(len(inputs), self.majority_, dtype=np.int64)


class AnswerFrequencies:
    """Class frequencies after each answer of a fixed rule.

    Args:
        name: Name in tables.
        answer: Turns inputs into a class per row, or -1 without an answer.
    """

    def __init__(self, name: str, answer: Callable[[BaselineInputs], IntArray]) -> None:
        self.name = name
        self._answer = answer

    def fit(self, inputs: BaselineInputs, labels: IntArray) -> None:
        """Count the classes after each answer, shrunk towards the prior."""
        self.table_ = frequencies_after(self._answer(inputs), labels)

    def predict_proba(self, inputs: BaselineInputs) -> FloatArray:
        """The class frequencies for each row's answer."""
        probabilities: FloatArray = self.table_[self._answer(inputs)]
        return probabilities

    def predict(self, inputs: BaselineInputs) -> IntArray:
        """The rule's own answer; NO_TRADE without an answer."""
        answers = self._answer(inputs)
        return np.where(answers == UNKNOWN_LABEL, Signal.NO_TRADE, answers).astype(np.int64)


def frequencies_after(answers: IntArray, labels: IntArray) -> FloatArray:
    """How often each class follows each answer, shrunk towards the prior of all rows.

    Args:
        answers: Classes, or UNKNOWN_LABEL without an answer, shape (n,).
        labels: True labels, shape (n,).

    Returns:
        Shape (C + 1, C), indexed by an answer. The last row holds the prior; UNKNOWN_LABEL
        (-1) as an index points to it.
    """
    prior = class_shares(labels)
    table = np.empty((N_CLASSES + 1, N_CLASSES))
    for answer in Signal:
        counts = np.bincount(labels[answers == answer], minlength=N_CLASSES)
        table[answer] = (counts + _PRIOR_ROWS * prior) / (counts.sum() + _PRIOR_ROWS)
    table[UNKNOWN_LABEL] = prior
    return table


class LastRowClassifier:
    """A scikit-learn classifier on data known at the close of the window's last bar.

    Args:
        name: Name in tables.
        make_estimator: Makes a new classifier with ``fit`` and ``predict_proba``.
        columns: The inputs. A row has NaN if an indicator needs more past bars. Training skips
            such a row; in prediction it gets the prior.
    """

    def __init__(
        self,
        name: str,
        make_estimator: Callable[[], Any],
        columns: InputColumns = InputColumns.FEATURES,
    ) -> None:
        self.name = name
        self._make_estimator = make_estimator
        self.columns = columns

    def fit(self, inputs: BaselineInputs, labels: IntArray) -> None:
        """Fit the classifier; if all train rows have one class, only the prior is used."""
        self.shares_ = class_shares(labels)
        self.estimator_ = None
        columns = inputs.columns(self.columns)
        complete = np.isfinite(columns).all(axis=1)
        if len(np.unique(labels[complete])) > 1:
            with one_thread():
                self.estimator_ = self._make_estimator().fit(columns[complete], labels[complete])

    def predict_proba(self, inputs: BaselineInputs) -> FloatArray:
        """The classifier's probabilities; a class without train rows keeps its Laplace share."""
        probabilities = np.tile(self.shares_, (len(inputs), 1))
        columns = inputs.columns(self.columns)
        complete = np.flatnonzero(np.isfinite(columns).all(axis=1))
        if self.estimator_ is None or len(complete) == 0:
            return probabilities
        seen = self.estimator_.classes_
        with one_thread():
            given = self.estimator_.predict_proba(columns[complete])
        probabilities[np.ix_(complete, seen)] = given * self.shares_[seen].sum()
        return probabilities

    def predict(self, inputs: BaselineInputs) -> IntArray:
        """The most probable class."""
        return most_probable(self.predict_proba(inputs))

    def plain(self) -> LastRowModel:
        """The fitted classifier as plain numbers, usable without scikit-learn.

        Raises:
            ValueError: The complete train rows lack a class.
        """
        from sklearn.pipeline import Pipeline

        fitted = self.estimator_
        if fitted is None or len(fitted.classes_) != N_CLASSES:
            raise ValueError(f"{self.name} was fitted without a train row of each class")
        if isinstance(fitted, Pipeline):
            scaler, regression = fitted[0], fitted[-1]
            return LastRowModel(
                self.columns, plain_regression(regression, scaler.mean_, scaler.scale_)
            )
        if hasattr(fitted, "coef_"):
            return LastRowModel(self.columns, plain_regression(fitted))
        return LastRowModel(self.columns, Trees.of(fitted))


def plain_regression(
    fitted: Any, mean: FloatArray | None = None, scale: FloatArray | None = None
) -> Regression:
    """The numbers of a logistic regression; a scaling before it becomes a part of them."""
    coefficients, intercept = fitted.coef_, fitted.intercept_
    if mean is not None and scale is not None:
        coefficients = coefficients / scale
        intercept = intercept - coefficients @ mean
    return Regression(tuple(map(tuple, coefficients.tolist())), tuple(intercept.tolist()))


def default_baselines(seed: int = 0) -> list[Baseline]:
    """The baselines of every report, unfitted."""
    return [
        Majority(),
        TrainPrior(),
        RollingPrior(),
        AnswerFrequencies("persistence", lambda inputs: inputs.last_known_label),
        AnswerFrequencies("rsi_ma", lambda inputs: inputs.rsi_ma),
        AnswerFrequencies("momentum", lambda inputs: inputs.momentum),
        LastRowClassifier(LOGISTIC, _make_logistic),
        LastRowClassifier(BOOSTING, lambda: make_boosting(seed)),
        LastRowClassifier(VOLATILITY, make_scaled_logistic, InputColumns.VOLATILITY),
        LastRowClassifier(VOLATILITY_CLOCK, make_scaled_logistic, InputColumns.VOLATILITY_CLOCK),
    ]


def pooled_baselines(seed: int = 0) -> list[Baseline]:
    """The baselines that learn from the train rows of many markets at once, unfitted."""
    return [
        LastRowClassifier(POOLED_LOGISTIC, _make_logistic),
        LastRowClassifier(POOLED_BOOSTING, lambda: make_boosting(seed)),
        LastRowClassifier(
            POOLED_VOLATILITY_CLOCK_BOOSTING,
            lambda: make_boosting(seed),
            InputColumns.VOLATILITY_CLOCK,
        ),
    ]


def one_thread() -> AbstractContextManager[Any]:
    """Limit scikit-learn to one thread, so it does not wait for cores that a sweep uses.

    With both cores of a small machine busy, boosting on two threads took 88 s instead of 3 s.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    limits: AbstractContextManager[Any] = threadpool_limits(1)
    return limits


def _make_logistic() -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=1.0, max_iter=2000)


def make_scaled_logistic() -> Any:
    """The multinomial logit of the volatility baselines, unfitted."""
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), _make_logistic())


def make_boosting(seed: int) -> Any:
    """The gradient boosting classifier of the boosting baseline, unfitted."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    # Early stopping holds out random rows, but their neighbours stay in training: the score on
    # them keeps improving, so training never stops early.
    return HistGradientBoostingClassifier(
        learning_rate=0.05,
        max_iter=100,
        max_leaf_nodes=8,
        min_samples_leaf=50,
        l2_regularization=1.0,
        early_stopping=False,
        random_state=seed,
    )
