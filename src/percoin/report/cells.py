"""Formats every figure as text, for the page, the Markdown and the terminal."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from percoin.commands import flat
from percoin.evaluation.backtest import BacktestResult, Exit
from percoin.evaluation.blend import network_text, weights_text
from percoin.evaluation.evaluate import Evaluation
from percoin.evaluation.level_reach import reached_text
from percoin.evaluation.uncertainty import Estimate
from percoin.intervals import Interval, ends_text, number_text
from percoin.registry.manifest import Manifest
from percoin.registry.parts import Calibration
from percoin.report.board import RankedModel, age, majority_share, money_of, rival_of, test_days
from percoin.report.reading import Judging, SavedModel
from percoin.types import NO_TRADES

NONE = "-"
_SPLIT_TITLES = {"train": "trained on", "val": "validated on", "test": "tested on"}


@dataclass(frozen=True)
class Figure:
    """A figure with its interval.

    Attributes:
        value: Text; ``-`` if it was not measured.
        interval: Text of the interval, or another note under the value; may be empty.
        sort: Sort key; None goes last.
    """

    value: str = NONE
    interval: str = ""
    sort: float | None = None

    def __str__(self) -> str:
        return f"{self.value} {self.interval}".rstrip()


@dataclass(frozen=True)
class LeaderboardRow:
    """One line of the leaderboard; its fields are the columns."""

    rank: str
    symbol: str
    timeframe: str
    variant: str
    status: str
    shown: str
    reason: str
    skill: Figure
    recent_skill: Figure
    rival: str
    lead: Figure
    activity_auc: Figure
    direction_auc: Figure
    effective_rows: Figure
    net_return: Figure
    hold_return: Figure
    tested: str
    age: Figure


def leaderboard_row(entry: RankedModel, now: datetime) -> LeaderboardRow:
    """The line of one model.

    Args:
        entry: The model.
        now: Time at which its age is measured.
    """
    model, evaluation = entry.model, entry.model.evaluation
    line, days = evaluation.model if evaluation else None, test_days(model)
    own, hold = money_of(evaluation) if evaluation else (None, None)
    return LeaderboardRow(
        rank="" if entry.rank is None else str(entry.rank),
        symbol=model.symbol,
        timeframe=model.timeframe.value,
        variant=model.variant,
        status=entry.status.value,
        shown=entry.shown,
        reason=entry.short_reason,
        skill=figure(line.skill if line else None),
        recent_skill=figure(line.recent_skill if line else None),
        rival=rival_of(evaluation).name if evaluation else NONE,
        lead=figure(evaluation.lead if evaluation else None),
        activity_auc=figure(line.activity.auc if line else None, 3, signed=False),
        direction_auc=figure(line.direction.auc if line else None, 3, signed=False),
        effective_rows=number(line.skill.n_effective_rows if line else None, ",.0f"),
        net_return=_net_return(own),
        hold_return=number(hold.net_return if hold else None, "+.1%"),
        tested=" to ".join(days) if days else NONE,
        age=_age(model.manifest, now),
    )


def figure(estimate: Estimate | None, decimals: int = 4, signed: bool = True) -> Figure:
    """An estimate as text, with its interval if there are enough rows for one."""
    if estimate is None:
        return Figure()
    value = number_text(estimate.value, decimals, signed)
    return Figure(value, ends_text(estimate, decimals, signed), estimate.value)


def number(value: float | None, spec: str) -> Figure:
    """A number as text, without an interval."""
    return Figure() if value is None else Figure(f"{value:{spec}}", "", value)


def _net_return(own: BacktestResult | None) -> Figure:
    if own is None:
        return Figure()
    trades = "1 trade" if own.n_trades == 1 else f"{own.n_trades:,} trades"
    return Figure(f"{own.net_return:+.1%}", trades, own.net_return)


def _age(manifest: Manifest | None, now: datetime) -> Figure:
    if manifest is None:
        return Figure()
    days = max(0.0, age(manifest, now).total_seconds() / 86_400)
    return Figure("today" if days < 1 else f"{days:.0f} d", "", days)


def accuracy_line(model: SavedModel) -> str:
    """Accuracy compared with always giving the most frequent label; empty without data."""
    matrix = confusion_matrix(model)
    if not matrix:
        return ""
    name, share = majority_share(matrix)
    right = sum(matrix[k][k] for k in range(len(matrix))) / max(1, sum(map(sum, matrix)))
    return f"It was right on {right:.1%} of the test bars; saying {name} every time, on {share:.1%}"


def confusion_matrix(model: SavedModel) -> tuple[tuple[int, ...], ...]:
    """Counts by label and decision, from the evaluation, else the manifest; may be empty."""
    if model.evaluation is not None:
        return model.evaluation.model.scores.confusion_matrix
    return () if model.manifest is None else model.manifest.test_metrics.confusion_matrix


def facts(model: SavedModel) -> list[tuple[str, str]]:
    """How the model was trained and judged, as names and values."""
    manifest = model.manifest
    if manifest is None:
        return []
    bars, calibration = manifest.bars, manifest.calibration
    known = [
        ("bars", f"{bars.origin}, {bars.n_bars:,}, the last opens {_minute(bars.last_open_time)}"),
        *(
            (title, f"open {_minute(span.first)} to {_minute(span.last)}, {span.rows:,} bars")
            for name, title in _SPLIT_TITLES.items()
            if (span := bars.splits[name])
        ),
        ("label", ", ".join(f"{key} {value}" for key, value in manifest.label_rule.items())),
        (
            "input",
            f"{manifest.num_features} {manifest.features.definition.value} features of "
            f"{manifest.lookback} bars" + _extra_features(manifest),
        ),
        ("model", manifest.model.kind + _blend(manifest, model.judging.network_adds)),
        ("calibration", _calibration(calibration)),
    ]
    if model.evaluation is not None:
        known += _judging_facts(model.evaluation, model.judging)
    return [
        *known,
        ("exported", f"{_minute(manifest.created_at)}, version {manifest.version_id}"),
        ("seed", str(manifest.seed)),
        ("code", manifest.code_version),
        ("libraries", ", ".join(f"{key} {value}" for key, value in manifest.libraries.items())),
    ]


def _extra_features(manifest: Manifest) -> str:
    extra = manifest.features.extra
    return f", {', '.join(extra)} among them" if extra else ""


def _blend(manifest: Manifest, network_adds: Interval | None) -> str:
    if not manifest.weights:
        return ""
    skills = ", ".join(f"{name} {skills.test}" for name, skills in manifest.part_skills.items())
    adds = "" if network_adds is None else f"; {network_text(network_adds)}"
    return f", averaged: {weights_text(manifest.weights)}; skill on the test bars: {skills}{adds}"


def _calibration(calibration: Calibration) -> str:
    numbers = {
        "temperature": () if calibration.temperature is None else (calibration.temperature,),
        "weights": calibration.weights or (),
        "bias": calibration.bias or (),
    }
    texts = [
        f"{name} {' '.join(f'{value:.3g}' for value in values)}"
        for name, values in numbers.items()
        if values
    ]
    return ", ".join([calibration.method, *texts])


def _judging_facts(evaluation: Evaluation, judging: Judging) -> list[tuple[str, str]]:
    draws, n_folds = evaluation.bootstrap, judging.n_folds
    rows = f"{evaluation.n_rows:,} test bars"
    if n_folds > 1:
        rows += f" of the {n_folds} folds of a walk-forward; the dates here are the newest's"
    known = [("judged on", rows)]
    if judging.threshold is not None and judging.threshold >= NO_TRADES:
        known.append(("trades from", "never: no threshold earned anything on validation rows"))
    elif judging.threshold is not None:
        known.append(("trades from", f"a probability of {judging.threshold:.3f} on"))
    if judging.exit is not Exit.HORIZON:
        known.append(("exit", judging.exit.words))
    if judging.levels is not None:
        known.append(("levels", reached_text(judging.levels, draws.horizon)))
    if evaluation.money:
        known.append(("costs", evaluation.money[0].costs_text))
    block = evaluation.model.skill.block_length
    intervals = (
        f"{draws.confidence:.0%}, from {draws.repetitions:,} draws of blocks of {block} bars"
    )
    return [*known, ("intervals", intervals)]


def settings(manifest: Manifest) -> list[tuple[str, str]]:
    """Every training setting, by its dotted name."""
    return [(name, str(value)) for name, value in flat(manifest.config)]


def hashes(manifest: Manifest) -> list[tuple[str, str]]:
    """The sha256 of the bars and of each file."""
    return [("bars", manifest.bars.sha256), *manifest.files.items()]


def _minute(time: str) -> str:
    """Format ``2025-08-31T23:45:00Z`` as ``2025-08-31 23:45``."""
    return f"{time[:10]} {time[11:16]}"
