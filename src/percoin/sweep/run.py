"""Runs the jobs of a sweep on an engine; if one job fails, the others go on."""

from __future__ import annotations

import signal
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from percoin.file_lock import is_claimed
from percoin.interruption import StopSignals
from percoin.sweep.engine import Attempt, Ending, Engine
from percoin.sweep.jobs import Job, JobRecord, JobState, read_record, write_record
from percoin.sweep.progress import JobStanding, SweepProgress, SweepStanding

_POLL_SECS = 0.5
# Jobs of a killed sweep end within this time.
_ORPHAN_SECS = 40.0
_MOST_ATTEMPTS = 2
_STOPPED = "stopped; the same command goes on"
_ENDED_BY_ITSELF = {JobState.FINISHED, JobState.SKIPPED, JobState.FAILED}


@dataclass(frozen=True)
class SweepEnd:
    """How a sweep ended.

    Attributes:
        jobs: All jobs with their last records, in the sweep's order.
        stopped_by: The signal that stopped the sweep; None if it ran to its end.
        at_once: Whether a second signal ended the sweep before its jobs had stopped.
    """

    jobs: tuple[JobStanding, ...]
    stopped_by: signal.Signals | None
    at_once: bool


def run_sweep(
    jobs: Sequence[Job], engine: Engine, *, force: bool = False, reuse_bars_secs: float = 0.0
) -> SweepEnd:
    """Run all jobs; a job that was killed gets one more try.

    After SIGINT or SIGTERM the running jobs stop between two batches. A second signal ends
    them at once.

    Args:
        jobs: In the order in which they start; each has its own folder.
        engine: Where they run; the caller closes it.
        force: Also train jobs that have finished before.
        reuse_bars_secs: Bars that an exchange delivered less than this many seconds ago are
            reused.
    """
    return _Sweep(jobs, engine, force, reuse_bars_secs).run()


class _Sweep:
    def __init__(
        self, jobs: Sequence[Job], engine: Engine, force: bool, reuse_bars_secs: float
    ) -> None:
        self._jobs = jobs
        self._engine = engine
        self._began = time.time()
        # A forced sweep loads new bars, but all its jobs on a market share them.
        reuse_since = self._began - (0.0 if force else reuse_bars_secs)
        self._waiting = deque(
            Attempt(job, force=force, reuse_bars_since=reuse_since) for job in jobs
        )
        self._running: dict[Job, Attempt] = {}
        self._found: dict[Job, JobRecord | None] = {}
        self._ended: dict[Job, JobRecord] = {}
        self._taken_since: dict[Job, float] = {}
        # A second signal must end the engine's processes first: they outlive this process.
        self._signals = StopSignals(second_ends_process=False)
        self._progress = SweepProgress(len(jobs))

    def run(self) -> SweepEnd:
        with self._signals.noted():
            try:
                self._run()
            finally:
                self._progress.close()
        jobs = tuple((job, self._last_record(job)) for job in self._jobs)
        return SweepEnd(jobs, self._signals.first, at_once=self._signals.is_urgent)

    def _run(self) -> None:
        is_told_to_stop = False
        while self._running or (self._waiting and self._signals.first is None):
            while self._signals.first is None and len(self._running) < self._engine.n_slots:
                if not self._start_next():
                    break
            for ending in self._engine.wait(_POLL_SECS):
                self._note(ending)
            self._progress.update(self._standing())
            if self._signals.is_urgent:
                return
            if self._signals.first is not None and not is_told_to_stop:
                is_told_to_stop = True
                n_running = len(self._running)
                jobs = "1 job" if n_running == 1 else f"{n_running} jobs"
                self._progress.tell(
                    f"{self._signals.first.name}: stopping {jobs}; a second signal ends at once"
                )
                self._engine.interrupt()

    def _start_next(self) -> bool:
        """Start the first waiting job whose folder is free; False if there is none."""
        for attempt in list(self._waiting):
            job = attempt.job
            if is_claimed(job.folder) and not self._engine.keeps(attempt):
                self._give_up_on_taken(attempt)
                continue
            self._waiting.remove(attempt)
            self._taken_since.pop(job, None)
            self._running[job] = attempt
            self._found[job] = read_record(job.folder)
            try:
                self._engine.start(attempt)
            except OSError as error:
                self._note(Ending(attempt, str(error)))
            return True
        if not self._running:
            time.sleep(_POLL_SECS)
        return False

    def _give_up_on_taken(self, attempt: Attempt) -> None:
        """Fail a job if another process holds its folder for too long."""
        # Time counts from the first look: a job that was killed may need a moment to end.
        since = self._taken_since.setdefault(attempt.job, time.monotonic())
        if time.monotonic() - since < _ORPHAN_SECS:
            return
        self._waiting.remove(attempt)
        error = f"another process is training in {attempt.job.folder}; wait for it and try again"
        # The record in the folder belongs to the other process and stays as it is.
        self._end(attempt.job, JobRecord(state=JobState.FAILED, error=error))

    def _note(self, ending: Ending) -> None:
        """Record how an attempt ended; a killed one is tried once more."""
        job = ending.attempt.job
        attempt = self._running.pop(job)
        record = read_record(job.folder)
        if record is not None and ending.death is None and record.state in _ENDED_BY_ITSELF:
            self._end(job, record)
            return
        death = ending.death or "it ended without a message"
        if not ending.death and record and record.state == JobState.INTERRUPTED:
            death = "told to stop, but not by this sweep"
        if self._signals.first is not None:
            self._settle(job, record, JobState.INTERRUPTED, _STOPPED)
        elif attempt.number < _MOST_ATTEMPTS:
            self._progress.tell(f"{job.name}: {death}; it is tried once more")
            # force trains from the start once. The second attempt keeps the epochs of the first.
            force = attempt.force and record == self._found[job]
            self._waiting.append(replace(attempt, number=attempt.number + 1, force=force))
        else:
            self._settle(job, record, JobState.KILLED, f"{death}, {attempt.number} times")

    def _settle(self, job: Job, record: JobRecord | None, state: JobState, error: str) -> None:
        """Write the last record of a job that could not write it itself."""
        record = replace(record or JobRecord(), state=state, error=error, ended_at=time.time())
        # If the folder cannot be written, the job has failed for that reason and reported it.
        with suppress(OSError):
            write_record(job.folder, record)
        self._end(job, record)

    def _end(self, job: Job, record: JobRecord) -> None:
        self._ended[job] = record
        self._progress.ended(job, record, self._standing())

    def _standing(self) -> SweepStanding:
        running = []
        for job in self._running:
            record = read_record(job.folder)
            is_of_this_attempt = record is not None and record != self._found[job]
            running.append((job, record if record and is_of_this_attempt else JobRecord()))
        waiting = [attempt.job for attempt in self._waiting]
        ended = list(self._ended.items())
        return SweepStanding(ended, running, waiting, self._engine.n_slots, time.time())

    def _last_record(self, job: Job) -> JobRecord:
        if job in self._ended:
            return self._ended[job]
        # The job did not start in this sweep, or was ended at once: its earlier record counts.
        record = read_record(job.folder) or JobRecord()
        if record.state != JobState.RUNNING:
            return record
        return replace(record, state=JobState.INTERRUPTED, error=_STOPPED)
