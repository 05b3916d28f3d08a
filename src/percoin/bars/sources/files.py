"""Bars from a folder, or one file, of Parquet, CSV or Feather."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa  # type: ignore[import-untyped]

from percoin.bars.renames import old_name_note, stored_names
from percoin.bars.resample import divides, resample
from percoin.bars.schema import Bars, check_bars, format_time
from percoin.bars.sources.tables import SUFFIXES, read_table
from percoin.errors import BarsNotFoundError, InvalidBarsError
from percoin.types import OFFERED_TIMEFRAMES, Timeframe

logger = logging.getLogger(__name__)

_TIMEFRAMES = "|".join(Timeframe)
_SYMBOL = re.compile("[A-Z0-9]+")
_FILE_NAMES = (
    # BTCUSDT-15m.csv, and one month or day of it: BTCUSDT-15m-2024-01.csv
    re.compile(rf"(?P<symbol>[A-Z0-9]+)-(?P<tf>{_TIMEFRAMES})(?P<part>-\d{{4}}-\d\d(-\d\d)?)?"),
    # freqtrade: BTC_USDT-15m.feather, BTC_USDT_USDT-15m-futures.feather
    re.compile(
        rf"(?P<base>[A-Z0-9]+)_(?P<quote>[A-Z0-9]+)(_(?P=quote))?-(?P<tf>{_TIMEFRAMES})(-futures)?"
    ),
)
_FILES_SHOWN = 3
_USE_ONE = "name the one that is meant: source.path=<file>"


@dataclass(frozen=True)
class _MarketFile:
    """A file whose name says which market it holds; ``is_part`` if only a month or a day."""

    path: Path
    symbol: str
    timeframe: Timeframe
    is_part: bool = False


class FilesSource:
    """Bars of any market in a folder.

    Understood are ``<SYMBOL>/<tf>.parquet``; ``<SYMBOL>-<tf>.csv`` and the
    monthly and daily files ``<SYMBOL>-<tf>-2024-01.csv`` of Binance, in the
    folder, in ``<SYMBOL>/`` or in ``<SYMBOL>/<tf>/``; and freqtrade's
    ``BTC_USDT-15m.feather`` and ``BTC_USDT_USDT-15m-futures.feather``, there or
    in ``futures/``. Each may be Parquet, CSV or Feather. Months and days are
    joined, everything else is one file per market and timeframe: where two
    could be meant, it is an error that names them.

    If the timeframe is not there, the coarsest finer one that divides it is
    resampled; log and origin say so.

    Args:
        path: Folder, or a single file of one market.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path).expanduser()

    def load(self, symbol: str, timeframe: Timeframe) -> Bars:
        """The bars of one market.

        Raises:
            BarsNotFoundError: No such path, or nothing in it for the market.
            InvalidBarsError: A file cannot be read or breaks the schema, files
                overlap, or it is not clear which is meant.
            ConfigError: ``symbol`` is no market or an old name of one.
        """
        names = stored_names(symbol)
        if not self.path.exists():
            found = f"source.path={self.path} does not exist"
            raise BarsNotFoundError(symbol, timeframe, found, "give the folder of the bars")
        for name in names:
            by_timeframe = self._find(name, symbol, timeframe)
            usable = [tf for tf in by_timeframe if tf == timeframe or divides(tf, timeframe)]
            if usable:
                best = max(usable, key=lambda tf: tf.milliseconds)
                bars = self._read(by_timeframe[best], symbol, best)
                bars = replace(bars, origin=bars.origin + old_name_note(symbol, name))
                return _resampled(bars, timeframe)
        raise self._not_found(symbol, timeframe, names)

    def _find(
        self, name: str, symbol: str, timeframe: Timeframe
    ) -> dict[Timeframe, list[_MarketFile]]:
        """The files of the market stored as ``name``, by their timeframe."""
        if self.path.is_file():
            return self._find_single(name, symbol, timeframe)
        folders = [self.path, self.path / "futures", self.path / name]
        folders += [self.path / name / tf.value for tf in Timeframe]
        by_timeframe: dict[Timeframe, list[_MarketFile]] = {}
        for file in _market_files(folders):
            if file.symbol == name:
                by_timeframe.setdefault(file.timeframe, []).append(file)
        return by_timeframe

    def _find_single(
        self, name: str, symbol: str, timeframe: Timeframe
    ) -> dict[Timeframe, list[_MarketFile]]:
        """The single file, unless its name says that it is of another market."""
        file = _parse_name(self.path)
        if file is None:
            file = _MarketFile(self.path, name, _infer_timeframe(self.path, symbol, timeframe))
        return {file.timeframe: [file]} if file.symbol == name else {}

    def _read(self, files: list[_MarketFile], symbol: str, timeframe: Timeframe) -> Bars:
        """One whole file, or all months and days joined in the order of time."""
        if len(files) > 1 and not all(file.is_part for file in files):
            names = ", ".join(self._label(file.path) for file in files[:_FILES_SHOWN])
            found = f"any of {len(files)} files could be meant ({names})"
            raise InvalidBarsError(symbol, timeframe, found, _USE_ONE)
        parts = [(file, _read_checked(file.path, symbol, timeframe)) for file in files]
        parts.sort(key=lambda part: part[1].index[0])
        for (earlier, before), (later, after) in pairwise(parts):
            if after.index[0] <= before.index[-1]:
                found = (
                    f"{earlier.path.name} and {later.path.name} overlap "
                    f"from {format_time(after.index[0])}"
                )
                raise InvalidBarsError(symbol, timeframe, found, "remove one of the two")
        origin = f"files: {self._label(parts[0][0].path)}"
        if len(parts) > 1:
            origin += f" to {parts[-1][0].path.name} ({len(parts)} files)"
        frame = pd.concat([frame for _, frame in parts]) if len(parts) > 1 else parts[0][1]
        return _without_open_bar(Bars(symbol, timeframe, frame, origin))

    def _label(self, path: Path) -> str:
        """A path for people: without the folders that lead to the data."""
        folder = self.path.parent if self.path.is_file() else self.path
        return f"{folder.resolve().name}/{path.relative_to(folder).as_posix()}"

    def _not_found(
        self, symbol: str, timeframe: Timeframe, names: tuple[str, ...]
    ) -> BarsNotFoundError:
        """The error for a market that is not there, with what is."""
        there = sorted(
            {tf for name in names for tf in self._find(name, symbol, timeframe)},
            key=lambda tf: tf.milliseconds,
        )
        found = f"no file in {self.path} holds {' or '.join(names)}"
        action = "give another source.path, or fetch the bars first"
        if there:
            found = f"{self.path} has only {', '.join(there)}, none that makes up {timeframe}"
            made = [tf for tf in OFFERED_TIMEFRAMES if any(divides(one, tf) for one in there)]
            action = f"use {f'tf={made[0]} or ' if made else ''}another source.path"
        elif self.path.is_file() and (file := _parse_name(self.path)):
            found = f"{self.path} is of {file.symbol} {file.timeframe}"
        return BarsNotFoundError(symbol, timeframe, found, action)


def _market_files(folders: list[Path]) -> Iterator[_MarketFile]:
    """Every file in ``folders`` whose name says its market."""
    for folder in folders:
        if folder.is_dir():
            for path in sorted(folder.iterdir()):
                file = _parse_name(path) if path.suffix in SUFFIXES else None
                if file is not None and path.is_file():
                    yield file


def _parse_name(path: Path) -> _MarketFile | None:
    """Market and timeframe that a file's name stands for, if it does."""
    folder = path.absolute().parent.name
    if path.stem in list(Timeframe) and _SYMBOL.fullmatch(folder):
        return _MarketFile(path, folder, Timeframe(path.stem))
    for pattern in _FILE_NAMES:
        if match := pattern.fullmatch(path.stem):
            named = match.groupdict()
            symbol = named.get("symbol") or f"{named['base']}{named['quote']}"
            is_part = named.get("part") is not None
            return _MarketFile(path, symbol, Timeframe(named["tf"]), is_part)
    return None


def _infer_timeframe(path: Path, symbol: str, timeframe: Timeframe) -> Timeframe:
    """The timeframe of a file whose name does not say it: its most frequent step."""
    open_time = _read_table(path, symbol, timeframe)["open_time"]
    steps = pd.DatetimeIndex(open_time).as_unit("ms").astype("int64").to_numpy()
    values, counts = np.unique(np.diff(steps), return_counts=True)
    if len(values):
        step = values[counts.argmax()]
        for known in Timeframe:
            if known.milliseconds == step:
                return known
    found = f"the bars in {path} are not spaced by a known timeframe"
    action = f"use one of {', '.join(Timeframe)}, or name the file {symbol}-<tf>{path.suffix}"
    raise InvalidBarsError(symbol, timeframe, found, action)


def _read_checked(path: Path, symbol: str, timeframe: Timeframe) -> pd.DataFrame:
    """One file as in ``Bars.frame``; an error names the file."""
    table = _read_table(path, symbol, timeframe)
    try:
        return check_bars(table, symbol, timeframe)
    except InvalidBarsError as error:
        found = f"{path}: {error.found}"
        raise InvalidBarsError(symbol, timeframe, found, error.action) from error


def _read_table(path: Path, symbol: str, timeframe: Timeframe) -> pd.DataFrame:
    """One file as ``read_table`` gives it; an error names market and file."""
    try:
        return read_table(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = str(error).splitlines()[0].rstrip(". ") if str(error) else type(error).__name__
        found = f"{path} cannot be read ({reason})"
        raise InvalidBarsError(symbol, timeframe, found, "replace the file") from error


def _without_open_bar(bars: Bars) -> Bars:
    """Leave out bars that have not closed yet; downloads often end on one."""
    now_ms = datetime.now(UTC).timestamp() * 1000
    n_closed = int((bars.open_time + bars.timeframe.milliseconds <= now_ms).sum())
    if n_closed == len(bars):
        return bars
    logger.warning(
        "%s %s: %s of %s bars have not closed yet and are left out",
        bars.symbol,
        bars.timeframe,
        len(bars) - n_closed,
        bars.origin,
    )
    if n_closed == 0:
        found = f"no bar of {bars.origin} has closed yet"
        raise InvalidBarsError(bars.symbol, bars.timeframe, found, "check the open times")
    return bars.slice(0, n_closed)


def _resampled(bars: Bars, timeframe: Timeframe) -> Bars:
    """``resample``, and say so."""
    longer = resample(bars, timeframe)
    if longer is not bars:
        logger.info(
            "%s %s: no bars of that length in the folder, resampled %s bars into %s complete ones",
            bars.symbol,
            timeframe,
            f"{len(bars):,} {bars.timeframe}",
            f"{len(longer):,}",
        )
    return longer
