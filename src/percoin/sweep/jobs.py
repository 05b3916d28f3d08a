"""A job of a sweep, and its state, which is stored in a file in its folder.

The job writes ``job.json`` while it runs, on any machine. The sweep and later commands read
it. So a sweep needs only the folders of its jobs, and no connection to them.
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
    SKIPPED = "skipped"  # finished in an earlier sweep, with the same key
    FAILED = "failed"  # ended by an error
    KILLED = "killed"  # its process died in both attempts
    INTERRUPTED = "interrupted"  # told to stop; the next sweep resumes it


DONE = frozenset({JobState.FINISHED, JobState.SKIPPED})
BROKEN = frozenset({JobState.FAILED, JobState.KILLED})


@dataclass(frozen=True)
class Job:
    """One training of a sweep.

    Attributes:
        symbol: Market.
        tf: Bar length, as on the command line.
        folder: Holds all files of the job: ``<sweep>/<SYMBOL>/<tf>``, and one level
            more if other settings are swept.
        overrides: The overrides that the ``train`` config is composed with.
        variant: The other swept settings, such as ``lr=0.01``; empty if there are none.
        markets: The markets of a job that trains one network for many; ``symbol`` is then
            their name in messages. Empty for other jobs.
    """

    symbol: str
    tf: str
    folder: Path
    overrides: tuple[str, ...]
    variant: str = ""
    markets: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name in messages: symbol, bar length and variant."""
        return " ".join(filter(None, (self.symbol, self.tf, self.variant)))

    @property
    def market_folder(self) -> Path:
        """The folder that all jobs of the sweep on this market and timeframe share."""
        return self.folder.parent if self.variant else self.folder


@dataclass(frozen=True)
class JobRecord:
    """The content of ``job.json``.

    Attributes:
        state: State of the job.
        key: Hash of its settings, its bars and the code; None until the bars are loaded.
        attempt: Number of the attempt within one sweep, from 1.
        host: Name of the machine of the last attempt.
        pid: Process of the last attempt.
        started_at: Start of the last attempt, in seconds since 1970.
        ended_at: End of the last attempt, in seconds since 1970; None while it runs.
        bars_loaded_at: Time in seconds since 1970 when the source was asked for the bars,
            by this job or by another job of the sweep on the same market.
        epoch: Epochs finished so far, over all folds of a walk-forward.
        max_epochs: Largest possible number of epochs.
        resumed_from: Epochs that were finished when the last attempt started; 0 if it
            started from the beginning.
        val_loss: Validation loss of the last finished epoch.
        training_secs: Time that the last attempt spent on training and testing the network;
            the rest of its wall time is overhead.
        error: One line, if it failed.
        result: Content of ``result.json``: test figures, ``version``, ``verdict``,
            ``reasons``, ``epochs``, ``secs``. For many markets at once, the same for each
            under ``markets``; ``refused`` and ``failed`` say why a market is missing.
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
    """Replace the folder's record in one step: readers see the old or the new record.

    Raises:
        OSError: The folder cannot be written; the old record stays.
    """
    content = json_codec.dumps(asdict(record), nan_as_null=True)
    # While a job runs, the record only shows progress, once an epoch: no sync to disk.
    write_whole(folder / RECORD_FILE, content, is_synced=record.state is not JobState.RUNNING)


def read_record(folder: Path) -> JobRecord | None:
    """The folder's record; None if it is missing or invalid."""
    try:
        content = json_codec.loads((folder / RECORD_FILE).read_text(encoding="utf-8"))
        record = json_codec.decode(JobRecord, _without_nulls(content))
        _check_numbers(record)
        check_result(record.result)
    except (OSError, ValueError):
        # The caller then treats the job as not started.
        return None
    error = None if record.error is None else printable(record.error)
    return replace(record, host=printable(record.host), error=error)


def _check_numbers(record: JobRecord) -> None:
    for name, value in asdict(record).items():
        if isinstance(value, int | float) and name != "val_loss" and not 0 <= value < _MOST:
            raise ValueError(f"{name} is out of bounds")


def _without_nulls(content: object) -> dict[str, Any]:
    """The content without nulls; missing fields, as in files of older versions, get defaults."""
    if not isinstance(content, dict):
        raise ValueError("a record is no object")
    everything = {**asdict(JobRecord()), **content}
    return {name: value for name, value in everything.items() if value is not None}
