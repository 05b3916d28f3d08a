"""What a sweep came to: how each job ended, and what its models are worth together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from percoin.sweep.jobs import DONE, Job, JobRecord


@dataclass(frozen=True)
class SweepSummary:
    """The end of a sweep, finished or not.

    Attributes:
        folder: Of the sweep.
        jobs: All of them with their records, in the sweep's order.
        secs: Wall time of the sweep.
        problems: What could not be written or withdrawn, one line each.
    """

    folder: Path
    jobs: tuple[tuple[Job, JobRecord], ...]
    secs: float
    problems: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 if every job is done and all that the summary writes was written, else 1."""
        done = all(record.state in DONE for _, record in self.jobs)
        return 0 if done and not self.problems else 1

    def render(self, width: int = 100) -> str:
        """The screen as plain text of at most ``width`` columns."""
        done = sum(record.state in DONE for _, record in self.jobs)
        lines = [f"{done} of {len(self.jobs)} jobs are done"]
        for job, record in self.jobs:
            if record.state not in DONE:
                lines.append(f"{job.name}: {record.state.value} {record.error or ''}".rstrip())
        return "\n".join([*lines, *self.problems])


def summarize(
    folder: Path, jobs: Sequence[tuple[Job, JobRecord]], models_dir: Path, secs: float
) -> SweepSummary:
    """Sum up a sweep that ended, whole or not; call it once no job runs any more.

    Args:
        folder: Of the sweep.
        jobs: All jobs of the sweep with their last records.
        models_dir: The registry that the jobs exported to.
        secs: Wall time of the sweep.

    Returns:
        The summary, to be printed; what could not be written is named in it, and raises
        nothing.
    """
    return SweepSummary(folder, tuple(jobs), secs)
