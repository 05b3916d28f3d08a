"""One attempt at a job, on any machine; it writes all its output into the job's folder.

::

    outputs/<sweep>/<SYMBOL>/<tf>/
    |-- job.json        state of the job (``percoin.sweep.jobs``)
    |-- train.log       all its output: log lines, warnings, tracebacks
    |-- bars.json       which stored bars the exchange delivered, to load the same bars again;
    |                   in a pooled run below bars/<SYMBOL>/
    `-- ...             files of every run: checkpoints, settings.json, result.json
"""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from percoin.bars.schema import Bars
from percoin.cli import Composed
from percoin.config import TrainConfig, typed
from percoin.config.effects import settings_with
from percoin.config.fields import OF_THE_MODEL
from percoin.errors import (
    ConfigError,
    InterruptedRunError,
    MarketError,
    PercoinError,
    ResumeError,
)
from percoin.evaluation.fold_forecasts import BaselineFitter
from percoin.file_lock import claimed
from percoin.interruption import interruptible
from percoin.provenance import code_version
from percoin.registry.layout import MarketFolder
from percoin.run_record import can_go_on, facts_hash, read_result
from percoin.sweep.bars import bars_of_job
from percoin.sweep.baselines import SHARED_FOLDER, SharedBaselineFitter
from percoin.sweep.engine import Attempt
from percoin.sweep.jobs import (
    RECORD_FILE,
    Job,
    JobRecord,
    JobState,
    read_record,
    write_record,
)
from percoin.sweep.plan import CONFIG_NAME
from percoin.training.lit_module import SignalClassifier
from percoin.training.machine import check_machine
from percoin.training.manifest_draft import hash_references
from percoin.training.memory import memory_errors
from percoin.training.own_parts import sources_of
from percoin.training.pipeline import prepare, train
from percoin.training.recipes.recipe import Recipe
from percoin.training.run_files import RunContext, clear_run_folder
from percoin.whole_file import remove_leftovers

log = logging.getLogger(__name__)

LOG_FILE = "train.log"
# Below the folder of a job with many markets: bars.json of each market.
_BARS = "bars"
_TERMINAL = (1, 2)
_LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"


def run_attempt(attempt: Attempt) -> None:
    """Skip, resume or train the job, and record the outcome in its folder.

    Errors of the job go into the record and are not raised.

    Raises:
        InUseError: Another process uses the folder.
        OSError: The folder cannot be written, so the outcome cannot be recorded.
    """
    folder = attempt.job.folder
    folder.mkdir(parents=True, exist_ok=True)
    with claimed(folder), _output_to(folder / LOG_FILE):
        remove_leftovers(folder / RECORD_FILE)
        before = read_record(folder) or JobRecord()
        # The job's key is not known yet, so the earlier record stays the base.
        diary = _Diary(folder, replace(before, **_facts(attempt)))
        try:
            with _hears_signals(), memory_errors(attempt.job.symbol, attempt.job.tf):
                _skip_or_train(attempt, before, diary)
        except (InterruptedRunError, KeyboardInterrupt):
            log.info("told to stop")
            diary.end(JobState.INTERRUPTED, error="told to stop; the same command goes on")
        except PercoinError as error:
            log.error("%s", error)
            diary.end(JobState.FAILED, error=_in_short(error))
        except Exception as error:
            log.exception("unexpected error")
            diary.end(JobState.FAILED, error=_describe(error, folder))


def job_key(settings: TrainConfig, recipe: Recipe) -> str:
    """Hash everything that determines a job's model: settings, bars, code and start weights.

    The code is that of percoin, and the user's own that the settings name.
    """
    plain = settings_with(settings, OF_THE_MODEL)
    # The bars count by their content, not by the setting that chose them.
    bars = [(dataset.bars.source, dataset.bars.sha256()) for dataset in recipe.datasets]
    # The pooled model that it starts from is not among the settings.
    start = [] if recipe.begins_with is None else [recipe.begins_with]
    code = [(group, source.sha256) for group, source in sources_of(settings).items()]
    facts = [plain, bars, code_version(), *start, *([code] if code else [])]
    facts += [dataset.spec.code for dataset in recipe.datasets[:1] if dataset.spec.code]
    facts.append({"references": [hash_references(dataset) for dataset in recipe.datasets]})
    return facts_hash(facts, n_digits=16)


class _Diary:
    """The job's record, in memory and in its folder."""

    def __init__(self, folder: Path, record: JobRecord) -> None:
        self._folder = folder
        self.record = record

    def write(self, **changes: Any) -> None:
        self.record = replace(self.record, **changes)
        write_record(self._folder, self.record)

    def end(self, state: JobState, **changes: Any) -> None:
        self.write(state=state, ended_at=time.time(), **changes)


def _facts(attempt: Attempt) -> dict[str, Any]:
    """Fields of the record at the start of this attempt."""
    return {
        "state": JobState.RUNNING,
        "attempt": attempt.number,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started_at": time.time(),
        "ended_at": None,
        "training_secs": 0.0,
        "resumed_from": 0,
        "error": None,
    }


def _skip_or_train(attempt: Attempt, before: JobRecord, diary: _Diary) -> None:
    folder = attempt.job.folder
    settings, choices = _settings(attempt)
    recipe, asked_at = _prepare(settings, attempt)
    key = job_key(settings, recipe)
    same = before.key == key and not attempt.force
    if same and (finished := _finished_result(folder, settings)) is not None:
        log.info("finished before, with the same settings, bars and code")
        diary.record = before
        # A job that was killed between writing its result and its record has only the result.
        diary.write(state=JobState.SKIPPED, error=None, result=finished)
        return
    check_machine(settings)
    diary.record = JobRecord(
        **_facts(attempt) | {"started_at": diary.record.started_at},
        key=key,
        bars_loaded_at=asked_at,
        max_epochs=recipe.max_epochs(settings),
    )

    run = RunContext(folder, choices, _fitter(attempt.job))

    def begin(settings: TrainConfig) -> None:
        train(settings, recipe, run, [_Diarist(diary)])

    if not (same and _can_resume(before, folder) and _resume(begin, settings, diary)):
        clear_run_folder(folder)
        diary.write(epoch=0, resumed_from=0)
        begin(settings)
    diary.end(JobState.FINISHED, result=read_result(folder))


def _fitter(job: Job) -> BaselineFitter:
    """Jobs on one market that differ in the network alone share its baselines."""
    if not job.variant:
        return BaselineFitter()
    return SharedBaselineFitter(job.market_folder / SHARED_FOLDER)


def _prepare(settings: TrainConfig, attempt: Attempt) -> tuple[Recipe, float]:
    """The recipe with its bars, and the earliest time at which their source was asked."""
    moments = []

    def load(own: TrainConfig) -> Bars:
        place = attempt.job.market_folder
        if own.symbol != settings.symbol:
            place = attempt.job.folder / _BARS / own.symbol
            place.mkdir(parents=True, exist_ok=True)
        asked = bars_of_job(own, place, attempt.reuse_bars_since)
        moments.append(asked.asked_at)
        return asked.bars

    return prepare(settings, load), min(moments)


def _settings(attempt: Attempt) -> tuple[TrainConfig, Mapping[str, str]]:
    """The job's settings, and the chosen option of each config group."""
    composed = Composed.of(CONFIG_NAME, attempt.job.overrides)
    settings = typed(composed.config, TrainConfig)
    return replace(settings, workers=attempt.n_threads), composed.choices


def _finished_result(folder: Path, settings: TrainConfig) -> dict[str, Any] | None:
    """The result of the folder's run; None if there is none or the registry lacks its models."""
    root, timeframe = Path(settings.models_dir), settings.tf.timeframe
    try:
        result = read_result(folder)
        if result.get("failed"):
            return None  # of many markets; the failed ones are tried again
        for symbol, entry in result.get("markets", {settings.symbol: result}).items():
            if not MarketFolder(root, symbol, timeframe).version(entry["version"]).is_dir():
                return None
    except (OSError, ValueError, KeyError, ConfigError):
        # Also if the result names no market. The job is then trained.
        return None
    return result


def _can_resume(before: JobRecord, folder: Path) -> bool:
    """Whether the folder's run was interrupted and its checkpoint is worth resuming."""
    # If a resumed run failed, the cause may be in its checkpoint.
    failed_again = before.state == JobState.FAILED and before.resumed_from > 0
    return can_go_on(folder) and not failed_again


def _resume(begin: Callable[[TrainConfig], None], settings: TrainConfig, diary: _Diary) -> bool:
    """Resume from the last checkpoint; False if that is not possible."""
    diary.write()
    try:
        begin(replace(settings, resume=True))
    except ResumeError as error:
        log.warning("%s: starting afresh", error.found)
        return False
    return True


class _Diarist(pl.Callback):
    """Records each epoch, and the time spent on the network alone.

    It runs before the callbacks that draw and export, so their time does not count.
    """

    def __init__(self, diary: _Diary) -> None:
        self._diary = diary
        self._epochs_before = 0
        self._is_resumed = False
        self._began = 0.0

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._began = time.monotonic()

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        epoch = self._epochs_before + int(checkpoint["epoch"]) + 1
        self._diary.write(epoch=epoch, resumed_from=epoch)
        self._is_resumed = True

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._is_resumed = False
        epoch = self._epochs_before + trainer.current_epoch + 1
        if isinstance(pl_module, SignalClassifier):
            self._diary.write(epoch=epoch, val_loss=pl_module.history["val_loss"][-1])

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._add_secs()
        # The next fold of a walk-forward continues the count.
        self._epochs_before += int(trainer.max_epochs or 0)
        if self._is_resumed:
            # The fold was already finished, perhaps early: this attempt trained none of its epochs.
            self._diary.write(epoch=self._epochs_before, resumed_from=self._epochs_before)
            self._is_resumed = False

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._began = time.monotonic()

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._add_secs()

    def _add_secs(self) -> None:
        secs = self._diary.record.training_secs + time.monotonic() - self._began
        self._diary.write(training_secs=secs)


@contextmanager
def _hears_signals() -> Iterator[None]:
    """Let a signal end the job in phases where training does not handle it."""
    with interruptible():
        # An engine may have blocked SIGTERM until this handler exists.
        mask = signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@contextmanager
def _output_to(path: Path) -> Iterator[None]:
    """Append all output of the process to a file, output of C libraries included."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    with path.open("a", buffering=1, encoding="utf-8") as file, _descriptors_to(file.fileno()):
        if not faulthandler.is_enabled():
            faulthandler.enable(2)
        handler = logging.StreamHandler(file)
        handler.setFormatter(logging.Formatter(_LOG_FORMAT))
        root.handlers[:], root.level = [handler], logging.INFO
        try:
            with redirect_stdout(file), redirect_stderr(file):
                yield
        finally:
            root.handlers[:], root.level = handlers, level


@contextmanager
def _descriptors_to(descriptor: int) -> Iterator[None]:
    """Redirect file descriptors 1 and 2, which C libraries write to directly."""
    kept = [os.dup(own) for own in _TERMINAL]
    try:
        for own in _TERMINAL:
            os.dup2(descriptor, own)
        yield
    finally:
        for own, before in zip(_TERMINAL, kept, strict=True):
            os.dup2(before, own)
            os.close(before)


def _in_short(error: PercoinError) -> str:
    """An error in one line, without the market, which the job's name already gives."""
    return error.without_market if isinstance(error, MarketError) else str(error)


def _describe(error: Exception, folder: Path) -> str:
    """An unexpected error, in one line."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text}; its traceback is in {folder / LOG_FILE}"
