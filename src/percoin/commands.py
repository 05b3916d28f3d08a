"""Command lines that messages print for copying: quoted for a shell, with the folders in use."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

# What commands take by themselves, below the folder they run in.
_USUAL = {"data_dir": "data", "models_dir": "models"}


def command(program: str, *words: str, **folders: str | Path | None) -> str:
    """A line that does what it says when it is pasted into a shell.

    Args:
        program: For example ``python train.py``.
        words: ``KEY=VALUE`` each, as a person would mean them, without quotes.
        folders: By their settings; one that commands use by themselves is left out.
    """
    return " ".join([program, *map(shlex.quote, [*words, *folder_words(**folders)])])


def folder_words(**folders: str | Path | None) -> list[str]:
    """``KEY=VALUE`` words for those folders that commands do not use by themselves."""
    return [
        f"{key}={folder}"
        for key, folder in folders.items()
        if folder is not None and Path(folder) != Path(_USUAL.get(key, ""))
    ]


def train_command(symbol: str, timeframe: str, models_dir: str | Path | None = None) -> str:
    """What trains a model for a market, into the same models folder."""
    return command("python train.py", f"symbol={symbol}", f"tf={timeframe}", models_dir=models_dir)


def flat(container: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Settings by their dotted names."""
    for key, value in container.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
