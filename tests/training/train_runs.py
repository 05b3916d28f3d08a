"""``train.py`` with settings that take seconds, within this process."""

import logging
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import pytest
from training_builders import LOOKBACK

from percoin.cli import run_jobs
from percoin.config import TrainConfig
from percoin.sweep.launcher import launch
from percoin.training.pipeline import train_from_config


@dataclass(frozen=True)
class Finished:
    """What a training command left behind."""

    code: int
    stdout: str
    stderr: str


SIMULATED = ("source=simulated", "source.n_bars=1200")
NETWORK = (
    "epochs=2",
    "model.channels=[4,4,4]",
    "model.hidden_size=4",
    "model.n_heads=2",
    "model.head_sizes=[4,4]",
)
WITHOUT_NETWORK = {
    *("model=logistic", "model=volatility", "model=boosting", "model=moves", "model=average")
}


def train_arguments(
    folder: Path, *overrides: str, source: tuple[str, ...] = SIMULATED
) -> list[str]:
    """Arguments of a training of seconds whose every folder lies in ``folder``."""
    return [
        "symbol=BTCUSDT",
        "tf=1h",
        *source,
        "workers=1",
        f"lookback={LOOKBACK}",
        *(() if WITHOUT_NETWORK & set(overrides) else NETWORK),
        *(f"{name}_dir={folder / name}" for name in ("data", "models", "outputs")),
        *overrides,
    ]


def run_train(
    arguments: Sequence[str], task: Callable[[TrainConfig], object] = train_from_config
) -> Finished:
    """``train.py`` within this process, for what needs no process of its own."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stdout, stderr = StringIO(), StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(stdout), redirect_stderr(stderr):
        patch.setenv("HYDRA_FULL_ERROR", "1")
        patch.setattr(sys, "argv", ["train.py", *arguments])
        code = run_jobs(task, TrainConfig, "train", sweep=launch)
    for handler in set(root.handlers) - set(handlers):
        handler.close()
    root.handlers[:], root.level = handlers, level
    return Finished(code, stdout.getvalue(), stderr.getvalue())
