"""The folder of one run: it holds all output, and only one process uses it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from itertools import count
from pathlib import Path

from percoin.config import TrainConfig
from percoin.errors import ResumeError
from percoin.file_lock import claimed, is_claimed
from percoin.run_record import can_go_on, has_checkpoint, is_finished

_RUN_NAME = "%Y%m%d-%H%M%S"
# Replaces the market's name in the path of runs with recipe=pooled.
POOL_FOLDER = "pooled"
# The same for runs with fleet=true.
FLEET_FOLDER = "fleet"


def run_dir(outputs_dir: str, symbol: str, tf: str, resume: bool, fleet: bool = False) -> str:
    """Folder of a run: a new one named by the time, or the one to resume.

    ``resume=true`` picks the newest interrupted run: it has a checkpoint and no result,
    did not diverge, and no process trains in its folder.
    """
    # A folder name made of thirty markets would be too long.
    several = FLEET_FOLDER if fleet else POOL_FOLDER
    parent = Path(outputs_dir) / (several if fleet or "," in symbol else symbol) / tf
    if resume:
        for folder in sorted(parent.glob("*"), reverse=True):
            if can_go_on(folder) and not is_finished(folder) and not is_claimed(folder):
                return str(folder)
    return str(parent / _new_run_name(parent))


def _new_run_name(parent: Path) -> str:
    name = datetime.now().strftime(_RUN_NAME)
    taken = {folder.name for folder in parent.glob(f"{name}*")}
    suffixes = (name if number == 1 else f"{name}-{number}" for number in range(1, 1000))
    return next(candidate for candidate in suffixes if candidate not in taken)


def run_folder(settings: TrainConfig, named: Path) -> Path:
    """Make the folder of a run, or find the one that ``resume=true`` resumes.

    Args:
        settings: Settings of the run.
        named: Answer of ``run_dir``. Another run that starts at the same moment may have
            got the same answer.

    Raises:
        ResumeError: No interrupted run has a checkpoint.
        OSError: The folder cannot be made.
    """
    if not settings.resume:
        return _new_folder(named)
    if has_checkpoint(named):
        return named
    market = (settings.title, settings.tf.name)
    living = [folder for folder in sorted(named.parent.glob("*")) if is_claimed(folder)]
    if living:
        raise ResumeError(
            *market,
            f"no run under {named.parent} was interrupted, and {living[-1]} is still training",
            "wait until it has ended, or stop it with Ctrl-C and then go on with resume=true",
        )
    raise ResumeError(
        *market,
        f"no interrupted run with a finished epoch under {named.parent}",
        "start one without resume=true",
    )


@contextmanager
def claimed_run(folder: Path) -> Iterator[None]:
    """Lock the folder of a run against other processes while it trains.

    Raises:
        InUseError: Another process trains in the folder.
        OSError: The folder cannot be written.
    """
    with claimed(folder, advice="wait until it has ended, or stop it first"):
        yield


def _new_folder(wanted: Path) -> Path:
    """Make a new folder and its parents.

    Args:
        wanted: Path of the folder if it is free; else ``-2``, ``-3`` and so on is added.
    """
    wanted.parent.mkdir(parents=True, exist_ok=True)
    for number in count(1):
        folder = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        break
    return folder
