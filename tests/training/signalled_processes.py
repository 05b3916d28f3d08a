"""Real commands in real processes, told to stop where a test wants it."""

import os
import signal
import threading
from dataclasses import dataclass
from pathlib import Path

import warm_processes

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
    """Run a command with these arguments; send it the signal after a line that holds ``until``."""
    process = warm_processes.Process(arguments, ROOT, ENVIRONMENT)
    deadline = threading.Timer(MOST_SECS, process.kill)
    deadline.start()
    seen = []
    try:
        while until and (line := process.stdout.readline()):
            seen.append(line)
            if until in line:
                process.send_signal(number)
                break
        stdout, stderr = process.communicate()
    finally:
        deadline.cancel()
        process.kill()
    return Process(process.wait(), "".join(seen) + stdout, stderr)
