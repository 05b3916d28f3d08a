"""From settings to objects: the only place that instantiates what the config names."""

from __future__ import annotations

import errno
import json
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from lightning.pytorch.loggers import Logger

from percoin.bars.gaps import describe_gaps, find_gaps
from percoin.bars.schema import Bars
from percoin.bars.store import BarStore
from percoin.config import (
    CHECKPOINT_FOLDER,
    CHECKPOINTS,
    DIVERGED_MARK,
    FINISHED_MARK,
    BinanceConfig,
    EvaluationMode,
    ModelConfig,
    TrainConfig,
    TrainerConfig,
)
from percoin.dataset import (
    MarketDataset,
    bars_to_load,
    build_dataset,
    build_folds,
)
from percoin.errors import ConfigError, DivergedError, ResumeError, TrainingError
from percoin.evaluation.backtest import Costs
from percoin.evaluation.table import format_evaluation
from percoin.features.feature_set import FEATURE_NAMES, FeatureDefinition
from percoin.judging import FoldForecasts, JudgingRules
from percoin.network import CnnLstm
from percoin.registry.artifact import check_writable
from percoin.registry.layout import MarketFolder
from percoin.training.callbacks import ExportToRegistry, Pictures
from percoin.training.export import ExportedModel, ModelExporter, forecast_test
from percoin.training.lit_module import SignalClassifier
from percoin.training.onnx_export import check_packages
from percoin.training.run import LAST_CHECKPOINT, TrainedModel, TrainingPlan, fit, train
from percoin.training.summary import Summary

log = logging.getLogger(__name__)

SUMMARY_FILE = "summary.txt"
EVALUATION_FILE = "evaluation.txt"
_SETTINGS_FILE = "settings.json"
_COMPARED_SETTINGS = ("epochs", "batch_size", "lr", "seed", "lookback", "history_days")
_REFUSALS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}
# Below the run's folder; those of the earlier folds of a walk-forward lie in folders of theirs.
RUN_CHECKPOINTS = tuple(
    f"{fold}{CHECKPOINT_FOLDER}/{LAST_CHECKPOINT}.ckpt" for fold in ("", "fold-*/")
)
_WRITTEN_BY_A_RUN = (
    CHECKPOINT_FOLDER,
    "fold-*",
    "figures",
    "csv",
    "events.out.tfevents.*",
    "hparams.yaml",
    _SETTINGS_FILE,
    FINISHED_MARK,
    DIVERGED_MARK,
    SUMMARY_FILE,
    EVALUATION_FILE,
)
# A resumed run may differ in these and still be the same run.
_FREE_TO_CHANGE = frozenset(
    {"resume", "workers", "epochs", "sweep", "force", "reuse_bars_secs", "export"}
)


@dataclass(frozen=True)
class RunContext:
    """Where one run leaves what it writes, and which options its settings were made of.

    Attributes:
        folder: For logs, checkpoints, pictures and the result.
        choices: The chosen option of each config group, for records.
    """

    folder: Path
    choices: Mapping[str, str]

    @classmethod
    def of_hydra(cls) -> RunContext:
        """The run that Hydra has made a folder for."""
        runtime = HydraConfig.get().runtime
        return cls(Path(runtime.output_dir), dict(runtime.choices))


def train_from_config(settings: TrainConfig) -> None:
    """Train, judge and export the model that the settings describe; print its screen.

    Raises:
        PercoinError: Anything that a user can mend; the registry is untouched.
    """
    check_machine(settings)
    print(train_folds(settings, load_folds(settings), RunContext.of_hydra()).render())


def check_machine(settings: TrainConfig) -> None:
    """Refuse what this machine cannot do before any work is spent; set the number of threads.

    Raises:
        ConfigError: No such device, precision or package here.
        RegistryWriteError: The models folder would refuse the export.
    """
    _check_accelerator(settings.trainer)
    if settings.workers is not None:
        torch.set_num_threads(settings.workers)
    if settings.export.onnx:
        check_packages()
    check_writable(Path(settings.models_dir), settings.symbol, settings.tf.timeframe)


def train_folds(
    settings: TrainConfig,
    folds: Sequence[MarketDataset],
    run: RunContext,
    callbacks: Sequence[pl.Callback] = (),
) -> Summary:
    """Train on ready datasets, judge, export.

    Args:
        settings: What the folds were made by.
        folds: Of ``load_folds``; the last one's model is exported.
        run: Where the run leaves what it writes.
        callbacks: Further ones of Lightning, for every fold.

    Raises:
        PercoinError: Anything that a user can mend; the registry is untouched.
    """
    with _divergence_marked(run.folder), _write_errors(settings, run.folder):
        return _train_folds(settings, folds, run, callbacks)


def _train_folds(
    settings: TrainConfig,
    folds: Sequence[MarketDataset],
    run: RunContext,
    callbacks: Sequence[pl.Callback],
) -> Summary:
    *earlier, dataset = folds
    config = plain_settings(settings, run.choices)
    _check_resumable(settings, run.folder, {"config": config, "bars": dataset.bars.sha256()})
    log.info("training %s %s in %s", settings.symbol, settings.tf.name, run.folder)
    exporter = ModelExporter(
        dataset,
        _network_kwargs(settings.model),
        config,
        settings.seed,
        Path(settings.models_dir),
        _judging_rules(settings),
        _train_earlier_folds(settings, earlier, run.folder, callbacks),
        settings.export.onnx,
    )
    export = ExportToRegistry(exporter.export)
    loggers = _loggers(settings, run.folder)
    pictures = Pictures(dataset, run.folder / "figures")
    trained = _train_fold(settings, dataset, run.folder, loggers, [*callbacks, pictures, export])
    assert export.exported is not None
    summary = _summary(settings, dataset, trained, export.exported, run.folder)
    _log_hyperparameters(loggers, settings, run.choices, summary)
    _write_result(run.folder, summary)
    return summary


@contextmanager
def _divergence_marked(folder: Path) -> Iterator[None]:
    """Leave a mark in the folder of a run that diverged: there is nothing to resume."""
    try:
        yield
    except DivergedError as error:
        (folder / DIVERGED_MARK).write_text(f"{error}\n", encoding="utf-8")
        raise


@contextmanager
def _write_errors(settings: TrainConfig, folder: Path) -> Iterator[None]:
    """Say in one line that the run's folder takes no more, and why."""
    try:
        yield
    except OSError as error:
        if error.errno not in _REFUSALS:
            raise
        raise TrainingError(
            settings.symbol,
            settings.tf.name,
            f"cannot write to {error.filename or folder}: {error.strerror}",
            "free some space or make it writable, or choose another folder with outputs_dir=FOLDER",
        ) from error


def clear_run_folder(folder: Path) -> None:
    """Take away what an earlier run has left, for a run that begins afresh in its folder."""
    for pattern in _WRITTEN_BY_A_RUN:
        for path in folder.glob(pattern):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def _check_accelerator(trainer: TrainerConfig) -> None:
    if trainer.accelerator == "gpu" and not torch.cuda.is_available():
        raise ConfigError("trainer=gpu needs a GPU that torch can use, and finds none: trainer=cpu")
    is_bf16_on_cpu = trainer.accelerator == "cpu" and trainer.precision.startswith("bf16")
    if is_bf16_on_cpu and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        raise ConfigError(
            f"trainer.precision={trainer.precision}: this CPU cannot compute in bf16; "
            "use trainer.precision=32-true"
        )


def load_folds(settings: TrainConfig) -> list[MarketDataset]:
    """Fetch the bars, keep them in the store, and make them ready to train on.

    Returns:
        As ``make_folds``.
    """
    return make_folds(settings, load_bars(settings))


def make_folds(settings: TrainConfig, bars: Bars) -> list[MarketDataset]:
    """Bars made ready to train on.

    One dataset for the single split; one per fold, oldest first, for a walk-forward.
    """
    arguments = (
        bars,
        FeatureDefinition(settings.features.definition),
        settings.labels.build(),
        settings.lookback,
        settings.split.build(),
        settings.history_days,
    )
    if settings.evaluation == EvaluationMode.WALK_FORWARD:
        return build_folds(*arguments, settings.folds)
    return [build_dataset(*arguments)]


def _train_earlier_folds(
    settings: TrainConfig,
    folds: Sequence[MarketDataset],
    folder: Path,
    callbacks: Sequence[pl.Callback],
) -> tuple[FoldForecasts, ...]:
    rules = _judging_rules(settings)
    forecasts = []
    for number, dataset in enumerate(folds, start=1):
        log.info("fold %d of %d", number, len(folds) + 1)
        trained = _train_fold(settings, dataset, folder / f"fold-{number}", callbacks=callbacks)
        forecasts.append(forecast_test(trained.module, dataset, rules))
    if folds:
        log.info("fold %d of %d, whose model is the one to serve", len(folds) + 1, len(folds) + 1)
    return tuple(forecasts)


def _train_fold(
    settings: TrainConfig,
    dataset: MarketDataset,
    folder: Path,
    loggers: Sequence[Logger] = (),
    callbacks: Sequence[pl.Callback] = (),
) -> TrainedModel:
    network = _seeded_network(settings)
    resume = settings.resume and _last_checkpoint(folder).is_file()
    return train(dataset, network, _plan(settings), folder, loggers, callbacks, resume)


def fit_trial(
    settings: TrainConfig, dataset: MarketDataset, callbacks: Sequence[pl.Callback] = ()
) -> SignalClassifier:
    """Fit what the settings describe as ``percoin.training.run.fit`` does: nothing is kept."""
    return fit(dataset, _seeded_network(settings), _plan(settings), callbacks)


def _seeded_network(settings: TrainConfig) -> CnnLstm:
    pl.seed_everything(settings.seed, verbose=False)
    return CnnLstm(len(FEATURE_NAMES), **_network_kwargs(settings.model))


def _last_checkpoint(folder: Path) -> Path:
    return folder / CHECKPOINT_FOLDER / f"{LAST_CHECKPOINT}.ckpt"


def _judging_rules(settings: TrainConfig) -> JudgingRules:
    return JudgingRules(
        costs=Costs(settings.costs.fee_bps, settings.costs.slippage_bps),
        n_trials=settings.trials,
        n_looks=settings.looks,
        seed=settings.seed,
    )


def n_bars_to_load(settings: TrainConfig) -> int:
    """How many of the newest bars a training makes use of, if there are no gaps."""
    return bars_to_load(
        settings.tf.timeframe, settings.labels.build(), settings.lookback, settings.history_days
    )


def load_bars(settings: TrainConfig) -> Bars:
    """Bars of the market from its source; the store then holds them for predictions.

    A run that is resumed goes on with the bars that are stored: newer ones would make it
    another run.
    """
    store = BarStore(Path(settings.data_dir) / "bars")
    timeframe = settings.tf.timeframe
    source = settings.source.build(store, n_bars_to_load(settings), replace=True)
    if settings.resume and isinstance(settings.source, BinanceConfig):
        source = store
    bars = source.load(settings.symbol, timeframe)
    store.write(bars)
    log.info(
        "%s %s: %d bars until %s from %s",
        bars.symbol,
        bars.timeframe.value,
        len(bars),
        bars.close_time(),
        bars.origin,
    )
    gaps = find_gaps(bars)
    if gaps:
        log.info("%s", describe_gaps(bars, gaps))
    return bars


def _network_kwargs(settings: ModelConfig) -> dict[str, Any]:
    kwargs = asdict(settings)
    kwargs["channels"] = tuple(settings.channels)
    kwargs["head_sizes"] = tuple(settings.head_sizes)
    return kwargs


def _plan(settings: TrainConfig) -> TrainingPlan:
    return TrainingPlan(
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        lr=settings.lr,
        seed=settings.seed,
        optimizer=settings.optimizer,
        accelerator=settings.trainer.accelerator,
        precision=settings.trainer.precision,
    )


def plain_settings(settings: TrainConfig, choices: Mapping[str, str]) -> dict[str, Any]:
    """The settings as JSON can say them, with the names of the chosen options."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(settings)))
    options = {group: choices[group] for group in ("source", "labels", "model") if group in choices}
    return {**plain, "choices": options}


def _check_resumable(settings: TrainConfig, folder: Path, facts: dict[str, Any]) -> None:
    """Refuse to go on with another run's weights; note the facts of a new run."""
    path = folder / _SETTINGS_FILE
    market = (settings.symbol, settings.tf.name)
    if not settings.resume:
        path.write_text(json.dumps(facts, indent=2), encoding="utf-8")
        return
    if not any(folder.glob(CHECKPOINTS)):
        raise ResumeError(
            *market,
            f"no interrupted run with a finished epoch under {folder.parent}",
            "start one without resume=true",
        )
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        changed = _changed_settings(before, facts)
    except (OSError, ValueError, KeyError) as error:
        raise ResumeError(
            *market, f"{path} cannot be read ({error})", "start afresh without resume=true"
        ) from error
    if changed:
        raise ResumeError(
            *market,
            f"{', '.join(changed)} changed since {folder} was interrupted",
            "repeat its settings to go on, or start afresh without resume=true",
        )
    log.info("resuming %s", folder)


def _changed_settings(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    changed = [
        name
        for name, value in now["config"].items()
        if name not in _FREE_TO_CHANGE and before["config"].get(name) != value
    ]
    return changed if before["bars"] == now["bars"] else [*changed, "the bars"]


def _loggers(settings: TrainConfig, folder: Path) -> list[Logger]:
    return [] if settings.logger is None else [instantiate(settings.logger, save_dir=str(folder))]


def _summary(
    settings: TrainConfig,
    dataset: MarketDataset,
    trained: TrainedModel,
    exported: ExportedModel,
    run_folder: Path,
) -> Summary:
    market = MarketFolder(Path(settings.models_dir), settings.symbol, settings.tf.timeframe)
    return Summary(
        dataset=dataset,
        evaluation=exported.judgement.evaluation,
        n_epochs=trained.n_epochs,
        best_epoch=trained.best_epoch,
        secs=trained.secs,
        model_folder=market.link,
        version_id=exported.version.folder.name,
        is_served=exported.version.is_served,
        run_folder=run_folder,
    )


def _log_hyperparameters(
    loggers: list[Logger], settings: TrainConfig, choices: Mapping[str, str], summary: Summary
) -> None:
    """The few settings by which runs differ, beside the few figures by which they compare."""
    parameters = {
        "symbol": settings.symbol,
        "tf": settings.tf.name,
        "features": settings.features.definition,
        "labels": choices["labels"],
        "model": choices["model"],
        **{name: getattr(settings, name) for name in _COMPARED_SETTINGS},
    }
    results = {f"result/{name}": value for name, value in summary.key_results().items()}
    for logger in loggers:
        if isinstance(logger, pl.loggers.TensorBoardLogger):
            logger.log_hyperparams(parameters, results)
        else:
            logger.log_hyperparams(parameters)
        logger.finalize("success")


def _write_result(folder: Path, summary: Summary) -> None:
    """Mark the run as finished, with its figures for programs and its screen for people."""
    (folder / SUMMARY_FILE).write_text(summary.render(), encoding="utf-8")
    tables = format_evaluation(summary.evaluation)
    (folder / EVALUATION_FILE).write_text(tables + "\n", encoding="utf-8")
    verdict = summary.evaluation.verdict
    result = {
        **summary.key_results(),
        "epochs": summary.n_epochs,
        "secs": summary.secs,
        "version": summary.version_id,
        "is_served": summary.is_served,
        "verdict": verdict.outcome.value,
        "reasons": [*verdict.reasons, *verdict.cautions],
    }
    aside = folder / f".{FINISHED_MARK}"
    aside.write_text(json.dumps(result, indent=2), encoding="utf-8")
    aside.replace(folder / FINISHED_MARK)
