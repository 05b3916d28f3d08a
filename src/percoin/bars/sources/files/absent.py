"""Errors for bars that a folder or file does not have: each says what is there instead."""

from __future__ import annotations

from pathlib import Path

from percoin.bars.resample import divides
from percoin.bars.sources.files.folder import MOST_FILES, all_files, anywhere
from percoin.bars.sources.files.names import (
    KINDS,
    market_file,
    market_named,
    mentions,
    single_file,
    suffix,
)
from percoin.bars.sources.files.reading import MarketReader
from percoin.errors import BarsNotFoundError
from percoin.printable import printable
from percoin.types import BarLength, Timeframe

_FILES_SHOWN = 3
_ANOTHER = "give another source.path, or fetch the bars first"


def absent(
    root: Path, reader: MarketReader, names: tuple[str, ...], timeframe: Timeframe
) -> BarsNotFoundError:
    """The error for a market or timeframe that a folder or file does not hold.

    Args:
        root: The folder or file.
        reader: Of the market.
        names: The market as files may call it, today's name first.
        timeframe: What was asked for.
    """
    if root.is_file():
        there = [file for name in names if (file := single_file(root, name))]
    else:
        there = [file for name in names for file in anywhere(root, name)]
    lengths = {file.length or reader.length(file.path) for file in there}
    if lengths:
        found, action = _too_coarse(root, lengths, timeframe)
    elif root.is_file():
        found, action = _other_market(root)
    else:
        found, action = _other_files(root, names, timeframe)
    return BarsNotFoundError(reader.symbol, timeframe, found, action)


def label(root: Path, path: Path) -> str:
    """A path for people: without the folders that lead to the data."""
    folder = root.parent if root.is_file() else root
    return printable(f"{folder.resolve().name}/{path.relative_to(folder).as_posix()}")


def _too_coarse(root: Path, lengths: set[BarLength], timeframe: Timeframe) -> tuple[str, str]:
    """All bars are longer than those asked for."""
    there = sorted(lengths, key=lambda length: length.milliseconds)
    found = f"{printable(str(root))} has only {', '.join(map(str, there))}"
    makes = [tf for tf in Timeframe if tf in there or any(divides(each, tf) for each in there)]
    action = f"use tf={makes[0]} or another source.path" if makes else "use another source.path"
    return f"{found}, none that makes up {timeframe}", action


def _other_market(path: Path) -> tuple[str, str]:
    """A single file is of another market."""
    stated = market_named(path) or "another market"
    file = market_file(path, stated)
    length = f" {file.length}" if file and file.length else ""
    found = f"{printable(str(path))} is of {stated}{length}"
    return found, "give another source.path, or ask for that market"


def _other_files(root: Path, names: tuple[str, ...], timeframe: Timeframe) -> tuple[str, str]:
    """A folder holds other files, or none."""
    files = list(all_files(root))
    found = f"no file in {printable(str(root))} holds {' or '.join(names)}"
    if not files:
        return f"{found}, it holds no regular file", _ANOTHER
    close = [path for path in files if any(mentions(path, name) for name in names)]
    if not close and len(files) >= MOST_FILES:
        return f"{found} among the first {len(files):,}", "name the folder of its bars"
    shown = ", ".join(label(root, path) for path in (close or files)[:_FILES_SHOWN])
    shown += ", ..." if len(close or files) > _FILES_SHOWN else ""
    if not close:
        return f"{found}, there is {shown}", _ANOTHER
    found += f" by a name that is understood, there is {shown}"
    if any(suffix(path) for path in close):
        return found, f"call it {names[0]}-{timeframe}.csv or name it by source.path=<file>"
    return found, f"save it as one of {KINDS}"
