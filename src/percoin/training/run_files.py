"""What a run leaves in its folder: its settings, its marks, its result; and how it is resumed."""

from __future__ import annotations

import errno
import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig

from percoin.commands import flat
from percoin.config import RecipeName, TrainConfig
from percoin.config.effects import effects_of
from percoin.config.fields import OF_THE_RUN, Effect
from percoin.errors import DivergedError, ResumeError, TrainingError
from percoin.evaluation.table import format_evaluation
from percoin.run_record import (
    CHECKPOINT_FOLDER,
    DIVERGED_FILE,
    MARKETS_FOLDER,
    PARTS,
    RESULT_FILE,
    SETTINGS_FILE,
    has_checkpoint,
    mark_diverged,
    write_result,
)
from percoin.training.summary import TrainingSummary
from percoin.whole_file import write_whole

log = logging.getLogger(__name__)

SUMMARY_FILE = "summary.txt"
EVALUATION_FILE = "evaluation.txt"
_REFUSALS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}
_WRITTEN_BY_A_RUN = (
    CHECKPOINT_FOLDER,
    *PARTS,
    MARKETS_FOLDER,
    "figures",
    "csv",
    "events.out.tfevents.*",
    "hparams.yaml",
    SETTINGS_FILE,
    RESULT_FILE,
    DIVERGED_FILE,
    SUMMARY_FILE,
    EVALUATION_FILE,
)


@dataclass(frozen=True)
class RunContext:
    """Where one run leaves what it writes, and which options its settings were made of.

    Attributes:
        folder: For logs, checkpoints, pictures and the result.
        choices: The chosen option of each config group, for records.
    """

    folder: Path
    choices: Mapping[str, str]

    @classmethod
    def of_hydra(cls) -> RunContext:
        """The run that Hydra has made a folder for."""
        runtime = HydraConfig.get().runtime
        return cls(Path(runtime.output_dir), dict(runtime.choices))


def plain_settings(settings: TrainConfig, choices: Mapping[str, str]) -> dict[str, Any]:
    """The settings as JSON can say them, with the names of the chosen options."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(settings)))
    options = {group: choices[group] for group in ("source", "labels", "model") if group in choices}
    return {**plain, "choices": options}


@contextmanager
def divergence_marked(folder: Path) -> Iterator[None]:
    """Leave a mark in the folder of a run that diverged: there is nothing to resume."""
    try:
        yield
    except DivergedError as error:
        mark_diverged(folder, str(error))
        raise


def clear_run_folder(folder: Path) -> None:
    """Take away what an earlier run has left, for a run that begins afresh in its folder."""
    for pattern in _WRITTEN_BY_A_RUN:
        for path in folder.glob(pattern):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def check_resumable(settings: TrainConfig, folder: Path, facts: dict[str, Any]) -> None:
    """Refuse to go on with another run's weights; note the facts of this one.

    Args:
        settings: Of this run.
        folder: Of the run.
        facts: ``config`` by name, ``bars``, and what else must not have changed.

    Raises:
        ResumeError: There is nothing to go on with, or it was another run.
    """
    path = folder / SETTINGS_FILE
    market = (settings.title, settings.tf.name)
    if not settings.resume:
        write_whole(path, json.dumps(facts, indent=2))
        return
    if not has_checkpoint(folder):
        raise ResumeError(
            *market,
            f"no interrupted run with a finished epoch under {folder.parent}",
            "start one without resume=true",
        )
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        changed = _changed_settings(folder, before, facts)
    # Whatever JSON can be: of another kind, or nested too deeply.
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ResumeError(
            *market, f"{path} cannot be read ({error})", "start afresh without resume=true"
        ) from error
    if changed:
        # No setting brings back bars that an exchange or a file has no more.
        settings_differ = any(effects_of(TrainConfig, name) for name in changed)
        action = "repeat its settings to go on, or start" if settings_differ else "start"
        raise ResumeError(
            *market,
            f"{', '.join(changed)} changed since {folder} was interrupted",
            f"{action} afresh without resume=true",
        )
    # What was free to change until now, such as the blend, may bind the next one.
    write_whole(path, json.dumps(facts, indent=2))
    log.info("resuming %s", folder)


def _free_to_change(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> set[Effect]:
    """What settings may affect that are not as they were, where the run is still the same."""
    free = set(OF_THE_RUN)
    # The learning rate of a pool falls over all its epochs; elsewhere more of them only follow.
    if now["config"]["recipe"] != RecipeName.POOLED:
        free.add(Effect.LENGTH)
    # Markets that are judged already stay as they are, and the others are held against them.
    if not any(folder.glob(f"{MARKETS_FOLDER}/*/{RESULT_FILE}")):
        free.add(Effect.JUDGEMENT)
    # Wherever these lie by now.
    if before["bars"] == now["bars"]:
        free.add(Effect.BARS)
    return free


def _changed_settings(folder: Path, before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    free = _free_to_change(folder, before, now)
    was = dict(flat(before["config"]))
    if "symbol" not in was:
        raise ValueError("it holds no settings")
    changed = [
        name
        for name, value in flat(now["config"])
        if effects_of(TrainConfig, name) - free and was.get(name) != value
    ]
    others = [name for name in now if name != "config" and before[name] != now[name]]
    return [*changed, *(f"the {name}" for name in others)]


@contextmanager
def write_errors(settings: TrainConfig, folder: Path) -> Iterator[None]:
    """Say in one line that the run's folder takes no more, and why."""
    try:
        yield
    except OSError as error:
        if error.errno not in _REFUSALS:
            raise
        raise TrainingError(
            settings.title,
            settings.tf.name,
            f"cannot write to {error.filename or folder}: {error.strerror}",
            "free some space or make it writable, or choose another folder with outputs_dir=FOLDER",
        ) from error


def write_market_result(folder: Path, summary: TrainingSummary, further: Mapping[str, Any]) -> None:
    """Mark a market as finished, with its figures for programs and its screen for people.

    Args:
        folder: Of the run, or of the market where it has several.
        summary: What came of the market.
        further: Further figures by name.
    """
    write_whole(folder / SUMMARY_FILE, summary.render())
    tables = format_evaluation(summary.evaluation)
    write_whole(folder / EVALUATION_FILE, tables + "\n")
    verdict = summary.evaluation.verdict
    result = {
        **summary.key_results(),
        "epochs": 0 if summary.epochs is None else summary.epochs[0],
        "secs": summary.secs,
        "version": summary.version_id,
        "is_served": summary.is_served,
        "verdict": verdict.outcome.value,
        "reasons": [*verdict.reasons, *verdict.cautions],
        **further,
    }
    write_result(folder, result)
