"""The trainings of a round, as jobs of a sweep in folders that stay the same.

::

    outputs/retrain/
    |-- <SYMBOL>/<tf>/   job.json, train.log, checkpoints: one that was killed goes on here
    |-- summary.json     what the last round trained
    `-- report/          the same for people
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from percoin.bars.sources.binance.source import ExchangeSource
from percoin.bars.store import BarStore
from percoin.cli import compose_config
from percoin.config import ProcessesConfig, RetrainConfig, TrainConfig, typed
from percoin.registry.catalogue import served_version
from percoin.registry.layout import MarketFolder
from percoin.report.board import Status
from percoin.report.files import PAGE
from percoin.retrain.states import RUNS_FOLDER, Subject, count_after, job_folder
from percoin.sweep.claims import claimed
from percoin.sweep.engines.processes import build_engine
from percoin.sweep.jobs import Job, JobState, read_record
from percoin.sweep.results import JobResult, version_of
from percoin.sweep.run import run_sweep
from percoin.sweep.summary import summarize
from percoin.training.groundwork import n_bars_to_load
from percoin.types import Timeframe
from percoin.versions.recipe import literal, overrides_of

_FOLDERS = ("data_dir", "models_dir", "outputs_dir")
# What was interrupted goes on with the bars that it began with, unless they are older.
_REUSE_SECS = 86_400.0
_UNFINISHED = {JobState.RUNNING, JobState.INTERRUPTED}


@dataclass(frozen=True)
class Training:
    """How one training ended.

    Attributes:
        name: Market and bar length.
        result: What the gate said and what is served; empty if it failed.
        version: What it exported.
        error: Why it left nothing; empty if it did.
    """

    name: str
    result: str = ""
    version: str | None = None
    error: str = ""


@dataclass(frozen=True)
class Trainings:
    """How all of them ended.

    Attributes:
        ended: Each of them.
        notes: What concerns all together, one line each.
        stopped_by: Number of the signal that ended them early, if one did.
    """

    ended: tuple[Training, ...]
    notes: tuple[str, ...]
    stopped_by: int | None


def job_of(subject: Subject, settings: RetrainConfig) -> Job:
    """The training of a market as its manifest says, or by the defaults if it never had a model.

    Raises:
        ConfigError: The settings of the manifest are not those of this percoin.
    """
    market = subject.market
    # Absolute, as the folder of the job is.
    folders = {name: str(Path(getattr(settings, name)).absolute()) for name in _FOLDERS}
    others = [
        *subject.source,
        f"looks={subject.n_looks}",
        "logger=csv",
        *(f"{name}={literal(path)}" for name, path in folders.items()),
    ]
    overrides = (f"symbol={market.symbol}", f"tf={market.timeframe.value}", *others)
    if subject.manifest is not None:
        overrides = overrides_of(subject.manifest, *others)
    folder = job_folder(market, settings)
    return Job(market.symbol, market.timeframe.value, folder, overrides)


def fetch(job: Job, data_end: datetime | None) -> int | None:
    """Bring an exchange's newest bars into the store.

    Returns:
        How many bars begin at ``data_end`` or later; None where nothing is fetched, or
        there is nothing to count from.

    Raises:
        DataError: They cannot be had.
    """
    settings = _settings(job)
    store = BarStore(Path(settings.data_dir) / "bars")
    source = settings.source.build(store, n_bars_to_load(settings), replace=True)
    if not isinstance(source, ExchangeSource):
        return None
    update = source.update(settings.symbol, settings.tf.timeframe)
    if update.failure is not None:
        raise update.failure
    return None if data_end is None else count_after(update.bars, data_end)


def train_jobs(jobs: Sequence[Job], settings: RetrainConfig) -> Trainings:
    """Train all as one sweep: nothing stops the rest, and the gate holds all against each other.

    What is told meanwhile goes to stderr.

    Raises:
        SweepError: Another process is at it.
    """
    folder = Path(settings.outputs_dir).absolute() / RUNS_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    first = replace(_settings(jobs[0]), workers=settings.workers)
    began = time.monotonic()
    with claimed(folder, advice="wait until it has ended"), redirect_stdout(sys.stderr):
        engine = build_engine(ProcessesConfig(), first, len(jobs))
        try:
            end = run_sweep(jobs, engine, reuse_bars_secs=_reuse_secs(jobs))
        finally:
            engine.close()
        models_dir = Path(settings.models_dir)
        summary = summarize(folder, end.jobs, models_dir, time.monotonic() - began)
    ended = tuple(_ended(result, models_dir) for result in summary.results.jobs)
    notes = (*summary.withdrawn, *summary.problems, f"report: {folder / 'report' / PAGE}")
    return Trainings(ended, notes, None if end.stopped_by is None else int(end.stopped_by))


def _settings(job: Job) -> TrainConfig:
    return typed(compose_config("train", job.overrides), TrainConfig)


def _reuse_secs(jobs: Sequence[Job]) -> float:
    """Bars that an unfinished training has asked for already are taken once more."""
    records = [read_record(job.folder) for job in jobs]
    is_unfinished = any(record and record.state in _UNFINISHED for record in records)
    return _REUSE_SECS if is_unfinished else 0.0


def _ended(result: JobResult, models_dir: Path) -> Training:
    job, state = result.job, result.record.state
    if not result.is_done:
        return Training(job.name, error=f"training {state.value}: {result.error}".rstrip(": "))
    version = version_of(result.record)
    if result.verdict == Status.ACCEPTED:
        return Training(job.name, f"trained and promoted: {version} is accepted", version)
    why = f"trained, {result.verdict}: {result.entry.reasons[0]}"
    served = served_version(MarketFolder(models_dir, job.symbol, Timeframe(job.tf)))
    if served is None or served.objection:
        return Training(job.name, f"{why}; the sources behind the model answer", version)
    return Training(job.name, f"{why}; {served.version_id} stays", version)
