"""From settings to objects: the only place that instantiates what the config names."""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from hydra.utils import instantiate
from lightning.pytorch.loggers import Logger

from percoin.config import CnnLstmConfig, LogisticConfig, ModelConfig, TrainConfig, TrainerConfig
from percoin.dataset import (
    MarketDataset,
)
from percoin.errors import ConfigError, DivergedError, ResumeError
from percoin.evaluation.judgement import FoldForecasts
from percoin.features.feature_set import FEATURE_NAMES
from percoin.network import CnnLstm
from percoin.registry.artifact import check_writable
from percoin.run_folder import CHECKPOINT_FOLDER, CHECKPOINTS, DIVERGED_MARK, FINISHED_MARK
from percoin.training.callbacks import ExportToRegistry, Pictures
from percoin.training.export import ModelExporter, forecast_test
from percoin.training.lit_module import OptimizerSpec, SignalClassifier
from percoin.training.manifest_draft import ExportedModel
from percoin.training.memory import keep_freed_memory
from percoin.training.onnx_export import check_packages
from percoin.training.pooled_module import GentleClassifier
from percoin.training.recipes.from_pool import PooledStart, find_start
from percoin.training.recipes.logistic import train_logistic
from percoin.training.run import (
    LAST_CHECKPOINT,
    TrainedModel,
    TrainingPlan,
    checkpoint_of,
    fit,
    train,
    train_further,
)
from percoin.training.run_files import (
    EVALUATION_FILE,
    SUMMARY_FILE,
    RunContext,
    judging_rules,
    load_folds,
    plain_settings,
    summarize,
    write_errors,
    write_result,
)
from percoin.training.summary import TrainingSummary
from percoin.types import Timeframe
from percoin.whole_file import write_whole

log = logging.getLogger(__name__)

_SETTINGS_FILE = "settings.json"
# All that is made of what a config names.
_LOGGER_TARGET = re.compile(r"lightning\.pytorch\.loggers\.[A-Za-z]+Logger")
_COMPARED_SETTINGS = ("epochs", "batch_size", "lr", "seed", "lookback", "history_days")
# Below the run's folder: the earlier folds of a walk-forward, the networks of a pool's seeds.
_PARTS_OF_A_RUN = ("fold-*", "seed-*")
RUN_CHECKPOINTS = tuple(
    f"{part}{CHECKPOINT_FOLDER}/{LAST_CHECKPOINT}.ckpt"
    for part in ("", *(f"{name}/" for name in _PARTS_OF_A_RUN))
)
_WRITTEN_BY_A_RUN = (
    CHECKPOINT_FOLDER,
    *_PARTS_OF_A_RUN,
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
    {
        *("resume", "workers", "epochs", "sweep", "force", "reuse_bars_secs", "export", "blend"),
        *("fleet", "data_dir", "models_dir", "outputs_dir", "logger"),
    }
)
# The same where the bars are the same, wherever these lie by now.
_FREE_WITH_THE_SAME_BARS = _FREE_TO_CHANGE | {"source"}


def train_from_config(settings: TrainConfig) -> None:
    """Train, judge and export the model that the settings describe; print its screen.

    Raises:
        PercoinError: Anything that a user can mend; the registry is untouched.
    """
    check_machine(settings)
    start = find_start(settings)
    folds = load_folds(settings, start)
    print(train_folds(settings, folds, RunContext.of_hydra(), start=start).render())


def check_machine(settings: TrainConfig) -> None:
    """Refuse what this machine cannot do before any work is spent; make the process ready.

    Its number of threads is set, and what a batch frees is kept for the next.

    Raises:
        ConfigError: No such device, precision or package here.
        RegistryWriteError: The models folder would refuse the export.
    """
    has_network = not isinstance(settings.model, LogisticConfig)
    if has_network:
        _check_accelerator(settings.trainer)
    if settings.workers is not None:
        torch.set_num_threads(settings.workers)
    keep_freed_memory()
    if settings.export.onnx and has_network:
        check_packages()
    check_writable(Path(settings.models_dir), settings.symbol, settings.tf.timeframe)


def train_folds(
    settings: TrainConfig,
    folds: Sequence[MarketDataset],
    run: RunContext,
    callbacks: Sequence[pl.Callback] = (),
    start: PooledStart | None = None,
) -> TrainingSummary:
    """Train on ready datasets, judge, export.

    Args:
        settings: What the folds were made by.
        folds: Of ``load_folds``; the last one's model is exported.
        run: Where the run leaves what it writes.
        callbacks: Further ones of Lightning, for every fold; a model without a network has
            none.
        start: The pooled model that the folds were made for.

    Raises:
        PercoinError: Anything that a user can mend; the registry is untouched.
    """
    if isinstance(settings.model, LogisticConfig):
        return train_logistic(settings, folds, run)
    with divergence_marked(run.folder), write_errors(settings, run.folder):
        return _train_folds(settings, folds, run, callbacks, start)


def _train_folds(
    settings: TrainConfig,
    folds: Sequence[MarketDataset],
    run: RunContext,
    callbacks: Sequence[pl.Callback],
    start: PooledStart | None,
) -> TrainingSummary:
    *earlier, dataset = folds
    config = plain_settings(settings, run.choices)
    facts = {"config": config, "bars": dataset.bars.sha256()}
    if start is not None:
        facts["pooled model"] = start.manifest.version_id
    check_resumable(settings, run.folder, facts)
    log.info("training %s %s in %s", settings.symbol, settings.tf.name, run.folder)
    exporter = ModelExporter(
        settings.models_dir,
        judging_rules(settings),
        settings.export.onnx,
        config,
        _train_earlier_folds(settings, earlier, run.folder, callbacks),
    )
    export = ExportToRegistry(exporter if start is None else _AfterPool(start, exporter))
    loggers = make_loggers(settings, run.folder)
    pictures = Pictures(dataset, run.folder / "figures")
    around = [*callbacks, pictures, export]
    trained = _train_fold(settings, dataset, run.folder, loggers, around, start)
    summary = summarize(
        settings,
        dataset,
        export.exported,
        run.folder,
        trained.secs,
        (trained.n_epochs, trained.best_epoch),
    )
    log_hyperparameters(loggers, settings, run.choices, summary)
    write_result(run.folder, summary)
    return summary


@contextmanager
def divergence_marked(folder: Path) -> Iterator[None]:
    """Leave a mark in the folder of a run that diverged: there is nothing to resume."""
    try:
        yield
    except DivergedError as error:
        write_whole(folder / DIVERGED_MARK, f"{error}\n")
        raise


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


def _train_earlier_folds(
    settings: TrainConfig,
    folds: Sequence[MarketDataset],
    folder: Path,
    callbacks: Sequence[pl.Callback],
) -> tuple[FoldForecasts, ...]:
    rules = judging_rules(settings)
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
    start: PooledStart | None = None,
) -> TrainedModel:
    network = seeded_network(settings)
    resume = settings.resume and checkpoint_of(folder).is_file()
    if start is not None:
        network.load_state_dict(start.state_dict)
        plan = replace(plan_of(settings), lr=settings.pooled.init_lr)
        return train_further(dataset, network, plan, folder, loggers, callbacks, resume)
    return train(dataset, network, plan_of(settings), folder, loggers, callbacks, resume)


@dataclass(frozen=True)
class _AfterPool:
    """An export whose manifest names the pooled model that the training began with."""

    start: PooledStart
    exporter: ModelExporter

    def check(self, module: SignalClassifier, symbol: str, timeframe: Timeframe) -> None:
        self.exporter.check(module, symbol, timeframe)

    def export(self, module: SignalClassifier, dataset: MarketDataset) -> ExportedModel:
        improved = isinstance(module, GentleClassifier) and module.improved
        origin = self.start.manifest.version_id
        pool = replace(self.start.pool, started_from=origin, improved=improved)
        return replace(self.exporter, pool=pool).export(module, dataset)


def fit_trial(
    settings: TrainConfig, dataset: MarketDataset, callbacks: Sequence[pl.Callback] = ()
) -> SignalClassifier:
    """Fit what the settings describe as ``percoin.training.run.fit`` does: nothing is kept."""
    return fit(dataset, seeded_network(settings), plan_of(settings), callbacks)


def seeded_network(settings: TrainConfig) -> CnnLstm:
    """The network with its first weights; everything random is seeded."""
    pl.seed_everything(settings.seed, verbose=False)
    return CnnLstm(len(FEATURE_NAMES), **network_kwargs(settings.model))


def network_kwargs(settings: ModelConfig) -> dict[str, Any]:
    """Keyword arguments that build the network."""
    assert isinstance(settings, CnnLstmConfig)
    kwargs = asdict(settings)
    kwargs["channels"] = tuple(settings.channels)
    kwargs["head_sizes"] = tuple(settings.head_sizes)
    return kwargs


def plan_of(settings: TrainConfig) -> TrainingPlan:
    """How to train, as the settings say."""
    return TrainingPlan(
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        lr=settings.lr,
        seed=settings.seed,
        optimizer=OptimizerSpec(**asdict(settings.optimizer)),
        accelerator=settings.trainer.accelerator,
        precision=settings.trainer.precision,
        record_steps=settings.trainer.record_steps,
    )


def check_resumable(settings: TrainConfig, folder: Path, facts: dict[str, Any]) -> None:
    """Refuse to go on with another run's weights; note the facts of a new run.

    Args:
        settings: Of this run.
        folder: Of the run.
        facts: ``config`` by name, ``bars``, and what else must not have changed.

    Raises:
        ResumeError: There is nothing to go on with, or it was another run.
    """
    path = folder / _SETTINGS_FILE
    market = (settings.title, settings.tf.name)
    if not settings.resume:
        write_whole(path, json.dumps(facts, indent=2))
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
    # Whatever JSON can be: of another kind, or nested too deeply.
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ResumeError(
            *market, f"{path} cannot be read ({error})", "start afresh without resume=true"
        ) from error
    if changed:
        # No setting brings back bars that an exchange or a file has no more.
        settings_differ = any(name in facts["config"] for name in changed)
        action = "repeat its settings to go on, or start" if settings_differ else "start"
        raise ResumeError(
            *market,
            f"{', '.join(changed)} changed since {folder} was interrupted",
            f"{action} afresh without resume=true",
        )
    log.info("resuming %s", folder)


def _changed_settings(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    free = _FREE_TO_CHANGE if before["bars"] != now["bars"] else _FREE_WITH_THE_SAME_BARS
    was, is_now = (_compared(facts["config"], free) for facts in (before, now))
    changed = [name for name, value in is_now.items() if was.get(name) != value]
    others = [name for name in now if name != "config" and before[name] != now[name]]
    return [*changed, *(f"the {name}" for name in others)]


def _compared(config: Mapping[str, Any], free: frozenset[str]) -> dict[str, Any]:
    """The settings without those that may change, nor the options chosen of these."""
    kept = {name: value for name, value in config.items() if name not in free}
    return {**kept, "choices": {k: v for k, v in config["choices"].items() if k not in free}}


def make_loggers(settings: TrainConfig, folder: Path) -> list[Logger]:
    """What the settings name, writing below the run's folder.

    Raises:
        ConfigError: They name something else than one of Lightning's loggers.
    """
    if settings.logger is None:
        return []
    check_targets(settings.logger)
    return [instantiate(settings.logger, save_dir=str(folder))]


def check_targets(logger: Mapping[str, Any]) -> None:
    """Refuse to make anything but a logger: Hydra would call whatever a config names.

    Raises:
        ConfigError: Another target, or one within the logger's own settings.
    """
    target = str(logger.get("_target_"))
    if not _LOGGER_TARGET.fullmatch(target):
        raise ConfigError(
            f"logger._target_={target} is none of Lightning's loggers; name one, such as "
            "logger._target_=lightning.pytorch.loggers.CSVLogger"
        )
    within = list(logger.values())
    while within:
        value = within.pop()
        if isinstance(value, Mapping):
            if "_target_" in value:
                raise ConfigError("a setting of logger has a _target_ of its own; give it a value")
            within += value.values()
        elif isinstance(value, list | tuple):
            within += value


def log_hyperparameters(
    loggers: Sequence[Logger],
    settings: TrainConfig,
    choices: Mapping[str, str],
    summary: TrainingSummary,
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
