"""A registry whose models are due, and ``python -m percoin.retrain`` in real processes."""

import hashlib
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from registry.command.trained_registry import add_version

from percoin.registry.layout import MarketFolder
from percoin.registry.manifest import Gate, StoredVerdict
from percoin.types import Timeframe

ACCEPTED = Gate(StoredVerdict.ACCEPTED, ("skill +0.02 [+0.01, +0.03]",))
REJECTED = Gate(StoredVerdict.REJECTED, ("no skill shown",))
DEADLINE_SECS = 300
# What a retry is kept from is a training of a moment ago.
AT_ONCE = "retry_days=0"


def serve(folder: Path, gate: Gate = ACCEPTED, **config: object) -> str:
    """Serve the trained model under another verdict, and with other settings to train by."""
    from registry.command.trained_registry import market

    from percoin.registry.catalogue import served_version

    manifest = served_version(market(folder)).manifest
    return add_version(folder, gate=gate, config={**manifest.config, **config})


def places(folder: Path) -> list[str]:
    return [f"{name}_dir={folder / name}" for name in ("data", "models", "outputs")]


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """The command on one core: two threads for so small a network would wait for each other."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {random.choice(sorted(cores))})
    try:
        return subprocess.Popen(
            [sys.executable, "-m", "percoin.retrain", *places(folder), *arguments],
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
    finally:
        os.sched_setaffinity(0, cores)


def run(folder: Path, *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the command."""
    process = start(folder, *arguments)
    stdout, stderr = process.communicate(timeout=DEADLINE_SECS)
    return process.returncode, stdout, stderr


def tree(folder: Path) -> dict[str, str]:
    """Every path below a folder with what it holds, links by where they lead."""
    return {
        str(path.relative_to(folder)): str(path.readlink())
        if path.is_symlink()
        else hashlib.sha256(path.read_bytes()).hexdigest()
        if path.is_file()
        else f"folder {path.stat().st_mtime_ns}"
        for path in folder.rglob("*")
    }


def record(folder: Path) -> dict[str, Any]:
    """How the one training of a round stands."""
    found = list((folder / "outputs/retrain").glob("*/1h/job.json"))
    return json.loads(found[0].read_text()) if found else {"state": "waiting", "epoch": 0}


def wait_for(folder: Path, process: subprocess.Popen, condition: Callable[[dict], bool]) -> dict:
    deadline = time.monotonic() + DEADLINE_SECS
    while not condition(found := record(folder)):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, found
        time.sleep(0.02)
    return found


def market_of(folder: Path, symbol: str) -> MarketFolder:
    return MarketFolder(folder / "models", symbol, Timeframe.H1)
