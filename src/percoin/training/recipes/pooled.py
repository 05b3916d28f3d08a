"""From settings to one network for many markets, and a judged model of it for each."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.loggers import Logger

from percoin import json_codec
from percoin.assembly import dataset_spec
from percoin.bars.schema import Bars
from percoin.commands import command
from percoin.config import Recipe, TrainConfig
from percoin.dataset import MarketDataset
from percoin.errors import DataError, PoolError
from percoin.evaluation.baselines import Baseline
from percoin.evaluation.joint import days_of
from percoin.evaluation.judgement import fit_pooled_baselines
from percoin.evaluation.table import format_evaluation
from percoin.evaluation.uncertainty import Bootstrap
from percoin.registry.layout import MarketFolder
from percoin.registry.manifest import StoredVerdict, open_time_text
from percoin.registry.pool_record import PooledMarket, PoolRecord
from percoin.run_folder import FINISHED_MARK
from percoin.training.callbacks import ExportToRegistry, Pictures
from percoin.training.export import ModelExporter
from percoin.training.false_discoveries import withdraw_false_discoveries
from percoin.training.manifest_draft import ExportedModel
from percoin.training.pooled_run import PooledPlan, TrainedPool, train_pool
from percoin.training.recipes.per_market import (
    check_machine,
    check_resumable,
    clear_run_folder,
    divergence_marked,
    make_loggers,
    plan_of,
    seeded_network,
)
from percoin.training.recipes.pool import Pool, build_pool
from percoin.training.results import PooledMeans, PooledResult, format_pool
from percoin.training.run_files import (
    EVALUATION_FILE,
    SUMMARY_FILE,
    RunContext,
    judging_rules,
    load_bars,
    plain_settings,
    write_errors,
)
from percoin.whole_file import write_whole

log = logging.getLogger(__name__)

# Below the run's folder: what came of each market.
MARKETS = "markets"


@dataclass(frozen=True)
class PooledSummary:
    """The end of a pooled training.

    Attributes:
        pool: What was trained on.
        results: Of each market, those seen first.
        means: Over them.
        trained: The network, how long it took, which seed and which epoch were kept.
        withdrawn: Models that lost their acceptance because so many were tried.
        run_folder: Where logs, tables and pictures lie.
    """

    pool: Pool
    results: tuple[PooledResult, ...]
    means: PooledMeans
    trained: TrainedPool
    withdrawn: tuple[str, ...]
    run_folder: Path

    def render(self) -> str:
        """The screen as plain text."""
        cuts = self.pool.cuts
        moments = (cuts.first_time, cuts.validation_time, cuts.test_time)
        first, validation, test = (open_time_text(moment)[:16] for moment in moments)
        minutes, secs = divmod(round(self.trained.model.secs), 60)
        accepted = [
            entry.symbol for entry in self.results if entry.verdict == StoredVerdict.ACCEPTED
        ]
        return "\n".join(
            [
                "",
                format_pool(self.results, self.means, self.pool.refused),
                *self.withdrawn,
                f"cuts of all markets (UTC): train from {first}, validation from {validation}, "
                f"test from {test}",
                f"accepted: {', '.join(accepted) or 'none'}",
                f"trained and judged in {minutes} min {secs} s: {self._kept()}",
                f"tables and pictures: {self.run_folder / MARKETS}",
                "logs: " + command("tensorboard --logdir", str(self.run_folder.parents[1])),
            ]
        )

    def _kept(self) -> str:
        trained, model = self.trained, self.trained.model
        if len(trained.losses) == 1:
            return f"{model.n_epochs} epochs, epoch {model.best_epoch} kept"
        losses = ", ".join(f"{loss:.5f} of {seed}" for seed, loss in trained.losses.items())
        return (
            f"{len(trained.losses)} seeds, kept seed {trained.seed} at epoch {model.best_epoch} "
            f"of {model.n_epochs} (validation log-loss {losses})"
        )

    def to_json(self) -> dict[str, Any]:
        """The same for programs, without the losses by day, which each market's file has."""
        markets = {}
        for entry in self.results:
            values = asdict(entry)
            del values["symbol"], values["beside_logistic"]
            markets[entry.symbol] = values
        return {
            "markets": markets,
            "means": asdict(self.means),
            "refused": dict(self.pool.refused),
            "cuts": asdict(self.pool.cuts),
            "epochs": self.trained.model.n_epochs,
            "best_epoch": self.trained.model.best_epoch,
            "secs": self.trained.model.secs,
            "seed": self.trained.seed,
            "validation_losses": {str(seed): loss for seed, loss in self.trained.losses.items()},
        }


def train_pool_from_config(settings: TrainConfig) -> None:
    """Train one network on all markets, judge and export it for each; print the table.

    Raises:
        PoolError: Markets have no bars, or too few can be trained on; names all of them.
        PercoinError: Anything else that a user can mend.
    """
    check_pool_machine(settings)
    pool = make_pool(settings, load_pool_bars(settings))
    print(train_pooled(settings, pool, RunContext.of_hydra()).render())


def check_pool_machine(settings: TrainConfig) -> None:
    """As ``check_machine``, for every market that takes part."""
    for symbol in settings.pooled_symbols:
        check_machine(market_settings(settings, symbol))


def market_settings(settings: TrainConfig, symbol: str) -> TrainConfig:
    """The settings of many markets as if they were of one of them."""
    return replace(settings, symbol=symbol, recipe=Recipe.PER_MARKET.value)


def load_pool_bars(
    settings: TrainConfig, load: Callable[[TrainConfig], Bars] = load_bars
) -> list[Bars]:
    """The bars of every market that takes part.

    Args:
        settings: Of the pool.
        load: Brings those of one market, by the settings of that market.

    Raises:
        PoolError: Some have none that can be used; names all of them.
    """
    found, missing = [], []
    for symbol in settings.pooled_symbols:
        try:
            found.append(load(market_settings(settings, symbol)))
        except DataError as error:
            missing.append(f"{symbol} ({error.found}; {error.action})")
    if missing:
        raise PoolError(
            f"{len(missing)} of {len(settings.pooled_symbols)} markets have no bars to train on: "
            f"{', '.join(missing)}; nothing was trained, leave them out or bring their bars"
        )
    return found


def make_pool(settings: TrainConfig, markets: Sequence[Bars]) -> Pool:
    """The markets made ready to train on."""
    return build_pool(markets, settings.pooled.leave_out, dataset_spec(settings))


def clear_pool_folder(folder: Path) -> None:
    """Take away what an earlier run has left, for a run that begins afresh in its folder."""
    clear_run_folder(folder)
    shutil.rmtree(folder / MARKETS, ignore_errors=True)


def train_pooled(
    settings: TrainConfig,
    pool: Pool,
    run: RunContext,
    only: Sequence[str] | None = None,
    callbacks: Sequence[pl.Callback] = (),
) -> PooledSummary:
    """Train on a ready pool, judge every market and export it.

    Args:
        settings: What the pool was made by.
        pool: The markets.
        run: Where the run leaves what it writes.
        only: Markets to judge; None is all of them.
        callbacks: Further ones of Lightning, for the training of the network.

    Raises:
        PercoinError: Anything that a user can mend; markets judged by then are exported.
    """
    with divergence_marked(run.folder), write_errors(settings, run.folder):
        return _PooledTraining(settings, pool, run).go(only, callbacks)


def record_pool(pool: Pool) -> PoolRecord:
    """What manifests say of the pool."""
    cuts, seen = pool.cuts, {dataset.bars.symbol for dataset in pool.seen}
    return PoolRecord(
        first_time=open_time_text(cuts.first_time),
        validation_time=open_time_text(cuts.validation_time),
        test_time=open_time_text(cuts.test_time),
        markets={
            dataset.bars.symbol: PooledMarket(
                sha256=dataset.bars.sha256(),
                first_open_time=open_time_text(int(dataset.bars.open_time[0])),
                last_open_time=open_time_text(int(dataset.bars.open_time[-1])),
                is_seen=dataset.bars.symbol in seen,
            )
            for dataset in pool.markets
        },
    )


class _PooledTraining:
    """One run of a pool: its settings, its markets, and what has come of them so far."""

    def __init__(self, settings: TrainConfig, pool: Pool, run: RunContext) -> None:
        self._settings = settings
        self._pool = pool
        self._run = run
        self._config = plain_settings(settings, run.choices)
        self._record = record_pool(pool)
        self._results: dict[str, PooledResult] = {}
        self._baselines: tuple[Baseline, ...] = ()

    def go(self, only: Sequence[str] | None, callbacks: Sequence[pl.Callback]) -> PooledSummary:
        settings, pool, folder = self._settings, self._pool, self._run.folder
        bars = {name: market.sha256 for name, market in self._record.markets.items()}
        check_resumable(settings, folder, {"config": self._config, "bars": bars})
        n_rows = sum(len(dataset.rows("train")) for dataset in pool.seen)
        log.info(
            "training one network on %d train rows of %d markets in %s",
            n_rows,
            len(pool.seen),
            folder,
        )
        markets = [d for d in pool.markets if only is None or d.bars.symbol in only]
        chosen = settings.pooled
        plan = PooledPlan(
            plan_of(settings),
            chosen.windows_per_epoch,
            chosen.validation_windows,
            chosen.warmup_epochs,
            chosen.seeds,
        )
        loggers = {}

        def loggers_of(place: Path) -> list[Logger]:
            loggers[place] = make_loggers(settings, place)
            return loggers[place]

        trained = train_pool(
            pool,
            lambda seed: seeded_network(replace(settings, seed=seed)),
            plan,
            folder,
            lambda seed: self._tests(markets, seed),
            loggers_of,
            callbacks,
            settings.resume,
        )
        self._results, withdrawn = withdraw_false_discoveries(
            self._results, Path(settings.models_dir), settings.tf.timeframe
        )
        results = tuple(self._results[dataset.bars.symbol] for dataset in markets)
        summary = PooledSummary(pool, results, self._means(results), trained, withdrawn, folder)
        _log_hyperparameters(loggers[trained.folder], settings, summary)
        write_whole(folder / SUMMARY_FILE, summary.render() + "\n")
        write_whole(folder / FINISHED_MARK, json_codec.dumps(summary.to_json(), nan_as_null=True))
        return summary

    def _tests(
        self, markets: Sequence[MarketDataset], seed: int
    ) -> Iterator[tuple[MarketDataset, Sequence[pl.Callback]]]:
        """Each market that has no result yet; notes it once it has been tested."""
        for number, dataset in enumerate(markets, start=1):
            symbol = dataset.bars.symbol
            folder = self._run.folder / MARKETS / symbol
            before = self._result_before(folder, symbol)
            if before is not None:
                log.info("%s was judged before the interruption", symbol)
                self._results[symbol] = before
                continue
            log.info("%s, market %d of %d", symbol, number, len(markets))
            if not self._baselines:
                log.info("fitting the baselines that learn from all markets")
                self._baselines = tuple(fit_pooled_baselines(self._pool.seen, seed))
            export = ExportToRegistry(self._exporter(dataset.bars.symbol))
            yield dataset, [Pictures(dataset, folder / "figures"), export]
            self._results[symbol] = self._note(folder, dataset, export.exported)

    def _exporter(self, symbol: str) -> ModelExporter:
        looks = self._settings.looks_of(symbol)
        settings = replace(self._settings, looks=looks)
        return ModelExporter(
            settings.models_dir,
            replace(judging_rules(settings), n_shown=len(self._pool.markets)),
            settings.export.onnx,
            self._config | {"looks": looks},
            pool=self._record,
            pooled_baselines=self._baselines,
        )

    def _note(self, folder: Path, dataset: MarketDataset, exported: ExportedModel) -> PooledResult:
        symbol = dataset.bars.symbol
        result = PooledResult.of(symbol, self._record.markets[symbol].is_seen, exported)
        tables = format_evaluation(exported.judgement.evaluation)
        write_whole(folder / EVALUATION_FILE, tables + "\n")
        write_whole(folder / FINISHED_MARK, json_codec.dumps(result, nan_as_null=True))
        return result

    def _result_before(self, folder: Path, symbol: str) -> PooledResult | None:
        """What an interrupted run noted of a market, if the registry still has its model."""
        if not self._settings.resume:
            return None
        try:
            text = (folder / FINISHED_MARK).read_text(encoding="utf-8")
            result = json_codec.decode(PooledResult, json_codec.loads(text))
        except (OSError, ValueError):
            return None
        is_there = self._market(symbol).version(result.version).is_dir()
        return result if is_there and result.symbol == symbol else None

    def _market(self, symbol: str) -> MarketFolder:
        settings = self._settings
        return MarketFolder(Path(settings.models_dir), symbol, settings.tf.timeframe)

    def _means(self, results: Sequence[PooledResult]) -> PooledMeans:
        settings = self._settings
        horizon = days_of(settings.labels.horizon, settings.tf.timeframe.bars_per_day)
        return PooledMeans.of(results, Bootstrap(horizon, settings.seed))


def _log_hyperparameters(
    loggers: Sequence[Logger], settings: TrainConfig, summary: PooledSummary
) -> None:
    parameters = {
        "markets": len(summary.pool.seen),
        "tf": settings.tf.name,
        "windows_per_epoch": settings.pooled.windows_per_epoch,
        **{name: getattr(settings, name) for name in ("epochs", "batch_size", "lr")},
        "seed": summary.trained.seed,
    }
    means = summary.means
    results = {
        "result/mean_skill": means.seen.value,
        "result/mean_lead_over_logistic": means.lead_seen.value,
    }
    for logger in loggers:
        if isinstance(logger, pl.loggers.TensorBoardLogger):
            logger.log_hyperparams(parameters, results)
        else:
            logger.log_hyperparams(parameters)
        logger.finalize("success")
