"""From a trained and tested module to what the registry keeps of it."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from percoin.dataset import MarketDataset
from percoin.evaluation.baselines import LOGISTIC, Baseline
from percoin.evaluation.judgement import (
    FoldForecasts,
    JudgingRules,
    daily_beside,
    forecast_fold,
    judge_folds,
)
from percoin.network import CnnLstm
from percoin.registry.artifact import export_artifact
from percoin.registry.manifest import ModelSpec
from percoin.registry.pool_record import PoolRecord
from percoin.registry.training_record import TrainingHistory
from percoin.training.datamodule import Batch
from percoin.training.lit_module import SignalClassifier
from percoin.training.manifest_draft import ExportedModel, draft_manifest, record_training
from percoin.training.onnx_export import export_onnx
from percoin.types import FloatArray

log = logging.getLogger(__name__)

# Spread over the validation rows.
_MOST_ONNX_WINDOWS = 512


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
        pool: The pool of markets that the network was trained on, if it was.
        pooled_baselines: Fitted on the train rows of that pool; they are judged beside it.
    """

    dataset: MarketDataset
    model_kwargs: Mapping[str, object]
    config: Mapping[str, object]
    seed: int
    models_dir: Path
    rules: JudgingRules
    earlier_folds: tuple[FoldForecasts, ...] = ()
    onnx: bool = False
    pool: PoolRecord | None = None
    pooled_baselines: tuple[Baseline, ...] = ()

    def export(self, module: SignalClassifier) -> ExportedModel:
        """Judge the module and write it as a new version.

        Raises:
            RegistryWriteError: The models folder refuses it; the old version stays.
            InvalidArtifactError: As ONNX it does not answer as it does here.
        """
        log.info("judging %d test rows beside the baselines", len(module.test_labels))
        newest = forecast_test(module, self.dataset, self.rules, self.pooled_baselines)
        folds = (*self.earlier_folds, newest)
        judgement = judge_folds(folds, self.rules)
        # Wherever it was trained.
        network = copy.deepcopy(module.network).cpu()
        weights: dict[str, Tensor] = network.state_dict()
        history = TrainingHistory(**module.history)
        record = record_training(
            self.dataset, self.config, history, judgement, len(folds), self.rules
        )
        model = ModelSpec(self.model_kwargs)
        draft = draft_manifest(self.dataset, judgement, model, self.config, self.seed)
        draft = replace(draft, pool=self.pool)
        # The served weights are those of the best epoch; both files are of the contract.
        onnx = self._to_onnx(network) if self.onnx else None
        exported = export_artifact(self.models_dir, draft, weights, weights, record, onnx)
        return ExportedModel(exported, judgement, daily_beside(folds, LOGISTIC))

    def _to_onnx(self, network: CnnLstm) -> bytes:
        dataset = self.dataset
        starts = dataset.rows("validation") - dataset.lookback + 1
        asked = starts[:: -(-len(starts) // _MOST_ONNX_WINDOWS)]
        market = (dataset.bars.symbol, dataset.bars.timeframe.value)
        return export_onnx(network, dataset.windows[asked], market)


def forecast_test(
    module: SignalClassifier,
    dataset: MarketDataset,
    rules: JudgingRules,
    pooled: Sequence[Baseline] = (),
) -> FoldForecasts:
    """What a trained module and the baselines say on the test rows of its fold."""
    data = module.trainer.datamodule  # type: ignore[attr-defined]
    validation, test = data.val_dataloader(), data.test_dataloader()
    logits = _logits(module, validation), _logits(module, test)
    return forecast_fold(dataset, *logits, rules, pooled)


@torch.inference_mode()
def _logits(module: SignalClassifier, loader: DataLoader[Batch]) -> FloatArray:
    module.eval()
    batches = [module(windows.to(module.device)).double().cpu() for windows, _ in loader]
    logits: FloatArray = torch.cat(batches).numpy()
    return logits
