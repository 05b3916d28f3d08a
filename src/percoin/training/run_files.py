"""The files in a run's folder (settings, marks, results), and the checks before a resume."""

from __future__ import annotations

import errno
import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig

from percoin import json_codec
from percoin.commands import flat
from percoin.config import RecipeName, TrainConfig
from percoin.config.effects import effects_of
from percoin.config.fields import OF_THE_RUN, Effect
from percoin.errors import DivergedError, ResumeError, TrainingError
from percoin.evaluation.fold_forecasts import BaselineFitter
from percoin.evaluation.table import format_evaluation
from percoin.run_record import (
    CHECKPOINT_FOLDER,
    DIVERGED_FILE,
    MARKETS_FOLDER,
    PARTS,
    REFIT_FOLDER,
    RESULT_FILE,
    SETTINGS_FILE,
    has_checkpoint,
    mark_diverged,
    progress_files,
    write_result,
)
from percoin.training.summary import TrainingSummary
from percoin.whole_file import write_whole

log = logging.getLogger(__name__)

SUMMARY_FILE = "summary.txt"
EVALUATION_FILE = "evaluation.txt"
# A fact of a run: open time of the last bar of each market, in milliseconds since 1970-01-01 UTC.
LAST_BARS = "last_bars"
_REFUSALS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}
_WRITTEN_BY_A_RUN = (
    CHECKPOINT_FOLDER,
    *PARTS,
    REFIT_FOLDER,
    MARKETS_FOLDER,
    "figures",
    "csv",
    "wandb",
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
    """The folder of one run, and the config options it was started with.

    Attributes:
        folder: For logs, checkpoints, pictures and the result.
        choices: Chosen option of each config group, for records; and the precision that was
            chosen for trainer.precision=auto.
        fitter: Fits the baselines of each market alone.
    """

    folder: Path
    choices: Mapping[str, str]
    fitter: BaselineFitter = field(default_factory=BaselineFitter)

    @classmethod
    def of_hydra(cls) -> RunContext:
        """The current Hydra run, with the folder that Hydra created."""
        runtime = HydraConfig.get().runtime
        return cls(Path(runtime.output_dir), dict(runtime.choices))


@dataclass(frozen=True)
class _Noted:
    last_bars: dict[str, int] | None = None


def plain_settings(settings: TrainConfig, choices: Mapping[str, str]) -> dict[str, Any]:
    """The settings as plain JSON values, with the names of the chosen options."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(settings)))
    named = ("source", "labels", "model", "precision")
    options = {group: choices[group] for group in named if group in choices}
    return {**plain, "choices": options}


@contextmanager
def divergence_marked(folder: Path) -> Iterator[None]:
    """Mark the folder of a run that diverges, because it cannot be resumed."""
    try:
        yield
    except DivergedError as error:
        mark_diverged(folder, str(error))
        raise


def clear_run_folder(folder: Path) -> None:
    """Delete the files of an earlier run, for a run that starts again in the same folder."""
    for pattern in _WRITTEN_BY_A_RUN:
        for path in folder.glob(pattern):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def forget_earlier_run(folder: Path) -> None:
    """Delete the progress of an earlier run in a folder that the user has named again.

    Otherwise ``resume=true`` would take the earlier run's weights for those of this run. Only
    files that a run itself writes by these very names go, because the folder may hold more.
    """
    found = progress_files(folder)
    if found:
        log.info("starting afresh in %s, which held an earlier run", folder)
    for path in found:
        path.unlink()


def last_bars(folder: Path) -> dict[str, int]:
    """Where the bars of a run end, as it was noted when it began; empty if that is not known.

    Args:
        folder: Folder of the run.

    Returns:
        Open time of each market's last bar, in milliseconds since 1970-01-01 UTC.
    """
    try:
        content = json_codec.loads((folder / SETTINGS_FILE).read_bytes())
        last = json_codec.decode(_Noted, content, is_exact=False).last_bars or {}
    # Whether the run can be resumed is checked later, with a message.
    except (OSError, ValueError):
        return {}
    return last if all(abs(moment) < 2**63 for moment in last.values()) else {}


def check_resumable(settings: TrainConfig, folder: Path, facts: dict[str, Any]) -> None:
    """Check that a resumed run matches the interrupted one, and store this run's facts.

    Args:
        settings: Settings of this run.
        folder: Folder of the run.
        facts: ``config`` by name, ``bars``, and other facts that must not change.

    Raises:
        ResumeError: There is no finished epoch to resume, or the interrupted run was different.
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
        changed = _changed_settings(settings, folder, before, facts)
    # The file may hold any JSON: of the wrong type, or nested too deeply.
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ResumeError(
            *market, f"{path} cannot be read ({error})", "start afresh without resume=true"
        ) from error
    if changed:
        # Settings cannot bring back bars that the exchange or the file no longer has.
        settings_differ = any(effects_of(TrainConfig, name) for name in changed)
        action = "repeat its settings to go on, or start" if settings_differ else "start"
        raise ResumeError(
            *market,
            f"{', '.join(changed)} changed since {folder} was interrupted",
            f"{action} afresh without resume=true",
        )
    # A setting that may change in this resume, such as the blend, may be fixed in the next one.
    write_whole(path, json.dumps(facts, indent=2))
    log.info("resuming %s", folder)


def _free_to_change(
    settings: TrainConfig, folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]
) -> set[Effect]:
    """Effects of settings that may change while the run can still resume."""
    free = set(OF_THE_RUN)
    if not _plans_its_length(settings):
        free.add(Effect.LENGTH)
    # Once a market is judged its result stays, so the others need the same rules.
    if not any(folder.glob(f"{MARKETS_FOLDER}/*/{RESULT_FILE}")):
        free.add(Effect.JUDGEMENT)
    # The same bars may come from another place.
    if before["bars"] == now["bars"]:
        free.add(Effect.BARS)
    return free


def _plans_its_length(settings: TrainConfig) -> bool:
    """Whether the learning rate depends on the number of epochs, so that none can be added."""
    if settings.recipe == RecipeName.POOLED:
        return True
    from percoin.training.own_parts import schedule_has_length

    return schedule_has_length(settings)


def _changed_settings(
    settings: TrainConfig, folder: Path, before: dict[str, Any], now: dict[str, Any]
) -> list[str]:
    free = _free_to_change(settings, folder, before, now)
    was = dict(flat(before["config"]))
    if "symbol" not in was:
        raise ValueError("it holds no settings")
    told = dict(flat(now["config"]))
    changed = [
        name
        # An argument of the user's own object may have gone.
        for name in {**was, **told}
        if effects_of(TrainConfig, name) - free and was.get(name) != told.get(name)
    ]
    # The hash of the bars says more than where they end, which older runs did not note.
    facts = now.keys() - {"config", LAST_BARS}
    others = [name for name in now if name in facts and before.get(name) != now[name]]
    return [*changed, *(f"the {name}" for name in others)]


@contextmanager
def write_errors(settings: TrainConfig, folder: Path) -> Iterator[None]:
    """Turn a failed write (disk full, no permission) into a one-line error with advice.

    Raises:
        TrainingError: The run's folder cannot be written.
    """
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
    """Write a finished market's files: summary and tables for people, results for programs.

    Args:
        folder: The run's folder, or the market's folder if there are several markets.
        summary: Summary of the market.
        further: Extra results by name.
    """
    write_whole(folder / SUMMARY_FILE, summary.render())
    tables = format_evaluation(summary.evaluation, summary.exit)
    moves = [] if summary.move is None else ["", "expected move", *summary.move.lines()]
    write_whole(folder / EVALUATION_FILE, "\n".join([tables, *moves, ""]))
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
