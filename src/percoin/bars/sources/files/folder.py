"""The files of one market in a folder."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from percoin.bars.sources.files.names import (
    LENGTHS,
    MarketFile,
    is_other_market,
    market_file,
    suffix,
)
from percoin.printable import printable

# One name for all of the package: a server says what it says here once, not at every refresh.
logger = logging.getLogger("percoin.bars.sources.files")

_DEEPEST = 8
MOST_FILES = 100_000
# Tables of the archive whose files are named as those of bars, but hold no trades.
_NO_BARS = {"markpriceklines", "indexpriceklines", "premiumindexklines"}


def near(root: Path, symbol: str) -> list[MarketFile]:
    """The market's files in the folder, ``futures/``, ``<SYMBOL>/`` and ``<SYMBOL>/<tf>/``."""
    folders = [root, root / "futures", root / symbol]
    folders += [root / symbol / str(length) for length in LENGTHS]
    paths = [path for folder in folders if folder.is_dir() for path in _entries(folder)[0]]
    return _of_market(paths, symbol)


def anywhere(root: Path, symbol: str) -> list[MarketFile]:
    """The market's files at any depth, as in the folder tree of the archive."""
    return _of_market(_below(root, lambda folder: _may_hold(folder, symbol)), symbol)


def all_files(root: Path) -> Iterator[Path]:
    """Every file below ``root`` but for hidden folders, up to about ``MOST_FILES``."""
    return _below(root, lambda folder: not folder.startswith("."))


def _below(root: Path, may_enter: Callable[[str], bool]) -> Iterator[Path]:
    seen: set[tuple[int, int]] = set()
    waiting = [(root, 0)]
    n_files = 0
    while waiting:
        folder, depth = waiting.pop()
        try:
            place = folder.stat()
            if (place.st_dev, place.st_ino) in seen:
                continue
            seen.add((place.st_dev, place.st_ino))
            paths, folders = _entries(folder)
        except OSError as error:
            if folder == root:
                raise
            logger.warning("%s is left out: %s", printable(str(folder)), error.strerror)
            continue
        yield from paths
        n_files += len(paths)
        if n_files >= MOST_FILES:
            return
        if depth < _DEEPEST:
            inner = [each for each in folders if may_enter(each.name)]
            waiting += [(each, depth + 1) for each in reversed(inner)]


def _of_market(paths: Iterable[Path], symbol: str) -> list[MarketFile]:
    files = (market_file(path, symbol) for path in paths if suffix(path))
    return [file for file in files if file is not None]


def _may_hold(folder: str, symbol: str) -> bool:
    is_hidden = folder.startswith(".")
    return not (is_hidden or folder.lower() in _NO_BARS or is_other_market(folder, symbol))


def _entries(folder: Path) -> tuple[list[Path], list[Path]]:
    """Regular files and folders in ``folder``, sorted; pipes and devices are neither."""
    files, folders = [], []
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda each: each.name):
            path = folder / entry.name
            # To a path a link that leads to itself is nothing; to an entry it is an error.
            kind = path if entry.is_symlink() else entry
            if kind.is_file():
                files.append(path)
            elif kind.is_dir():
                folders.append(path)
    return files, folders
