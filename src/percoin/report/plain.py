"""The report without pictures: for the terminal, as Markdown, and as JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from percoin.evaluation.evaluate import Evaluation
from percoin.evaluation.gate import FALSE_DISCOVERY_RATE
from percoin.evaluation.table import (
    MONEY_COLUMNS,
    SCORE_COLUMNS,
    SKILL_COLUMNS,
    align,
    money_rows,
    score_rows,
    skill_rows,
)
from percoin.printable import printable
from percoin.report.board import Board, RankedModel, answer, headlines, in_words
from percoin.report.cells import accuracy_line, facts, hashes, leaderboard_row

COLUMNS = (
    "market",
    "verdict",
    "skill [95 %]",
    "recent skill",
    "rival",
    "ahead of it [95 %]",
    "activity AUC",
    "direction AUC [95 %]",
    "eff. rows",
    "net return",
    "buy and hold",
    "tested",
    "age",
    "why",
)
# A terminal is narrow, so the last columns are only in the files.
_TERMINAL_COLUMNS = 11
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>|#~])")


def leaderboard_rows(board: Board) -> list[tuple[str, ...]]:
    """Rows of cells in the order of ``COLUMNS``, best model first."""
    rows = [(entry, leaderboard_row(entry, board.created_at)) for entry in board.entries]
    return [
        (
            entry.model.name,
            row.shown,
            str(row.skill),
            row.recent_skill.value,
            row.rival,
            str(row.lead),
            row.activity_auc.value,
            str(row.direction_auc),
            row.effective_rows.value,
            row.net_return.value,
            row.hold_return.value,
            row.tested,
            row.age.value,
            row.reason,
        )
        for entry, row in rows
    ]


def to_text(board: Board) -> str:
    """The leaderboard for a terminal."""
    cut = slice(_TERMINAL_COLUMNS)
    table = align(COLUMNS[cut], [_printable(row[cut]) for row in leaderboard_rows(board)])
    lines = [table, "", *_printable([answer(board), *headlines(board)])]
    if len(board.entries) == 1:
        entry = board.entries[0]
        lines += _printable([*entry.reasons, *(f"caution: {text}" for text in entry.cautions)])
    return "\n".join(lines)


def _printable(texts: Sequence[str]) -> list[str]:
    return [printable(text) for text in texts]


def to_markdown(board: Board) -> str:
    """The whole report as Markdown, without pictures."""
    tested = f", {board.tested}" if board.tested else ""
    parts = [
        "# percoin report",
        f"{board.created_at:%Y-%m-%d %H:%M} UTC{tested}",
        f"**{escape(answer(board))}** {escape(' '.join(headlines(board)))}",
        markdown_leaderboard(board),
        "skill: share of the log-loss of the train prior (the long-run shares of the three "
        "answers) that the model removes; recent skill: of that of the rolling prior (their "
        "shares in the last 7 days up to 15m, 30 on 30m and 1h, 112 on 4h, 672 on 1d). "
        "rival: the baseline that was strongest on validation bars. "
        "ahead of it: its log-loss minus the model's, in nats a bar, on the same bars. AUC: .5 is "
        "a coin flip. net return: of the test period, after costs.",
        *(part for entry in board.entries for part in _markdown_section(entry)),
    ]
    return "\n\n".join(parts) + "\n"


def _markdown_section(entry: RankedModel) -> list[str]:
    model = entry.model
    lines = [*entry.reasons, *(f"Caution: {text}" for text in entry.cautions), *in_words(entry)]
    accuracy = accuracy_line(model)
    lines += [f"{accuracy}."] if accuracy else []
    parts = [
        f"## {escape(model.name)}: {escape(entry.shown)}",
        "\n".join(f"- {escape(line)}" for line in lines),
    ]
    if model.evaluation is not None:
        parts += _markdown_tables(model.evaluation)
    known = facts(model)
    if model.manifest is not None:
        known += [(f"sha256 of {name}", sha256) for name, sha256 in hashes(model.manifest)]
        parts.append("\n".join(f"- {escape(name)}: {escape(value)}" for name, value in known))
    return parts


def _markdown_tables(evaluation: Evaluation) -> list[str]:
    tables = [
        markdown_table(SKILL_COLUMNS, skill_rows(evaluation)),
        markdown_table(SCORE_COLUMNS, score_rows(evaluation)),
    ]
    if evaluation.money:
        tables.append(markdown_table(MONEY_COLUMNS, money_rows(evaluation.money)))
    return tables


def markdown_leaderboard(board: Board) -> str:
    """The leaderboard as a Markdown table."""
    return markdown_table(COLUMNS, leaderboard_rows(board))


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column is left-aligned, the others are right-aligned."""
    rule = ["---"] + ["---:"] * (len(columns) - 1)
    lines = [[escape(cell) for cell in columns], rule]
    lines += [[escape(cell) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def escape(text: str) -> str:
    """Escape text for Markdown and put it on one line."""
    return _MARKDOWN.sub(r"\\\1", printable(" ".join(text.split())))


def to_json(board: Board) -> str:
    """The whole report for programs: strict JSON, with fractions instead of percent."""
    document = {
        "created_at": f"{board.created_at:%Y-%m-%dT%H:%M:%SZ}",
        "answer": answer(board),
        "counts": {status.value: count for status, count in board.counts.items()},
        "false_discovery": {
            "rate": FALSE_DISCOVERY_RATE,
            "method": "Benjamini-Yekutieli",
            "n_tried": board.n_tried,
            "n_lost": board.n_lost,
        },
        "notes": list(board.notes),
        "together": [asdict(group) for group in board.joint],
        "models": [_json_entry(entry) for entry in board.entries],
    }
    return json.dumps(document, allow_nan=False, indent=1) + "\n"


def _json_entry(entry: RankedModel) -> dict[str, Any]:
    model, manifest = entry.model, entry.model.manifest
    content: dict[str, Any] = {
        "rank": entry.rank,
        "symbol": model.symbol,
        "timeframe": model.timeframe.value,
        "variant": model.variant,
        "status": entry.status.value,
        "reasons": list(entry.reasons),
        "cautions": list(entry.cautions),
        "leads": entry.leads,
        "version_id": manifest.version_id if manifest else None,
        "created_at": manifest.created_at if manifest else None,
        "bars": asdict(manifest.bars) if manifest else None,
        "n_folds": model.judging.n_folds if model.evaluation else None,
        "threshold": model.judging.threshold,
        "exit": model.judging.exit.value,
        "levels": None if model.judging.levels is None else asdict(model.judging.levels),
        "evaluation": None,
    }
    if model.evaluation is not None:
        document = model.evaluation.to_json()
        for result in document["money"]:
            # The equity curves are in metrics.json; here they would be most of the file.
            del result["equity"]
        content["evaluation"] = document
    return content
