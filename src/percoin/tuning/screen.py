"""The log line of each trial, and the summary at the end of a search."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from tqdm import tqdm

from percoin.tuning.search import Fate, Tried, best_of

PICTURE_FILE = "study.png"
_WIDTH = 100


def describe_trial(tried: Sequence[Tried], n_trials: int, secs_left: float) -> str:
    """The log line of the trial that just ended.

    Args:
        tried: All finished trials.
        n_trials: Number of trials planned.
        secs_left: Estimated time of the remaining trials.
    """
    newest, best = tried[-1], best_of(tried)
    what = "" if newest.candidate is None else f" {newest.candidate}"
    if newest.is_own:
        what = f" own settings{what}"
    left = tqdm.format_interval(secs_left)
    return (
        f"trial {newest.number}/{n_trials}:{what}: {_outcome(newest, best)}  "
        f"{newest.secs:.1f} s, about {left} left"
    )


def _outcome(newest: Tried, best: Tried | None) -> str:
    if newest.fate is Fate.FAILED:
        return f"failed: {newest.reason}"
    if newest.fate is Fate.ENDED_EARLY:
        return f"ended early after epoch {newest.n_epochs}, skill {newest.skill:+.4f}"
    is_best = best is not None and best.number == newest.number
    return f"skill {newest.skill:+.4f}{' (best)' if is_best else ''}"


def secs_left(tried: Sequence[Tried], n_trials: int) -> float:
    """Estimated time of the remaining trials, from the mean time of the finished ones."""
    mean = sum(each.secs for each in tried) / len(tried)
    return mean * (n_trials - len(tried))


@dataclass(frozen=True)
class Screen:
    """The summary at the end of a search.

    Attributes:
        title: Market and bar length.
        tried: All trials of the study.
        best: The chosen trial.
        importances: Share of the skill's variance that each parameter explains.
        n_counted: Trials of all studies of the market, this study included.
        n_looks: Chosen models judged on these test rows, this one included.
        command: Command that trains the chosen settings again.
        folder: Folder with the picture of the study.
        study_file: The file with all studies.
    """

    title: str
    tried: Sequence[Tried]
    best: Tried
    importances: Mapping[str, float]
    n_counted: int
    n_looks: int
    command: str
    folder: Path
    study_file: Path

    def render(self) -> str:
        """The summary as plain text."""
        buffer = io.StringIO()
        console = Console(file=buffer, width=_WIDTH, force_terminal=False)
        gap = Text()
        blocks = Group(self._finding(), gap, self._parameters(), gap, self._facts())
        console.print(Panel(blocks, title=self.title, padding=(1, 2)))
        # The command is outside the frame, so it is easy to copy.
        return f"{buffer.getvalue()}the best settings again, without a search:\n{self.command}\n"

    @property
    def _own(self) -> Tried | None:
        return next((each for each in self.tried if each.is_own), None)

    def _finding(self) -> Text:
        own = self._own
        lines = [
            f"best of {len(self.tried)} trials on validation rows: skill {self.best.skill:+.4f} "
            f"(trial {self.best.number})"
        ]
        if own is not None and own.number == self.best.number:
            lines.append("these are the command's own settings: nothing better was found")
        elif own is not None and own.skill is not None:
            lines.append(f"the command's own settings: skill {own.skill:+.4f}")
        elif own is not None:
            lines.append(f"the command's own settings failed: {own.reason}")
        lines.append(
            "The rows that chose the best of many make it seem better than it is; only its test "
            "rows show its worth."
        )
        return Text("\n".join(lines))

    def _parameters(self) -> Table:
        own = {} if self._own is None else self._own.parameters
        table = Table(box=None, pad_edge=False)
        table.add_column("setting")
        for heading in ("own", "best", "importance"):
            table.add_column(heading, justify="right")
        for name in dict.fromkeys([*own, *self.best.parameters]):
            share = self.importances.get(name)
            table.add_row(
                name,
                _cell(own.get(name)),
                _cell(self.best.parameters.get(name)),
                "-" if share is None else f"{share:.0%}",
            )
        return table

    def _facts(self) -> Table:
        counts = [
            f"{count} {fate.value}"
            for fate in Fate
            if (count := sum(each.fate is fate for each in self.tried))
        ]
        facts = {
            "trials": ", ".join(counts),
            "counted": f"{self.n_counted} of this market, against the model",
            "looks": f"{self.n_looks} chosen models at these test rows, with this one",
            "picture": str(self.folder / PICTURE_FILE),
            "study": str(self.study_file),
        }
        if self.n_looks == 1:
            del facts["looks"]
        table = Table.grid(padding=(0, 2))
        for name, text in facts.items():
            table.add_row(name, Text(text, overflow="fold"))
        return table


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
