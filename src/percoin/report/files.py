"""Writes the report as files; each file is written completely or not at all."""

from __future__ import annotations

from pathlib import Path

from percoin.report.board import Board
from percoin.report.charts import skill_picture, standalone
from percoin.report.page import to_html
from percoin.report.plain import to_json, to_markdown
from percoin.whole_file import write_whole

PAGE = "index.html"


def write_report(board: Board, folder: Path) -> None:
    """Write the page, Markdown, JSON and the picture.

    Raises:
        OSError: The folder cannot be written.
    """
    files = {
        "report.json": to_json(board),
        "report.md": to_markdown(board),
        "skills.svg": standalone(skill_picture(board.entries)),
        PAGE: to_html(board),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        write_whole(folder / name, text)
