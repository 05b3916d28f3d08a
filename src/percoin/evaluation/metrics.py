"""Score class probabilities with proper scores, and decisions with counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from percoin.types import CLASS_NAMES, FloatArray, IntArray, Signal

N_CLASSES = len(Signal)

# The same floor as scikit-learn, so a certain but wrong forecast has the same loss in both.
PROBABILITY_FLOOR = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class ClassScores:
    """One class against the other two.

    Attributes:
        name: Class name.
        n_rows: Rows whose label is this class.
        precision: Share of decisions for this class that are right; 0 without decisions.
        recall: Share of this class's rows that are found; 0 without rows. A class without rows
            is left out of every mean over classes, because it tells nothing about the forecast.
        f1: Harmonic mean of the two; 0 if both are 0.
        pr_auc: Average precision of its probability; None if no row has this label.
    """

    name: str
    n_rows: int
    precision: float
    recall: float
    f1: float
    pr_auc: float | None


@dataclass(frozen=True)
class Scores:
    """Every score of one forecast on one set of rows.

    ``accuracy`` and the three weighted scores reward a constant answer on
    unbalanced labels. Show them only next to those of the ``majority`` baseline.

    Attributes:
        log_loss: Mean negative log-likelihood in nats; smaller is better.
        brier: Mean squared distance to the one-hot label, 0 to 2 (Brier, 1950).
        calibration_error: Class-wise calibration error, see ``calibration_error``.
        mcc: Matthews correlation of the decisions, multi-class (Gorodkin, 2004).
        balanced_accuracy: Mean recall over the classes that occur.
        macro_f1: Mean F1 over the classes that occur among the labels, scikit-learn's
            ``f1_score(labels, decisions, labels=np.unique(labels), average="macro")``. A
            decision for an absent class lowers the recall of the row's true class.
        classes: One entry per class, in class order.
        accuracy: Share of right decisions.
        weighted_precision: Precision averaged by class frequency.
        weighted_recall: Recall averaged by class frequency; equals ``accuracy``.
        weighted_f1: F1 averaged by class frequency.
        confusion_matrix: Rows are labels, columns are decisions, in class order.
    """

    log_loss: float
    brier: float
    calibration_error: float
    mcc: float
    balanced_accuracy: float
    macro_f1: float
    classes: tuple[ClassScores, ...]
    accuracy: float
    weighted_precision: float
    weighted_recall: float
    weighted_f1: float
    confusion_matrix: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class ReliabilityBin:
    """Rows whose probability of one class lies between two edges.

    Attributes:
        mean_probability: Mean predicted probability of the class.
        frequency: Observed share of the class.
        n_rows: Rows in the bin.
    """

    mean_probability: float
    frequency: float
    n_rows: int


def check_probabilities(probabilities: FloatArray) -> FloatArray:
    """Return the probabilities as float64 rows that sum to exactly one.

    Args:
        probabilities: Shape (n, C).

    Raises:
        ValueError: Another shape, NaN or infinity, a negative value, or a row
            whose sum differs from one by more than float32 rounding. Without this
            check, argmax turns a NaN into a class and scores it.
    """
    checked = np.asarray(probabilities, dtype=np.float64)
    if checked.ndim != 2 or checked.shape[1] != N_CLASSES or len(checked) == 0:
        raise ValueError(f"probabilities have shape {checked.shape}, expected (n, {N_CLASSES})")
    if not np.isfinite(checked).all():
        n_bad = int((~np.isfinite(checked)).any(axis=1).sum())
        raise ValueError(f"{n_bad} of {len(checked)} rows of probabilities are not finite")
    totals = checked.sum(axis=1, keepdims=True)
    if (checked < 0).any() or (np.abs(totals - 1) > 1e-4).any():
        raise ValueError("probabilities are negative or do not sum to one; were logits passed?")
    normalised: FloatArray = checked / totals
    return normalised


def check_labels(labels: IntArray, n_rows: int) -> IntArray:
    """Return the labels if every row has a known label.

    Raises:
        ValueError: The length is not ``n_rows``, or a label is not a class.
    """
    checked = np.asarray(labels)
    if checked.shape != (n_rows,):
        raise ValueError(f"labels have shape {checked.shape}, expected ({n_rows},)")
    if not np.isin(checked, np.arange(N_CLASSES)).all():
        raise ValueError("labels hold values that are no class; drop rows with unknown labels")
    return checked.astype(np.int64)


def row_log_loss(probabilities: FloatArray, labels: IntArray) -> FloatArray:
    """Negative log of the probability that the forecast gives to each row's label, in nats.

    Args:
        probabilities: Shape (n, C).
        labels: Shape (n,).

    Returns:
        Shape (n,), at most ``-log(PROBABILITY_FLOOR)``, about 36.
    """
    checked = check_probabilities(probabilities)
    return share_log_loss(checked[np.arange(len(checked)), check_labels(labels, len(checked))])


def share_log_loss(shares: FloatArray) -> FloatArray:
    """The same from the probability of each row's label alone, shape (n,)."""
    losses: FloatArray = -np.log(np.maximum(shares, PROBABILITY_FLOOR))
    return losses


def log_loss_skill(losses: FloatArray, reference_losses: FloatArray) -> float:
    """Share of the reference's log-loss that the forecast removes.

    ``1 - mean(losses) / mean(reference_losses)``: 0 is no better than the
    reference (the train prior, unless said otherwise), 1 is perfect, negative is
    worse. On labels with shares 30/40/30 a skill of .01 is about .011 nats a row.
    """
    return float(1.0 - np.mean(losses) / np.mean(reference_losses))


def brier_score(probabilities: FloatArray, labels: IntArray) -> float:
    """Mean over rows of the squared distance to the one-hot label (Brier, 1950)."""
    checked = check_probabilities(probabilities)
    targets = np.eye(N_CLASSES)[check_labels(labels, len(checked))]
    return float(((checked - targets) ** 2).sum(axis=1).mean())


def reliability(
    probabilities: FloatArray, labels: IntArray, signal: Signal, n_bins: int = 15
) -> list[ReliabilityBin]:
    """Predicted probability and observed frequency of one class, in bins of equal width.

    Args:
        probabilities: Shape (n, C).
        labels: Shape (n,).
        signal: The class.
        n_bins: Number of bins over [0, 1]; empty bins are left out.
    """
    promised = check_probabilities(probabilities)[:, signal]
    came = check_labels(labels, len(promised)) == signal
    bins = np.minimum((promised * n_bins).astype(np.int64), n_bins - 1)
    counts = np.bincount(bins, minlength=n_bins)
    promised_sums = np.bincount(bins, weights=promised, minlength=n_bins)
    came_sums = np.bincount(bins, weights=came, minlength=n_bins)
    return [
        ReliabilityBin(float(promised_sums[k] / counts[k]), float(came_sums[k] / counts[k]), int(c))
        for k, c in enumerate(counts)
        if c
    ]


def reliability_by_rank(
    probabilities: FloatArray, labels: IntArray, signal: Signal, n_bins: int = 10
) -> list[ReliabilityBin]:
    """The same in bins of about equally many rows, from the lowest probability to the highest.

    Args:
        probabilities: Shape (n, C).
        labels: Shape (n,).
        signal: The class.
        n_bins: Number of bins; fewer if there are fewer rows.
    """
    promised, came = probabilities[:, signal], labels == signal
    order = np.argsort(promised, kind="stable")
    return [
        ReliabilityBin(float(promised[rows].mean()), float(came[rows].mean()), len(rows))
        for rows in np.array_split(order, n_bins)
        if len(rows)
    ]


def calibration_error(probabilities: FloatArray, labels: IntArray, n_bins: int = 15) -> float:
    """Class-wise expected calibration error (Kull et al., 2019).

    For each class, take the gap between predicted probability and observed frequency in
    equal-width bins, and average it with the bins' rows as weights. The result is the mean
    over the classes.
    """
    gaps = [
        sum(b.n_rows * abs(b.mean_probability - b.frequency) for b in bins) / len(labels)
        for bins in (reliability(probabilities, labels, signal, n_bins) for signal in Signal)
    ]
    return float(np.mean(gaps))


def score(probabilities: FloatArray, labels: IntArray, decisions: IntArray | None = None) -> Scores:
    """Compute all scores of one forecast.

    Args:
        probabilities: Shape (n, C).
        labels: Shape (n,).
        decisions: The forecaster's signals, shape (n,); None means the most probable class.
            A trading rule's own signals can differ from it.

    Raises:
        ValueError: NaN or malformed probabilities, or labels that are no class.
    """
    from sklearn.metrics import confusion_matrix

    checked = check_probabilities(probabilities)
    known = check_labels(labels, len(checked))
    chosen = checked.argmax(axis=1) if decisions is None else check_labels(decisions, len(known))
    matrix = confusion_matrix(known, chosen, labels=list(Signal))
    classes = _class_scores(checked, known, chosen)
    shares = matrix.sum(axis=1) / len(known)
    present = [entry for entry in classes if entry.n_rows]
    return Scores(
        log_loss=float(row_log_loss(checked, known).mean()),
        brier=brier_score(checked, known),
        calibration_error=calibration_error(checked, known),
        mcc=_matthews_correlation(matrix),
        balanced_accuracy=float(np.mean([entry.recall for entry in present])),
        macro_f1=float(np.mean([entry.f1 for entry in present])),
        classes=classes,
        accuracy=float(np.trace(matrix) / len(known)),
        weighted_precision=float(shares @ [c.precision for c in classes]),
        weighted_recall=float(shares @ [c.recall for c in classes]),
        weighted_f1=float(shares @ [c.f1 for c in classes]),
        confusion_matrix=_as_counts(matrix),
    )


def _class_scores(
    probabilities: FloatArray, labels: IntArray, decisions: IntArray
) -> tuple[ClassScores, ...]:
    from sklearn.metrics import average_precision_score, precision_recall_fscore_support

    # Lists all three classes, so that an absent class also has an entry.
    precision, recall, f1, n_rows = precision_recall_fscore_support(
        labels, decisions, labels=list(Signal), zero_division=0.0
    )
    return tuple(
        ClassScores(
            name=CLASS_NAMES[k],
            n_rows=int(n_rows[k]),
            precision=float(precision[k]),
            recall=float(recall[k]),
            f1=float(f1[k]),
            pr_auc=float(average_precision_score(labels == k, probabilities[:, k]))
            if n_rows[k]
            else None,
        )
        for k in range(N_CLASSES)
    )


def _matthews_correlation(matrix: IntArray) -> float:
    """Multi-class correlation (Gorodkin, 2004); 0 if labels or decisions never vary.

    scikit-learn's function warns if labels and decisions are all one and the same class.
    """
    # Products of four counts do not fit into 64 bits from 60,000 rows on.
    counts = matrix.astype(np.float64)
    n_rows, n_right = counts.sum(), np.trace(counts)
    labelled, decided = counts.sum(axis=1), counts.sum(axis=0)
    spread = (n_rows**2 - labelled @ labelled) * (n_rows**2 - decided @ decided)
    if spread == 0:
        return 0.0
    return float((n_right * n_rows - labelled @ decided) / np.sqrt(spread))


def _as_counts(matrix: Sequence[Any]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(int(count) for count in row) for row in matrix)
