"""Command lines that messages print for copying: quoted for a shell, with the folders in use."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

PROGRAM = "percoin"

# The defaults, below the folder that a command runs in.
_USUAL = {"data_dir": "data", "models_dir": "models"}


def command(program: str, *words: str, **folders: str | Path | None) -> str:
    """A command line that can be pasted into a shell.

    Args:
        program: For example ``python train.py``.
        words: ``KEY=VALUE`` each, not yet quoted.
        folders: By the name of their setting; a default folder is left out.
    """
    words = (*words, *folder_words(**folders))
    return " ".join([as_called(program), *map(shlex.quote, words)])


def as_called(text: str) -> str:
    """A text with its commands as this process was called.

    ``python train.py`` and ``python -m percoin.fetch`` work in a checkout. Whoever called the
    installed program reads ``percoin train`` and ``percoin fetch``.
    """
    if Path(sys.argv[0] if sys.argv else "").name != PROGRAM:
        return text
    text = re.sub(r"\bpython (train|predict)\.py\b", rf"{PROGRAM} \1", text)
    return re.sub(r"\bpython -m percoin\.(\w+)", rf"{PROGRAM} \1", text)


def folder_words(**folders: str | Path | None) -> list[str]:
    """``KEY=VALUE`` words for the folders that are not the defaults."""
    return [
        f"{key}={folder}"
        for key, folder in folders.items()
        if folder is not None and Path(folder) != Path(_USUAL.get(key, ""))
    ]


def train_command(symbol: str, timeframe: str, models_dir: str | Path | None = None) -> str:
    """The command that trains a model for a market, into the same models folder."""
    return command("python train.py", f"symbol={symbol}", f"tf={timeframe}", models_dir=models_dir)


def flat(container: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Settings by their dotted names."""
    for key, value in container.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
