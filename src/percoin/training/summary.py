"""The summary printed at the end of a training: verdict, time spans, scores, files."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from percoin.bars.schema import format_time
from percoin.cli.overrides import source_words
from percoin.commands import command
from percoin.config import TrainConfig
from percoin.dataset import PARTS, MarketDataset
from percoin.evaluation.backtest import Exit
from percoin.evaluation.baselines import (
    BOOSTING,
    LOGISTIC,
    MAJORITY,
    MOVES,
    ROLLING_PRIOR,
    TRAIN_PRIOR,
    VOLATILITY,
)
from percoin.evaluation.blend import AVERAGE, BLEND, network_text, weights_text
from percoin.evaluation.evaluate import Assessment, Evaluation
from percoin.evaluation.judgement import JudgedBlend
from percoin.evaluation.level_reach import reached_text
from percoin.expected_move.judging import JudgedMoveModel
from percoin.intervals import number_text
from percoin.registry.layout import MarketFolder
from percoin.training.fitted import Fitted
from percoin.training.manifest_draft import ExportedModel
from percoin.types import CLASS_NAMES, LevelsReached

_WIDTH = 100
# Skill over two baselines: "skill" over the train prior, "recent" over the rolling prior.
_HEADINGS = ("log-loss", "skill", "recent", "act. AUC", "dir. AUC", "macro-F1", "accuracy")
# Width left inside the frame, its padding and the column of names.
_COMMAND_WIDTH = 85
_TRAINED = {
    LOGISTIC: "a logistic regression",
    VOLATILITY: "a regression on volatility",
    BOOSTING: "boosted trees",
    MOVES: "how far first, then which class",
    AVERAGE: "an average of models without a network",
}
_NAMES = {
    TRAIN_PRIOR: "train_prior (class shares)",
    ROLLING_PRIOR: "rolling_prior (last days)",
    MAJORITY: "majority (constant)",
}


@dataclass(frozen=True)
class TrainingSummary:
    """The content of the summary.

    Attributes:
        dataset: The training data; in a walk-forward, the newest fold.
        evaluation: Results on the test rows.
        blend: The parts of a blended model, if it is one.
        epochs: Number of epochs trained and the best epoch, counted from 1; 0 means the initial
            weights. None for a model without epochs.
        secs: Wall time of training and testing.
        model_folder: The registry's link to the market's served model.
        version_id: Id of the new version.
        is_served: Whether the new version is the served model.
        run_folder: Folder of logs and pictures.
        log_folder: Folder of the logs of all runs, or of this run if it lies elsewhere.
        predict_command: Command that predicts for the newest bar of the same source.
        move: The forecast of the expected move; None if there is none.
        levels: How often stop and targets were reached on the test rows; None if too few.
        levels_in_moves: Same for stop and targets in units of the expected move.
        exit: Where positions of the backtests close.
        refit_text: Says that a refit is served, and of what the figures are; None without one.
        is_of_pool: Whether the model learnt from other markets too.
    """

    dataset: MarketDataset
    evaluation: Evaluation
    epochs: tuple[int, int] | None
    secs: float
    model_folder: Path
    version_id: str
    is_served: bool
    run_folder: Path
    log_folder: Path
    predict_command: str
    blend: JudgedBlend | None = None
    move: JudgedMoveModel | None = None
    levels: LevelsReached | None = None
    levels_in_moves: LevelsReached | None = None
    exit: Exit = Exit.HORIZON
    refit_text: str | None = None
    is_of_pool: bool = False

    @classmethod
    def of(
        cls, settings: TrainConfig, fitted: Fitted, exported: ExportedModel, run_folder: Path
    ) -> TrainingSummary:
        """Build the summary of a market that was judged and exported.

        Args:
            settings: Settings of the run.
            fitted: The market and its training.
            exported: The version and its judgement.
            run_folder: Folder of logs and pictures.
        """
        symbol, judgement = fitted.dataset.bars.symbol, exported.judgement
        return cls(
            dataset=fitted.dataset,
            evaluation=judgement.evaluation,
            blend=judgement.blend,
            move=exported.move,
            levels=judgement.levels,
            levels_in_moves=exported.levels_in_moves,
            exit=Exit(settings.backtest.exit),
            refit_text=exported.refit_text,
            is_of_pool=fitted.pool is not None,
            epochs=fitted.epochs,
            secs=fitted.secs,
            model_folder=MarketFolder(
                Path(settings.models_dir), symbol, settings.tf.timeframe
            ).link,
            version_id=exported.version.folder.name,
            is_served=exported.version.is_served,
            run_folder=run_folder,
            log_folder=log_folder(run_folder, Path(settings.outputs_dir)),
            predict_command=command(
                "python predict.py",
                f"symbol={symbol}",
                f"tf={settings.tf.name}",
                *source_words(settings.source),
                *([f"plugins=[{','.join(settings.plugins)}]"] if settings.plugins else []),
                data_dir=settings.data_dir,
                models_dir=settings.models_dir,
            ),
        )

    def key_results(self) -> dict[str, float]:
        """The main figures for comparing runs."""
        model, majority = self.evaluation.model, self._baseline(MAJORITY)
        return {
            "test_log_loss": model.scores.log_loss,
            "test_log_loss_skill": model.skill.value,
            "test_mcc": model.scores.mcc,
            "test_macro_f1": model.scores.macro_f1,
            "test_accuracy": model.scores.accuracy,
            "test_accuracy_of_majority": majority.scores.accuracy,
        }

    def render(self) -> str:
        """The summary as plain text."""
        buffer = io.StringIO()
        console = Console(file=buffer, width=_WIDTH, force_terminal=False)
        bars = self.dataset.bars
        title = f"{bars.symbol} {bars.timeframe.value}"
        gap = Text()
        blocks = (self._verdict(), gap, self._spans(), gap, self._scores(), gap, self._facts())
        console.print(Panel(Group(*blocks), title=title, padding=(1, 2)))
        # A command wrapped inside the frame cannot be copied, so print a long one below it.
        return buffer.getvalue() + ("" if self._is_short else f"{self.predict_command}\n")

    @property
    def _is_short(self) -> bool:
        return len(self.predict_command) <= _COMMAND_WIDTH

    def _verdict(self) -> Text:
        verdict = self.evaluation.verdict
        lines = [f"{verdict.outcome.upper()}: {self.evaluation.shown()}", *verdict.reasons]
        return Text("\n".join([*lines, *(f"caution: {text}" for text in verdict.cautions)]))

    def _spans(self) -> Table:
        table = Table(box=None, pad_edge=False)
        for heading in ("split", "first opens (UTC)", "last opens (UTC)"):
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
        """Scores of the model and of the baselines; the majority class puts accuracy in context."""
        table = Table(box=None, pad_edge=False)
        table.add_column(f"{self.evaluation.n_rows:,} test rows")
        for heading in _HEADINGS:
            table.add_column(heading, justify="right")
        rival = self.evaluation.rival_name
        first = (rival, LOGISTIC, ROLLING_PRIOR, TRAIN_PRIOR, MAJORITY)
        # If the model is itself one of them, that is no baseline.
        shown = [name for name in dict.fromkeys(first) if name != self.evaluation.model.name]
        for line in (self.evaluation.model, *(self._baseline(name) for name in shown)):
            table.add_row(*self._cells(line))
        return table

    def _cells(self, line: Assessment) -> tuple[str, ...]:
        aucs = [
            "-" if skill.auc is None else f"{skill.auc.value:.3f}"
            for skill in (line.activity, line.direction)
        ]
        scores = line.scores
        return (
            _NAMES.get(line.name, line.name) + self._mark(line),
            f"{scores.log_loss:.4f}",
            number_text(line.skill.value),
            "-" if line.recent_skill is None else number_text(line.recent_skill.value),
            *aucs,
            f"{scores.macro_f1:.3f}",
            f"{scores.accuracy:.3f}",
        )

    def _mark(self, line: Assessment) -> str:
        return ", the rival" if line.name == self.evaluation.rival_name else ""

    def _facts(self) -> Table:
        bars = self.dataset.bars
        served = "" if self.is_served else "  (still the version before this one)"
        logs = command("tensorboard --logdir", str(self.log_folder))
        table = Table.grid(padding=(0, 2))
        for name, text in (
            ("trained", self._trained()),
            *self._parts(),
            *zip(("expected move", ""), self._move(), strict=False),
            *self._levels(),
            *([] if self.refit_text is None else [("served", self.refit_text)]),
            ("bars", f"{len(bars):,} of {bars.origin}"),
            ("model", f"{self.model_folder}{served}"),
            ("tables", str(self.run_folder / "evaluation.txt")),
            *([] if self.epochs is None else [("logs", logs)]),
            ("predict", self.predict_command if self._is_short else "the command below"),
        ):
            table.add_row(name, Text(text, overflow="fold"))
        return table

    def _trained(self) -> str:
        if self.epochs is None:
            fitted = _TRAINED[self.evaluation.model.name]
            if self.is_of_pool:
                return f"{fitted}; what all markets share in {self.secs:.1f} s"
            return f"{fitted}, in {self.secs:.1f} s with the baselines"
        minutes, secs = divmod(round(self.secs), 60)
        n_epochs, best = self.epochs
        epochs = "1 epoch" if n_epochs == 1 else f"{n_epochs} epochs"
        kept = f"epoch {best} kept" if best else "no epoch was better: the pooled weights are kept"
        return f"{epochs} in {minutes} min {secs} s, {kept}"

    def _move(self) -> list[str]:
        return [] if self.move is None else self.move.lines()

    def _parts(self) -> list[tuple[str, str]]:
        """The weights of a blend, and the skill of each part over the train prior."""
        if self.blend is None:
            return []
        parts = self.blend.parts
        skills = {name: part.skills for name, part in parts.items()} | {BLEND: self.blend.skills}
        weights = {name: part.weight for name, part in parts.items()}
        adds = self.blend.network_adds
        return [
            ("blend", f"{weights_text(weights)}; skill over the train prior:"),
            *(
                (f"  {name}", f"validation {both.validation}, test {both.test}")
                for name, both in skills.items()
            ),
            *([] if adds is None else [("", f"on test rows {network_text(adds)}")]),
        ]

    def _levels(self) -> list[tuple[str, str]]:
        """How often stop and targets were reached, and the exit if it is another than usual."""
        horizon = self.dataset.label_rule.horizon
        named = (("levels", self.levels), ("levels=bands", self.levels_in_moves))
        known = [
            (name, reached_text(reached, horizon)) for name, reached in named if reached is not None
        ]
        return known if self.exit is Exit.HORIZON else [*known, ("exit", self.exit.words)]

    def _baseline(self, name: str) -> Assessment:
        return next(line for line in self.evaluation.baselines if line.name == name)


def log_folder(run_folder: Path, outputs: Path) -> Path:
    """The folder of the logs of all runs, or of this run if it lies elsewhere."""
    run, outputs = run_folder.absolute(), outputs.absolute()
    return run_folder.parents[2] if outputs in run.parents[2:] else run_folder
