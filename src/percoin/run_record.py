"""How a run stands, as its folder says: the one record by which a command goes on.

::

    <run>/settings.json            what it was begun with, or last gone on with
    <run>/**/checkpoints/last.ckpt  the last finished epoch, of each part of the run
    <run>/result.json              what came of it: the run is finished
    <run>/diverged.txt             its loss was no longer a number: it cannot go on
    <run>/markets/<SYMBOL>/        of a run on several markets, the same of each

A run in a terminal, a job of a sweep, a market of a pool or fleet, the chosen settings of a
search and a retraining all keep this record. What is more of a job (its key, its progress, its
process) is in ``job.json`` beside it (``percoin.sweep.jobs``).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from percoin import json_codec
from percoin.whole_file import write_whole

SETTINGS_FILE = "settings.json"
RESULT_FILE = "result.json"
DIVERGED_FILE = "diverged.txt"
CHECKPOINT_FOLDER = "checkpoints"
LAST_CHECKPOINT = "last"
# Below the run's folder: what came of each of several markets.
MARKETS_FOLDER = "markets"
# Below the run's folder: the earlier folds of a walk-forward, the networks of a pool's seeds.
PARTS = ("fold-*", "seed-*")
_CHECKPOINTS = tuple(
    f"{part}{CHECKPOINT_FOLDER}/{LAST_CHECKPOINT}.ckpt" for part in ("", *(f"{p}/" for p in PARTS))
)
# Above every count that a run can mean.
_MOST = 10**11


def facts_hash(facts: object, n_digits: int) -> str:
    """Hash of what a model follows from: the same facts are the same job.

    Args:
        facts: Plain enough for JSON.
        n_digits: Of the hash, in hexadecimal.
    """
    text = json.dumps(facts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:n_digits]


def is_finished(folder: Path) -> bool:
    """Whether the run has written its result."""
    return (folder / RESULT_FILE).exists()


def has_checkpoint(folder: Path) -> bool:
    """Whether the run finished an epoch."""
    return any(any(folder.glob(pattern)) for pattern in _CHECKPOINTS)


def can_go_on(folder: Path) -> bool:
    """Whether there is an epoch to go on from; a run that diverged has none."""
    return has_checkpoint(folder) and not (folder / DIVERGED_FILE).exists()


def mark_diverged(folder: Path, why: str) -> None:
    """Note that the run cannot go on.

    Raises:
        OSError: The folder takes no more.
    """
    write_whole(folder / DIVERGED_FILE, f"{why}\n")


def write_result(folder: Path, result: Mapping[str, Any]) -> None:
    """Note that the run, or one of its markets, is finished, and what came of it.

    Args:
        folder: Of the run or of the market.
        result: Plain enough for JSON; a number that is not finite becomes null.

    Raises:
        OSError: The folder takes no more.
    """
    write_whole(folder / RESULT_FILE, json_codec.dumps(result, nan_as_null=True))


def read_result(folder: Path) -> dict[str, Any]:
    """What came of a run or of one of its markets.

    Raises:
        OSError: It is not finished, or the file cannot be read.
        ValueError: No run wrote it.
    """
    path = folder / RESULT_FILE
    result = json_codec.loads(path.read_text(encoding="utf-8"))
    if not isinstance(result, dict):
        raise ValueError(f"{path} holds no object")
    check_result(result)
    return result


def check_result(result: Mapping[str, Any]) -> None:
    """Refuse what is not of the kinds that readers of results count on.

    Raises:
        ValueError: It is not.
    """
    markets = result.get("markets", {})
    entries = [result, *markets.values()] if isinstance(markets, dict) else [markets]
    for entry in entries:
        if not isinstance(entry, dict):
            raise ValueError("a result is no object")
        for name in ("version", "verdict"):
            text = entry.get(name, "")
            if not isinstance(text, str) or not text.isprintable() or "/" in text:
                raise ValueError(f"{name} of a result is no word")
        n_epochs = entry.get("epochs", 0)
        if type(n_epochs) is not int or not 0 <= n_epochs < _MOST:
            raise ValueError("epochs of a result are no count")
    if any({"version", "verdict"} - entry.keys() for entry in entries[1:]):
        raise ValueError("a market of a result has no version or verdict")
    for name in ("refused", "failed"):
        said = result.get(name, {})
        texts = [*said.keys(), *said.values()] if isinstance(said, dict) else [said]
        if not all(isinstance(text, str) and text.isprintable() for text in texts):
            raise ValueError(f"what a result says of {name} markets is no text")
