"""Summary of a sweep: judge its models together, withdraw acceptances, write all files.

::

    outputs/<sweep>/
    |-- summary.json    for programs (fields: see ``percoin.sweep.document``)
    |-- report/         index.html, report.md, report.json, skills.svg: all models of the sweep
    `-- tensorboard/    one run for the whole sweep
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from percoin.commands import command
from percoin.errors import PercoinError
from percoin.registry.revision import withdraw_acceptance
from percoin.report.files import PAGE, write_report
from percoin.sweep.best import serve_best
from percoin.sweep.dashboard import write_dashboard
from percoin.sweep.document import to_document
from percoin.sweep.jobs import Job, JobRecord
from percoin.sweep.results import SweepResults, gather
from percoin.sweep.screen import to_screen, wants_colour
from percoin.whole_file import write_whole

SUMMARY_FILE = "summary.json"
_REPORT = "report"
_TENSORBOARD = "tensorboard"


@dataclass(frozen=True)
class SweepSummary:
    """Summary of a sweep, finished or not.

    Attributes:
        results: How the jobs ended, and their models compared.
        withdrawn: Models that lost their acceptance over the sweep, one line each.
        served: Markets whose served version changed to the best settings, one line each.
        problems: What could not be written, withdrawn or served, one line each.
    """

    results: SweepResults
    withdrawn: tuple[str, ...]
    served: tuple[str, ...]
    problems: tuple[str, ...]

    def render(self, width: int = 100, colour: bool | None = None) -> str:
        """The summary as text.

        Args:
            width: Width in characters.
            colour: Whether to use colours; None uses them if stdout is a terminal.
        """
        folder = self.results.folder
        closing = [
            *self.withdrawn,
            *self.served,
            *(f"PROBLEM: {problem}" for problem in self.problems),
            f"report: {folder / _REPORT / PAGE}",
            "curves: " + command("tensorboard --logdir", str(folder.parent)),
        ]
        return to_screen(self.results, closing, width, wants_colour() if colour is None else colour)


def summarize(
    folder: Path, jobs: Sequence[tuple[Job, JobRecord]], models_dir: Path, secs: float
) -> SweepSummary:
    """Summarize a sweep, finished or not; call it when no job runs any more.

    All models are judged together. If no job is left to run, a model that was accepted
    alone but fails the false discovery control over the sweep loses its acceptance in the
    registry. If a market has several settings, the best on validation rows is served. Then
    the files are written.

    Args:
        folder: Folder of the sweep.
        jobs: All jobs of the sweep with their last records; each job has a different name.
        models_dir: The registry that the jobs exported to.
        secs: Wall time of the sweep.

    Returns:
        The summary, to be printed. If something cannot be written, withdrawn or served, it
        is listed under ``problems`` and no error is raised.
    """
    results = gather(folder, jobs, models_dir, secs)
    withdrawn, problems = _withdraw(results, models_dir) if results.is_over else ({}, [])
    served, unserved = serve_best(results, models_dir) if results.is_over else ([], [])
    problems += unserved
    if withdrawn or served:
        # The served versions have changed, and the files name them.
        results = gather(folder, jobs, models_dir, secs)
    problems += _write(
        {
            _REPORT: lambda: write_report(results.board, folder / _REPORT),
            _TENSORBOARD: lambda: write_dashboard(results, folder / _TENSORBOARD),
        }
    )
    # Written last, so it includes the problems of the others.
    document = to_document(results, withdrawn, problems)
    problems += _write({SUMMARY_FILE: lambda: write_whole(folder / SUMMARY_FILE, document)})
    return SweepSummary(results, tuple(withdrawn.values()), tuple(served), tuple(problems))


def _withdraw(results: SweepResults, models_dir: Path) -> tuple[dict[str, str], list[str]]:
    """Withdraw acceptances; returns a line for each job, by its name, and the problems."""
    done, problems = {}, []
    for result, manifest in results.lost:
        name = result.job.name
        reason = f"{result.entry.reasons[0]} (sweep {results.folder.name})"
        try:
            revised = withdraw_acceptance(
                models_dir,
                manifest.symbol,
                manifest.timeframe,
                manifest.version_id,
                reason,
            )
        except PercoinError as error:
            problems.append(f"the acceptance of {name} could not be withdrawn: {error}")
        else:
            now = "no accepted version is left" if revised.is_served else "another one is served"
            done[name] = f"acceptance withdrawn from {name}: {now}"
    return done, problems


def _write(writers: dict[str, Callable[[], None]]) -> list[str]:
    """Write all files; returns a line for each that cannot be written."""
    problems = []
    for name, write in writers.items():
        try:
            write()
        except OSError as error:
            problems.append(f"{name} could not be written: {error}")
    return problems
