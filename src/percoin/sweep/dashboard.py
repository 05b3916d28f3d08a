"""One TensorBoard run for a whole sweep, because 128 runs are too many for one dashboard."""

from __future__ import annotations

import io
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from percoin.commands import flat
from percoin.evaluation.gate import SHOWN
from percoin.printable import printable
from percoin.report.board import BEHIND, BoardStatus, RankedModel, answer, headlines
from percoin.report.plain import escape, markdown_leaderboard, markdown_table
from percoin.sweep.results import JobResult, SweepResults
from percoin.whole_file import write_new

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Each is a run of its own; TensorBoard grows sluggish near 250.
_MOST_COMPARED = 200


def write_dashboard(results: SweepResults, folder: Path) -> None:
    """Replace the sweep's TensorBoard run with a new one.

    Text: the answer, job counts by state, jobs without a model, and the leaderboard. Images:
    skills with their intervals, one image per bar length and variant. Scalars: validation
    loss by epoch, in the same groups. If settings are swept, HPARAMS compares the jobs.

    Args:
        results: Results of the sweep.
        folder: Folder of the run.

    Raises:
        OSError: The folder cannot be written.
    """
    aside = folder.with_name(f".{folder.name}.{os.getpid()}")
    # Also removes leftovers of killed sweeps: this process holds the lock of the sweep's folder.
    for left in folder.parent.glob(f".{folder.name}.*"):
        shutil.rmtree(left, ignore_errors=True)
    try:
        aside.mkdir(parents=True)
        # TensorBoard finds its files by this name.
        name = f"events.out.tfevents.{time.time():.0f}.sweep"
        write_new(aside / name, _events(_summaries(results)))
        for result in _compared(results):
            place = aside / "hparams" / result.job.folder.relative_to(results.folder)
            place.mkdir(parents=True)
            write_new(place / name, _events(_hparams(result, results)))
        if folder.exists():
            shutil.rmtree(folder)
        aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _events(summaries: Iterable[tuple[Any, int]]) -> bytes:
    """Content of an event file, from summaries and their steps.

    TensorBoard's own writer works in a thread: the sweep would not notice an error such as
    a full disk.
    """
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter

    buffer, now = io.BytesIO(), time.time()
    writer = RecordWriter(buffer)
    writer.write(Event(wall_time=now, file_version="brain.Event:2").SerializeToString())
    for summary, step in summaries:
        writer.write(Event(wall_time=now, step=step, summary=summary).SerializeToString())
    return buffer.getvalue()


def _summaries(results: SweepResults) -> Iterator[tuple[Any, int]]:
    """What the run of the whole sweep shows."""
    from torch.utils.tensorboard.summary import image, scalar, text

    for name, words in _texts(results).items():
        yield text(name, words), 0
    for name, entries in _groups(results).items():
        yield image(f"skills/{name}", _pixels(draw_skills(entries, name)), dataformats="HWC"), 0
    for result in results.jobs:
        tag = f"validation loss {_group(result.entry)}/{result.job.symbol}"
        for epoch, loss in enumerate(result.val_loss, start=1):
            yield scalar(tag, loss), epoch


def _compared(results: SweepResults) -> list[JobResult]:
    """Jobs to compare by their settings: judged ones of a sweep over settings, if not too many."""
    judged = [each for each in results.jobs if each.job.variant and each.entry.rank is not None]
    return judged if len(judged) <= _MOST_COMPARED else []


def _hparams(result: JobResult, results: SweepResults) -> Iterator[tuple[Any, int]]:
    """A job's settings that differ between jobs, its verdict and its main figures."""
    from torch.utils.tensorboard.summary import hparams, scalar

    manifest, evaluation = result.entry.model.manifest, result.entry.model.evaluation
    shared, config = results.shared_settings, dict(flat(manifest.config)) if manifest else {}
    settings = {
        name: value if isinstance(value, bool | int | float) else str(value)
        for name, value in {"symbol": result.job.symbol, "tf": result.job.tf, **config}.items()
        if name not in shared and not name.startswith("tf.")
    }
    figures = {} if evaluation is None else {"test_log_loss_skill": evaluation.model.skill.value}
    figures |= {
        name: value
        for name, value in result.record.result.items()
        if name.startswith(("test_", "validation_")) and isinstance(value, float)
    }
    named = {f"result/{name}": value for name, value in figures.items()}
    for summary in hparams({**settings, "verdict": result.verdict}, named):
        yield summary, 0
    for name, value in named.items():
        yield scalar(name, value), 0


def _pixels(figure: Figure) -> Any:
    """The picture as RGB pixels, shape (height, width, 3)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[:, :, :3]


def _texts(results: SweepResults) -> dict[str, str]:
    """Texts by name; TensorBoard sorts them by name."""
    board = results.board
    counts = [(state.value, str(count)) for state, count in results.counts.items()]
    undone = [(r.job.name, r.record.state.value, r.error) for r in results.undone]
    jobs = [markdown_table(("state", "jobs"), counts)]
    jobs += [markdown_table(("job", "state", "error"), undone)] if undone else []
    sentences = [f"**{escape(answer(board))}**", *map(escape, headlines(board))]
    return {
        "answer": "\n\n".join(sentences),
        "jobs": "\n\n".join(jobs),
        "leaderboard": markdown_leaderboard(board),
    }


def _group(entry: RankedModel) -> str:
    """Bar length and variant, without slashes, at which TensorBoard would cut the name."""
    model = entry.model
    return " ".join(filter(None, (model.timeframe.value, model.variant))).replace("/", " ")


def _groups(results: SweepResults) -> dict[str, list[RankedModel]]:
    """Judged models by group, best first."""
    groups: dict[str, list[RankedModel]] = {}
    for entry in results.board.entries:
        if entry.rank is not None:
            groups.setdefault(_group(entry), []).append(entry)
    return groups


def draw_skills(entries: Sequence[RankedModel], title: str) -> Figure:
    """Skill, activity and direction of judged models with 95 % intervals.

    Args:
        entries: In the order from top to bottom.
        title: Title of the picture.
    """
    from percoin.plot import skills_of
    from percoin.plot.picture import BLUE, GREY, ORANGE

    colours = {
        SHOWN[BoardStatus.ACCEPTED]: BLUE,
        BEHIND: ORANGE,
        SHOWN[BoardStatus.REJECTED]: ORANGE,
        SHOWN[BoardStatus.UNTESTABLE]: GREY,
        BoardStatus.NOT_JUDGED.value: GREY,
    }
    evaluations = [entry.model.evaluation for entry in entries]
    return skills_of(
        [None if each is None else each.model for each in evaluations],
        [printable(entry.model.symbol) for entry in entries],
        [entry.shown for entry in entries],
        colours,
        title,
    )
