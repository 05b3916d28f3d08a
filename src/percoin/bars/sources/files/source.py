"""Bars of any market from a folder of files, or from one file."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from percoin.bars.renames import old_name_note, stored_names
from percoin.bars.resample import NOT_FILLED, divides, resample_frame
from percoin.bars.schema import RUNNING_AT_MOST, Bars, format_time
from percoin.bars.sources.files.absent import absent, label
from percoin.bars.sources.files.errors import FileError
from percoin.bars.sources.files.folder import anywhere, near
from percoin.bars.sources.files.names import KINDS, MarketFile, single_file, suffix
from percoin.bars.sources.files.reading import MarketReader, PartBars, join, newest_written_ms
from percoin.errors import BarsNotFoundError, ConfigError, InvalidBarsError, NotEnoughBarsError
from percoin.printable import printable
from percoin.types import BarLength, Timeframe

logger = logging.getLogger("percoin.bars.sources.files")

# A bar may be written at once when it closes, and clocks are off by a little.
_CLOCK_TOLERANCE_SECS = 2.0
_FILES_SHOWN = 3
_PATH_CHARS = 300
_LEFT_OUT = "%s %s: %s; it is left out"
_USE_ONE = "name the one that is meant: source.path=<file>"
_ByLength = dict[BarLength, list[MarketFile]]


@dataclass(frozen=True)
class _Found:
    """Bars of one market under one of its names, and when the newest of them was written."""

    frame: pd.DataFrame
    length: BarLength
    origin: str
    notes: list[str]
    written_ms: int


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
        with self._reading(symbol, timeframe):
            self._check_path(symbol, timeframe)
            for name in names:
                reader = MarketReader(symbol, (name, *names), timeframe)
                if found := self._load_named(name, reader, timeframe):
                    if found.notes:
                        logger.warning("%s %s: %s", symbol, timeframe, "; ".join(found.notes))
                    origin = found.origin + old_name_note(symbol, name)
                    return self._bars(replace(found, origin=origin), symbol, timeframe)
            raise absent(self.path, MarketReader(symbol, names, timeframe), names, timeframe)

    def check_has(self, symbol: str, timeframe: Timeframe) -> None:
        """Refuse a market that no file's name mentions; no file is read.

        Raises:
            BarsNotFoundError: No such path, or nothing in it for the market.
            InvalidBarsError: The path cannot be read.
            ConfigError: ``symbol`` is no market or an old name of one.
        """
        names = stored_names(symbol)
        with self._reading(symbol, timeframe):
            self._check_path(symbol, timeframe)
            find = single_file if self.path.is_file() else anywhere
            if not any(find(self.path, name) for name in names):
                raise absent(self.path, MarketReader(symbol, names, timeframe), names, timeframe)

    @contextmanager
    def _reading(self, symbol: str, timeframe: Timeframe) -> Iterator[None]:
        """Say in one line which file cannot be read, and why."""
        try:
            yield
        except FileError as error:
            raise InvalidBarsError(symbol, timeframe, error.found, error.action) from error
        except OSError as error:
            shown = printable(str(error.filename or self.path), _PATH_CHARS)
            what = f"{shown} cannot be read ({error.strerror or error})"
            raise InvalidBarsError(
                symbol, timeframe, what, "check the path, and who may read it"
            ) from error

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
            file = single_file(self.path, name)
            return self._choose([file], reader, timeframe) if file else None
        close = near(self.path, name)
        if not any(file.length == timeframe for file in close):
            far = anywhere(self.path, name)
            exact = [file for file in far if file.length == timeframe]
            return (
                self._choose(exact, reader, timeframe)
                or self._choose(close, reader, timeframe)
                or self._choose(far, reader, timeframe)
            )
        return self._choose(close, reader, timeframe)

    def _choose(
        self, files: list[MarketFile], reader: MarketReader, timeframe: Timeframe
    ) -> _Found | None:
        """The bars of the exact length; else the newest that make it up, of equals the coarsest."""
        by_length: _ByLength = {}
        for file in files:
            if file.length is not None:
                by_length.setdefault(file.length, []).append(file)
        if timeframe not in by_length:
            self._add_unnamed(by_length, files, reader, timeframe)
        if timeframe in by_length:
            return self._joined(by_length[timeframe], reader, timeframe)
        return self._newest(by_length, reader, timeframe)

    def _newest(
        self, by_length: _ByLength, reader: MarketReader, timeframe: Timeframe
    ) -> _Found | None:
        """Of the lengths that make up ``timeframe`` the one with the newest bars."""
        usable = [length for length in by_length if divides(length, timeframe)]
        usable.sort(key=lambda length: -length.milliseconds)
        if not usable:
            return None
        best = self._joined(by_length[usable[0]], reader, usable[0])
        for length in usable[1:]:
            try:
                finer = self._joined(by_length[length], reader, length)
            except (FileError, InvalidBarsError) as error:
                logger.warning(_LEFT_OUT, reader.symbol, timeframe, error.found)
                continue
            if finer.frame.index[-1] >= best.frame.index[-1] + timeframe.timedelta:
                best = finer
        return best

    def _add_unnamed(
        self,
        by_length: _ByLength,
        files: list[MarketFile],
        reader: MarketReader,
        timeframe: Timeframe,
    ) -> None:
        """Add the files whose name gives no length, by the step between their bars."""
        n_named = sum(map(len, by_length.values()))
        for file in files:
            if file.length is None:
                try:
                    length = reader.length(file.path)
                except InvalidBarsError as error:
                    if not n_named:
                        raise
                    logger.warning(_LEFT_OUT, reader.symbol, timeframe, error.found)
                    continue
                by_length.setdefault(length, []).append(file)

    def _joined(self, files: list[MarketFile], reader: MarketReader, length: BarLength) -> _Found:
        """One whole file, or all months and days joined in the order of time."""
        is_mixed = len({file.is_futures for file in files}) > 1
        if len(files) > 1 and (is_mixed or not all(file.is_part for file in files)):
            first, *others = files
            others.sort(key=lambda file: file.is_futures == first.is_futures)
            shown = [first, *others][:_FILES_SHOWN]
            names = ", ".join(label(self.path, file.path) for file in shown)
            found = f"any of {len(files)} files could be meant ({names})"
            raise FileError(found, _USE_ONE)
        for file in files:
            if file.stated:
                reader.note(file.path, f"it is of {file.stated}, read as {reader.names[0]}")
        parts = [reader.bars(file.path, length) for file in files]
        parts.sort(key=lambda part: part.frame.index[0])
        notes = reader.notes([part.path for part in parts])
        written_ms = newest_written_ms(parts)
        return _Found(join(parts), length, self._origin(parts), notes, written_ms)

    def _origin(self, parts: list[PartBars]) -> str:
        origin = f"files: {label(self.path, parts[0].path)}"
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
            raise NotEnoughBarsError(symbol, timeframe, what, NOT_FILLED)
        logger.info(
            "%s %s: no bars of that length in the folder, resampled %s bars into %s complete ones",
            symbol,
            timeframe,
            f"{len(frame):,} {found.length}",
            f"{len(longer):,}",
        )
        origin = f"{found.origin}, resampled from {found.length}"
        return Bars(symbol, timeframe, longer, origin)


def _without_open_bar(found: _Found, symbol: str, timeframe: Timeframe) -> pd.DataFrame:
    """Leave out bars that have not closed yet; downloads often end on one.

    If there are many, the clock is slow or the times are of another zone, and loading fails. A file
    that was written while its last bar ran still holds that bar's unfinished values: that bar is
    left out too.
    """
    frame = found.frame
    now = pd.Timestamp(datetime.now(UTC))
    length = pd.Timedelta(found.length.milliseconds, "ms")
    n_closed = int((frame.index <= now - length).sum())
    if n_closed == len(frame):
        return _without_unfinished_bar(found, symbol, timeframe)
    if frame.index[-1] + length > now + RUNNING_AT_MOST * timeframe.timedelta:
        what = (
            f"{len(frame) - n_closed:,} bars had not closed at {format_time(now.floor('s'))} UTC, "
            f"the newest opens {format_time(frame.index[-1])} UTC ({found.origin})"
        )
        action = "set this machine's clock, or write open times in UTC"
        raise InvalidBarsError(symbol, timeframe, what, action)
    logger.warning(
        "%s %s: bars that have not closed yet are left out: %s of %s (%s)",
        symbol,
        timeframe,
        len(frame) - n_closed,
        len(frame),
        found.origin,
    )
    if n_closed == 0:
        what = f"no bar of {found.origin} has closed yet"
        raise InvalidBarsError(symbol, timeframe, what, "check the open times")
    return frame.iloc[:n_closed]


def _without_unfinished_bar(found: _Found, symbol: str, timeframe: Timeframe) -> pd.DataFrame:
    """Leave out the last bar if its file was written before it closed.

    Only the last one, and only if the file was written in that bar or the one before: a time
    further off is that of a copy or an archive, and says nothing about the bars.
    """
    frame, length_ms = found.frame, found.length.milliseconds
    opened = frame.index[-1]
    secs_before_close = (opened.timestamp() * 1000 + length_ms - found.written_ms) / 1000
    if not _CLOCK_TOLERANCE_SECS < secs_before_close <= 2 * length_ms / 1000:
        return frame
    what = f"the bar that opened {format_time(opened)} UTC had not closed when its file was written"
    if len(frame) == 1:
        action = "write the file again now that it has closed"
        raise InvalidBarsError(symbol, timeframe, f"{what} ({found.origin})", action)
    logger.warning("%s %s: %s, and is left out (%s)", symbol, timeframe, what, found.origin)
    return frame.iloc[:-1]
