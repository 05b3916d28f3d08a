"""Export a trained module, from ``train.py`` or your own trainer, to a registry."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from percoin.bars.sources.base import BarSource
from percoin.bars.sources.binance.source import ExchangeSource
from percoin.bars.sources.files import FilesSource
from percoin.bars.sources.sample import SampleSource
from percoin.bars.sources.simulated import SimulatedSource
from percoin.bars.store import BarStore
from percoin.dataset import MarketDataset
from percoin.errors import ConfigError, TrainingError
from percoin.evaluation.baselines import NO_BLEND, USUAL_BESIDE
from percoin.evaluation.blend import BLEND
from percoin.evaluation.fold_forecasts import JudgingRules
from percoin.labels import OwnRule
from percoin.registry.artifact import check_writable
from percoin.training.datamodule import MarketDataModule
from percoin.training.fitted_network import FittedNetwork, network_of
from percoin.training.lit_module import (
    UNKNOWN_MARKET,
    OwnTraining,
    SignalClassifier,
    check_n_features,
)
from percoin.training.manifest_draft import ExportedModel
from percoin.training.onnx_export import check_packages
from percoin.training.publishing import judge, publish
from percoin.types import DAY_MILLISECONDS


@dataclass(frozen=True)
class ModelExporter:
    """Judges a trained network against the baselines and writes it to a registry.

    Attributes:
        models_dir: Folder of the registry.
        rules: Rules of the judgement, such as trading costs.
        onnx: Export the network for ONNX Runtime as well.
        config: Training settings, as plain containers; None collects them from the module and
            its dataset, and from the source of its bars if that is given.
    """

    models_dir: Path | str
    # As train.py has it: averaged with all that can stand beside the network.
    rules: JudgingRules = field(
        default_factory=partial(JudgingRules, model_name=BLEND, blend=USUAL_BESIDE)
    )
    onnx: bool = False
    config: Mapping[str, object] | None = None

    def check(self, module: SignalClassifier, data: MarketDataModule) -> None:
        """Check before a training on the data that its model can be exported afterwards.

        Raises:
            ConfigError: The registry cannot describe this network or training, or a package is
                missing.
            RegistryWriteError: A new version cannot be written to the models folder.
        """
        check_n_features(network_of(module), data.n_features)
        if self.config is None:
            _check_described(module)
        check_writable(Path(self.models_dir), data.symbol, data.timeframe)
        if self.onnx:
            check_packages()

    def export(
        self, module: SignalClassifier, dataset: MarketDataset, source: BarSource | None = None
    ) -> ExportedModel:
        """Judge the module on the test rows and write it as a new version.

        Args:
            module: A trained module; its current weights are exported.
            dataset: The training data.
            source: Where its bars came from; retraining asks it again.

        Raises:
            TrainingError: The module was not trained, or on another market.
            RegistryWriteError: The version cannot be written; the old version stays.
            InvalidArtifactError: The ONNX network gives other outputs than the PyTorch one.
        """
        _check_trained(module, dataset)
        check_n_features(network_of(module), len(dataset.feature_names))
        fitted = FittedNetwork(
            dataset=dataset, seed=module.seed, secs=module.secs, test=lambda: module
        )
        config = self.config
        if config is None:
            own = {**settings_of(module, dataset), **source_settings(source)}
            config = {**own, **_judged_by(self.rules), "export": {"onnx": self.onnx}}
        judged = judge(fitted, self.rules)
        return publish(fitted, judged, config, Path(self.models_dir), self.onnx)


def _judged_by(rules: JudgingRules) -> dict[str, object]:
    """The rules of a judgement with the names of ``conf/train.yaml``."""
    return {
        "blend": "+".join(rules.blend) or NO_BLEND,
        "costs": asdict(rules.costs),
        "backtest": {"exit": rules.exit.value},
        "trials": rules.n_trials,
        "looks": rules.n_looks,
    }


def _day(moment_ms: int | None) -> str | None:
    return None if moment_ms is None else datetime.fromtimestamp(moment_ms / 1000, UTC).isoformat()


def settings_of(module: SignalClassifier, dataset: MarketDataset) -> dict[str, object]:
    """Collect the settings of a module and its dataset, with the names of ``conf/train.yaml``.

    Raises:
        ConfigError: No settings describe its loss, optimizer or schedule.
    """
    _check_described(module)
    bars, spec = dataset.bars, dataset.spec
    split = spec.split_spec
    network = network_of(module)
    history_days = spec.history_days
    if math.isinf(history_days):
        n_msecs = int(bars.open_time[-1] - bars.open_time[0]) + bars.timeframe.milliseconds
        history_days = n_msecs / DAY_MILLISECONDS
    # What was fitted on these train rows is fitted again on those of a retraining.
    rule = dataset.given_rule or spec.label_rule
    labels = {name: value for name, value in rule.to_json().items() if name != "kind"}
    labels = rule.settings if isinstance(rule, OwnRule) else labels
    references = list(spec.feature_set.references)
    settings: dict[str, object] = {
        "symbol": bars.symbol,
        "tf": {"name": bars.timeframe.value},
        "features": {
            "definition": spec.feature_set.definition.value,
            "extra": spec.feature_set.extra_settings,
            # Without them the settings keep their own, which nothing reads then.
            **({"references": references} if references else {}),
        },
        "labels": labels,
        "model": dict(network.kwargs),
        "epochs": len(module.history["val_loss"]),
        "batch_size": module.batch_size,
        "windows_per_epoch": module.windows_per_epoch,
        "lr": module.lr,
        "seed": module.seed,
        "lookback": spec.lookback,
        "history_days": math.ceil(history_days),
        "start": _day(spec.start),
        "end": _day(spec.end),
        "split": {
            **dict(zip(("train", "validation", "test"), split.fractions, strict=True)),
            "purge_bars": split.purge_bars,
            "embargo_bars": split.embargo_bars,
        },
        "optimizer": asdict(module.optimizer),
    }
    return json.loads(json.dumps(settings))  # type: ignore[no-any-return]


def source_settings(source: BarSource | None) -> dict[str, object]:
    """Describe a source with the names of ``conf/source``, as the manifests of ``train.py`` do.

    Returns:
        Its settings under ``source`` and its option under ``choices``; empty for a source that no
        option describes, such as one of the user's own.
    """
    match source:
        case BarStore():
            return _named("store", {})
        case SampleSource():
            return _named("sample", {})
        case FilesSource():
            return _named("files", {"path": str(source.path)})
        case SimulatedSource(seed=seed, n_bars=n_bars, edge=edge):
            # Its end is no setting.
            is_usual = source == SimulatedSource(seed, n_bars, edge)
            drawn = {"seed": seed, "n_bars": n_bars, "edge": edge}
            return _named("simulated", drawn) if is_usual else {}
        case ExchangeSource():
            patience = source.patience
            asked = {
                "market": source.market,
                "exchange": source.exchange,
                "archive_url": source.archive_url,
                "api_url": source.api_url,
                "parallel": source.n_parallel,
                "attempts": patience.attempts,
                "timeout_secs": patience.timeout_secs,
            }
            return _named("binance", asked)
    return {}


def _check_described(module: SignalClassifier) -> None:
    if module.own != OwnTraining():
        raise ConfigError(
            "no settings name a loss, an optimizer or a schedule that is an object: say them with "
            "ModelExporter(config=...), or train with train.py loss._target_=MODULE:NAME"
        )


def _named(option: str, settings: Mapping[str, object]) -> dict[str, object]:
    return {"source": dict(settings), "choices": {"source": option}}


def _check_trained(module: SignalClassifier, dataset: MarketDataset) -> None:
    market = (dataset.bars.symbol, dataset.bars.timeframe.value)
    if not module.history["val_loss"]:
        raise TrainingError(
            *market,
            "the network has not been trained for an epoch with validation",
            "call trainer.fit(module, datamodule=data) before the test that exports",
        )
    if module.market not in (UNKNOWN_MARKET, market):
        raise TrainingError(
            *market,
            f"the network was trained on {' '.join(module.market)}",
            "test it with the data module that it was fitted with",
        )
