"""The state of a run, read from its folder; a command that resumes a run uses this record.

::

    <run>/settings.json            settings of the start, or of the last resume
    <run>/**/checkpoints/last.ckpt  the last finished epoch, one file for each part of the run
    <run>/result.json              the result; if it exists, the run is finished
    <run>/diverged.txt             the loss became NaN or infinite; the run cannot be resumed
    <run>/markets/<SYMBOL>/        the same files for each market of a run on several markets

These all keep this record: a run in a terminal, a job of a sweep, a market of a pooled run or
fleet, the best settings of a search, and a retraining. A job keeps more (key, progress, process)
in ``job.json`` beside it (``percoin.sweep.jobs``).
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
BEST_CHECKPOINT = "best"
# Below the run's folder: the results of each of several markets.
MARKETS_FOLDER = "markets"
# Below the folder of the judged network: its refit on all rows.
REFIT_FOLDER = "refit"
# Below the run's folder: earlier folds of a walk-forward, one network per seed of a pooled run.
PARTS = ("fold-*", "seed-*")
_CHECKPOINTS = tuple(
    f"{part}{CHECKPOINT_FOLDER}/{LAST_CHECKPOINT}.ckpt" for part in ("", *(f"{p}/" for p in PARTS))
)
# What a resume or a reader of results goes by.
_PROGRESS = (
    *(
        f"{part}{place}{CHECKPOINT_FOLDER}/{name}.ckpt"
        for part in ("", *(f"{p}/" for p in PARTS))
        for place in ("", f"{REFIT_FOLDER}/")
        for name in (LAST_CHECKPOINT, BEST_CHECKPOINT)
    ),
    RESULT_FILE,
    f"{MARKETS_FOLDER}/*/{RESULT_FILE}",
    DIVERGED_FILE,
)
# Larger than any count in a valid result.
_MOST = 10**11


def facts_hash(facts: object, n_digits: int) -> str:
    """Hash everything that determines a model: equal facts mean the same job.

    Args:
        facts: Anything that JSON can hold.
        n_digits: Length of the hash in hexadecimal digits.
    """
    text = json.dumps(facts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:n_digits]


def is_finished(folder: Path) -> bool:
    """Whether the run has written its result."""
    return (folder / RESULT_FILE).exists()


def has_checkpoint(folder: Path) -> bool:
    """Whether the run has finished at least one epoch."""
    return any(any(folder.glob(pattern)) for pattern in _CHECKPOINTS)


def can_go_on(folder: Path) -> bool:
    """Whether the run can be resumed: it has a checkpoint and did not diverge."""
    return has_checkpoint(folder) and not (folder / DIVERGED_FILE).exists()


def progress_files(folder: Path) -> list[Path]:
    """The checkpoints, results and marks of a run, without its logs and pictures."""
    found = (path for pattern in _PROGRESS for path in sorted(folder.glob(pattern)))
    return [path for path in found if not path.is_dir()]


def mark_diverged(folder: Path, why: str) -> None:
    """Mark the run as one that cannot be resumed.

    Raises:
        OSError: The folder cannot be written.
    """
    write_whole(folder / DIVERGED_FILE, f"{why}\n")


def write_result(folder: Path, result: Mapping[str, Any]) -> None:
    """Write the result of the run or of one of its markets, which marks it as finished.

    Args:
        folder: Folder of the run or of the market.
        result: Anything that JSON can hold; NaN and infinity become null.

    Raises:
        OSError: The folder cannot be written.
    """
    write_whole(folder / RESULT_FILE, json_codec.dumps(result, nan_as_null=True))


def read_result(folder: Path) -> dict[str, Any]:
    """Read the result of a run or of one of its markets.

    Raises:
        OSError: The run is not finished, or the file cannot be read.
        ValueError: The content is not a valid result.
    """
    path = folder / RESULT_FILE
    result = json_codec.loads(path.read_text(encoding="utf-8"))
    if not isinstance(result, dict):
        raise ValueError(f"{path} holds no object")
    check_result(result)
    return result


def check_result(result: Mapping[str, Any]) -> None:
    """Check that the fields of a result have the types that its readers expect.

    Raises:
        ValueError: A field has another type, or a value out of range.
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
