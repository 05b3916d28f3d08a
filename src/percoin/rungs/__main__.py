"""The command: ``python -m percoin.rungs symbol=BTCUSDT``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from percoin.cli import compose_config, run_command
from percoin.config import OutputFormat, RungsConfig, typed
from percoin.json_codec import one_line


def main(arguments: Sequence[str]) -> int:
    """Score the rungs, print the table and return the exit code."""

    def command() -> None:
        settings = typed(compose_config("rungs", arguments), RungsConfig)
        # The scores take scipy and scikit-learn: only once the settings are known to be good.
        from percoin.rungs.run import judge_rungs
        from percoin.rungs.table import format_table, to_json

        table = judge_rungs(settings)
        is_json = settings.output == OutputFormat.JSON
        print(one_line(to_json(table)) if is_json else format_table(table))

    return run_command(command, "rungs")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
