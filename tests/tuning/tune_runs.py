"""``train.py experiment=tune`` with settings that take seconds, within this process."""

import logging
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from tuning_builders import SEARCH, TINY

from percoin.cli import run_jobs
from percoin.config import TrainConfig
from percoin.tuning.command import tune_from_config

SIMULATED = ("source=simulated", "source.n_bars=1000")


@dataclass(frozen=True)
class Finished:
    """What a command left behind."""

    code: int
    stdout: str
    stderr: str


def tune_arguments(
    folder: Path, *overrides: str, source: tuple[str, ...] = SIMULATED, models: str = ""
) -> list[str]:
    """Arguments of a search of seconds whose every folder lies in ``folder``."""
    folders = [f"{name}_dir={folder / name}" for name in ("data", "outputs")]
    folders.append(models or f"models_dir={folder / 'models'}")
    return [*TINY, *SEARCH, "experiment.trials=3", "epochs=1", *source, *folders, *overrides]


def run_tune(folder: Path, *overrides: str, **others: Any) -> Finished:
    """``train.py`` within this process, for what needs no process of its own."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stdout, stderr = StringIO(), StringIO()
    arguments = tune_arguments(folder, *overrides, **others)
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(stdout), redirect_stderr(stderr):
        patch.setenv("HYDRA_FULL_ERROR", "1")
        patch.setattr(sys, "argv", ["train.py", *arguments])
        code = run_jobs(tune_from_config, TrainConfig, "train", sweep=refuse)
    for handler in set(root.handlers) - set(handlers):
        handler.close()
    root.handlers[:], root.level = handlers, level
    return Finished(code, stdout.getvalue(), stderr.getvalue())


def refuse(overrides: object) -> None:
    raise AssertionError("nothing here is a sweep")
