"""The interface between a sweep and the place where its jobs run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from percoin.sweep.jobs import Job


@dataclass(frozen=True)
class Attempt:
    """One try at a job. It is sent to another process, so it must be picklable.

    Attributes:
        job: What to train.
        number: Number of the try, from 1.
        n_threads: CPU threads of the job, set by the engine; None uses the machine's default.
        force: Train even if the job has finished before.
        reuse_bars_since: Seconds since 1970. Bars that the sweep asked an exchange for after
            this time are read from the store, so a resumed sweep uses the same bars.
    """

    job: Job
    number: int = 1
    n_threads: int | None = None
    force: bool = False
    reuse_bars_since: float = 0.0


@dataclass(frozen=True)
class Ending:
    """The end of an attempt.

    Attributes:
        attempt: The attempt that ended; the engine may have set its threads.
        death: What ended its process from outside, for example ``killed by SIGKILL``.
            None if it ended by itself: the job's record then says whether it succeeded.
    """

    attempt: Attempt
    death: str | None = None


class Engine(Protocol):
    """Runs attempts by calling ``percoin.sweep.worker.run_attempt`` somewhere.

    Each engine is a module in ``percoin.sweep.engines`` with a function
    ``build_engine(launcher, settings, n_jobs)``. It takes the launcher's config, the
    settings of the sweep's first job and the number of jobs.
    """

    n_slots: int
    """How many attempts may run at once."""

    def start(self, attempt: Attempt) -> None:
        """Start an attempt; only called while fewer than ``n_slots`` attempts run.

        Raises:
            OSError: This attempt cannot start; it counts as if its process had died.
            SweepError: No attempt can start.
        """
        ...

    def wait(self, timeout_secs: float) -> Sequence[Ending]:
        """Wait for attempts that end; returns as soon as there is one."""
        ...

    def keeps(self, attempt: Attempt) -> bool:
        """Whether the same attempt of an earlier sweep still runs; ``start`` then takes it over.

        True only for engines whose jobs outlive the sweep. With other engines the folder is
        free again soon.
        """
        ...

    def interrupt(self) -> None:
        """Ask all running attempts to stop between two batches, as SIGTERM does.

        ``wait`` then returns their endings. Called at most once; no attempt starts after it.
        """
        ...

    def close(self) -> None:
        """End all running attempts at once and free all resources."""
        ...
