"""The one screen at the end of a training: what, when, how good, where."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from percoin.bars.schema import format_time
from percoin.dataset import MarketDataset
from percoin.training.callbacks import PARTS
from percoin.types import CLASS_NAMES

_ROWS = (
    ("log_loss", "log-loss (lower is better)"),
    ("accuracy", "accuracy"),
    ("precision_macro", "precision, macro"),
    ("recall_macro", "recall, macro"),
    ("f1_macro", "F1, macro"),
    ("f1_weighted", "F1, weighted"),
    ("mcc", "Matthews correlation"),
    ("auroc", "AUROC, one against rest"),
    ("calibration_error", "calibration error"),
    *((f"f1_{name}", f"F1 of {name}") for name in CLASS_NAMES),
)


@dataclass(frozen=True)
class Summary:
    """What the screen shows.

    Attributes:
        dataset: What the model was trained on.
        values: Test metrics of the model by name.
        baseline: The same metrics of the constant answer: the majority class of the
            train rows, with the class shares there as probabilities.
        n_epochs: Epochs trained.
        best_epoch: The one that was kept, counted from 1.
        secs: Wall time of training and testing.
        artifact_folder: Where the model lies.
        run_folder: Where logs and pictures lie.
    """

    dataset: MarketDataset
    values: dict[str, float]
    baseline: dict[str, float]
    n_epochs: int
    best_epoch: int
    secs: float
    artifact_folder: Path
    run_folder: Path

    def key_results(self) -> dict[str, float]:
        """The few figures by which runs are compared."""
        return {
            "test_log_loss": self.values["log_loss"],
            "test_log_loss_skill": 1 - self.values["log_loss"] / self.baseline["log_loss"],
            "test_mcc": self.values["mcc"],
            "test_f1_macro": self.values["f1_macro"],
            "test_accuracy": self.values["accuracy"],
            "test_accuracy_of_constant": self.baseline["accuracy"],
        }

    def render(self, width: int = 88) -> str:
        """The screen as plain text."""
        buffer = io.StringIO()
        console = Console(file=buffer, width=width, force_terminal=False)
        bars = self.dataset.bars
        title = f"{bars.symbol} {bars.timeframe.value}"
        blocks = Group(self._spans(), Text(), self._scores(), Text(), self._facts())
        console.print(Panel(blocks, title=title, expand=False, padding=(1, 2)))
        return buffer.getvalue()

    @property
    def _majority(self) -> str:
        return CLASS_NAMES[int(self.dataset.class_counts("train").argmax())]

    def _spans(self) -> Table:
        table = Table(box=None, pad_edge=False)
        for heading in ("split", "from (UTC)", "to (UTC)"):
            table.add_column(heading)
        for heading in ("rows", *CLASS_NAMES):
            table.add_column(heading, justify="right")
        for part in PARTS:
            first, last = self.dataset.dates(part)
            counts = self.dataset.class_counts(part)
            shares = [f"{count / counts.sum():.1%}" for count in counts]
            rows = f"{counts.sum():,}"
            table.add_row(part, format_time(first), format_time(last), rows, *shares)
        return table

    def _scores(self) -> Table:
        table = Table(box=None, pad_edge=False)
        table.add_column("test")
        table.add_column("model", justify="right")
        table.add_column(f"always {self._majority}", justify="right")
        for name, heading in _ROWS:
            if name in self.values:
                constant = self.baseline.get(name)
                shown = "" if constant is None else f"{constant:.4f}"
                table.add_row(heading, f"{self.values[name]:.4f}", shown)
        return table

    def _facts(self) -> Table:
        skill = self.key_results()["test_log_loss_skill"]
        minutes, secs = divmod(round(self.secs), 60)
        table = Table.grid(padding=(0, 2))
        bars = self.dataset.bars
        for name, text in (
            (
                "skill",
                f"{skill:+.4f} log-loss skill over the train shares of the classes (0 is none)",
            ),
            (
                "trained",
                f"{self.n_epochs} epochs in {minutes} min {secs} s, best {self.best_epoch}",
            ),
            ("bars", f"{len(bars):,} of {bars.origin}"),
            ("model", str(self.artifact_folder)),
            ("logs", f"{self.run_folder}  (tensorboard --logdir {self.run_folder.parents[2]})"),
            ("predict", f"python predict.py symbol={bars.symbol} tf={bars.timeframe.value}"),
        ):
            table.add_row(name, Text(text, overflow="fold"))
        return table
