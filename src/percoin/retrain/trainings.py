"""The trainings of a round, run as jobs of a sweep in fixed folders.

::

    outputs/retrain/
    |-- <SYMBOL>/<tf>/      job.json, train.log, checkpoints: a killed training goes on here
    |-- pool-<hash>/<tf>/   the same for a pool; the hash is of the names of its markets
    |-- summary.json        what the last round trained
    `-- report/             the same for people
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from pathlib import Path

from percoin.assembly import bar_source
from percoin.bars.sources.binance.source import ExchangeSource
from percoin.bars.store import BarStore
from percoin.cli import compose_config
from percoin.cli.folders import with_search_path
from percoin.cli.overrides import literal
from percoin.config import ProcessesConfig, RecipeName, RetrainConfig, TrainConfig, typed
from percoin.config.effects import names_with
from percoin.config.fields import Effect
from percoin.config.folders import named_folders
from percoin.errors import BarsNotFoundError, PercoinError
from percoin.file_lock import claimed
from percoin.plugins import allowed_plugins
from percoin.registry.catalogue import served_version
from percoin.registry.layout import MarketFolder
from percoin.report.board import BoardStatus
from percoin.report.files import PAGE
from percoin.retrain.pools import SharedNetwork, no_bars
from percoin.retrain.states import RUNS_FOLDER, Subject, count_after, job_folder
from percoin.sweep.engines.processes import build_engine
from percoin.sweep.jobs import DONE, Job, JobRecord, JobState, read_record
from percoin.sweep.results import JobResult, version_of
from percoin.sweep.run import run_sweep
from percoin.sweep.summary import summarize
from percoin.training.folds import n_bars_to_load
from percoin.training.version_settings import overrides_of
from percoin.types import Timeframe

_FOLDERS = names_with(TrainConfig, {Effect.FOLDER})
# An interrupted training goes on with its first bars, unless they are older than this.
_REUSE_SECS = 86_400.0
_UNFINISHED = {JobState.RUNNING, JobState.INTERRUPTED}


@dataclass(frozen=True)
class Training:
    """How one training ended.

    Attributes:
        name: Market and timeframe.
        result: Verdict of the gate and what is served now; empty if the training failed.
        version: The exported version.
        error: Why the training exported nothing; empty if it did export.
    """

    name: str
    result: str = ""
    version: str | None = None
    error: str = ""


@dataclass(frozen=True)
class Trainings:
    """How all trainings of a round ended.

    Attributes:
        ended: One entry a training.
        notes: Messages about all of them, one line each.
        stopped_by: Number of the signal that ended them early, or None.
    """

    ended: tuple[Training, ...]
    notes: tuple[str, ...]
    stopped_by: int | None


def job_of(subject: Subject, settings: RetrainConfig) -> Job:
    """Return the training of a market: by its manifest, or by the defaults without a model.

    Raises:
        ConfigError: This version of percoin does not accept the settings of the manifest.
    """
    market = subject.market
    others = [*subject.source, f"looks={subject.n_looks}", *_surroundings(settings)]
    overrides = (f"symbol={market.symbol}", f"tf={market.timeframe.value}", *others)
    if subject.manifest is not None:
        overrides = overrides_of(subject.manifest, *others)
    folder = job_folder(market, settings)
    return Job(market.symbol, market.timeframe.value, folder, overrides)


def pool_job_of(pool: SharedNetwork, settings: RetrainConfig) -> Job:
    """Return the training of a pool, by the manifest of its newest model.

    Raises:
        ConfigError: This version of percoin does not accept the settings of the manifest.
    """
    looks = {subject.market.symbol: subject.n_looks for subject in pool.members}
    overrides = overrides_of(
        pool.manifest,
        f"recipe={RecipeName.POOLED.value}",
        f"symbol={literal(','.join(pool.symbols))}",
        f"pooled.without={literal([name for name in pool.symbols if name in pool.without])}",
        f"pooled.looks={literal([looks.get(name, 1) for name in pool.symbols])}",
        "looks=1",
        *pool.source,
        *_surroundings(settings),
    )
    market = MarketFolder(Path(settings.models_dir), pool.symbols[0], pool.timeframe)
    folder = job_folder(market, settings, pool.symbols)
    title, tf = pool.name.removesuffix(f" {pool.timeframe.value}"), pool.timeframe.value
    return Job(title, tf, folder, overrides, markets=pool.taking_part)


def _surroundings(settings: RetrainConfig) -> list[str]:
    # Absolute paths, like the folder of the job.
    folders = {name: str(Path(getattr(settings, name)).absolute()) for name in _FOLDERS}
    words = ["logger=csv", *(f"{name}={literal(path)}" for name, path in folders.items())]
    words = with_search_path(words, list(map(str, named_folders())))
    allowed = allowed_plugins()
    return [*words, f"plugins={literal(allowed)}"] if allowed else words


def fetch(job: Job, symbol: str, data_end: datetime | None) -> int | None:
    """Fetch the newest bars of a market from an exchange into the store.

    Args:
        job: The training that needs the bars.
        symbol: The market.
        data_end: Bars are counted from this time on.

    Returns:
        Number of bars that open at ``data_end`` or later; None if the source is not an
        exchange or ``data_end`` is None.

    Raises:
        DataError: The bars cannot be fetched.
    """
    settings = _settings(job.overrides)
    store = BarStore(Path(settings.data_dir) / "bars")
    source = bar_source(settings.source, store, n_bars_to_load(settings), replace=True)
    if not isinstance(source, ExchangeSource):
        return None
    update = source.update(symbol, settings.tf.timeframe)
    if update.failure is not None:
        raise update.failure
    return None if data_end is None else count_after(update.bars, data_end)


def fetch_pool(
    pool: SharedNetwork, settings: RetrainConfig
) -> tuple[SharedNetwork, dict[str, int]]:
    """Fetch the newest bars of all markets that take part in a pool's training.

    Returns:
        The pool without the markets that have no bars, and the number of new bars by symbol,
        where it is known.

    Raises:
        DataError: Bars should exist but cannot be fetched now.
        ConfigError: This version of percoin does not accept the settings of the manifest.
    """
    job = pool_job_of(pool, settings)
    without, n_new = dict(pool.without), dict[str, int]()
    for member in pool.members:
        symbol = member.market.symbol
        if symbol in without:
            continue
        try:
            count = fetch(job, symbol, member.state.data_end)
        except BarsNotFoundError as error:
            without[symbol] = no_bars(error)
        else:
            n_new |= {} if count is None else {symbol: count}
    return replace(pool, without=without), n_new


def train_jobs(jobs: Sequence[Job], settings: RetrainConfig) -> Trainings:
    """Run all trainings as one sweep.

    A failed training does not stop the others. The gate judges all models together. Progress
    output goes to stderr.

    Raises:
        InUseError: Another process uses the folder of the trainings.
    """
    folder = Path(settings.outputs_dir).absolute() / RUNS_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    first = replace(_settings(jobs[0].overrides), workers=settings.workers)
    began = time.monotonic()
    with claimed(folder, advice="wait until it has ended"), redirect_stdout(sys.stderr):
        engine = build_engine(ProcessesConfig(), first, len(jobs))
        try:
            end = run_sweep(jobs, engine, reuse_bars_secs=_reuse_secs(jobs))
        finally:
            engine.close()
        models_dir = Path(settings.models_dir)
        summary = summarize(folder, end.jobs, models_dir, time.monotonic() - began)
    ended = (
        *(_ended(result, models_dir) for result in summary.results.jobs),
        *(refusal for job, record in end.jobs for refusal in _refused(job, record)),
    )
    notes = (
        *summary.withdrawn,
        *summary.served,
        *summary.problems,
        f"report: {folder / 'report' / PAGE}",
    )
    return Trainings(ended, notes, None if end.stopped_by is None else int(end.stopped_by))


@lru_cache(maxsize=16)
def _settings(overrides: tuple[str, ...]) -> TrainConfig:
    return typed(compose_config("train", overrides), TrainConfig)


def _reuse_secs(jobs: Sequence[Job]) -> float:
    """Return how old stored bars may be: an unfinished training reuses the bars it began with."""
    records = [read_record(job.folder) for job in jobs]
    is_unfinished = any(record and record.state in _UNFINISHED for record in records)
    return _REUSE_SECS if is_unfinished else 0.0


def _refused(job: Job, record: JobRecord) -> Iterator[Training]:
    """Yield the markets of a pool that were left out of its training or failed at the end."""
    result = record.result if record.state in DONE else {}
    for symbol, reason in result.get("refused", {}).items():
        yield Training(f"{symbol} {job.tf}", f"left out of its pool's training: {reason}")
    for symbol, reason in result.get("failed", {}).items():
        yield Training(f"{symbol} {job.tf}", error=f"no new model of its pool: {reason}")


def _ended(result: JobResult, models_dir: Path) -> Training:
    job, state = result.job, result.record.state
    if not result.is_done:
        return Training(job.name, error=f"training {state.value}: {result.error}".rstrip(": "))
    version = version_of(result.record)
    why = f"trained, {result.verdict}: {result.entry.reasons[0]}"
    try:
        served = served_version(MarketFolder(models_dir, job.symbol, Timeframe(job.tf)))
    except (PercoinError, OSError) as error:
        return Training(job.name, f"{why}; what is served cannot be read: {error}", version)
    if result.verdict == BoardStatus.ACCEPTED:
        if served is not None and served.version_id == version:
            return Training(job.name, f"trained and promoted: {version} is accepted", version)
        why = f"trained, accepted, not served: {version}"
    if served is None or served.objection:
        return Training(job.name, f"{why}; the sources after the model answer", version)
    return Training(job.name, f"{why}; {served.version_id} stays", version)
