"""What a job of a sweep is, and its state: a file in its folder that anybody may read.

The job itself writes ``job.json`` while it runs, wherever that is; the sweep and whoever
comes after it read it. So a sweep needs no connection to its jobs, only their folders.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from percoin import json_codec
from percoin.printable import printable
from percoin.run_record import check_result
from percoin.whole_file import write_whole

RECORD_FILE = "job.json"
# Larger than any count or time in seconds of a job.
_MOST = 10**11


class JobState(StrEnum):
    """The state of a job."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"
    SKIPPED = "skipped"  # had finished in an earlier sweep, with the same key
    FAILED = "failed"  # ended by an error of its own
    KILLED = "killed"  # its process died, twice
    INTERRUPTED = "interrupted"  # told to stop; the next sweep goes on with it


DONE = frozenset({JobState.FINISHED, JobState.SKIPPED})
BROKEN = frozenset({JobState.FAILED, JobState.KILLED})


@dataclass(frozen=True)
class Job:
    """One training of a sweep.

    Attributes:
        symbol: Market.
        tf: Bar length, as on the command line.
        folder: Where all of the job lies: ``<sweep>/<SYMBOL>/<tf>``, and one level
            more where further settings are swept.
        overrides: What ``train`` is composed with.
        variant: The further swept settings, such as ``lr=0.01``; empty without any.
        markets: Of a job that trains one network for many markets, those; ``symbol`` is
            then what messages call them.
    """

    symbol: str
    tf: str
    folder: Path
    overrides: tuple[str, ...]
    variant: str = ""
    markets: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """For people."""
        return " ".join(filter(None, (self.symbol, self.tf, self.variant)))

    @property
    def market_folder(self) -> Path:
        """What all jobs of the sweep on this market and timeframe share."""
        return self.folder.parent if self.variant else self.folder


@dataclass(frozen=True)
class JobRecord:
    """The content of ``job.json``.

    Attributes:
        state: How the job stands.
        key: Hash of its settings, its bars and the code; None until the bars are loaded.
        attempt: Counted from 1 within one sweep.
        host: Name of the machine that ran it last.
        pid: Process that ran it last.
        started_at: Seconds since 1970, of the last attempt.
        ended_at: The same; None while it runs.
        bars_loaded_at: Seconds since 1970 when its bars were asked of their source,
            by this job or by another one of the sweep on the same market.
        epoch: Epochs finished so far; over all folds of a walk-forward.
        max_epochs: At most so many.
        resumed_from: Epochs that were finished when the last attempt began; 0 where it
            began afresh.
        val_loss: Of the last finished epoch.
        training_secs: Of the last attempt, in training and testing the network; the rest
            of its wall time is overhead.
        error: One line, if it failed.
        result: What ``result.json`` holds: test figures, ``version``, ``verdict``,
            ``reasons``, ``epochs``, ``secs``; of many markets at once the same of each
            under ``markets``, and under ``refused`` and ``failed`` why a market is not there.
    """

    state: JobState = JobState.WAITING
    key: str | None = None
    attempt: int = 1
    host: str = ""
    pid: int = 0
    started_at: float | None = None
    ended_at: float | None = None
    bars_loaded_at: float | None = None
    epoch: int = 0
    max_epochs: int = 0
    resumed_from: int = 0
    val_loss: float | None = None
    training_secs: float = 0.0
    error: str | None = None
    result: Mapping[str, Any] = field(default_factory=dict)

    @property
    def secs(self) -> float:
        """Wall time of the last attempt, start to end; 0 if it has not ended."""
        if self.started_at is None or self.ended_at is None:
            return 0.0
        return self.ended_at - self.started_at


def write_record(folder: Path, record: JobRecord) -> None:
    """Replace the folder's record in one step: readers see the old one or the new one.

    Raises:
        OSError: The folder takes no more; the old record stays.
    """
    content = json_codec.dumps(asdict(record), nan_as_null=True)
    # Of a running job it says how far it is: every epoch, and only for the eye.
    write_whole(folder / RECORD_FILE, content, is_synced=record.state is not JobState.RUNNING)


def read_record(folder: Path) -> JobRecord | None:
    """The folder's record; None where there is none, or none that a job could have written."""
    try:
        content = json_codec.loads((folder / RECORD_FILE).read_text(encoding="utf-8"))
        record = json_codec.decode(JobRecord, _without_nulls(content))
        _check_numbers(record)
        check_result(record.result)
    except (OSError, ValueError):
        # Whoever asks then treats the job as one that never began.
        return None
    error = None if record.error is None else printable(record.error)
    return replace(record, host=printable(record.host), error=error)


def _check_numbers(record: JobRecord) -> None:
    for name, value in asdict(record).items():
        if isinstance(value, int | float) and name != "val_loss" and not 0 <= value < _MOST:
            raise ValueError(f"{name} is out of bounds")


def _without_nulls(content: object) -> dict[str, Any]:
    """The content with defaults for what an earlier version did not write."""
    if not isinstance(content, dict):
        raise ValueError("a record is no object")
    everything = {**asdict(JobRecord()), **content}
    return {name: value for name, value in everything.items() if value is not None}
