"""Simple forecasters that any model has to beat, fitted on train rows only.

Each gives probabilities, so that all are judged by the same proper score. A rule or
a persisted label gives a bare class; its probabilities are how often each class
followed that answer on the train rows.

Two of them are rulers, from which skill is measured: the class shares of the train rows
(``train_prior``) and those of the last days (``rolling_prior``). Where the market's mood has
changed since the train rows, anybody who knows today's mood is ahead of the first one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import numpy as np

from percoin.evaluation.metrics import N_CLASSES
from percoin.evaluation.regression import Regression
from percoin.types import UNKNOWN_LABEL, FloatArray, IntArray, Signal, Timeframe

TRAIN_PRIOR = "train_prior"
ROLLING_PRIOR = "rolling_prior"
MAJORITY = "majority"
LOGISTIC = "logistic"
BOOSTING = "boosting"
VOLATILITY = "volatility"
VOLATILITY_CLOCK = "volatility_clock"
# Never calibrated: what they say is what they are defined to say.
UNCALIBRATED = frozenset({TRAIN_PRIOR, ROLLING_PRIOR, MAJORITY})

_ROLLING_DAYS = 7
_ROLLING_ROWS = 672  # 7 days of 15 minutes
_SLOW_ROLLING_DAYS = 30

# An answer seen on few train rows says little: it starts out as this many rows of the prior.
_PRIOR_ROWS = 30.0


@dataclass(frozen=True)
class BaselineInputs:
    """What is known at the close of each row's bar; labels are not among it.

    Attributes:
        features: Scaled features of that bar, without NaN, shape (n, F).
        last_known_label: See ``last_known_labels``, shape (n,), -1 where unknown.
        rsi_ma: What the RSI+MA rule says on these bars, NO_TRADE where it is silent,
            shape (n,).
        momentum: The same of the momentum rule, shape (n,).
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
        """The same for some of the rows."""
        return replace(self, **{name: values[rows] for name, values in vars(self).items()})

    @classmethod
    def joined(cls, markets: Sequence[BaselineInputs]) -> BaselineInputs:
        """The rows of several markets of one bar length, one below the other."""
        names = [entry.name for entry in fields(cls)]
        return cls(**{n: np.concatenate([getattr(entry, n) for entry in markets]) for n in names})


class Baseline(Protocol):
    """A forecaster that is fitted once on train rows."""

    name: str

    def fit(self, inputs: BaselineInputs, labels: IntArray) -> None:
        """Learn from train rows; ``labels`` are theirs, shape (n,)."""
        ...

    def predict_proba(self, inputs: BaselineInputs) -> FloatArray:
        """Class probabilities, shape (n, C), none of them exactly zero unless meant."""
        ...

    def predict(self, inputs: BaselineInputs) -> IntArray:
        """What it would do, shape (n,): a rule's own answer, else the likeliest class."""
        ...


def last_known_labels(labels: IntArray, horizon: int) -> IntArray:
    """The newest label that is settled when each bar closes: that of ``horizon`` bars ago.

    Args:
        labels: Label of every bar, without gaps between rows, shape (n_bars,).
        horizon: How many bars a label reaches ahead.

    Returns:
        Shape (n_bars,), -1 where there is none yet.
    """
    settled: IntArray = np.full(len(labels), UNKNOWN_LABEL, dtype=np.int64)
    settled[horizon:] = labels[: len(labels) - horizon]
    return settled


def rolling_prior_bars(timeframe: Timeframe) -> int:
    """How many bars back the rolling prior counts: 7 days of 15m.

    Slower bars take as long as gives the same number of rows, and at least 30 days.
    """
    week = _ROLLING_DAYS * timeframe.bars_per_day
    if week >= _ROLLING_ROWS:
        return math.ceil(week)
    return math.ceil(max(_ROLLING_ROWS, _SLOW_ROLLING_DAYS * timeframe.bars_per_day))


def settled_class_counts(labels: IntArray, horizon: int, n_bars: int) -> IntArray:
    """How many labels of each class are settled when each bar closes, of the newest bars.

    Args:
        labels: Label of every bar, -1 where unknown, shape (n_bars,).
        horizon: How many bars a label reaches ahead.
        n_bars: How many bars are counted, the newest of them ``horizon`` bars back.

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
    """Class frequencies with one imagined row of each class (Laplace), shape (C,)."""
    return shares_of(np.bincount(labels, minlength=N_CLASSES))


def shares_of(counts: IntArray) -> FloatArray:
    """The same from counts, shape (..., C)."""
    drawn = counts + 1.0
    shares: FloatArray = drawn / drawn.sum(axis=-1, keepdims=True)
    return shares


def rolling_shares(counts: IntArray, without: FloatArray) -> FloatArray:
    """What the rolling prior says.

    Args:
        counts: See ``settled_class_counts``, shape (n, C).
        without: Shares where no label has settled yet, shape (C,).

    Returns:
        Shape (n, C).
    """
    known = counts.sum(axis=1, keepdims=True) > 0
    shares: FloatArray = np.where(known, shares_of(counts), without)
    return shares


def most_probable(probabilities: FloatArray) -> IntArray:
    """The likeliest class of each row, shape (n,)."""
    chosen: IntArray = probabilities.argmax(axis=1)
    return chosen


class TrainPrior:
    """The train rows' class frequencies, whatever happens; skill is measured from it."""

    name = TRAIN_PRIOR

    def fit(self, inputs: BaselineInputs, labels: IntArray) -> None:
        """Count the classes."""
        self.shares_ = class_shares(labels)

    def predict_proba(self, inputs: BaselineInputs) -> FloatArray:
        """The same row every time."""
        return np.tile(self.shares_, (len(inputs), 1))

    def predict(self, inputs: BaselineInputs) -> IntArray:
        """The majority class."""
        return most_probable(self.predict_proba(inputs))


class RollingPrior:
    """The class shares of the labels that have settled in the last days; the second ruler.

    It learns nothing, and knows what every trader knows: how lively the market has been of
    late. Before any label has settled it is the train prior.
    """

    name = ROLLING_PRIOR

    def fit(self, inputs: BaselineInputs, labels: IntArray) -> None:
        """Count the classes, for rows before which none is known."""
        self.shares_ = class_shares(labels)

    def predict_proba(self, inputs: BaselineInputs) -> FloatArray:
        """The shares at each row."""
        return rolling_shares(inputs.settled_counts, self.shares_)

    def predict(self, inputs: BaselineInputs) -> IntArray:
        """The class that came most often."""
        return most_probable(self.predict_proba(inputs))


class Majority:
    """Certain of the train rows' commonest class: the figure that accuracy must be held to.

    Its log-loss is as bad as certainty deserves.
    """

    name = MAJORITY

    def fit(self, inputs: BaselineInputs, labels: IntArray) -> None:
        """Find the commonest class."""
        self.majority_ = int(np.bincount(labels, minlength=N_CLASSES).argmax())

    def predict_proba(self, inputs: BaselineInputs) -> FloatArray:
        """One for that class, zero for the others."""
        return np.eye(N_CLASSES)[self.predict(inputs)]

    def predict(self, inputs: BaselineInputs) -> IntArray:
        """That class."""
        return np.full(len(inputs), self.majority_, dtype=np.int64)


class AnswerFrequencies:
    """Class frequencies after each answer of a fixed rule.

    Args:
        name: Name in tables.
        answer: From inputs to a class per row, or -1 where it has none.
    """

    def __init__(self, name: str, answer: Callable[[BaselineInputs], IntArray]) -> None:
        self.name = name
        self._answer = answer

    def fit(self, inputs: BaselineInputs, labels: IntArray) -> None:
        """Count the classes that followed each answer, drawn towards the prior."""
        self.table_ = frequencies_after(self._answer(inputs), labels)

    def predict_proba(self, inputs: BaselineInputs) -> FloatArray:
        """The frequencies that belong to each row's answer."""
        probabilities: FloatArray = self.table_[self._answer(inputs)]
        return probabilities

    def predict(self, inputs: BaselineInputs) -> IntArray:
        """The rule's own answer; NO_TRADE where it has none."""
        answers = self._answer(inputs)
        return np.where(answers == UNKNOWN_LABEL, Signal.NO_TRADE, answers).astype(np.int64)


def frequencies_after(answers: IntArray, labels: IntArray) -> FloatArray:
    """How often each class followed each answer, drawn towards the prior of all rows.

    Args:
        answers: Classes, or UNKNOWN_LABEL where there was no answer, shape (n,).
        labels: What came, shape (n,).

    Returns:
        Shape (C + 1, C), to be indexed by an answer: the last row is the one that
        UNKNOWN_LABEL, as an index, points to, and holds the prior.
    """
    prior = class_shares(labels)
    table = np.empty((N_CLASSES + 1, N_CLASSES))
    for answer in Signal:
        counts = np.bincount(labels[answers == answer], minlength=N_CLASSES)
        table[answer] = (counts + _PRIOR_ROWS * prior) / (counts.sum() + _PRIOR_ROWS)
    table[UNKNOWN_LABEL] = prior
    return table


def scaled_features(inputs: BaselineInputs) -> FloatArray:
    """The features of the window's last bar, shape (n, F)."""
    return inputs.features


def volatility_alone(inputs: BaselineInputs) -> FloatArray:
    """The columns of ``features.volatility``, shape (n, V)."""
    return inputs.volatility


def volatility_and_clock(inputs: BaselineInputs) -> FloatArray:
    """The same and the clock's, shape (n, V + 6)."""
    return np.concatenate([inputs.volatility, inputs.clock], axis=1)


class LastRowClassifier:
    """A scikit-learn classifier on what is known at the close of the window's last bar.

    Args:
        name: Name in tables.
        make_estimator: Makes a fresh classifier with ``fit`` and ``predict_proba``.
        columns: What it looks at, shape (n, ...). A row with NaN, where a span is not full
            yet, teaches nothing and gets the prior.
    """

    def __init__(
        self,
        name: str,
        make_estimator: Callable[[], Any],
        columns: Callable[[BaselineInputs], FloatArray] = scaled_features,
    ) -> None:
        self.name = name
        self._make_estimator = make_estimator
        self._columns = columns

    def fit(self, inputs: BaselineInputs, labels: IntArray) -> None:
        """Fit the classifier; train rows of one class only leave it at the prior."""
        self.shares_ = class_shares(labels)
        self.estimator_ = None
        columns = self._columns(inputs)
        complete = np.isfinite(columns).all(axis=1)
        if len(np.unique(labels[complete])) > 1:
            with _one_thread():
                self.estimator_ = self._make_estimator().fit(columns[complete], labels[complete])

    def predict_proba(self, inputs: BaselineInputs) -> FloatArray:
        """The classifier's; a class it never saw keeps its Laplace share."""
        probabilities = np.tile(self.shares_, (len(inputs), 1))
        columns = self._columns(inputs)
        complete = np.flatnonzero(np.isfinite(columns).all(axis=1))
        if self.estimator_ is None or len(complete) == 0:
            return probabilities
        seen = self.estimator_.classes_
        with _one_thread():
            given = self.estimator_.predict_proba(columns[complete])
        probabilities[np.ix_(complete, seen)] = given * self.shares_[seen].sum()
        return probabilities

    def predict(self, inputs: BaselineInputs) -> IntArray:
        """The likeliest class."""
        return most_probable(self.predict_proba(inputs))

    def regression(self) -> Regression:
        """The fitted logistic regression as numbers, to be applied without scikit-learn.

        Raises:
            ValueError: It has not seen all three classes, or it is no logistic regression.
        """
        fitted = self.estimator_
        if fitted is None or len(fitted.classes_) != N_CLASSES or not hasattr(fitted, "coef_"):
            raise ValueError(f"{self.name} is no logistic regression of {N_CLASSES} classes")
        return Regression(
            tuple(map(tuple, fitted.coef_.tolist())), tuple(fitted.intercept_.tolist())
        )


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
        LastRowClassifier(VOLATILITY, _make_scaled_logistic, volatility_alone),
        LastRowClassifier(VOLATILITY_CLOCK, _make_scaled_logistic, volatility_and_clock),
    ]


def pooled_baselines(seed: int = 0) -> list[Baseline]:
    """What is fitted on the train rows of all markets of a pool at once, unfitted."""
    return [
        LastRowClassifier(pooled(LOGISTIC), _make_logistic),
        LastRowClassifier(pooled(BOOSTING), lambda: make_boosting(seed)),
        LastRowClassifier(
            pooled(f"{VOLATILITY_CLOCK}_{BOOSTING}"),
            lambda: make_boosting(seed),
            volatility_and_clock,
        ),
    ]


def pooled(name: str) -> str:
    """What a baseline of one market is called once it is fitted on many."""
    return f"pooled_{name}"


def _one_thread() -> AbstractContextManager[Any]:
    """Keep scikit-learn from waiting for cores that a sweep has taken.

    With both cores of a small machine busy, boosting on two threads took 88 s instead of 3.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    limits: AbstractContextManager[Any] = threadpool_limits(1)
    return limits


def _make_logistic() -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=1.0, max_iter=2000)


def _make_scaled_logistic() -> Any:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), _make_logistic())


def make_boosting(seed: int) -> Any:
    """Gradient boosting as the baseline of that name has it, not yet fitted."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    # Early stopping would hold out random rows, whose neighbours stay in: it never stops.
    return HistGradientBoostingClassifier(
        learning_rate=0.05,
        max_iter=100,
        max_leaf_nodes=8,
        min_samples_leaf=50,
        l2_regularization=1.0,
        early_stopping=False,
        random_state=seed,
    )
