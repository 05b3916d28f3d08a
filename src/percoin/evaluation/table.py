"""The evaluation as plain text: a headline, the table, the money, for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from percoin.evaluation.backtest import BacktestResult
from percoin.evaluation.baselines import MAJORITY
from percoin.evaluation.evaluate import Assessment, Evaluation, Skill
from percoin.evaluation.uncertainty import Estimate
from percoin.types import CLASS_NAMES

SCORE_COLUMNS = (
    "forecast",
    "log-loss",
    "skill [95 %]",
    "activity AUC",
    "skill",
    "direction AUC",
    "skill [95 %]",
    "MCC",
    "bal.acc",
    "macro-F1",
    "Brier",
    "calib.err",
    "accuracy",
)
MONEY_COLUMNS = (
    "who",
    "net return",
    "trades",
    "hit rate",
    "break-even",
    "profit factor",
    "drawdown",
    "exposure",
    "Sharpe",
    "deflated",
)


def headline(evaluation: Evaluation) -> str:
    """The verdict and its first reason in one line."""
    verdict = evaluation.verdict
    return f"{verdict.outcome.upper()} {evaluation.model.name}: {verdict.reasons[0]}"


def score_rows(evaluation: Evaluation) -> list[tuple[str, ...]]:
    """Cells under ``SCORE_COLUMNS``: the model, then each baseline."""
    return [_score_row(line) for line in (evaluation.model, *evaluation.baselines)]


def money_rows(results: Sequence[BacktestResult]) -> list[tuple[str, ...]]:
    """Cells under ``MONEY_COLUMNS``, one row per backtest."""
    return [
        (
            result.name,
            f"{result.net_return:+.1%}",
            str(result.n_trades),
            _number(result.hit_rate, ".1%"),
            _number(result.break_even_hit_rate, ".1%"),
            _number(result.profit_factor, ".2f"),
            f"{result.max_drawdown:.1%}",
            f"{result.exposure:.1%}",
            _number(result.sharpe, "+.2f"),
            _number(result.deflated_sharpe, ".2f"),
        )
        for result in results
    ]


def format_evaluation(evaluation: Evaluation) -> str:
    """The whole evaluation for a terminal, a few dozen lines of plain text."""
    counts = ", ".join(
        f"{count} {name}" for count, name in zip(evaluation.class_counts, CLASS_NAMES, strict=True)
    )
    effective = f"{evaluation.model.skill.n_effective_rows:.0f}"
    parts = [
        headline(evaluation),
        *(f"  {reason}" for reason in evaluation.verdict.reasons[1:]),
        *(f"  caution: {caution}" for caution in evaluation.verdict.cautions),
        f"{evaluation.n_rows} test rows ({counts}), as good as {effective} independent ones",
        "",
        align(SCORE_COLUMNS, score_rows(evaluation)),
        "skill: share of the train prior's log-loss that is removed; accuracy: compare with "
        f"{MAJORITY}",
    ]
    if evaluation.money:
        costs = evaluation.money[0]
        parts += [
            "",
            align(MONEY_COLUMNS, money_rows(evaluation.money)),
            f"after {costs.fee_bps:g} bps fee and {costs.slippage_bps:g} bps slippage a side; "
            f"deflated Sharpe for {costs.n_trials} tried",
        ]
    return "\n".join(parts)


def align(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns of text under their headings: names to the left, figures to the right."""
    lines = [columns, *rows]
    widths = [max(len(line[k]) for line in lines) for k in range(len(columns))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if k == 0 else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _score_row(line: Assessment) -> tuple[str, ...]:
    scores = line.scores
    return (
        line.name,
        f"{scores.log_loss:.4f}",
        _interval(line.skill),
        _auc(line.activity),
        _value(line.activity.log_loss_skill, "+.4f"),
        _auc(line.direction),
        _interval(line.direction.log_loss_skill),
        f"{scores.mcc:+.3f}",
        f"{scores.balanced_accuracy:.3f}",
        f"{scores.macro_f1:.3f}",
        f"{scores.brier:.4f}",
        f"{scores.calibration_error:.3f}",
        f"{scores.accuracy:.3f}",
    )


def _auc(skill: Skill) -> str:
    return _value(skill.auc, ".3f")


def _value(estimate: Estimate | None, spec: str) -> str:
    return "-" if estimate is None else format(estimate.value, spec)


def _interval(estimate: Estimate | None) -> str:
    if estimate is None:
        return "-"
    if estimate.lower is None or estimate.upper is None:
        return f"{estimate.value:+.4f} [too few rows]"
    return f"{estimate.value:+.4f} [{estimate.lower:+.4f}, {estimate.upper:+.4f}]"


def _number(value: float | None, spec: str) -> str:
    return "-" if value is None else format(value, spec)
