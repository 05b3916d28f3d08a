"""The command: ``python -m percoin.retrain``."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Sequence
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path

from percoin.cli import Composed, refuse_bar_length_settings, run_command
from percoin.cli.overrides import as_overrides
from percoin.config import OutputFormat, RetrainConfig, typed
from percoin.errors import ConfigError, SweepError
from percoin.json_codec import one_line
from percoin.retrain.round import Round, run_round
from percoin.retrain.states import Task
from percoin.retrain.table import to_json, to_text
from percoin.retrain.watching import Watch

# Settings of the timetable that a round had once.
_TIMETABLE = ("schedule", "at")


def main(arguments: Sequence[str]) -> int:
    """Run one retraining round and return the exit code."""

    def command() -> None:
        refuse_bar_length_settings(arguments)
        task = read_task(arguments)
        logging.basicConfig(
            level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr
        )
        run_and_print(task)

    return run_command(command, "retrain")


def read_task(arguments: Sequence[str]) -> Task:
    """Read and check the settings of a command line.

    Raises:
        ConfigError: A setting is invalid.
    """
    for key in (argument.partition("=")[0].lstrip("+") for argument in arguments):
        if key in _TIMETABLE:
            raise ConfigError(
                f"{key} is no setting any more: leave it out, and start each round with cron or a "
                "systemd timer (docs/RETRAIN.md)"
            )
    composed = Composed.of("retrain", arguments)
    settings = typed(composed.config, RetrainConfig)
    source = settings.source
    watch = Watch(Path(settings.models_dir), Path(settings.data_dir), settings.record_url)
    if source is None:
        return Task(settings, (), watch)
    plain = {entry.name: getattr(source, entry.name) for entry in fields(source)}
    named = (f"source={composed.choices['source']}", *as_overrides(plain, "source."))
    return Task(settings, named, watch)


def run_and_print(task: Task) -> None:
    """Run one round and print its table.

    Raises:
        SweepError: A market failed, or a signal ended the trainings.
        PercoinError: The round could not begin.
    """
    found = run_round(task, datetime.now(UTC))
    is_json = task.settings.output == OutputFormat.JSON
    print(one_line(to_json(found)) if is_json else to_text(found), flush=True)
    raise_if_undone(found)


def raise_if_undone(found: Round) -> None:
    """Raise an error if a market failed or a signal ended the round.

    Raises:
        SweepError: Names the failed markets in one line. If a signal ended the round, it
            carries the exit code of that signal.
    """
    names = ", ".join(outcome.state.name for outcome in found.outcomes if outcome.failed)
    if found.stopped_by is not None:
        name = signal.Signals(found.stopped_by).name
        message = f"stopped by {name}; not done: {names or 'nothing'}; the same command goes on"
        raise SweepError(message, 128 + found.stopped_by)
    if names:
        raise SweepError(f"not done: {names}; the table says why")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
