"""From settings to a network of its own for each of many markets, all trained at once."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger

from percoin import json_codec
from percoin.commands import command
from percoin.config import TrainConfig
from percoin.dataset import MarketDataset
from percoin.errors import FleetError, InterruptedRunError, MarketError
from percoin.evaluation.joint import days_of
from percoin.evaluation.uncertainty import Bootstrap
from percoin.registry.manifest import StoredVerdict
from percoin.run_folder import FINISHED_MARK
from percoin.training.callbacks import ExportToRegistry, Pictures
from percoin.training.datamodule import MarketDataModule
from percoin.training.export import ModelExporter
from percoin.training.false_discoveries import withdraw_false_discoveries
from percoin.training.fleet_run import FleetModel, train_fleet
from percoin.training.lit_module import SignalClassifier
from percoin.training.manifest_draft import ExportedModel
from percoin.training.memory import memory_errors
from percoin.training.recipes.per_market import (
    check_machine,
    log_hyperparameters,
    make_loggers,
    plan_of,
    seeded_network,
)
from percoin.training.recipes.pooled import MARKETS, market_settings
from percoin.training.results import PooledMeans, PooledResult, format_fleet
from percoin.training.run import Interruption, make_trainer, quiet_lightning, run_test
from percoin.training.run_files import (
    SUMMARY_FILE,
    RunContext,
    judging_rules,
    load_folds,
    plain_settings,
    summarize,
    write_errors,
    write_result,
)
from percoin.whole_file import write_whole

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FleetSummary:
    """The end of a fleet's training.

    Attributes:
        results: Of each market that has a new model.
        failed: Why the others have none, by symbol.
        means: Over the results; None without any.
        secs: Of the training, without the judging.
        withdrawn: Models that lost their acceptance because so many were tried.
        run_folder: Where logs, tables and pictures lie.
    """

    results: tuple[PooledResult, ...]
    failed: Mapping[str, str]
    means: PooledMeans | None
    secs: float
    withdrawn: tuple[str, ...]
    run_folder: Path

    def render(self) -> str:
        """The screen as plain text."""
        if self.means is None:
            return ""
        minutes, secs = divmod(round(self.secs), 60)
        accepted = [
            entry.symbol for entry in self.results if entry.verdict == StoredVerdict.ACCEPTED
        ]
        return "\n".join(
            [
                "",
                format_fleet(self.results, self.means, self.failed),
                *self.withdrawn,
                f"accepted: {', '.join(accepted) or 'none'}",
                f"{len(self.results)} networks trained together in {minutes} min {secs} s",
                f"tables and pictures: {self.run_folder / MARKETS}",
                "logs: " + command("tensorboard --logdir", str(self.run_folder.parents[1])),
            ]
        )

    def to_json(self) -> dict[str, Any]:
        """The same for programs, without the losses by day, which each market's model has."""
        markets = {}
        for entry in self.results:
            values = asdict(entry)
            del values["symbol"], values["is_seen"], values["beside_logistic"]
            markets[entry.symbol] = values
        return {"markets": markets, "failed": dict(self.failed), "secs": self.secs}

    def check(self) -> None:
        """Name the markets without a new model.

        Raises:
            FleetError: There are any.
        """
        if self.failed:
            reasons = ", ".join(f"{symbol} ({reason})" for symbol, reason in self.failed.items())
            n_all = len(self.results) + len(self.failed)
            others = "; the others have theirs" if self.results else ""
            raise FleetError(
                f"{len(self.failed)} of {n_all} markets have no new model: {reasons}{others}"
            )


def train_fleet_from_config(settings: TrainConfig) -> None:
    """Train a network for each market, judge and export them; print the table.

    Raises:
        FleetError: Some markets could not be trained or saved; names all of them. The
            others are exported.
        PercoinError: Anything else that a user can mend.
    """
    for symbol in settings.symbols:
        check_machine(market_settings(settings, symbol))
    datasets, failed = load_fleet(settings)
    summary = train_markets(settings, datasets, RunContext.of_hydra(), failed)
    print(summary.render())
    summary.check()


def load_fleet(settings: TrainConfig) -> tuple[list[MarketDataset], dict[str, str]]:
    """Every market made ready as a training of it alone would, and why some cannot be."""
    datasets, failed = [], {}
    for symbol in settings.symbols:
        try:
            datasets += load_folds(market_settings(settings, symbol))
        except MarketError as error:
            failed[symbol] = _reason(error)
    return datasets, failed


def train_markets(
    settings: TrainConfig,
    datasets: Sequence[MarketDataset],
    run: RunContext,
    failed: Mapping[str, str],
) -> FleetSummary:
    """Train on ready markets, judge each by its own gate and export it.

    Args:
        settings: What the markets were made by.
        datasets: The markets; there may be none.
        run: Where the run leaves what it writes.
        failed: Why others are not among them, by symbol.

    Raises:
        InterruptedRunError: Ctrl-C or SIGTERM; markets judged by then are exported.
        TrainingError: The run's folder takes no more.
    """
    with write_errors(settings, run.folder):
        return _FleetTraining(settings, run, failed).go(datasets)


class _FleetTraining:
    """One run of a fleet: its settings and what has come of its markets so far."""

    def __init__(self, settings: TrainConfig, run: RunContext, failed: Mapping[str, str]) -> None:
        self._settings = settings
        self._run = run
        self._failed = dict(failed)
        self._plan = plan_of(settings)
        self._loggers: dict[str, list[Logger]] = {}
        self._interruption = Interruption(
            (settings.title, settings.tf.name),
            checkpoint=None,
            ends_with_export=True,
            lost="only markets that were judged by then have a new model; start again",
        )

    def go(self, datasets: Sequence[MarketDataset]) -> FleetSummary:
        settings, folder = self._settings, self._run.folder
        results: dict[str, PooledResult] = {}
        models: list[FleetModel] = []
        with self._interruption.expected(), quiet_lightning():
            if datasets:
                models = self._train(datasets)
            for number, model in enumerate(models, start=1):
                log.info("%s, market %d of %d", model.symbol, number, len(models))
                try:
                    with memory_errors(model.symbol, settings.tf.name):
                        results[model.symbol] = self._judge(model)
                except InterruptedRunError:
                    raise
                except MarketError as error:
                    self._failed[model.symbol] = _reason(error)
        results, withdrawn = withdraw_false_discoveries(
            results, Path(settings.models_dir), settings.tf.timeframe
        )
        secs = max((model.secs for model in models), default=0.0)
        means = self._means(list(results.values())) if results else None
        failed = {name: self._failed[name] for name in settings.symbols if name in self._failed}
        summary = FleetSummary(tuple(results.values()), failed, means, secs, withdrawn, folder)
        write_whole(folder / SUMMARY_FILE, summary.render() + "\n")
        write_whole(folder / FINISHED_MARK, json_codec.dumps(summary.to_json(), nan_as_null=True))
        return summary

    def _train(self, datasets: Sequence[MarketDataset]) -> list[FleetModel]:
        folder = self._run.folder
        n_rows = sum(len(dataset.rows("train")) for dataset in datasets)
        log.info("training %d networks on %d train rows in %s", len(datasets), n_rows, folder)
        for dataset in datasets:
            place = folder / MARKETS / dataset.bars.symbol
            self._loggers[dataset.bars.symbol] = make_loggers(self._settings, place)
        # Of one seed, and so alike, as in as many trainings.
        networks = [seeded_network(self._settings)] * len(datasets)
        check = self._interruption.end_if_received
        return train_fleet(datasets, networks, self._plan, check, self._log_epoch)

    def _log_epoch(self, model: FleetModel) -> None:
        history = model.history
        values = {
            "loss/train": history["train_loss"][-1],
            "accuracy/train": history["train_acc"][-1],
            "loss/val": history["val_loss"][-1],
            "val/accuracy": history["val_acc"][-1],
        }
        for logger in self._loggers[model.symbol]:
            logger.log_metrics(values, step=len(history["val_loss"]))

    def _judge(self, model: FleetModel) -> PooledResult:
        """Test, judge and export one model in the way of a training of its market alone."""
        if model.error is not None:
            raise model.error
        dataset, symbol, choices = model.dataset, model.symbol, self._run.choices
        settings = market_settings(self._settings, symbol)
        folder, loggers = self._run.folder / MARKETS / symbol, self._loggers[symbol]
        with write_errors(settings, folder):
            exported = self._export(model, settings, folder)
            epochs = (len(model.history["val_loss"]), model.best_epoch)
            summary = summarize(settings, dataset, exported, folder, model.secs, epochs)
            log_hyperparameters(loggers, settings, choices, summary)
            write_result(folder, summary)
        return PooledResult.of(symbol, True, exported)

    def _export(self, model: FleetModel, settings: TrainConfig, folder: Path) -> ExportedModel:
        dataset, plan, loggers = model.dataset, self._plan, self._loggers[model.symbol]
        network = seeded_network(settings)
        network.load_state_dict(model.state_dict)
        module = SignalClassifier(network, plan.optimizer, plan.lr, plan.seed)
        module.history = model.history
        exporter = ModelExporter(
            settings.models_dir,
            replace(judging_rules(settings), n_shown=len(self._settings.symbols)),
            settings.export.onnx,
            plain_settings(settings, self._run.choices),
        )
        export = ExportToRegistry(exporter)
        around = [self._interruption, Pictures(dataset, folder / "figures"), export]
        data = MarketDataModule.of(dataset, plan.batch_size, plan.seed)
        run_test(make_trainer(plan, None, loggers, around), module, data)
        return export.exported

    def _means(self, results: Sequence[PooledResult]) -> PooledMeans:
        settings = self._settings
        horizon = days_of(settings.labels.horizon, settings.tf.timeframe.bars_per_day)
        return PooledMeans.of(results, Bootstrap(horizon, settings.seed))


def _reason(error: MarketError) -> str:
    log.error("%s", error)
    return f"{error.found}; {error.action}"
