"""The markets of one run after fitting: judge, publish and control false discoveries."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from percoin import json_codec
from percoin.assembly import trading_costs
from percoin.config import TrainConfig
from percoin.errors import InterruptedRunError, MarketError, RegistryError
from percoin.evaluation.backtest import Exit
from percoin.evaluation.blend import BLEND
from percoin.evaluation.fold_forecasts import JudgingRules
from percoin.evaluation.gate import Outcome
from percoin.evaluation.joint import days_of
from percoin.evaluation.uncertainty import Bootstrap
from percoin.registry.catalogue import read_versions
from percoin.registry.layout import MarketFolder
from percoin.run_record import MARKETS_FOLDER, read_result, write_result
from percoin.training.false_discoveries import withdraw_false_discoveries
from percoin.training.fitted import Fitted
from percoin.training.memory import memory_errors
from percoin.training.outcome import TrainingOutcome
from percoin.training.publishing import judge, publish
from percoin.training.recipes.recipe import Recipe, Trained, failure
from percoin.training.results import MarketMeans, MarketResult
from percoin.training.run_files import (
    SUMMARY_FILE,
    RunContext,
    plain_settings,
    write_errors,
    write_market_result,
)
from percoin.training.summary import TrainingSummary
from percoin.whole_file import write_whole

log = logging.getLogger(__name__)


@dataclass
class TrainedMarkets:
    """The state of one run's markets.

    Attributes:
        settings: Settings of the run.
        recipe: The prepared markets.
        run: The run's folder and options.
        trained: Result of the training.
        failed: Markets that could not be judged or saved: symbol to reason.
        results: Result of each market with a new model.
        withdrawn: New results of the markets that lost their acceptance.
        alone: Summary of a single market; None for several markets.
    """

    settings: TrainConfig
    recipe: Recipe
    run: RunContext
    trained: Trained
    failed: dict[str, str] = field(default_factory=dict)
    results: dict[str, MarketResult] = field(default_factory=dict)
    withdrawn: dict[str, MarketResult] = field(default_factory=dict)
    alone: TrainingSummary | None = None

    def judge_and_publish(self, fitted: Fitted) -> None:
        """Judge a market and write it to the registry.

        If one of several markets fails, the others continue.

        Raises:
            InterruptedRunError: Ctrl-C or SIGTERM.
            MarketError: A single market cannot be judged or saved. Or: one of several markets
                is already in the registry, but the run's folder cannot be written.
        """
        if not self.recipe.is_set:
            self._judge_and_publish(fitted)
            return
        if self._was_judged(fitted.symbol):
            return
        number = len(self.results) + len(self.failed) + 1
        log.info("%s, market %d of %d", fitted.symbol, number, len(self.recipe.markets))
        try:
            folder = self._folder_of(fitted.symbol)
            with (
                memory_errors(fitted.symbol, self.settings.tf.name),
                write_errors(self.settings, folder),
            ):
                self._judge_and_publish(fitted)
        except InterruptedRunError:
            raise
        except MarketError as error:
            if fitted.symbol in self.results:
                raise
            self.failed[fitted.symbol] = failure(error)

    @contextmanager
    def unheard_taken_back(self, markets: Sequence[Fitted]) -> Iterator[None]:
        """On an error, withdraw acceptances that the markets not yet judged could overturn.

        The control of false discoveries needs the results of all markets. A resumed run judges
        the withdrawn markets again.

        Args:
            markets: All markets to judge.
        """
        try:
            yield
        except BaseException:
            unknown = {fitted.symbol for fitted in markets} - self.results.keys()
            for symbol, result in self._control(unknown).items():
                log.warning("acceptance withdrawn from %s: %s", symbol, result.reason)
            raise

    def control_false_discoveries(self) -> None:
        """Withdraw acceptances that do not hold, given the number of markets judged."""
        self.withdrawn = self._control()
        self.results |= self.withdrawn

    def outcome(self) -> TrainingOutcome:
        """Return the outcome of the run; for several markets, also write it to the folder."""
        order = [dataset.bars.symbol for dataset in self.recipe.markets]
        results = tuple(self.results[symbol] for symbol in order if symbol in self.results)
        failed = {**self.recipe.failed, **self.failed}
        outcome = TrainingOutcome(
            results,
            {name: failed[name] for name in self.settings.symbols if name in failed},
            tuple(self.withdrawn),
            self.trained,
            self._means(results),
            self.recipe.is_pool,
            self.run.folder,
            self.alone,
        )
        if self.recipe.is_set:
            self._log_means(outcome)
            write_whole(self.run.folder / SUMMARY_FILE, outcome.render() + "\n")
            write_result(self.run.folder, outcome.to_json())
        return outcome

    def _judge_and_publish(self, fitted: Fitted) -> None:
        symbol, run, folder = fitted.symbol, self.run, self._folder_of(fitted.symbol)
        settings = self.recipe.settings_of(self.settings, symbol)
        n_shown = len(self.recipe.markets) + len(self.recipe.failed)
        rules = judging_rules(settings)
        judged = judge(fitted, replace(rules, n_shown=n_shown))
        self._draw(fitted, folder)
        again = fitted.refit(judged.judgement.fitted, rules.seed) if settings.refit else None
        config, models_dir = plain_settings(settings, run.choices), Path(settings.models_dir)
        exported = publish(
            fitted, judged, config, models_dir, settings.export.onnx, self.trained.sections, again
        )
        summary = TrainingSummary.of(settings, fitted, exported, folder)
        pool = fitted.pool
        is_seen = pool is None or pool.started_from is not None or symbol in pool.seen
        result = MarketResult.of(symbol, is_seen, exported)
        # The model is in the registry now, so it counts as a result even if a later step fails.
        self.results[symbol] = result
        if fitted.loggers:
            from percoin.training.loggers import compared_settings, log_run

            parameters = {
                "symbol": symbol,
                "tf": settings.tf.name,
                "features": str(settings.features.feature_set),
                "labels": run.choices["labels"],
                "model": run.choices["model"],
                **({"tags": ", ".join(settings.tags)} if settings.tags else {}),
                **compared_settings(settings),
                "verdict": result.verdict,
            }
            log_run(fitted.loggers, parameters, summary.key_results(), _epochs_of(fitted))
        further: dict[str, object] = {"validation_skill": judged.validation_skill()}
        if self.recipe.is_set:
            further["market"] = asdict(result)
        write_market_result(folder, summary, further)
        self.alone = None if self.recipe.is_set else summary

    def _draw(self, fitted: Fitted, folder: Path) -> None:
        from percoin.plot.picture import write_picture

        place, pictures = folder / "figures", fitted.pictures()
        place.mkdir(parents=True, exist_ok=True)
        for name, figure in pictures.items():
            write_picture(figure, place / f"{name}.png")
        if fitted.loggers:
            from percoin.training.loggers import log_pictures

            log_pictures(fitted.loggers, pictures, _epochs_of(fitted))

    def _was_judged(self, symbol: str) -> bool:
        """Whether an interrupted run judged this market and its version is not withdrawn."""
        if not self.settings.resume:
            return False
        market = MarketFolder(Path(self.settings.models_dir), symbol, self.settings.tf.timeframe)
        try:
            kept = read_result(self._folder_of(symbol)).get("market")
            result = json_codec.decode(MarketResult, kept)
            versions = {version.version_id: version for version in read_versions(market)}
        except (OSError, ValueError, RegistryError):
            return False
        version = versions.get(result.version)
        # An interruption withdraws acceptances that other markets could overturn: judge again.
        if result.symbol != symbol or version is None or version.withdrawn_by:
            return False
        log.info("%s was judged before the interruption", symbol)
        self.results[symbol] = result
        return True

    def _control(self, unknown: Collection[str] = ()) -> dict[str, MarketResult]:
        settings = self.settings
        return withdraw_false_discoveries(
            self.results, Path(settings.models_dir), settings.tf.timeframe, unknown
        )

    def _folder_of(self, symbol: str) -> Path:
        return self.run.folder / MARKETS_FOLDER / symbol if self.recipe.is_set else self.run.folder

    def _means(self, results: Sequence[MarketResult]) -> MarketMeans | None:
        if not self.recipe.is_set or not any(entry.is_seen for entry in results):
            return None
        settings = self.settings
        horizon = days_of(settings.labels.horizon, settings.tf.timeframe.bars_per_day)
        return MarketMeans.of(results, Bootstrap(horizon, settings.seed))

    def _log_means(self, outcome: TrainingOutcome) -> None:
        if not self.trained.loggers or outcome.means is None:
            return
        from percoin.training.loggers import compared_settings, log_run

        parameters = {
            "markets": len(outcome.results),
            "tf": self.settings.tf.name,
            "windows_per_epoch": self.settings.pooled.windows_per_epoch,
            **compared_settings(self.settings),
        }
        means = {
            "mean_skill": outcome.means.seen.value,
            "mean_lead_over_rival": outcome.means.rival_lead_seen.value,
            "accepted": sum(entry.verdict == Outcome.ACCEPTED for entry in outcome.results),
        }
        log_run(self.trained.loggers, parameters, means, self.settings.epochs)


def _epochs_of(fitted: Fitted) -> int:
    return 0 if fitted.epochs is None else fitted.epochs[0]


def judging_rules(settings: TrainConfig) -> JudgingRules:
    """The rules of judgement from the settings: costs, numbers of trials and looks, seed, blend."""
    is_blend = settings.model.has_network and bool(settings.blended)
    return JudgingRules(
        costs=trading_costs(settings.costs),
        exit=Exit(settings.backtest.exit),
        n_trials=settings.trials,
        n_looks=settings.looks,
        seed=settings.seed,
        model_name=BLEND if is_blend else settings.model.option,
        blend=settings.blended,
    )
