"""Real commands in real processes, told to stop where a test wants it."""

import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
MOST_SECS = 240


@dataclass
class Process:
    """What a process said, and how it ended."""

    code: int
    stdout: str
    stderr: str


def run_command(
    *arguments: str, until: str = "", number: signal.Signals = signal.SIGTERM
) -> Process:
    """Run Python with these arguments; send it the signal after a line that holds ``until``."""
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = threading.Timer(MOST_SECS, process.kill)
    deadline.start()
    seen = []
    try:
        assert process.stdout is not None
        while until and (line := process.stdout.readline()):
            seen.append(line)
            if until in line:
                process.send_signal(number)
                break
        stdout, stderr = process.communicate()
    finally:
        deadline.cancel()
        process.kill()
        process.wait()
    return Process(process.returncode, "".join(seen) + stdout, stderr)
