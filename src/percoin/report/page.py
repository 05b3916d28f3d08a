"""The report as one HTML page that loads no other files."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from percoin.evaluation.baselines import rolling_prior_days
from percoin.evaluation.table import (
    CLASS_COLUMNS,
    MONEY_COLUMNS,
    SCORE_COLUMNS,
    SKILL_COLUMNS,
    class_rows,
    money_rows,
    score_rows,
    skill_rows,
)
from percoin.printable import printable
from percoin.report import charts
from percoin.report.board import (
    Board,
    BoardStatus,
    RankedModel,
    answer,
    headlines,
    in_words,
    test_days,
)
from percoin.report.cells import (
    accuracy_line,
    confusion_matrix,
    facts,
    hashes,
    leaderboard_row,
    settings,
)
from percoin.types import CLASS_NAMES

_FOLDER = Path(__file__).parent


def to_html(board: Board) -> str:
    """The whole page as HTML.

    All text is escaped, except the pictures, style and script of this package, which the
    template marks as safe.
    """
    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    script = (_FOLDER / "page.js").read_text(encoding="utf-8")
    style = charts.CHART_STYLE + (_FOLDER / "page.css").read_text(encoding="utf-8")
    low, high = charts.skill_range(board.entries)
    return environment.get_template("page.html.jinja").render(
        board=board,
        answer=answer(board),
        headlines=headlines(board),
        statuses=[
            (status, _tile(status, board), board.counts[status])
            for status in BoardStatus
            if board.counts[status]
        ],
        rows=[
            (
                entry,
                leaderboard_row(entry, board.created_at),
                _glyph(entry, low, high),
            )
            for entry in board.entries
        ],
        picture=charts.skill_picture(board.entries),
        sections=[_section(entry) for entry in board.entries],
        class_names=CLASS_NAMES,
        style=style,
        script=script,
        script_hash=_script_hash(script),
    )


def _tile(status: BoardStatus, board: Board) -> str:
    """What the models of a status have shown, in words for all of them."""
    words = dict.fromkeys(entry.shown for entry in board.entries if entry.status is status)
    return " or ".join(words)


def _shown(value: object) -> object:
    """A value for the template; text becomes one printable line."""
    return printable(value) if type(value) is str else value


def _section(entry: RankedModel) -> dict[str, Any]:
    """The data that the template needs for one model."""
    model, manifest = entry.model, entry.model.manifest
    section: dict[str, Any] = {
        "entry": entry,
        "words": in_words(entry),
        "accuracy": accuracy_line(model),
        "facts": facts(model),
        "settings": settings(manifest) if manifest else [],
        "hashes": hashes(manifest) if manifest else [],
        "matrix": _matrix(entry),
        "tables": _tables(entry),
        "reliability": None,
        "equity": None,
    }
    days = test_days(model)
    if model.evaluation is not None and days is not None:
        section["reliability"] = charts.reliability_chart(model.evaluation)
        section["equity"] = charts.equity_chart(model.evaluation, *days)
    return section


def _tables(entry: RankedModel) -> list[tuple[str, str, tuple[str, ...], list[tuple[str, ...]]]]:
    """For each table: title, explanation, columns and rows."""
    evaluation = entry.model.evaluation
    if evaluation is None:
        return []
    tables = [
        (
            "Against the baselines",
            "Every line forecast the same test bars. Skill is the share of the train prior's "
            "log-loss that is removed: above 0 is better than knowing only how often each answer "
            "comes; recent skill is beyond how often it came in the last "
            f"{rolling_prior_days(entry.model.timeframe)} days.",
            SKILL_COLUMNS,
            skill_rows(evaluation),
        ),
        (
            "Scores of the decisions",
            "The three answers do not come equally often, so accuracy and the "
            "weighted (w.) scores mean nothing but beside the line of majority; MCC is 0 for any "
            "constant answer and 1 for a perfect one.",
            SCORE_COLUMNS,
            score_rows(evaluation),
        ),
        (
            "Answer by answer",
            "Precision: how often the answer was right when given. Recall: how many of its bars "
            "it found. PR-AUC: compare it with the answer's share of the rows.",
            CLASS_COLUMNS,
            class_rows(evaluation.model),
        ),
    ]
    if evaluation.money:
        tables.append(
            (
                "Money",
                "One position at a time, the whole equity, no leverage, after costs. A hit rate "
                "below break-even loses; deflated is the probability that the Sharpe ratio is "
                f"more than the luck of {evaluation.money[0].n_trials} tried.",
                MONEY_COLUMNS,
                money_rows(evaluation.money),
            )
        )
    return tables


def _matrix(entry: RankedModel) -> list[tuple[str, list[tuple[int, float]]]]:
    """For each label, the counts of decisions and their shares of the row; may be empty."""
    rows = confusion_matrix(entry.model)
    if not rows:
        return []
    return [
        (name, [(count, count / max(1, sum(row))) for count in row])
        for name, row in zip(CLASS_NAMES, rows, strict=True)
    ]


def _glyph(entry: RankedModel, low: float, high: float) -> str:
    evaluation = entry.model.evaluation
    if evaluation is None:
        return ""
    return charts.skill_glyph(evaluation.model.skill, entry.status, low, high)


def _script_hash(script: str) -> str:
    """Hash for the page's content security policy, which allows only the page's own script."""
    digest = hashlib.sha256(script.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"
