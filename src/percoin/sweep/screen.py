"""The results of a sweep as text for a terminal or a log file."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from percoin.printable import printable
from percoin.report.board import answer, headlines
from percoin.report.cells import Figure, LeaderboardRow, leaderboard_row
from percoin.sweep.jobs import BROKEN
from percoin.sweep.results import ONLY_ALONE, JobResult, SweepResults

_N_LEADERS = 20
# Widths from which on further columns are shown.
_WIDE, _WIDER = 100, 120
# What was shown, as ``gate.SHOWN`` says it, for a narrow column.
_SHORT = {"accepted": "skill shown", "rejected": "none shown", "untestable": "too few rows"}
_STYLES = {"accepted": "green", ONLY_ALONE: "yellow", "broken": "bold red"}


def to_screen(results: SweepResults, closing: Iterable[str], width: int, colour: bool) -> str:
    """Tables of the jobs, the leaderboard, the findings over all models, and the failures.

    Args:
        results: Results of the sweep.
        closing: Further lines, shown before the failed jobs.
        width: Width in characters.
        colour: Whether to use colours.
    """
    buffer = io.StringIO()
    console = Console(
        file=buffer,
        width=width,
        force_terminal=colour,
        color_system="standard" if colour else None,
        highlight=False,
        markup=False,
        emoji=False,
    )
    for block in _blocks(results, tuple(closing), width):
        console.print(block)
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines())


def wants_colour() -> bool:
    """Whether stdout is a terminal and NO_COLOR is not set (no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def _blocks(
    results: SweepResults, closing: tuple[str, ...], width: int
) -> Iterable[RenderableType]:
    yield _plain(f"{results.board.notes[0]} Took {_duration(results.secs)}.", "bold")
    yield ""
    done = [result for result in results.jobs if result.is_done]
    if done:
        yield _jobs_table(done, results)
        yield ""
    if results.undone:
        yield _undone_table(results.undone)
        yield ""
    if results.board.n_tried > 1:
        yield from _leaderboard(results, width)
        yield ""
    yield _plain(answer(results.board), "bold")
    for sentence in [*headlines(results.board)[1:], *closing]:
        yield _plain(sentence)
    yield from _failures(results)


def _jobs_table(done: list[JobResult], results: SweepResults) -> Table:
    table = _table(("job", "state", "epochs", "time", "skill [95 %]", "act.", "dir.", "verdict"))
    for result in done:
        row = leaderboard_row(result.entry, results.board.created_at)
        table.add_row(
            _plain(result.job.name),
            result.record.state.value,
            _epochs(result),
            _duration(result.record.secs),
            _interval(row.skill),
            row.activity_auc.value.lstrip("0"),
            row.direction_auc.value.lstrip("0"),
            _verdict(result),
        )
    return table


def _undone_table(undone: Iterable[JobResult]) -> Table:
    table = _table(("job", "state", "epochs", "time"))
    table.add_column("error", overflow="fold")
    for result in undone:
        style = "bold red" if result.record.state in BROKEN else "yellow"
        state = result.record.state.value
        table.add_row(
            _plain(result.job.name, style),
            _plain(state.upper() if result.record.state in BROKEN else state, style),
            _epochs(result),
            _duration(result.record.secs),
            _plain(result.error),
        )
    return table


def _leaderboard(results: SweepResults, width: int) -> Iterable[RenderableType]:
    headings = ["#", "job", "skill [95 %]", "ahead of rival [95 %]"]
    headings += ["rival"] if width >= _WIDE else []
    headings += ["net return", "buy and hold"] if width >= _WIDER else []
    table = _table((*headings, "verdict"), name=1)
    ranked = [entry for entry in results.board.entries if entry.rank is not None]
    by_name = {result.job.name: result for result in results.jobs}
    for entry in ranked[:_N_LEADERS]:
        row = leaderboard_row(entry, results.board.created_at)
        table.add_row(
            row.rank,
            _plain(entry.model.name),
            _interval(row.skill),
            _interval(row.lead) + (" *" if entry.leads else ""),
            *_further_cells(row, width),
            _verdict(by_name[entry.model.name]),
        )
    yield _plain("leaderboard", "bold")
    yield table
    if len(ranked) > _N_LEADERS:
        yield _plain(f"and {len(ranked) - _N_LEADERS} more: the report has all of them")
    yield _plain(
        "skill: share of the log-loss of the long-run class shares that is removed. rival: the "
        "baseline that was strongest on validation rows. ahead of rival: its log-loss minus the "
        "model's, in nats a bar; * sure, among so many. act., dir.: AUC "
        "of telling that a move comes, and of telling up from down; .5 is a coin flip. only alone: "
        "skill shown by its own test, not among so many.",
        "dim",
    )


def _further_cells(row: LeaderboardRow, width: int) -> list[str]:
    cells = [row.rival] if width >= _WIDE else []
    return cells + ([row.net_return.value, row.hold_return.value] if width >= _WIDER else [])


def _failures(results: SweepResults) -> Iterable[RenderableType]:
    """The failed jobs. They come last, so they stay visible on the screen."""
    failed = [result for result in results.jobs if result.record.state in BROKEN]
    if not failed:
        return
    yield ""
    yield _plain(f"{len(failed)} of {len(results.jobs)} jobs FAILED:", "bold red")
    for result in failed:
        line = f"{result.job.name}: {result.error or result.record.state.value}"
        yield Padding(_plain(line, "red"), (0, 0, 0, 2))


def _table(headings: Iterable[str], name: int = 0) -> Table:
    """A table that wraps only the column of names on a narrow terminal."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    for column, heading in enumerate(headings):
        is_text = column == name or heading in ("state", "verdict", "rival")
        table.add_column(
            heading,
            justify="left" if is_text else "right",
            no_wrap=column != name,
            overflow="fold",
        )
    return table


def _epochs(result: JobResult) -> str:
    record = result.record
    if not record.max_epochs:
        return "-"
    # The time in the next column does not include these epochs.
    before = f" ({record.resumed_from} before)" if record.resumed_from else ""
    return f"{record.epoch}/{record.max_epochs}{before}"


def _interval(figure: Figure) -> str:
    """``+0.0131 [+0.0061, +0.0203]`` without leading zeros."""
    return str(figure).replace("+0.", "+.").replace("-0.", "-.")


def _verdict(result: JobResult) -> Text:
    words = _SHORT.get(result.verdict, result.verdict)
    words = "behind" if result.entry.is_behind else words
    return Text(words, style=_STYLES.get(result.verdict, ""))


def _duration(secs: float) -> str:
    minutes, seconds = divmod(round(secs), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h {minutes:02d}m"
    return f"{minutes}m {seconds:02d}s" if minutes else f"{seconds}s"


def _plain(text: str, style: str = "") -> Text:
    return Text(printable(text), style=style, overflow="fold")
