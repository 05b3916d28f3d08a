"""The record of a training (``metrics.json``): its history and its full evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime

from percoin import json_codec
from percoin.registry.field_checks import time_text
from percoin.registry.manifest import ManifestDraft


@dataclass(frozen=True)
class TrainingHistory:
    """One entry per epoch, accuracies as fractions."""

    train_loss: list[float]
    train_acc: list[float]
    val_loss: list[float]
    val_acc: list[float]


@dataclass(frozen=True)
class TrainingRecord:
    """What ``metrics.json`` holds besides the manifest's figures.

    Attributes:
        hyperparameters: Settings of the training, as plain containers.
        training_history: Losses and accuracies by epoch.
        test_metrics: Further test figures by name; the manifest's five are added.
        sections: Further top-level keys, for example ``baselines``.
    """

    hyperparameters: Mapping[str, object]
    training_history: TrainingHistory
    test_metrics: Mapping[str, object] = field(default_factory=dict)
    sections: Mapping[str, object] = field(default_factory=dict)

    def to_json(self, draft: ManifestDraft, created_at: datetime) -> str:
        """The text of ``metrics.json``, with the original's keys first.

        A figure that is not a number (an AUROC of a class without rows) was not measured
        and is written as null.
        """
        own_metrics = asdict(draft.test_metrics)
        content: dict[str, object] = {
            "symbol": draft.symbol,
            "timeframe": draft.timeframe,
            "created_at": time_text(created_at),
            "hyperparameters": self.hyperparameters,
            "training_history": self.training_history,
            "test_metrics": own_metrics | dict(self.test_metrics) | own_metrics,
            "dataset_info": asdict(draft.dataset_info) | {"feature_names": draft.features.names},
        }
        # Twice: the first gives the order, the second keeps these keys' own values.
        return json_codec.dumps(content | dict(self.sections) | content, nan_as_null=True)
