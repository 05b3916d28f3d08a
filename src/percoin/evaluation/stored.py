"""Read an evaluation from ``metrics.json``."""

from __future__ import annotations

import numpy as np

from percoin.evaluation.evaluate import Evaluation
from percoin.json_codec import decode
from percoin.types import CLASS_NAMES, FloatArray

# Limits for files from outside: ten years of one-minute bars, and more than all baselines.
_MOST_BARS = 5_000_000
_MOST_CURVES = 20


def evaluation_from_json(document: object) -> Evaluation:
    """Build the evaluation from the output of ``Evaluation.to_json``.

    Writing it again gives the same document. Equity between the stored points is interpolated.
    Unknown keys are ignored, so that a report can use documents of a newer version.

    Args:
        document: Plain containers, as ``json_codec.loads`` returns them.

    Raises:
        ValueError: A key is missing, or a value has another type or is out of range. The
            message names the place, such as ``model.scores.mcc``.
    """
    money = document.get("money") if isinstance(document, dict) else None
    _require(len(money) <= _MOST_CURVES if isinstance(money, list) else True, "money is too long")
    evaluation = decode(Evaluation, document, is_exact=False, hook=_read_curve)
    lines = (evaluation.model, *evaluation.baselines)
    n_classes = len(CLASS_NAMES)
    _require(len(evaluation.class_counts) == n_classes, "class_counts are not those of 3 classes")
    _require(min(evaluation.class_counts) >= 0 < evaluation.n_rows, "class_counts count no rows")
    _require(len(evaluation.verdict.reasons) > 0, "verdict has no reason")
    _require(
        evaluation.best_baseline in {line.name for line in evaluation.baselines},
        f"best_baseline {evaluation.best_baseline!r} is none of the baselines",
    )
    _require(
        evaluation.rival_name in {line.name for line in evaluation.baselines},
        f"rival {evaluation.rival!r} is none of the baselines",
    )
    p_values = (evaluation.verdict.p_value, evaluation.lead.p_value)
    are_shares = all(value is None or 0 <= value <= 1 for value in p_values)
    _require(are_shares, "a p_value is not between 0 and 1")
    for line in lines:
        _require(
            tuple(entry.name for entry in line.scores.classes) == CLASS_NAMES
            and [len(row) for row in line.scores.confusion_matrix] == [n_classes] * n_classes,
            f"the scores of {line.name!r} are not those of {', '.join(CLASS_NAMES)}",
        )
    _require(set(evaluation.reliability) == set(CLASS_NAMES), "reliability lacks a class")
    return evaluation


def _read_curve(_: type, value: object) -> FloatArray:
    """The value at every bar, from ``[position, value]`` pairs in rising order."""
    is_curve = isinstance(value, list) and all(
        type(point) is list and len(point) == 2 and all(type(x) in (int, float) for x in point)
        for point in value
    )
    _require(is_curve and bool(value), "no curve")
    bars, values = np.array(value, dtype=np.float64).T
    _require(bool(np.isfinite(values).all()), "not finite")
    _require(bars[0] == 0 and bool((np.diff(bars) > 0).all()), "out of order")
    # The limit stops a forged position from using all memory.
    _require(bars[-1] < _MOST_BARS, "too long for a curve")
    curve: FloatArray = np.interp(np.arange(int(bars[-1]) + 1), bars, values)
    return curve


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)
