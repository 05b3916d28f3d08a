"""Format the evaluation as plain text for the terminal: a headline, then tables.

Cells and layout are separate, so that the report can show the same cells.
"""

from __future__ import annotations

from collections.abc import Sequence

from percoin.evaluation.backtest import BacktestResult, Exit
from percoin.evaluation.baselines import MAJORITY
from percoin.evaluation.evaluate import Assessment, Evaluation
from percoin.intervals import interval_text
from percoin.types import CLASS_NAMES

SKILL_COLUMNS = (
    "forecast",
    "log-loss",
    "skill [95 %]",
    "recent skill [95 %]",
    "activity AUC",
    "activity skill [95 %]",
    "direction AUC [95 %]",
    "direction skill [95 %]",
)
SCORE_COLUMNS = (
    "forecast",
    "MCC",
    "bal. accuracy",
    "macro-F1",
    "Brier",
    "calib. error",
    *(f"PR-AUC {name}" for name in CLASS_NAMES),
    "accuracy",
    "w. precision",
    "w. recall",
    "w. F1",
)
CLASS_COLUMNS = ("class", "rows", "precision", "recall", "F1", "PR-AUC")
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
    """The verdict and what the test rows show, in one line."""
    return f"{evaluation.verdict.outcome.upper()} {evaluation.model.name}: {evaluation.shown()}"


def skill_rows(evaluation: Evaluation) -> list[tuple[str, ...]]:
    """Cells under ``SKILL_COLUMNS``: the model, then each baseline."""
    return [
        (
            line.name,
            f"{line.scores.log_loss:.4f}",
            interval_text(line.skill),
            interval_text(line.recent_skill),
            "-" if line.activity.auc is None else f"{line.activity.auc.value:.3f}",
            interval_text(line.activity.log_loss_skill),
            interval_text(line.direction.auc, 3, signed=False),
            interval_text(line.direction.log_loss_skill),
        )
        for line in _lines(evaluation)
    ]


def score_rows(evaluation: Evaluation) -> list[tuple[str, ...]]:
    """Cells under ``SCORE_COLUMNS``: the model, then each baseline."""
    return [
        (
            line.name,
            f"{line.scores.mcc:+.3f}",
            f"{line.scores.balanced_accuracy:.3f}",
            f"{line.scores.macro_f1:.3f}",
            f"{line.scores.brier:.4f}",
            f"{line.scores.calibration_error:.3f}",
            *(_number(entry.pr_auc, ".3f") for entry in line.scores.classes),
            f"{line.scores.accuracy:.3f}",
            f"{line.scores.weighted_precision:.3f}",
            f"{line.scores.weighted_recall:.3f}",
            f"{line.scores.weighted_f1:.3f}",
        )
        for line in _lines(evaluation)
    ]


def class_rows(line: Assessment) -> list[tuple[str, ...]]:
    """Cells under ``CLASS_COLUMNS``, one row per class; dashes for a class without rows."""
    return [
        (
            entry.name,
            str(entry.n_rows),
            *(
                _number(value if entry.n_rows else None, ".3f")
                for value in (entry.precision, entry.recall, entry.f1, entry.pr_auc)
            ),
        )
        for entry in line.scores.classes
    ]


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


def format_evaluation(evaluation: Evaluation, where: Exit = Exit.HORIZON) -> str:
    """The whole evaluation for the terminal, a few dozen lines of plain text.

    Args:
        evaluation: The results.
        where: Where positions of its backtests close.
    """
    verdict, n_effective = evaluation.verdict, evaluation.model.skill.n_effective_rows
    counts = ", ".join(
        f"{count} {name}" for count, name in zip(evaluation.class_counts, CLASS_NAMES, strict=True)
    )
    parts = [
        headline(evaluation),
        *(f"  {reason}" for reason in verdict.reasons),
        *(f"  caution: {caution}" for caution in verdict.cautions),
        f"{evaluation.n_rows} test rows ({counts}), as good as {n_effective:.0f} independent ones",
        "",
        align(SKILL_COLUMNS, skill_rows(evaluation)),
        "skill: share of the train prior's log-loss that is removed; recent skill: of the "
        "rolling prior's, the class shares of the last days",
        f"rival: {evaluation.rival_name}, the strongest baseline on validation rows",
        "",
        align(SCORE_COLUMNS, score_rows(evaluation)),
        f"compare accuracy and the weighted (w.) scores with those of {MAJORITY}: alone they mean "
        "nothing",
        "",
        align(CLASS_COLUMNS, class_rows(evaluation.model)),
    ]
    if evaluation.money:
        parts += ["", _format_money(evaluation.money, where)]
    return "\n".join(parts)


def align(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Align text in columns under their headings: first column left, all others right."""
    lines = [columns, *rows]
    widths = [max(len(line[k]) for line in lines) for k in range(len(columns))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if k == 0 else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _lines(evaluation: Evaluation) -> tuple[Assessment, ...]:
    return (evaluation.model, *evaluation.baselines)


def _format_money(results: Sequence[BacktestResult], where: Exit) -> str:
    first = results[0]
    note = f"after {first.costs_text}; deflated Sharpe ratio for {first.n_trials} tried"
    if where is not Exit.HORIZON:
        note += f"; {where.words}"
    return align(MONEY_COLUMNS, money_rows(results)) + "\n" + note


def _number(value: float | None, spec: str) -> str:
    return "-" if value is None else format(value, spec)
