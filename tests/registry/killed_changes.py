"""Real processes that promote, roll back, withdraw and prune until they are killed.

Run by test_changes.py; as in killed_exports.py one process imports torch and forks the others.
"""

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import torch
from artifact_builders import SYMBOL, TIMEFRAME, check_whole, export, load
from killed_exports import die_at, fork, leftovers

from percoin.registry.catalogue import check_market, version_ids
from percoin.registry.changes import Pruning, promote, prune, rollback
from percoin.registry.history import read_history
from percoin.registry.layout import MarketFolder
from percoin.registry.manifest import Gate, StoredVerdict
from percoin.registry.publish import served_id
from percoin.registry.revision import withdraw_acceptance

VALUES = (0.0, 0.25, 0.5, 0.75)
PRUNED = Pruning(keep=1)
# What is served, and how many versions there are, once it is done.
DONE = {"promote": (0.0, 4), "rollback": (0.5, 4), "withdraw": (0.5, 5), "prune": (0.75, 2)}


def market(root: Path) -> MarketFolder:
    return MarketFolder(root, SYMBOL, TIMEFRAME)


def promote_first(root: Path) -> None:
    promote(market(root), version_ids(market(root))[0], "by a test")


def roll_back(root: Path) -> None:
    rollback(market(root), "by a test")


def withdraw_last(root: Path) -> None:
    withdraw_acceptance(root, SYMBOL, TIMEFRAME, version_ids(market(root))[3], "by a test")


def prune_all(root: Path) -> None:
    prune(market(root), PRUNED, "by a test")


ACTIONS: dict[str, Callable[[Path], None]] = {
    "promote": promote_first,
    "rollback": roll_back,
    "withdraw": withdraw_last,
    "prune": prune_all,
}


def check_history(root: Path) -> None:
    """Nothing was served without a line that says since when."""
    history = read_history(market(root))
    assert history.damaged_lines == ()
    served = [(event.before, event.after) for event in history.events]
    assert all(earlier[1] == later[0] for earlier, later in pairwise(served)), served


def kill_at_every_step(template: Path, folder: Path, action: str) -> dict[str, object]:
    """Kill one change after another, each a step later, until one gets through."""
    outcomes, n_left, n_versions = [], 0, []
    for step in range(1, 1000):
        root = folder / str(step)
        shutil.copytree(template, root, symlinks=True)

        def die_changing(root: Path = root, step: int = step) -> None:
            die_at(step)
            ACTIONS[action](root)

        _, status = os.waitpid(fork(die_changing), 0)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0, f"{action} at step {step} failed"
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
        outcomes.append(check_whole(load(root)))
        n_versions.append(len(version_ids(market(root))))
        n_left += leftovers(root)
        assert not [check for check in check_market(market(root)) if check.problem]
        if outcomes[-1] != VALUES[-1] or n_versions[-1] < len(VALUES):
            # What took place is in the history, even if nobody comes after.
            event = read_history(market(root)).events[-1]
            assert (event.action, event.after) == (action, served_id(market(root)))
        repeat(root, action, outcomes[-1])
    return {"outcomes": outcomes, "leftovers": n_left, "versions": n_versions}


def repeat(root: Path, action: str, value: float) -> None:
    """Do it again where it had not been done; the next change then finds all in order."""
    if value == VALUES[-1]:
        ACTIONS[action](root)
    assert (check_whole(load(root)), len(version_ids(market(root)))) == DONE[action]
    other = next(name for name in version_ids(market(root)) if name != served_id(market(root)))
    promote(market(root), other, "tidy", force=True)
    assert leftovers(root) == 0
    assert read_history(market(root)).events[-1].after == served_id(market(root))
    check_history(root)


if __name__ == "__main__":
    torch.set_num_threads(1)
    # A killed process loses nothing that the kernel has: here a sync is a step and no more.
    os.fsync = lambda descriptor: None
    base = Path(sys.argv[1])
    for value in VALUES:
        export(base / "template", value, gate=Gate(StoredVerdict.ACCEPTED))
    reports = {
        action: kill_at_every_step(base / "template", base / action, action) for action in ACTIONS
    }
    print(json.dumps(reports))
