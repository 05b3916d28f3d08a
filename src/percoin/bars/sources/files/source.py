"""Bars of any market from a folder of files, or from one file."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import pandas as pd

from percoin.bars.renames import old_name_note, stored_names
from percoin.bars.resample import divides, resample_frame
from percoin.bars.schema import Bars
from percoin.bars.sources.files.errors import FileError
from percoin.bars.sources.files.folder import all_files, anywhere, near
from percoin.bars.sources.files.names import (
    KINDS,
    MarketFile,
    market_file,
    market_named,
    mentions,
    same_coin,
    suffix,
)
from percoin.bars.sources.files.reading import MarketReader, PartBars, join
from percoin.errors import BarsNotFoundError, ConfigError, InvalidBarsError, NotEnoughBarsError
from percoin.printable import printable
from percoin.types import BarLength, Timeframe

# One name for all of the package: a server says what it says here once, not at every refresh.
logger = logging.getLogger("percoin.bars.sources.files")

_FILES_SHOWN = 3
_PATH_CHARS = 300
_FILES_LOOKED_AT = 1_000
_ANOTHER = "give another source.path, or fetch the bars first"
_USE_ONE = "name the one that is meant: source.path=<file>"
_ByLength = dict[BarLength, list[MarketFile]]


@dataclass(frozen=True)
class _Found:
    """Bars of one market under one of its names."""

    frame: pd.DataFrame
    length: BarLength
    origin: str


class FilesSource:
    """Bars of any market in a folder, or in one file of one market.

    Read are Parquet, Feather, CSV and JSON, the latter two also packed as ``.gz`` or
    ``.zip``. A file is found by its name (``names.market_file`` has the forms) in the
    folder, in ``futures/``, ``<SYMBOL>/`` and ``<SYMBOL>/<tf>/``, and if no bars are
    there anywhere below, as in the folder tree of Binance's archive. Months and days are
    joined; everything else is one file per market and timeframe: where two could be
    meant, it is an error that names them.

    If the timeframe is not there, a finer one that divides it is resampled: the one
    whose bars are newest, of equals the coarsest. Log and origin say so.

    Args:
        path: Folder, or a single file of one market.

    Raises:
        ConfigError: ``~user`` of nobody.
    """

    def __init__(self, path: Path | str) -> None:
        try:
            self.path = Path(path).expanduser()
        except RuntimeError as error:
            shown = printable(str(path))
            raise ConfigError(f"source.path={shown}: that user has no home folder here") from error

    def load(self, symbol: str, timeframe: Timeframe) -> Bars:
        """The bars of one market.

        Raises:
            BarsNotFoundError: No such path, or nothing in it for the market.
            InvalidBarsError: A file cannot be read or breaks the schema, files
                differ, or it is not clear which is meant.
            NotEnoughBarsError: The finer bars do not fill one of ``timeframe``.
            ConfigError: ``symbol`` is no market or an old name of one.
        """
        names = stored_names(symbol)
        try:
            self._check_path(symbol, timeframe)
            for name in names:
                reader = MarketReader(symbol, (name, *names), timeframe)
                if found := self._load_named(name, reader, timeframe):
                    for note in reader.notes:
                        logger.warning("%s %s: %s", symbol, timeframe, note)
                    origin = found.origin + old_name_note(symbol, name)
                    return self._bars(replace(found, origin=origin), symbol, timeframe)
            raise self._not_found(symbol, timeframe, names)
        except FileError as error:
            raise InvalidBarsError(symbol, timeframe, error.found, error.action) from error
        except OSError as error:
            shown = printable(str(error.filename or self.path), _PATH_CHARS)
            what = f"{shown} cannot be read ({error.strerror or error})"
            raise InvalidBarsError(symbol, timeframe, what, "see who may read it") from error

    def _check_path(self, symbol: str, timeframe: Timeframe) -> None:
        """Refuse a path that is neither a folder nor a file that is read."""
        shown = f"source.path={printable(str(self.path))}"
        if not self.path.exists():
            found = f"{shown} does not exist"
            raise BarsNotFoundError(symbol, timeframe, found, "give the folder of the bars")
        if self.path.is_dir():
            return
        if not self.path.is_file():
            found = f"{shown} is neither a folder nor a regular file"
            raise BarsNotFoundError(symbol, timeframe, found, "give the folder of the bars")
        if not suffix(self.path):
            raise ConfigError(f"{shown} is not one of {KINDS}")

    def _load_named(self, name: str, reader: MarketReader, timeframe: Timeframe) -> _Found | None:
        """The bars of the market as files call it ``name``; None if there are none to use."""
        if self.path.is_file():
            file = self._single(name, reader)
            return self._choose([file], reader, timeframe) if file else None
        found = self._choose(near(self.path, name), reader, timeframe)
        return found or self._choose(anywhere(self.path, name), reader, timeframe)

    def _single(self, name: str, reader: MarketReader) -> MarketFile | None:
        """The single file, unless its name says that it is of another market."""
        if file := market_file(self.path, name):
            return file
        stated = market_named(self.path)
        if stated is None:
            return MarketFile(self.path, None)
        if not same_coin(stated, name):
            return None
        reader.notes.append(f"{printable(self.path.name)} is of {stated}, read as {name}")
        return MarketFile(self.path, None)

    def _choose(
        self, files: list[MarketFile], reader: MarketReader, timeframe: Timeframe
    ) -> _Found | None:
        """The bars of the exact length; else the newest that make it up, of equals the coarsest."""
        by_length: _ByLength = {}
        for file in files:
            if file.length is not None:
                by_length.setdefault(file.length, []).append(file)
        if timeframe not in by_length:
            self._add_unnamed(by_length, files, reader)
        if timeframe in by_length:
            return self._joined(by_length[timeframe], reader, timeframe)
        usable = sorted(
            (each for each in by_length if divides(each, timeframe)),
            key=lambda each: -each.milliseconds,
        )
        found = [self._joined(by_length[length], reader, length) for length in usable]
        if not found:
            return None
        newest = max(each.frame.index[-1] for each in found)
        return next(each for each in found if each.frame.index[-1] > newest - timeframe.timedelta)

    def _add_unnamed(
        self, by_length: _ByLength, files: list[MarketFile], reader: MarketReader
    ) -> None:
        """Sort in the files whose bars say their length; one that cannot be read may be no bars."""
        n_named = sum(map(len, by_length.values()))
        for file in files:
            if file.length is None:
                try:
                    length = reader.length(file.path)
                except InvalidBarsError as error:
                    if not n_named:
                        raise
                    reader.notes.append(f"{error.found}; it is left out")
                    continue
                by_length.setdefault(length, []).append(file)

    def _joined(self, files: list[MarketFile], reader: MarketReader, length: BarLength) -> _Found:
        """One whole file, or all months and days joined in the order of time."""
        is_mixed = len({file.is_futures for file in files}) > 1
        if len(files) > 1 and (is_mixed or not all(file.is_part for file in files)):
            # One of each kind first.
            shown = sorted(
                files, key=lambda file: file != files[0] and file.is_futures == files[0].is_futures
            )
            names = ", ".join(self._label(file.path) for file in shown[:_FILES_SHOWN])
            found = f"any of {len(files)} files could be meant ({names})"
            raise FileError(found, _USE_ONE)
        parts = [reader.bars(file.path, length) for file in files]
        parts.sort(key=lambda part: part.frame.index[0])
        return _Found(join(parts), length, self._origin(parts))

    def _origin(self, parts: list[PartBars]) -> str:
        origin = f"files: {self._label(parts[0].path)}"
        if len(parts) > 1:
            origin += f" to {printable(parts[-1].path.name)} ({len(parts)} files)"
        return origin

    def _bars(self, found: _Found, symbol: str, timeframe: Timeframe) -> Bars:
        """Closed bars of the timeframe, resampled if they are finer."""
        frame = _without_open_bar(found, symbol, timeframe)
        if found.length == timeframe:
            return Bars(symbol, timeframe, frame, found.origin)
        longer = resample_frame(frame, found.length, timeframe)
        if longer.empty:
            what = f"{len(frame):,} {found.length} bars do not fill one of {timeframe}"
            raise NotEnoughBarsError(symbol, timeframe, what, "give it a longer history")
        logger.info(
            "%s %s: no bars of that length in the folder, resampled %s bars into %s complete ones",
            symbol,
            timeframe,
            f"{len(frame):,} {found.length}",
            f"{len(longer):,}",
        )
        origin = f"{found.origin}, resampled from {found.length}"
        return Bars(symbol, timeframe, longer, origin)

    def _label(self, path: Path) -> str:
        """A path for people: without the folders that lead to the data."""
        folder = self.path.parent if self.path.is_file() else self.path
        return printable(f"{folder.resolve().name}/{path.relative_to(folder).as_posix()}")

    def _not_found(
        self, symbol: str, timeframe: Timeframe, names: tuple[str, ...]
    ) -> BarsNotFoundError:
        """The error for a market that is not there, with what is."""
        root = printable(str(self.path))
        if self.path.is_file():
            found, action = self._single_not_found(symbol, timeframe, names)
            return BarsNotFoundError(symbol, timeframe, found, action)
        reader = MarketReader(symbol, names, timeframe)
        lengths = {
            file.length or reader.length(file.path)
            for name in names
            for file in anywhere(self.path, name)
        }
        if lengths:
            found, action = _too_coarse(root, lengths, timeframe)
            return BarsNotFoundError(symbol, timeframe, found, action)
        found, action = self._what_lies_there(symbol, timeframe, names)
        return BarsNotFoundError(symbol, timeframe, found, action)

    def _what_lies_there(
        self, symbol: str, timeframe: Timeframe, names: tuple[str, ...]
    ) -> tuple[str, str]:
        """What a folder holds in place of the market, and what to do."""
        files = list(islice(all_files(self.path), _FILES_LOOKED_AT))
        close = [path for path in files if any(mentions(path, name) for name in names)]
        shown = ", ".join(self._label(path) for path in (close or files)[:_FILES_SHOWN])
        shown += ", ..." if len(close or files) > _FILES_SHOWN else ""
        found = f"no file in {printable(str(self.path))} holds {' or '.join(names)}"
        if not files:
            return f"{found}, it holds no file at all", _ANOTHER
        if not close:
            return f"{found}, there is {shown}", _ANOTHER
        found += f" by a name that is understood, there is {shown}"
        if any(suffix(path) for path in close):
            return found, f"call it {symbol}-{timeframe}.csv or name it by source.path=<file>"
        return found, f"save it as one of {KINDS}"

    def _single_not_found(
        self, symbol: str, timeframe: Timeframe, names: tuple[str, ...]
    ) -> tuple[str, str]:
        """What a single file holds in place of what was asked for."""
        root = printable(str(self.path))
        reader = MarketReader(symbol, names, timeframe)
        for name in names:
            if file := self._single(name, reader):
                return _too_coarse(root, {file.length or reader.length(file.path)}, timeframe)
        stated = market_named(self.path) or ""
        file = market_file(self.path, stated)
        length = f" {file.length}" if file and file.length else ""
        return f"{root} is of {stated}{length}", "give another source.path, or ask for that market"


def _too_coarse(root: str, lengths: set[BarLength], timeframe: Timeframe) -> tuple[str, str]:
    """What is found and what to do where all bars are longer than those asked for."""
    there = sorted(lengths, key=lambda length: length.milliseconds)
    found = f"{root} has only {', '.join(map(str, there))}, none that makes up {timeframe}"
    makes = [tf for tf in Timeframe if tf in there or any(divides(each, tf) for each in there)]
    action = f"use tf={makes[0]} or another source.path" if makes else "use another source.path"
    return found, action


def _without_open_bar(found: _Found, symbol: str, timeframe: Timeframe) -> pd.DataFrame:
    """Leave out bars that have not closed yet; downloads often end on one."""
    frame = found.frame
    latest = pd.Timestamp(datetime.now(UTC)) - pd.Timedelta(found.length.milliseconds, "ms")
    n_closed = int((frame.index <= latest).sum())
    if n_closed == len(frame):
        return frame
    logger.warning(
        "%s %s: %s of %s bars have not closed yet and are left out",
        symbol,
        timeframe,
        len(frame) - n_closed,
        found.origin,
    )
    if n_closed == 0:
        what = f"no bar of {found.origin} has closed yet"
        raise InvalidBarsError(symbol, timeframe, what, "check the open times")
    return frame.iloc[:n_closed]
