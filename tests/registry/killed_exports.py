"""Real processes that export, at once or until they are killed; run by test_publish.py.

One process imports torch and then forks the others, so that hundreds of them
cost seconds. It is single-threaded, which is what makes forking it safe.
"""

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from artifact_builders import check_whole, export, load

from percoin.errors import ModelNotFoundError
from percoin.registry.layout import TEMPORARY_PREFIX, MarketFolder

OLD, NEW = 0.25, 0.75
_EVENTS = ("open", "os.", "shutil.", "fcntl.")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def fork(action: Callable[[], object]) -> int:
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        action()
        status = 0
    finally:
        os._exit(status)


def die_at(step: int) -> None:
    """Kill this process when it is about to take its ``step``-th step on the file system."""
    remaining = step

    def count() -> None:
        nonlocal remaining
        remaining -= 1
        if remaining == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def hook(event: str, arguments: tuple) -> None:
        is_reading = event == "open" and not arguments[2] & _WRITING
        if event.startswith(_EVENTS) and not is_reading:
            count()

    def counting(function: Callable) -> Callable:
        def call(*arguments: object) -> object:
            count()
            return function(*arguments)

        return call

    # Neither of the two has an audit event.
    os.fsync = counting(os.fsync)
    os.close = counting(os.close)
    sys.addaudithook(hook)


def served(root: Path) -> str:
    try:
        value = check_whole(load(root))
    except ModelNotFoundError:
        return "none"
    return {OLD: "old", NEW: "new"}[value]


def leftovers(root: Path) -> int:
    return len(list(root.rglob(f"{TEMPORARY_PREFIX}*")))


def kill_at_every_step(root: Path, has_old: bool) -> dict[str, object]:
    """Kill one export after another, each a step later, until one gets through."""
    outcomes, n_leftovers = [], 0
    for step in range(1, 1000):
        market = root / str(step)
        if has_old:
            export(market, OLD)

        def die_exporting(market: Path = market, step: int = step) -> None:
            die_at(step)
            export(market, NEW)

        _, status = os.waitpid(fork(die_exporting), 0)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0, f"the export at step {step} failed"
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
        outcomes.append(served(market))
        n_leftovers += leftovers(market)
        export(market, NEW)
        assert served(market) == "new"
        assert leftovers(market) == 0
    return {"outcomes": outcomes, "leftovers": n_leftovers}


def kill_at_random_times(root: Path, n_kills: int) -> dict[str, object]:
    """Let a child export without a pause, kill it at some moment, look; many times."""
    rng = random.Random(3)
    started = time.monotonic()
    export(root, 0.0)
    # How long an export takes depends on the disk and on who else uses it.
    secs = time.monotonic() - started
    values, n_leftovers = [], 0

    def export_forever() -> None:
        for value in range(1, 100_000):
            export(root, float(value), n_values=3_000)

    for _ in range(n_kills):
        child = fork(export_forever)
        time.sleep(rng.uniform(0.2, 3.0) * secs)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status)
        values.append(check_whole(load(root)))
        n_leftovers += leftovers(root)
    return {"values": values, "leftovers": n_leftovers}


def export_at_once(root: Path, n_processes: int, n_exports: int) -> dict[str, object]:
    """Let several children export to the same market without waiting for each other."""

    def export_some(process: int) -> None:
        for number in range(n_exports):
            export(root, 100.0 * process + number)

    children = [
        fork(lambda process=process: export_some(process)) for process in range(n_processes)
    ]
    statuses = [os.waitpid(child, 0)[1] for child in children]
    versions = MarketFolder(root, "BTCUSDT", "15m").versions
    return {
        "statuses": statuses,
        "value": check_whole(load(root)),
        "leftovers": leftovers(root),
        "versions": len(list(versions.glob("2*"))),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    reports = {
        "first": kill_at_every_step(folder / "first", has_old=False),
        "replace": kill_at_every_step(folder / "replace", has_old=True),
        "random": kill_at_random_times(folder / "random", n_kills=40),
        "at_once": export_at_once(folder / "at_once", n_processes=3, n_exports=10),
    }
    print(json.dumps(reports))
