"""Check published scores: could a constant prediction have made them?

This also works for the ``metrics.json`` of the system that percoin replaces. That file has only
the four weighted scores under ``test_metrics``, and nothing else that would show a constant.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from percoin.audit.findings import Finding, FindingStatus
from percoin.errors import ConfigError
from percoin.evaluation.collapse import recognise_constant
from percoin.evaluation.stored import evaluation_from_json
from percoin.types import CLASS_NAMES

_NAME = "scores of a constant"
_DIFFER = "the probabilities differ from row to row, and the skills judge those"
_SCORES = ("accuracy", "precision", "recall", "f1")
_DIGITS = 4
_MOST_ROWS = 10**12
_MOST_BYTES = 64 * 2**20


def audit_metrics_file(path: Path) -> list[Finding]:
    """Check a ``metrics.json`` or ``meta.json``.

    Raises:
        ConfigError: The file cannot be read or has no ``test_metrics`` with the
            four scores.
    """
    content = _read(path)
    metrics = content.get("test_metrics") if isinstance(content, dict) else None
    if not isinstance(metrics, dict) or not all(_is_number(metrics.get(k)) for k in _SCORES):
        raise ConfigError(f"metrics={path} has no test_metrics with {', '.join(_SCORES)}")
    info = content.get("dataset_info")
    n_rows = info.get("test_samples") if isinstance(info, dict) else None
    is_count = type(n_rows) is int and 0 < n_rows <= _MOST_ROWS
    return [
        audit_scores(metrics, n_rows if is_count else None, informs=is_known_to_inform(content))
    ]


def is_known_to_inform(content: Mapping[str, Any]) -> bool:
    """Whether percoin has judged a model and found that its probabilities differ by row.

    Args:
        content: A ``metrics.json``; that of another system, or a ``meta.json``, does not say.
    """
    try:
        return evaluation_from_json(content.get("evaluation")).collapse is None
    except ValueError:
        return False


def _read(path: Path) -> Any:
    try:
        # Reading a pipe would block, and a device has no end.
        if path.exists() and not path.is_file():
            raise ConfigError(f"metrics={path} is no file; give a metrics.json or meta.json")
        if path.stat().st_size > _MOST_BYTES:
            raise ConfigError(
                f"metrics={path} has {path.stat().st_size:,} bytes, too many for a file of "
                "scores; give a metrics.json or meta.json"
            )
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"metrics={path} cannot be read as JSON: {error}") from error
    except RecursionError:
        raise ConfigError(f"metrics={path} is nested too deeply for a file of scores") from None


def audit_scores(metrics: Mapping[str, Any], n_rows: int | None, informs: bool = False) -> Finding:
    """Check the four weighted scores, and the confusion matrix if there is one.

    Args:
        metrics: ``accuracy, precision, recall, f1`` as fractions; optionally
            ``confusion_matrix`` with the true classes in rows.
        n_rows: Number of test rows, or None if unknown.
        informs: Whether the probabilities behind the decisions are known to differ by row: then
            the scores are those of a constant and the model is none.
    """
    found = _find_constant(metrics, n_rows)
    if found.status is not FindingStatus.CONSTANT or not informs:
        return found
    return Finding(_NAME, FindingStatus.OK, f"{found.evidence}; but {_DIFFER}")


def _find_constant(metrics: Mapping[str, Any], n_rows: int | None) -> Finding:
    answer = _only_answer(metrics.get("confusion_matrix"))
    if answer is not None:
        evidence = f"every decision of the confusion matrix is {answer}"
        return Finding(_NAME, FindingStatus.CONSTANT, evidence)
    scores = [float(metrics[name]) for name in _SCORES]
    # Works for scores rounded to four digits and for full precision.
    reading = recognise_constant(*scores, n_rows=n_rows, digits=_DIGITS)
    if reading is not None:
        return Finding(_NAME, FindingStatus.CONSTANT, reading.detail)
    shown = ", ".join(f"{k} {value:.4f}" for k, value in zip(_SCORES, scores, strict=True))
    return Finding(_NAME, FindingStatus.OK, f"no constant prediction gives {shown}")


def _only_answer(matrix: object) -> str | None:
    """Return the decision that every row got; None if there are several or no valid matrix."""
    try:
        counts = np.asarray(matrix, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        return None
    if not np.isfinite(counts).all():
        return None
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or not counts.any():
        return None
    decided = np.flatnonzero(counts.sum(axis=0))
    if len(decided) > 1:
        return None
    # Files of other systems may have other classes, or the three in another order.
    is_ours = len(counts) == len(CLASS_NAMES)
    return CLASS_NAMES[decided[0]] if is_ours else f"class {decided[0]}"


def _is_number(value: object) -> bool:
    # An integer can be too large for a float.
    return type(value) in (int, float) and -_MOST_ROWS <= value <= _MOST_ROWS  # type: ignore[operator]
