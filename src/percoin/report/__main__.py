"""The command ``python -m percoin.report``: writes the report as HTML, Markdown and JSON."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from percoin.cli import compose_config, refuse_bar_length_settings, run_command
from percoin.config import ReportConfig, typed
from percoin.errors import ConfigError
from percoin.report.board import make_board
from percoin.report.files import PAGE, write_report
from percoin.report.plain import to_text
from percoin.report.reading import read_models


def main(arguments: Sequence[str]) -> int:
    """Report what the arguments name and return the exit code."""
    return run_command(lambda: report(arguments), config_name="report")


def report(arguments: Sequence[str], now: datetime | None = None) -> None:
    """Read the models, write the files, print the leaderboard.

    Raises:
        ModelNotFoundError: One model was requested and does not exist.
        ConfigError: There is no model, or the folder cannot be written.
    """
    refuse_bar_length_settings(arguments)
    wanted = typed(compose_config("report", arguments), ReportConfig)
    timeframe = None if wanted.tf is None else wanted.tf.timeframe
    board = make_board(read_models(Path(wanted.models_dir), wanted.symbol, timeframe), now)
    folder = Path(wanted.output_dir)
    try:
        write_report(board, folder)
    except OSError as error:
        raise ConfigError(
            f"output_dir={folder} cannot be written ({error.strerror}); name another folder"
        ) from error
    print(to_text(board))
    print(f"\nreport: {folder / PAGE} (also report.md, report.json, skills.svg)")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
