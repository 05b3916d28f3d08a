"""The interface between a sweep and the place where its jobs run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from percoin.sweep.jobs import Job


@dataclass(frozen=True)
class Attempt:
    """One try at a job; sent to where it runs, so it must pickle.

    Attributes:
        job: What to train.
        number: Counted from 1.
        n_threads: Threads for the job's arithmetic, filled in by the engine; None leaves
            it to the machine.
        force: Train even what has finished.
        reuse_bars_since: Seconds since 1970. What the sweep asked of an exchange after
            that moment is taken from the store, so that going on with a sweep means the
            same bars.
    """

    job: Job
    number: int = 1
    n_threads: int | None = None
    force: bool = False
    reuse_bars_since: float = 0.0


@dataclass(frozen=True)
class Ending:
    """An attempt that runs no longer.

    Attributes:
        attempt: The one that ended; the engine may have filled in its threads.
        death: What ended its process from outside, for example ``killed by SIGKILL``;
            None where it ended by itself, well or not: the job's record says which.
    """

    attempt: Attempt
    death: str | None = None


class Engine(Protocol):
    """Runs attempts by calling ``percoin.sweep.worker.run_attempt`` somewhere.

    Each lies in a module of its own in ``percoin.sweep.engines`` with a function
    ``build_engine(launcher, settings, n_jobs)`` that makes one from the launcher's
    config, the settings of the sweep's first job and the number of jobs.
    """

    n_slots: int
    """How many attempts may run at once."""

    def start(self, attempt: Attempt) -> None:
        """Begin an attempt; never called with ``n_slots`` of them running.

        Raises:
            OSError: It cannot be begun, which counts as if its process had died.
            SweepError: No attempt can.
        """
        ...

    def wait(self, timeout_secs: float) -> Sequence[Ending]:
        """The attempts that ended; returns early once there is one."""
        ...

    def keeps(self, attempt: Attempt) -> bool:
        """Whether the same attempt of an earlier sweep still runs; ``start`` then takes it over.

        Only where jobs outlive their sweep; elsewhere its folder is soon free again.
        """
        ...

    def interrupt(self) -> None:
        """Ask all running attempts to stop between two batches, as SIGTERM does.

        ``wait`` then gives their endings. Called once at most; none is started after.
        """
        ...

    def close(self) -> None:
        """End all running attempts at once and free all resources."""
        ...
