"""Detect collapsed forecasters: they give nearly the same output for every input."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from percoin.evaluation.metrics import check_probabilities
from percoin.types import CLASS_NAMES, FloatArray, IntArray


class CollapseKind(StrEnum):
    """Kinds of collapse."""

    CONSTANT = "constant"
    NEAR_CONSTANT = "near_constant"
    ONE_ANSWER = "one_answer"


@dataclass(frozen=True)
class Collapse:
    """A detected collapse.

    Attributes:
        kind: Kind of collapse.
        detail: The evidence, as a phrase for people.
    """

    kind: CollapseKind
    detail: str


@dataclass(frozen=True)
class CollapseLimits:
    """Limits from which a forecaster counts as collapsed.

    Attributes:
        min_information: In nats a row, see ``forecast_information``. Real models of
            these markets have .002 to .03. Below this limit even a perfectly calibrated
            model has no skill to show.
        max_answer_share: Largest allowed share of rows with the same signal, for a forecaster
            of signals. A good model of a quiet market may always find NO_TRADE most probable and
            still know when it is less certain: its skills judge that.
        lopsided_share: From this share of equal decisions on, a caution is added.
    """

    min_information: float = 0.0005
    max_answer_share: float = 0.9995
    lopsided_share: float = 0.98


@dataclass(frozen=True)
class ConstantReading:
    """Result if four published scores match a constant prediction.

    Attributes:
        majority_share: Share of test rows that have the predicted label.
        detail: The evidence, as a phrase for people.
    """

    majority_share: float
    detail: str


def forecast_information(probabilities: FloatArray) -> float:
    """How far the rows differ from their own mean, in nats a row.

    This is the mean Kullback-Leibler divergence from the mean row. For a calibrated forecast it
    equals the gain in log-loss over the class frequencies. So a forecast with none of it
    cannot have skill.

    Args:
        probabilities: Shape (n, C).
    """
    checked = check_probabilities(probabilities)
    mean = checked.mean(axis=0)
    ratio = np.divide(checked, mean, out=np.ones_like(checked), where=checked > 0)
    return float((checked * np.log(ratio)).sum(axis=1).mean())


def detect_collapse(
    probabilities: FloatArray,
    limits: CollapseLimits | None = None,
    decisions: IntArray | None = None,
) -> Collapse | None:
    """Find out how a forecaster has collapsed; None if it has not.

    Args:
        probabilities: Forecasts on test rows, shape (n, C).
        limits: Limits from which a forecaster counts as collapsed.
        decisions: The signals of a rule, shape (n,), which must not be all the same. None for
            a forecaster of probabilities, where it is enough that these differ.
    """
    limits = limits or CollapseLimits()
    checked = check_probabilities(probabilities)
    counts = _count_decisions(checked, decisions)
    answer = CLASS_NAMES[int(counts.argmax())]
    if np.ptp(checked, axis=0).max() <= 1e-6:
        shown = "/".join(f"{share:.3f}" for share in checked[0])
        return Collapse(CollapseKind.CONSTANT, f"gives {shown} on every row, that is {answer}")
    information = forecast_information(checked)
    if information < limits.min_information:
        detail = f"its probabilities carry {information:.6f} nats a row; decides {answer}"
        return Collapse(CollapseKind.NEAR_CONSTANT, detail)
    share = counts.max() / len(checked)
    if decisions is not None and share > limits.max_answer_share:
        detail = f"decides {answer} on {counts.max()} of {len(checked)} rows"
        return Collapse(CollapseKind.ONE_ANSWER, detail)
    return None


def describe_lopsided(
    probabilities: FloatArray,
    limits: CollapseLimits | None = None,
    decisions: IntArray | None = None,
) -> str | None:
    """A caution for a model that nearly always makes the same decision, or None.

    Args:
        probabilities: Forecasts on test rows, shape (n, C).
        limits: Limits, of which ``lopsided_share`` is used.
        decisions: Its signals, shape (n,); None means the most probable class.
    """
    limits = limits or CollapseLimits()
    counts = _count_decisions(check_probabilities(probabilities), decisions)
    share = counts.max() / counts.sum()
    if share < limits.lopsided_share:
        return None
    return f"decides {CLASS_NAMES[int(counts.argmax())]} on {share:.1%} of the rows"


def _count_decisions(probabilities: FloatArray, decisions: IntArray | None) -> IntArray:
    """Number of decisions for each class, shape (C,)."""
    chosen = probabilities.argmax(axis=1) if decisions is None else decisions
    counts: IntArray = np.bincount(chosen, minlength=len(CLASS_NAMES))
    return counts


def recognise_constant(
    accuracy: float,
    precision: float,
    recall: float,
    f1: float,
    *,
    n_rows: int | None = None,
    digits: int = 4,
) -> ConstantReading | None:
    """Check whether four weighted scores can come from a constant prediction.

    A constant that is right on a share p of the rows has weighted precision p^2,
    recall p and F1 2 p^2 / (1 + p). All three depend only on p.

    Args:
        accuracy: Published accuracy, as a fraction.
        precision: Weighted by class frequency.
        recall: Weighted by class frequency.
        f1: Weighted by class frequency.
        n_rows: Number of test rows, if known.
        digits: Decimals to which the scores are rounded.

    Returns:
        The match, or None if no constant gives these scores.
    """
    half = 0.5 * 10.0**-digits
    scores = np.array([accuracy, precision, recall, f1])
    if not np.isfinite(scores).all() or not 0 < accuracy <= 1:
        return None
    low = _constant_scores(max(0.0, accuracy - half)) - half
    high = _constant_scores(min(1.0, accuracy + half)) + half
    slack = 1e-12
    if ((scores < low - slack) | (scores > high + slack)).any():
        return None
    counted = f"; {round(accuracy * n_rows)} of {n_rows} rows" if n_rows else ""
    detail = (
        f"accuracy {accuracy:.4f}, precision {precision:.4f}, recall {recall:.4f} and F1 {f1:.4f} "
        f"are those of a constant prediction where {accuracy:.2%} of the rows have one label"
        f"{counted}"
    )
    return ConstantReading(accuracy, detail)


def _constant_scores(share: float) -> FloatArray:
    """Accuracy, weighted precision, recall and F1 of a constant; each grows with ``share``."""
    return np.array([share, share**2, share, 2 * share**2 / (1 + share)])
