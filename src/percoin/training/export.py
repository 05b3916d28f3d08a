"""From a trained and tested module to what the registry keeps of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from percoin.dataset import MarketDataset, Part
from percoin.features.feature_set import FEATURE_NAMES
from percoin.provenance import code_version, library_versions
from percoin.registry.artifact import export_artifact
from percoin.registry.manifest import (
    BarsInfo,
    Calibration,
    DatasetInfo,
    Features,
    Gate,
    ManifestDraft,
    ModelSpec,
    ScalingNumbers,
    SplitSpan,
    TestMetrics,
    Verdict,
    open_time_text,
)
from percoin.registry.training_record import TrainingHistory, TrainingRecord
from percoin.training.lit_module import SignalClassifier
from percoin.training.metrics import confusion_matrix, metric_values, prior_values

_SPLIT_NAMES: Mapping[str, Part] = {"train": "train", "val": "validation", "test": "test"}


@dataclass(frozen=True)
class ModelExporter:
    """Knows all of a model that its weights do not say.

    Attributes:
        dataset: What it was trained on.
        model_kwargs: Keyword arguments that build the network.
        config: The whole training config, as plain containers.
        seed: Of the training.
        models_dir: The registry.
    """

    dataset: MarketDataset
    model_kwargs: Mapping[str, object]
    config: Mapping[str, object]
    seed: int
    models_dir: Path

    def export(self, module: SignalClassifier) -> Path:
        """Write the module as a new version; returns the folder of that version.

        Raises:
            RegistryWriteError: The models folder refuses it; the old version stays.
        """
        weights: dict[str, Tensor] = module.network.state_dict()
        record = TrainingRecord(
            hyperparameters=self.config,
            training_history=TrainingHistory(**module.history),
            test_metrics=self._further_metrics(module),
        )
        # The served weights are those of the best epoch; both files are of the contract.
        exported = export_artifact(self.models_dir, self._draft(module), weights, weights, record)
        return exported.folder

    def _draft(self, module: SignalClassifier) -> ManifestDraft:
        dataset, bars = self.dataset, self.dataset.bars
        n_rows = {name: len(dataset.rows(part)) for name, part in _SPLIT_NAMES.items()}
        return ManifestDraft(
            symbol=bars.symbol,
            timeframe=bars.timeframe,
            lookback=dataset.lookback,
            dataset_info=DatasetInfo(
                len(FEATURE_NAMES), n_rows["train"], n_rows["val"], n_rows["test"]
            ),
            test_metrics=_test_metrics(module),
            features=Features(dataset.definition),
            scaling=ScalingNumbers.of(dataset.scaling),
            label_rule=dataset.label_rule.to_json(),
            calibration=Calibration(),
            gate=Gate(Verdict.NOT_JUDGED, ("no gate has looked at this model yet",)),
            bars=BarsInfo(
                origin=bars.origin,
                sha256=bars.sha256(),
                first_open_time=open_time_text(int(bars.open_time[0])),
                last_open_time=open_time_text(int(bars.open_time[-1])),
                n_bars=len(bars),
                splits={name: self._span(part) for name, part in _SPLIT_NAMES.items()},
            ),
            model=ModelSpec(self.model_kwargs),
            config=self.config,
            seed=self.seed,
            code_version=code_version(),
            libraries=library_versions(),
        )

    def _span(self, part: Part) -> SplitSpan:
        rows = self.dataset.rows(part)
        first, last = (int(self.dataset.bars.open_time[rows[end]]) for end in (0, -1))
        return SplitSpan(open_time_text(first), open_time_text(last), len(rows))

    def _further_metrics(self, module: SignalClassifier) -> dict[str, Any]:
        loss = float(module.trainer.callback_metrics["loss/test"])
        counts = self.dataset.class_counts("train")
        return {
            "log_loss": loss,
            **metric_values(module.test_metrics),
            "train_prior_baseline": prior_values(counts, module.test_labels),
        }


def _test_metrics(module: SignalClassifier) -> TestMetrics:
    """The original's five figures; precision, recall and F1 weighted, as there."""
    values = metric_values(module.test_metrics)
    return TestMetrics(
        accuracy=values["accuracy"],
        precision=values["precision_weighted"],
        recall=values["recall_weighted"],
        f1=values["f1_weighted"],
        confusion_matrix=tuple(tuple(row) for row in confusion_matrix(module.test_metrics)),
    )
