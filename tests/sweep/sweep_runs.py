"""``train.py -m`` in a real process, with jobs that take seconds."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
DEADLINE_SECS = 600
SIMULATED = ("source=simulated", "source.n_bars=900")


def sweep_arguments(
    folder: Path, *overrides: str, source: tuple[str, ...] = SIMULATED
) -> list[str]:
    """Of a sweep whose every folder lies in ``folder``, with one tiny epoch a job."""
    return [
        "tf=1h",
        *source,
        "workers=2",
        "epochs=1",
        "optimizer.early_stopping_patience=1000",
        "lookback=8",
        "model.channels=[4,4,4]",
        "model.hidden_size=4",
        "model.n_heads=2",
        "model.head_sizes=[4,4]",
        "sweep=trial",
        *(f"{name}_dir={folder / name}" for name in ("data", "models", "outputs")),
        *overrides,
    ]


@dataclass
class Sweep:
    """A running or ended ``train.py -m``."""

    folder: Path
    process: subprocess.Popen[str]
    stdout: str = ""
    stderr: str = ""

    @property
    def code(self) -> int:
        return self.process.returncode

    def wait(self) -> "Sweep":
        self.stdout, self.stderr = self.process.communicate(timeout=DEADLINE_SECS)
        return self

    def job_folder(self, symbol: str) -> Path:
        return self.folder / "outputs" / "trial" / symbol / "1h"

    def record(self, symbol: str) -> dict[str, Any]:
        try:
            return json.loads((self.job_folder(symbol) / "job.json").read_text())
        except FileNotFoundError:
            return {"state": "waiting", "epoch": 0, "attempt": 0, "pid": 0}

    def press_ctrl_c(self) -> None:
        """As a terminal does it: all processes of the command get the signal."""
        os.killpg(self.process.pid, signal.SIGINT)

    def wait_for(self, symbol: str, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The job's record, once it fulfils a condition."""
        deadline = time.monotonic() + DEADLINE_SECS
        while not condition(record := self.record(symbol)):
            assert self.process.poll() is None, self.wait().stderr
            assert time.monotonic() < deadline, record
            time.sleep(0.02)
        return record


def start_sweep(
    folder: Path,
    *overrides: str,
    source: tuple[str, ...] = SIMULATED,
    wrapper: tuple[str, ...] = (),
) -> Sweep:
    command = [
        sys.executable,
        "train.py",
        "-m",
        *sweep_arguments(folder, *overrides, source=source),
    ]
    process = subprocess.Popen(
        [*wrapper, *command],
        cwd=ROOT,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    return Sweep(folder, process)


def run_sweep_command(folder: Path, *overrides: str, **options: Any) -> Sweep:
    return start_sweep(folder, *overrides, **options).wait()


def served_version(folder: Path, symbol: str) -> str | None:
    """Name of the version that the registry serves."""
    link = folder / "models" / "per_coin" / symbol / "1h"
    return link.resolve().name if link.exists() else None
