"""From a trained and tested module to what the registry keeps of it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from percoin.dataset import MarketDataset, Part
from percoin.features.feature_set import FEATURE_NAMES
from percoin.judging import FoldForecasts, Judgement, JudgingRules, forecast_fold, judge_folds
from percoin.network import CnnLstm
from percoin.provenance import code_version, library_versions, machine_facts
from percoin.registry.artifact import Exported, export_artifact
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
from percoin.training.datamodule import Batch
from percoin.training.lit_module import SignalClassifier
from percoin.training.onnx_export import export_onnx
from percoin.types import FloatArray

log = logging.getLogger(__name__)

# Spread over the validation rows.
_MOST_ONNX_WINDOWS = 512

_SPLIT_NAMES: Mapping[str, Part] = {"train": "train", "val": "validation", "test": "test"}


@dataclass(frozen=True)
class ExportedModel:
    """A new version, and what its judgement said."""

    version: Exported
    judgement: Judgement


@dataclass(frozen=True)
class ModelExporter:
    """Judges a trained module and knows all of a model that its weights do not say.

    Attributes:
        dataset: What it was trained on.
        model_kwargs: Keyword arguments that build the network.
        config: The whole training config, as plain containers.
        seed: Of the training.
        models_dir: The registry.
        rules: What the judgement takes for granted.
        earlier_folds: Of a walk-forward, in time order; their test rows are judged too.
        onnx: Export the network for ONNX Runtime as well.
    """

    dataset: MarketDataset
    model_kwargs: Mapping[str, object]
    config: Mapping[str, object]
    seed: int
    models_dir: Path
    rules: JudgingRules
    earlier_folds: tuple[FoldForecasts, ...] = ()
    onnx: bool = False

    def export(self, module: SignalClassifier) -> ExportedModel:
        """Judge the module and write it as a new version.

        Raises:
            RegistryWriteError: The models folder refuses it; the old version stays.
            InvalidArtifactError: As ONNX it does not answer as it does here.
        """
        log.info("judging %d test rows beside the baselines", len(module.test_labels))
        folds = (*self.earlier_folds, forecast_test(module, self.dataset, self.rules))
        judgement = judge_folds(folds, self.rules)
        weights: dict[str, Tensor] = module.network.state_dict()
        record = TrainingRecord(
            hyperparameters=self.config,
            training_history=TrainingHistory(**module.history),
            test_metrics=_further_metrics(judgement),
            sections={
                "evaluation": judgement.evaluation.to_json(),
                "daily_losses": asdict(judgement.daily),
                "judging": {
                    "threshold": judgement.threshold,
                    "folds": len(folds),
                    "fee_bps": self.rules.costs.fee_bps,
                    "slippage_bps": self.rules.costs.slippage_bps,
                },
            },
        )
        draft = self._draft(judgement)
        # The served weights are those of the best epoch; both files are of the contract.
        onnx = self._to_onnx(module.network) if self.onnx else None
        exported = export_artifact(self.models_dir, draft, weights, weights, record, onnx)
        return ExportedModel(exported, judgement)

    def _to_onnx(self, network: CnnLstm) -> bytes:
        dataset = self.dataset
        starts = dataset.rows("validation") - dataset.lookback + 1
        asked = starts[:: -(-len(starts) // _MOST_ONNX_WINDOWS)]
        market = (dataset.bars.symbol, dataset.bars.timeframe.value)
        return export_onnx(network, dataset.windows[asked], market)

    def _draft(self, judgement: Judgement) -> ManifestDraft:
        dataset, bars = self.dataset, self.dataset.bars
        n_rows = {name: len(dataset.rows(part)) for name, part in _SPLIT_NAMES.items()}
        verdict = judgement.evaluation.verdict
        return ManifestDraft(
            symbol=bars.symbol,
            timeframe=bars.timeframe,
            lookback=dataset.lookback,
            dataset_info=DatasetInfo(
                len(FEATURE_NAMES),
                n_rows["train"],
                n_rows["val"],
                judgement.evaluation.n_rows,
            ),
            test_metrics=_test_metrics(judgement),
            features=Features(dataset.definition),
            scaling=ScalingNumbers.of(dataset.scaling),
            label_rule=dataset.label_rule.to_json(),
            calibration=Calibration(**judgement.calibration),
            gate=Gate(Verdict(verdict.outcome.value), (*verdict.reasons, *verdict.cautions)),
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
            machine=machine_facts(),
        )

    def _span(self, part: Part) -> SplitSpan:
        rows = self.dataset.rows(part)
        first, last = (int(self.dataset.bars.open_time[rows[end]]) for end in (0, -1))
        return SplitSpan(open_time_text(first), open_time_text(last), len(rows))


def forecast_test(
    module: SignalClassifier, dataset: MarketDataset, rules: JudgingRules
) -> FoldForecasts:
    """What a trained module and the baselines say on the test rows of its fold."""
    data = module.trainer.datamodule  # type: ignore[attr-defined]
    validation, test = data.val_dataloader(), data.test_dataloader()
    return forecast_fold(dataset, _logits(module, validation), _logits(module, test), rules)


@torch.inference_mode()
def _logits(module: SignalClassifier, loader: DataLoader[Batch]) -> FloatArray:
    module.eval()
    batches = [module(windows.to(module.device)).double().cpu() for windows, _ in loader]
    logits: FloatArray = torch.cat(batches).numpy()
    return logits


def _test_metrics(judgement: Judgement) -> TestMetrics:
    """The original's five figures; precision, recall and F1 weighted, as there."""
    scores = judgement.evaluation.model.scores
    return TestMetrics(
        accuracy=scores.accuracy,
        precision=scores.weighted_precision,
        recall=scores.weighted_recall,
        f1=scores.weighted_f1,
        confusion_matrix=scores.confusion_matrix,
    )


def _further_metrics(judgement: Judgement) -> dict[str, Any]:
    """What the original's figures leave out, on the same rows and by the same decisions."""
    model = judgement.evaluation.model
    scores = model.scores
    return {
        "log_loss": scores.log_loss,
        "log_loss_skill": model.skill.value,
        "f1_macro": scores.macro_f1,
        "balanced_accuracy": scores.balanced_accuracy,
        "mcc": scores.mcc,
        "brier": scores.brier,
        "calibration_error": scores.calibration_error,
        **{f"f1_{entry.name}": entry.f1 for entry in scores.classes},
    }
