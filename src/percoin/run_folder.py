"""Where one run leaves what it writes: a folder of its own, which no other process has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from percoin.config import CHECKPOINTS, TrainConfig
from percoin.errors import ResumeError
from percoin.file_lock import claimed, is_claimed, new_folder


def run_folder(settings: TrainConfig, named: Path) -> Path:
    """Make the folder of a run, or find the one that ``resume=true`` goes on with.

    Args:
        settings: Of the run.
        named: What ``percoin.config.run_dir`` says. Another run that began at the same
            moment may have been told the same.

    Raises:
        ResumeError: No interrupted run has got as far as a checkpoint.
        OSError: The folder cannot be made.
    """
    if not settings.resume:
        return new_folder(named)
    if any(named.glob(CHECKPOINTS)):
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
    """Have the folder of a run to oneself while it trains.

    Raises:
        InUseError: Another process trains in it.
        OSError: The folder cannot be written to.
    """
    with claimed(folder, advice="wait until it has ended, or stop it first"):
        yield
