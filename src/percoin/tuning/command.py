"""``experiment=tune``: search settings, show the results, train and judge the best ones.

::

    outputs/<SYMBOL>/<tf>/
    |-- tune/
    |   |-- study.db            every study of the market; all its trials count as tried models
    |   |-- study.lock          lock of the process that searches
    |   `-- <study>/            one for each set of own settings that was searched around
    |       |-- study.png       best skill over time, skill against each parameter
    |       |-- study.txt       the printed summary
    |       `-- events...       curves and picture for TensorBoard
    `-- <time>/                 the run that trained the best settings; a normal run
"""

from __future__ import annotations

import logging
import math
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna
from hydra.core.hydra_config import HydraConfig
from torch.utils.tensorboard import SummaryWriter

from percoin.assembly import dataset_spec
from percoin.bars.panel import hash_beside
from percoin.bars.schema import Bars
from percoin.config import EvaluationMode, TrainConfig, TuneConfig
from percoin.config.effects import settings_with
from percoin.config.fields import Effect
from percoin.config.loggers import class_of, loggers_of
from percoin.dataset import MarketDataset
from percoin.errors import ConfigError, InterruptedRunError, ResumeError, StudyError
from percoin.interruption import Interrupted, interruptible
from percoin.plot.picture import write_picture
from percoin.registry.layout import MarketFolder
from percoin.run_folder import claimed_run
from percoin.run_record import can_go_on, facts_hash, is_finished, read_result
from percoin.training.folds import load_bars, load_with_references
from percoin.training.machine import check_machine
from percoin.training.outcome import TrainingOutcome
from percoin.training.own_parts import sources_of
from percoin.training.pipeline import train
from percoin.training.precision import choose_precision, with_precision
from percoin.training.recipes.per_market import PerMarket
from percoin.training.run_files import RunContext
from percoin.tuning.picture import draw_search
from percoin.tuning.rows import SearchRows
from percoin.tuning.screen import PICTURE_FILE, Screen, describe_trial, secs_left
from percoin.tuning.search import Fate, Searcher, Tried, best_of, importances
from percoin.tuning.space import Candidate, SearchSpace, command_for
from percoin.tuning.studies import (
    SETTINGS,
    STUDY_FILE,
    Studies,
    add_winner,
    count_looks,
    facts_of,
    open_studies,
    winners_of,
)
from percoin.tuning.trial import Measured, Report, measure
from percoin.whole_file import write_whole

log = logging.getLogger(__name__)

_FOLDER = "tune"
_SCREEN_FILE = "study.txt"
# Drawing takes one or two seconds; a trial may take less.
_PICTURE_EVERY_SECS = 30.0
_COUNTED = ("trials", "looks")


def tune_from_config(settings: TrainConfig) -> None:
    """Search around the settings, then train, judge and export the best; print both results.

    Raises:
        PercoinError: Any error that a user can fix; the registry is unchanged.
    """
    check_machine(settings)
    overrides = list(HydraConfig.get().overrides.task)
    outcome = tune(settings, RunContext.of_hydra(), overrides)
    if outcome is not None:
        print(outcome.render())


def tune(
    settings: TrainConfig, run: RunContext, overrides: Sequence[str]
) -> TrainingOutcome | None:
    """Search around the settings, print the results, then train and judge the best.

    Args:
        settings: Settings with ``experiment``.
        run: Where the best settings are trained.
        overrides: The ``KEY=VALUE`` words behind the settings, for the printed command that
            trains the best ones again.

    Returns:
        The outcome of the training; None if the same settings were trained and judged before,
        after the same number of trials.

    Raises:
        PercoinError: Any error that a user can fix; the registry is unchanged.
    """
    config = settings.experiment
    if config is None:
        raise ConfigError("a search needs its settings: experiment=tune")
    folder = Path(settings.outputs_dir) / settings.symbol / settings.tf.name / _FOLDER
    with open_studies(folder, _market(settings)) as studies:
        session = _Session.begin(settings, config, studies, folder)
        with session.interruptible():
            tried = session.search()
            return _train_best(session, tried, run, overrides)


def _market(settings: TrainConfig) -> tuple[str, str]:
    return settings.symbol, settings.tf.name


@dataclass(frozen=True)
class _Session:
    """One study with its bars, rows, settings and folder."""

    settings: TrainConfig
    searcher: Searcher
    bars: Bars
    rows: SearchRows
    folder: Path

    @classmethod
    def begin(
        cls, settings: TrainConfig, config: TuneConfig, studies: Studies, folder: Path
    ) -> _Session:
        """Resume the study of these settings, or start a new one."""
        space = SearchSpace(settings, config.space)
        key = study_key(settings, config)
        study = None if config.restart else studies.newest(key)
        bars = _load_bars(space, study)
        rows = SearchRows.of(space.base, bars)
        if study is None:
            facts: dict[str, Any] = {"bars": _describe_bars(bars, space.base)}
            if settings.leaves_precision_open:
                facts["precision"] = choose_precision(settings).precision
            study = studies.begin(key, facts)
            log.info(
                "study %s; trials of this market before: %d", study.study_name, studies.n_trials
            )
        session = cls(
            space.base,
            Searcher(studies, study, space, config),
            bars,
            rows,
            folder / study.study_name,
        )
        if n_over := len(session.searcher.tried()):
            log.info("study %s goes on after %d/%d", study.study_name, n_over, config.trials)
        session.folder.mkdir(exist_ok=True)
        return session

    @property
    def runs(self) -> Path:
        """Folder with the runs of the market."""
        return self.folder.parents[1]

    def search(self) -> list[Tried]:
        """Run the remaining trials; returns all trials of the study."""
        config = self.searcher.config

        precision = facts_of(self.searcher.study).get("precision")

        def measured(settings: TrainConfig, report: Report) -> Measured:
            if precision is not None:
                settings = with_precision(settings, precision)
            # The user chose the command's own labels, so these may have classes of any rarity.
            is_own = settings.labels == self.settings.labels
            return measure(settings, self.rows, 0.0 if is_own else config.min_class_share, report)

        if len(tried := self.searcher.tried()) >= config.trials:
            return tried
        with closing(_Display(self)) as display:
            tried = self.searcher.run(measured, display.show)
            display.draw(tried)
        return tried

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """After Ctrl-C or SIGTERM, report how many trials are done.

        While a network trains, the training code handles both signals itself.
        """
        try:
            with interruptible():
                yield
        except InterruptedRunError as error:
            raise self._interrupted(error.exit_code - 128) from None
        except Interrupted as error:
            raise self._interrupted(error.number) from None

    def _interrupted(self, signal_number: int) -> InterruptedRunError:
        name, n_over = signal.Signals(signal_number).name, len(self.searcher.tried())
        return InterruptedRunError(
            *_market(self.settings),
            f"interrupted by {name} after {n_over} of {self.searcher.config.trials} trials",
            "the same command goes on from there",
            signal_number=signal_number,
        )


def study_key(settings: TrainConfig, config: TuneConfig) -> str:
    """Hash of the settings that affect a trial's skill; equal hashes share a study."""
    facts = settings_with(settings, {Effect.MODEL, Effect.BARS})
    if settings.evaluation != EvaluationMode.WALK_FORWARD:
        del facts["folds"]
    search = settings_with(config, {Effect.MODEL})
    code = [(group, source.sha256) for group, source in sources_of(settings).items()]
    own = [entry for entry in (code, dataset_spec(settings).code) if entry]
    return facts_hash([facts, settings.source.option, search, *own], n_digits=10)


def _load_bars(space: SearchSpace, study: optuna.Study | None) -> Bars:
    """The newest bars, or the bars that the study started with."""
    settings = replace(space.base, lookback=space.largest_lookback)
    if study is None:
        return load_with_references(settings, load_bars)
    # As in a resumed run, no newer bars are downloaded.
    bars = load_with_references(replace(settings, resume=True), load_bars)
    known = facts_of(study)["bars"]
    first = int(bars.open_time.searchsorted(known.get("first", 0)))
    behind = int(bars.open_time.searchsorted(known.get("last", 0), side="right"))
    bars = bars.slice(first, behind)
    found = _describe_bars(bars, settings)
    # Studies of older versions do not know the markets that theirs was compared with.
    if {name: value for name, value in found.items() if name in {*known, "sha256"}} != known:
        raise StudyError(
            *_market(settings),
            "the bars have changed since the study of these settings began",
            "experiment.restart=true begins a new one",
        )
    return bars


def _describe_bars(bars: Bars, settings: TrainConfig) -> dict[str, Any]:
    if len(bars) == 0:
        return {}
    first, last = (int(bars.open_time[end]) for end in (0, -1))
    beside = hash_beside(bars, settings.features.feature_set.references)
    described = {"first": first, "last": last, "sha256": bars.sha256()}
    return {**described, **({"references": beside} if beside else {})}


class _Display:
    """Shows each trial when it ends: a log line, the picture, TensorBoard curves."""

    def __init__(self, session: _Session) -> None:
        self._session = session
        self._n_trials = session.searcher.config.trials
        loggers = loggers_of(session.settings.logger).values()
        wanted = any("TensorBoard" in class_of(arguments) for arguments in loggers)
        self._curves = SummaryWriter(str(session.folder)) if wanted else None
        self._drawn_at = -math.inf

    def show(self, tried: list[Tried]) -> None:
        """Show the trial that just ended."""
        left = secs_left(tried, self._n_trials)
        log.info("%s", describe_trial(tried, self._n_trials, left))
        newest, best = tried[-1], best_of(tried)
        if time.monotonic() - self._drawn_at > _PICTURE_EVERY_SECS:
            self._write_picture(tried)
            self._drawn_at = time.monotonic()
        if self._curves is None:
            return
        if newest.skill is not None:
            self._curves.add_scalar("tune/skill", newest.skill, newest.number)
        if best is not None and best.skill is not None:
            self._curves.add_scalar("tune/best_skill", best.skill, newest.number)
        self._curves.flush()

    def draw(self, tried: list[Tried]) -> None:
        """Draw the picture of the whole search."""
        figure = self._write_picture(tried)
        if self._curves is not None:
            self._curves.add_figure("study", figure, len(tried))

    def close(self) -> None:
        """Close the files."""
        if self._curves is not None:
            self._curves.close()

    def _write_picture(self, tried: list[Tried]) -> Any:
        title = f"{' '.join(_market(self._session.settings))}, {len(tried)} trials"
        figure = draw_search(tried, title)
        write_picture(figure, self._session.folder / PICTURE_FILE)
        return figure


def _train_best(
    session: _Session, tried: list[Tried], run: RunContext, overrides: Sequence[str]
) -> TrainingOutcome | None:
    best = best_of(tried)
    if best is None or best.candidate is None:
        raise _nothing_found(session, tried)
    studies, study = session.searcher.studies, session.searcher.study
    chosen, folds = _chosen(session, best.candidate)
    winner = _describe_winner(session, best, chosen, folds, run)
    options = {**run.choices, "labels": chosen.labels.option}
    looks = session.settings.looks - 1 + count_looks(studies.winners(), winner)
    chosen = replace(chosen, looks=looks)
    screen = Screen(
        title=f"{' '.join(_market(session.settings))}: search {study.study_name}",
        tried=tried,
        best=best,
        importances=importances(study, tried),
        n_counted=chosen.trials,
        n_looks=looks,
        command=command_for(overrides, session.settings, chosen, options),
        folder=session.folder,
        study_file=session.folder.parent / STUDY_FILE,
    ).render()
    write_whole(session.folder / _SCREEN_FILE, screen)
    print(screen, flush=True)
    return _train_winner(session, chosen, folds, winner, run)


def _nothing_found(session: _Session, tried: list[Tried]) -> StudyError:
    failed = [each for each in tried if each.fate is Fate.FAILED]
    if failed and len(failed) == len(tried):
        found = f"all {len(tried)} trials failed, the last one because {failed[-1].reason}"
    else:
        found = f"none of {len(tried)} trials ran to its end"
    action = "change the command's own settings or experiment.space, or raise experiment.trials"
    return StudyError(*_market(session.settings), found, action)


def _chosen(session: _Session, best: Candidate) -> tuple[TrainConfig, list[MarketDataset]]:
    """The best settings with the number of all trials, and the datasets to train them on."""
    space, studies = session.searcher.space, session.searcher.studies
    n_trials = session.settings.trials - 1 + studies.n_trials
    chosen = replace(space.settings(best), trials=n_trials)
    return session.rows.fresh(chosen, session.bars)


def _describe_winner(
    session: _Session,
    best: Tried,
    chosen: TrainConfig,
    folds: Sequence[MarketDataset],
    run: RunContext,
) -> dict[str, Any]:
    """The note on a chosen model, written before its test rows are used."""
    spans = [fold.bars.open_time[fold.rows("test")] for fold in folds]
    return {
        "study": session.searcher.study.study_name,
        "trial": best.trial,
        "trials": chosen.trials,
        "test": [int(spans[0][0]), int(spans[-1][-1])],
        SETTINGS: _further_settings(chosen),
        "run": _run_name(run.folder, session),
    }


def _further_settings(chosen: TrainConfig) -> str:
    """Hash of the settings that no trial depends on, and the model trained with its settings does.

    How many trials and looks there were is left out: it grows by itself.
    """
    facts = settings_with(chosen, {Effect.LENGTH, Effect.JUDGEMENT})
    return facts_hash({k: v for k, v in facts.items() if k not in _COUNTED}, n_digits=16)


def _run_name(folder: Path, session: _Session) -> str:
    """The run's name in the note, without its path if possible, so outputs can be moved."""
    beside = session.runs / folder.name
    return folder.name if beside.exists() and beside.samefile(folder) else str(folder)


def _run_of(winner: dict[str, Any], session: _Session) -> Path:
    """The folder of the run in a note; older notes hold the full path."""
    named = Path(winner["run"])
    beside = session.runs / named.name
    return beside if beside.is_dir() else session.runs / named


def _train_winner(
    session: _Session,
    chosen: TrainConfig,
    folds: Sequence[MarketDataset],
    winner: dict[str, Any],
    run: RunContext,
) -> TrainingOutcome | None:
    """Train the chosen settings unless this was done before; resume an interrupted training."""
    study = session.searcher.study
    before = winners_of(study)[-1:]
    # Older notes do not have the last of these.
    names = ("trial", "trials", SETTINGS)
    same = before and all(before[0].get(name, winner[name]) == winner[name] for name in names)
    choices = {**run.choices, "labels": chosen.labels.option}
    folder = _run_of(before[0], session) if same else run.folder
    if same and is_finished(folder) and _is_in_registry(folder, chosen):
        log.info("these settings were trained and judged before, in %s", folder)
        log.info("experiment.trials=N searches on, experiment.restart=true begins again")
        return None
    if same and can_go_on(folder):
        try:
            with claimed_run(folder):
                resumed = RunContext(folder, choices)
                return train(replace(chosen, resume=True), PerMarket(folds=folds), resumed)
        except ResumeError as error:
            log.warning("%s: training the best settings afresh", error.found)
    add_winner(study, winner)
    return train(chosen, PerMarket(folds=folds), RunContext(run.folder, choices))


def _is_in_registry(run: Path, chosen: TrainConfig) -> bool:
    """Whether the registry in use has the model that a finished run made."""
    market = MarketFolder(Path(chosen.models_dir), chosen.symbol, chosen.tf.timeframe)
    try:
        return market.version(read_result(run)["version"]).is_dir()
    except (OSError, ValueError, LookupError, TypeError, ConfigError):
        return False
