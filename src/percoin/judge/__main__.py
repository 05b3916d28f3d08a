"""The command: ``python -m percoin.judge forecasts=FILE symbol=BTCUSDT tf=15m``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from percoin.cli import compose_config, run_command
from percoin.config import JudgeConfig, OutputFormat, typed
from percoin.errors import ConfigError
from percoin.json_codec import one_line
from percoin.report.board import Board


def main(arguments: Sequence[str]) -> int:
    """Judge a file of forecasts, print the result and return the exit code."""

    def command() -> None:
        settings = typed(compose_config("judge", arguments), JudgeConfig)
        # Imports scipy and scikit-learn, so it waits until the settings are valid.
        from percoin.judge.run import judge_file

        judged = judge_file(settings)
        is_json = settings.output == OutputFormat.JSON
        print(one_line(judged.to_json()) if is_json else judged.render())
        # Last, so that the result is printed even if the folder cannot be written.
        if settings.report_dir is not None:
            _write_report(judged.board(), Path(settings.report_dir))

    return run_command(command, "judge")


def _write_report(board: Board, folder: Path) -> None:
    from percoin.report.files import write_report

    try:
        write_report(board, folder)
    except OSError as error:
        raise ConfigError(
            f"report_dir={folder} cannot be written ({error.strerror}); name another folder"
        ) from error


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
