"""Progress of a sweep: a bar on a terminal, else one line for each job that ends."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from tqdm import tqdm

from percoin.registry.manifest import StoredVerdict
from percoin.sweep.jobs import BROKEN, DONE, Job, JobRecord, JobState

JobStanding = tuple[Job, JobRecord]


@dataclass(frozen=True)
class SweepStanding:
    """The state of all jobs of a sweep at one moment.

    Attributes:
        ended: Jobs that ended and get no further try.
        running: Running jobs; the record is empty until the running attempt writes it.
        waiting: Jobs that have not started, or get another try.
        n_slots: How many jobs run at a time.
        now: Seconds since 1970.
    """

    ended: Sequence[JobStanding]
    running: Sequence[JobStanding]
    waiting: Sequence[Job]
    n_slots: int
    now: float

    @property
    def n_jobs(self) -> int:
        """Number of all jobs."""
        return len(self.ended) + len(self.running) + len(self.waiting)

    @property
    def n_failed(self) -> int:
        """Number of jobs that failed or were killed."""
        return sum(record.state in BROKEN for _, record in self.ended)


def remaining_secs(standing: SweepStanding) -> float | None:
    """Estimated time until the sweep ends; None while there is no data for an estimate.

    The expected time of a job is the mean of the finished jobs of its timeframe, else the
    mean of all finished jobs, else that of the running jobs if they use all their epochs.
    """
    taken = {
        job.tf: [record.secs for other, record in standing.ended if _tells(record, other, job)]
        for job, _ in standing.ended
    }
    known = [secs for several in taken.values() for secs in several]
    projected = [
        total for _, record in standing.running if (total := _projected_secs(record, standing.now))
    ]
    if not known and not projected:
        return None
    usual = fmean(known or projected)
    expected = {tf: fmean(several) for tf, several in taken.items() if several}
    left = [
        _left(expected.get(job.tf) if known else None, usual, record, standing.now)
        for job, record in standing.running
    ]
    queued = [expected.get(job.tf, usual) for job in standing.waiting]
    return max(sum(left + queued) / standing.n_slots, *left, 0.0)


def _tells(record: JobRecord, other: Job, job: Job) -> bool:
    # A resumed job took less time than a whole one.
    is_whole = record.state == JobState.FINISHED and not record.resumed_from
    return is_whole and other.tf == job.tf


def _left(expected: float | None, usual: float, record: JobRecord, now: float) -> float:
    elapsed = 0.0 if record.started_at is None else now - record.started_at
    total = expected or _projected_secs(record, now) or usual
    if expected and record.max_epochs:
        total *= 1 - record.resumed_from / record.max_epochs
    return max(total - elapsed, 0.0)


def _projected_secs(record: JobRecord, now: float) -> float | None:
    """Wall time of a running attempt if it uses all its epochs; None before the first."""
    n_done = record.epoch - record.resumed_from
    if record.started_at is None or n_done < 1:
        return None
    secs_per_epoch = (now - record.started_at) / n_done
    return secs_per_epoch * (record.max_epochs - record.resumed_from)


def describe_ending(job: Job, record: JobRecord) -> str:
    """How a job ended, in one line."""
    if record.state == JobState.SKIPPED:
        return f"{job.name}: finished before"
    if record.state != JobState.FINISHED:
        return f"{job.name}: {record.state.value}: {record.error}"
    n_epochs = record.result.get("epochs", record.epoch)
    # A model without a network has none.
    epochs = {0: "", 1: ", 1 epoch"}.get(n_epochs, f", {n_epochs} epochs")
    verdict = record.result.get("verdict", "")
    if job.markets:
        verdicts = [entry["verdict"] for entry in record.result.get("markets", {}).values()]
        verdict = (
            f"{verdicts.count(StoredVerdict.ACCEPTED.value)} of {len(verdicts)} models accepted"
        )
    taken = tqdm.format_interval(record.secs)
    if record.resumed_from:
        taken += " since it was resumed"
    return f"{job.name}: finished{epochs} in {taken}, {verdict}"


class SweepProgress:
    """Shows the progress of a sweep."""

    def __init__(self, n_jobs: int) -> None:
        self._bar: tqdm[Any] | None = None
        if sys.stderr.isatty():
            # The monitor thread of tqdm is for fast loops; this loop is slow.
            tqdm.monitor_interval = 0
            self._bar = tqdm(
                total=n_jobs,
                bar_format="{n_fmt}/{total_fmt} jobs |{bar:24}| {elapsed}{postfix}",
                dynamic_ncols=True,
                mininterval=0,
            )

    def tell(self, line: str) -> None:
        """Write a line, above the bar if there is one."""
        if self._bar is not None:
            self._bar.write(line, file=sys.stderr)
        else:
            print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)

    def ended(self, job: Job, record: JobRecord, standing: SweepStanding) -> None:
        """Report the end of a job; on a terminal only jobs that are not done get a line."""
        line = describe_ending(job, record)
        if self._bar is None:
            self.tell(f"{line}  [{len(standing.ended)}/{standing.n_jobs}{_so_far(standing)}]")
        elif record.state not in DONE:
            self.tell(line)

    def update(self, standing: SweepStanding) -> None:
        """Redraw the bar."""
        if self._bar is None:
            return
        running = [
            f"{job.name} {record.epoch}/{record.max_epochs}" if record.max_epochs else job.name
            for job, record in standing.running
        ]
        self._bar.n = len(standing.ended)
        self._bar.set_postfix_str(_so_far(standing).removeprefix(", ") + "  " + ", ".join(running))

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.leave = False
            self._bar.close()


def _so_far(standing: SweepStanding) -> str:
    failed = f", {standing.n_failed} failed" if standing.n_failed else ""
    secs = remaining_secs(standing)
    left = "" if secs is None else f", about {tqdm.format_interval(secs)} left"
    return f"{failed}{left}"
