"""The results of a sweep: how each job ended, and its model judged together with the others."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from percoin.commands import flat
from percoin.registry.layout import MarketFolder
from percoin.registry.manifest import Manifest, StoredVerdict
from percoin.report.board import Board, BoardStatus, RankedModel, make_board
from percoin.report.reading import SavedModel, read_version
from percoin.sweep.jobs import DONE, Job, JobRecord, JobState
from percoin.types import Timeframe

# Jobs that still have to run; a failed job counts as ended.
_OPEN = frozenset({JobState.WAITING, JobState.RUNNING, JobState.INTERRUPTED})
ONLY_ALONE = "only alone"
_VAL_LOSS_COLUMN = "loss/val"


@dataclass(frozen=True)
class JobResult:
    """One job, how it ended, and its model's place among the others.

    Attributes:
        job: The job.
        record: Its last record.
        entry: Its model on the leaderboard; its status is ``NO_MODEL`` if there is none.
        val_loss: Validation loss after each epoch.
    """

    job: Job
    record: JobRecord
    entry: RankedModel
    val_loss: tuple[float, ...]

    @property
    def is_done(self) -> bool:
        """Whether the job produced a model, now or in an earlier sweep."""
        return self.record.state in DONE

    @property
    def verdict(self) -> str:
        """The verdict after false discovery control over the sweep, in a word or two."""
        if self.entry.passed_alone and self.entry.status is not BoardStatus.ACCEPTED:
            return ONLY_ALONE
        return self.entry.status.value

    @property
    def error(self) -> str:
        """Why the job is not done, in one line without its name; empty if it is done."""
        text = "" if self.is_done else " ".join((self.record.error or "").split())
        return text.removeprefix(f"{self.job.symbol} {self.job.tf}: ")


@dataclass(frozen=True)
class SweepResults:
    """The results of a sweep, for the screen, the files and TensorBoard.

    Attributes:
        folder: Folder of the sweep.
        jobs: In the sweep's order.
        board: The leaderboard of their models.
        secs: Wall time of the sweep.
    """

    folder: Path
    jobs: tuple[JobResult, ...]
    board: Board
    secs: float

    @property
    def is_over(self) -> bool:
        """Whether no job is left to run, so that the verdicts are final."""
        return not any(result.record.state in _OPEN for result in self.jobs)

    @property
    def counts(self) -> dict[JobState, int]:
        """Number of jobs for each state that occurs."""
        found = Counter(result.record.state for result in self.jobs)
        return {state: found[state] for state in JobState if found[state]}

    @property
    def undone(self) -> tuple[JobResult, ...]:
        """Jobs without a model; failed jobs come last."""
        undone = [result for result in self.jobs if not result.is_done]
        return tuple(sorted(undone, key=lambda result: result.record.state not in _OPEN))

    @property
    def lost(self) -> tuple[tuple[JobResult, Manifest], ...]:
        """Models that the registry accepts but the control over the whole sweep does not."""
        return tuple(
            (result, manifest)
            for result in self.jobs
            if result.verdict == ONLY_ALONE
            and (manifest := result.entry.model.manifest) is not None
            and manifest.gate.verdict is StoredVerdict.ACCEPTED
        )

    @property
    def shared_settings(self) -> dict[str, object]:
        """The settings that all models share, by dotted name."""
        manifests = [result.entry.model.manifest for result in self.jobs]
        configs = [dict(flat(manifest.config)) for manifest in manifests if manifest is not None]
        if not configs:
            return {}
        return {
            name: value
            for name, value in configs[0].items()
            if all(name in other and other[name] == value for other in configs[1:])
        }


def gather(
    folder: Path, jobs: Sequence[tuple[Job, JobRecord]], models_dir: Path, secs: float
) -> SweepResults:
    """Read the models of the jobs from the registry, and judge them with ``arrange``.

    Args:
        folder: Folder of the sweep.
        jobs: All jobs of the sweep with their last records.
        models_dir: The registry that the jobs exported to.
        secs: Wall time of the sweep.
    """
    jobs = [each for job, record in jobs for each in _by_market(job, record)]
    models = {job.name: _read_model(job, record, models_dir) for job, record in jobs}
    return arrange(folder, jobs, models, secs)


def arrange(
    folder: Path,
    jobs: Sequence[tuple[Job, JobRecord]],
    models: Mapping[str, SavedModel],
    secs: float,
) -> SweepResults:
    """Judge all models together, with false discovery control over the sweep.

    Args:
        folder: Folder of the sweep.
        jobs: All jobs with their last records.
        models: The model of each job, by the job's name.
        secs: Wall time of the sweep.
    """
    board = make_board(list(models.values()), notes=tuple(_notes(folder, jobs)))
    entries = {entry.model.name: entry for entry in board.entries}
    return SweepResults(
        folder,
        tuple(
            JobResult(job, record, entries[job.name], _val_loss(job, models[job.name]))
            for job, record in jobs
        ),
        board,
        secs,
    )


def _by_market(job: Job, record: JobRecord) -> Iterator[tuple[Job, JobRecord]]:
    """Split a job that trained one network for many markets into one job per market."""
    if not job.markets:
        yield job, record
        return
    results = record.result.get("markets", {})
    for symbol in job.markets:
        own = replace(job, symbol=symbol, markets=())
        if record.state not in DONE:
            yield own, record
        elif symbol in results:
            yield own, replace(record, result=results[symbol])


def version_of(record: JobRecord) -> str:
    """The version that a job exported; empty if it exported none."""
    version = record.result.get("version") if isinstance(record.result, dict) else None
    return version if record.state in DONE and isinstance(version, str) else ""


def _read_model(job: Job, record: JobRecord, models_dir: Path) -> SavedModel:
    timeframe, version_id = Timeframe(job.tf), version_of(record)
    if version_id:
        market = MarketFolder(models_dir, job.symbol, timeframe)
        return replace(read_version(market, version_id), variant=job.variant)
    why = record.error or "its record names no model"
    problem = f"its training ended as {record.state.value}: {why}"
    if record.state is JobState.WAITING:
        problem = "its training has not begun"
    return SavedModel(job.symbol, timeframe, problem=problem, variant=job.variant, exists=False)


def _notes(folder: Path, jobs: Sequence[tuple[Job, JobRecord]]) -> Iterator[str]:
    states = Counter(record.state for _, record in jobs)
    counted = ", ".join(f"{states[state]} {state.value}" for state in JobState if states[state])
    yield f"{folder.name}: {len(jobs)} {'job' if len(jobs) == 1 else 'jobs'}, {counted}."
    n_open = sum(states[state] for state in _OPEN)
    if n_open:
        yield (
            f"{n_open} of the jobs did not run or were interrupted: the verdicts over the sweep "
            "are provisional and change nothing in the registry; the same command goes on."
        )


def _val_loss(job: Job, model: SavedModel) -> tuple[float, ...]:
    """Validation losses from the model, else from the job's CSV logs."""
    if model.course.val_loss:
        return model.course.val_loss
    by_epoch: dict[int, float] = {}
    # A resumed run starts another file, which holds its later epochs.
    files = job.folder.glob("csv/version_*/metrics.csv")
    for path in sorted(files, key=lambda path: (len(path.parent.name), path.parent.name)):
        by_epoch |= _logged(path)
    return tuple(by_epoch[epoch] for epoch in sorted(by_epoch))


def _logged(path: Path) -> dict[int, float]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [(row.get("epoch"), row.get(_VAL_LOSS_COLUMN)) for row in csv.DictReader(file)]
        return {int(epoch): float(loss) for epoch, loss in rows if epoch and loss}
    except (OSError, ValueError, csv.Error):
        # The file ends in the middle of a line; the curve is left out.
        return {}
