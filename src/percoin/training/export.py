"""From a trained and tested module to what the registry keeps of it."""

from __future__ import annotations

import copy
import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from percoin.dataset import MarketDataset
from percoin.errors import ConfigError, TrainingError
from percoin.evaluation.baselines import LOGISTIC, Baseline
from percoin.evaluation.judgement import (
    FoldForecasts,
    JudgingRules,
    daily_beside,
    forecast_fold,
    judge_folds,
)
from percoin.features.feature_set import FEATURE_NAMES
from percoin.network import CnnLstm
from percoin.registry.artifact import check_writable, export_artifact
from percoin.registry.manifest import ModelSpec
from percoin.registry.pool_record import PoolRecord
from percoin.registry.training_record import TrainingHistory
from percoin.training.datamodule import Batch, MarketDataModule
from percoin.training.lit_module import UNKNOWN_MARKET, SignalClassifier, full_precision
from percoin.training.manifest_draft import ExportedModel, draft_manifest, record_training
from percoin.training.onnx_export import check_packages, export_onnx
from percoin.types import FloatArray, Timeframe

log = logging.getLogger(__name__)

_DAY_MILLISECONDS = 86_400_000
# Spread over the validation rows.
_MOST_ONNX_WINDOWS = 512


@dataclass(frozen=True)
class ModelExporter:
    """Judges a trained network beside the baselines and writes it to a registry.

    Attributes:
        models_dir: The registry.
        rules: What the judgement takes for granted.
        onnx: Export the network for ONNX Runtime as well.
        config: The settings of the training, as plain containers; None takes what the module
            and its dataset know of themselves.
        earlier_folds: Of a walk-forward, in time order; their test rows are judged too.
        pool: The pool of markets that the network was trained on, if it was.
        pooled_baselines: Fitted on the train rows of that pool; they are judged beside it.
    """

    models_dir: Path | str
    rules: JudgingRules = field(default_factory=JudgingRules)
    onnx: bool = False
    config: Mapping[str, object] | None = None
    earlier_folds: tuple[FoldForecasts, ...] = ()
    pool: PoolRecord | None = None
    pooled_baselines: tuple[Baseline, ...] = ()

    def check(self, module: SignalClassifier, symbol: str, timeframe: Timeframe) -> None:
        """Find out before a training whether its model could be exported after it.

        Raises:
            ConfigError: The network is none that the registry can describe, or a package is
                missing.
            RegistryWriteError: The models folder refuses a new version.
        """
        _network_of(module)
        check_writable(Path(self.models_dir), symbol, timeframe)
        if self.onnx:
            check_packages()

    def export(self, module: SignalClassifier, dataset: MarketDataset) -> ExportedModel:
        """Judge the module on the test rows and write it as a new version.

        Args:
            module: Trained; its weights of this moment are exported.
            dataset: What it was trained on.

        Raises:
            TrainingError: It was not trained, or on another market.
            RegistryWriteError: The models folder refuses it; the old version stays.
            InvalidArtifactError: As ONNX it does not answer as it does here.
        """
        _check_trained(module, dataset, self.pool)
        # Wherever it was trained.
        network = copy.deepcopy(_network_of(module)).cpu()
        log.info("judging %d test rows beside the baselines", len(dataset.rows("test")))
        newest = forecast_test(module, dataset, self.rules, self.pooled_baselines)
        folds = (*self.earlier_folds, newest)
        judgement = judge_folds(folds, self.rules)
        weights: dict[str, Tensor] = network.state_dict()
        config = settings_of(module, dataset) if self.config is None else self.config
        history = TrainingHistory(**module.history)
        record = record_training(dataset, config, history, judgement, len(folds), self.rules)
        model = ModelSpec(network.kwargs)
        draft = draft_manifest(dataset, judgement, model, config, module.seed)
        draft = replace(draft, pool=self.pool)
        # The served weights are those of the best epoch; both files are of the contract.
        onnx = _to_onnx(network, dataset) if self.onnx else None
        exported = export_artifact(Path(self.models_dir), draft, weights, weights, record, onnx)
        return ExportedModel(exported, judgement, daily_beside(folds, LOGISTIC))


def settings_of(module: SignalClassifier, dataset: MarketDataset) -> dict[str, object]:
    """What a module and its dataset know of their settings, by the names of ``conf/train.yaml``."""
    bars, spec = dataset.bars, dataset.spec
    split = spec.split_spec
    network = _network_of(module)
    history_days = spec.history_days
    if math.isinf(history_days):
        n_msecs = int(bars.open_time[-1] - bars.open_time[0]) + bars.timeframe.milliseconds
        history_days = math.ceil(n_msecs / _DAY_MILLISECONDS)
    labels = {name: value for name, value in spec.label_rule.to_json().items() if name != "kind"}
    settings: dict[str, object] = {
        "symbol": bars.symbol,
        "tf": {"name": bars.timeframe.value},
        "features": {"definition": spec.definition.value},
        "labels": labels,
        "model": dict(network.kwargs),
        "epochs": len(module.history["val_loss"]),
        "batch_size": module.batch_size,
        "lr": module.lr,
        "seed": module.seed,
        "lookback": spec.lookback,
        "history_days": history_days,
        "split": {
            **dict(zip(("train", "validation", "test"), split.fractions, strict=True)),
            "purge_bars": split.purge_bars,
            "embargo_bars": split.embargo_bars,
        },
        "optimizer": asdict(module.optimizer),
    }
    return json.loads(json.dumps(settings))  # type: ignore[no-any-return]


def _network_of(module: SignalClassifier) -> CnnLstm:
    """The network, if the registry can describe it.

    Raises:
        ConfigError: It cannot.
    """
    network = module.network
    if not isinstance(network, CnnLstm):
        raise ConfigError(
            f"the registry keeps networks of the kind CnnLstm alone, and this is a "
            f"{type(network).__name__}: train without the export, or use percoin.network.CnnLstm"
        )
    if network.n_features != len(FEATURE_NAMES):
        raise ConfigError(
            f"the network takes {network.n_features} features and there are {len(FEATURE_NAMES)}: "
            f"use CnnLstm({len(FEATURE_NAMES)})"
        )
    return network


def _check_trained(
    module: SignalClassifier, dataset: MarketDataset, pool: PoolRecord | None
) -> None:
    market = (dataset.bars.symbol, dataset.bars.timeframe.value)
    if not module.history["val_loss"]:
        raise TrainingError(
            *market,
            "the network has not been trained for an epoch with validation",
            "call trainer.fit(module, datamodule=data) before the test that exports",
        )
    if pool is None and module.market not in (UNKNOWN_MARKET, market):
        raise TrainingError(
            *market,
            f"the network was trained on {' '.join(module.market)}",
            "test it with the data module that it was fitted with",
        )


def _to_onnx(network: CnnLstm, dataset: MarketDataset) -> bytes:
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
    data = MarketDataModule.of(dataset)
    validation, test = data.val_dataloader(), data.test_dataloader()
    logits = _logits(module, validation), _logits(module, test)
    return forecast_fold(dataset, *logits, rules, pooled)


@torch.inference_mode()
def _logits(module: SignalClassifier, loader: DataLoader[Batch]) -> FloatArray:
    module.eval()
    with full_precision(module.device):
        batches = [module(windows.to(module.device)).double().cpu() for windows, _ in loader]
    logits: FloatArray = torch.cat(batches).numpy()
    return logits
