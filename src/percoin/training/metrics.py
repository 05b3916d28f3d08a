"""The torchmetrics of a three-class classifier, and their values as plain numbers."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassAUROC,
    MulticlassCalibrationError,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
    MulticlassMatthewsCorrCoef,
    MulticlassPrecision,
    MulticlassRecall,
)

from percoin.types import CLASS_NAMES

_N_CLASSES = len(CLASS_NAMES)
_PER_CLASS = ("precision", "recall", "f1")


def build_metrics() -> MetricCollection:
    """Metrics over probabilities (B, C) and labels (B,); read them with ``metric_values``."""
    classes: dict[str, Any] = {"num_classes": _N_CLASSES, "validate_args": False}
    return MetricCollection(
        {
            "accuracy": MulticlassAccuracy(average="micro", **classes),
            "precision": MulticlassPrecision(average=None, **classes),
            "recall": MulticlassRecall(average=None, **classes),
            "f1": MulticlassF1Score(average=None, **classes),
            "precision_weighted": MulticlassPrecision(average="weighted", **classes),
            "recall_weighted": MulticlassRecall(average="weighted", **classes),
            "f1_weighted": MulticlassF1Score(average="weighted", **classes),
            "mcc": MulticlassMatthewsCorrCoef(**classes),
            "auroc": MulticlassAUROC(average=None, **classes),
            "calibration_error": MulticlassCalibrationError(n_bins=15, norm="l1", **classes),
            "confusion_matrix": MulticlassConfusionMatrix(**classes),
        }
    )


def metric_values(metrics: MetricCollection) -> dict[str, float]:
    """All metrics as plain numbers; per class as ``f1_LONG``, their mean as ``f1_macro``.

    The mean is over the classes that occur in the labels, as in ``evaluation.metrics``:
    scikit-learn's ``f1_score(labels, decisions, labels=np.unique(labels), average="macro")``.
    The macro average of torchmetrics also counts a class that is only predicted. AUROC needs
    rows of every class; otherwise it is left out.
    """
    computed = _compute(metrics)
    present = computed["confusion_matrix"].sum(dim=1) > 0
    values: dict[str, float] = {}
    for name, value in computed.items():
        if name in _PER_CLASS:
            values[f"{name}_macro"] = float(value[present].mean())
            values |= {
                f"{name}_{label}": float(v) for label, v in zip(CLASS_NAMES, value, strict=True)
            }
        elif name == "auroc":
            values |= {"auroc": float(value.mean())} if bool(present.all()) else {}
        elif name != "confusion_matrix":
            values[name] = float(value)
    return values


def confusion_matrix(metrics: MetricCollection) -> list[list[int]]:
    """Counts, true class by predicted class, in the order of ``Signal``."""
    counts: list[list[int]] = metrics["confusion_matrix"].compute().long().tolist()
    return counts


def _compute(metrics: MetricCollection) -> dict[str, Tensor]:
    with warnings.catch_warnings():
        # The caller handles a missing class.
        warnings.filterwarnings("ignore", "No (positive|negative) samples in targets")
        computed: dict[str, Tensor] = metrics.compute()
    return {name: torch.as_tensor(value) for name, value in computed.items()}
