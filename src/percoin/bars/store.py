"""Where bars are kept: ``<root>/<SYMBOL>/<tf>.parquet``."""

from __future__ import annotations

import difflib
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import astuple
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import pandas as pd
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from percoin.bars.renames import RENAMES, current_symbol, old_name_note, stored_names
from percoin.bars.schema import COLUMNS, Bars, check_bars, is_simulated
from percoin.bars.update import Segment
from percoin.errors import BarsNotFoundError, DataError, InUseError, InvalidBarsError
from percoin.file_lock import file_lock
from percoin.printable import printable
from percoin.types import Timeframe
from percoin.whole_file import remove_leftovers, write_whole

logger = logging.getLogger(__name__)

FORMAT_VERSION = 1
_METADATA_KEY = b"percoin"
_LOCK_TIMEOUT_SECS = 1800.0
_MOST_CHARS = 200
_LOAD_AGAIN = "move the file away and load the bars again from their source"
# What pyarrow and pandas raise on a file whose bytes have been changed.
_UNREADABLE = (
    pa.ArrowException,
    OSError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    OverflowError,
    NotImplementedError,
)
# The name of an index without one, in files that pandas wrote.
_UNNAMED_INDEX = "__index_level_0__"
_SCHEMA = pa.schema(
    [("open_time", pa.timestamp("ms", tz="UTC")), *((name, pa.float64()) for name in COLUMNS)]
)


class BarStore:
    """Bars on disk, one Parquet file per market and timeframe.

    The file says where its bars came from. Bars of two sources are never
    joined: writing those of another source replaces the file. A file that
    another program wrote or edited is read too, after the full check.

    Args:
        root: Folder of the store; made with the first write.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)

    def path(self, symbol: str, timeframe: Timeframe) -> Path:
        """Where the bars of a market are written.

        Raises:
            ConfigError: ``symbol`` is no market or an old name of one.
        """
        return self.root / current_symbol(symbol) / f"{timeframe}.parquet"

    def markets(self) -> list[tuple[str, Timeframe]]:
        """Every stored symbol, under today's name, and timeframe, in order."""
        today = {before: name for name, before in RENAMES.items()}
        order = list(Timeframe)
        stored = {
            (today.get(path.parent.name, path.parent.name), Timeframe(path.stem))
            for path in self.root.glob("*/*.parquet")
            if path.stem in order
        }
        return sorted(stored, key=lambda market: (market[0], order.index(market[1])))

    def read(self, symbol: str, timeframe: Timeframe) -> Bars:
        """The stored bars of one market.

        Reading back what ``write`` wrote costs a hash of the values; the full
        check runs only on files whose content has another hash or none.

        Raises:
            BarsNotFoundError: Nothing is stored for the market.
            InvalidBarsError: The file cannot be read, is of another market or
                breaks the schema.
            ConfigError: ``symbol`` is no market or an old name of one.
        """
        return self.read_segments(symbol, timeframe)[0]

    def read_segments(self, symbol: str, timeframe: Timeframe) -> tuple[Bars, tuple[Segment, ...]]:
        """The stored bars, and the stretches of time that their source answered for.

        There are none for bars that came in one piece, and none for a file that
        was edited since.

        Raises:
            As ``read``.
        """
        path = self.check_has(symbol, timeframe)
        return _read_file(path, symbol, timeframe, path.parent.name)

    def check_has(self, symbol: str, timeframe: Timeframe) -> Path:
        """The file of a market, under today's name or the old one; it is not read.

        Raises:
            BarsNotFoundError: Nothing is stored for the market.
            ConfigError: ``symbol`` is no market or an old name of one.
        """
        paths = (self.root / name / f"{timeframe}.parquet" for name in stored_names(symbol))
        found = next((path for path in paths if path.exists()), None)
        if found is None:
            raise self._not_found(symbol, timeframe)
        return found

    def origin(self, symbol: str, timeframe: Timeframe) -> str | None:
        """Where the stored bars came from, as their file says; the bars are not read.

        A file of another program does not say: as for ``read``, its bars came from files. None
        if nothing is stored, or the file cannot be read as Parquet.

        Raises:
            ConfigError: ``symbol`` is no market or an old name of one.
        """
        paths = [self.root / name / f"{timeframe}.parquet" for name in stored_names(symbol)]
        stored = next((path for path in paths if path.is_file()), None)
        return None if stored is None else _stored_metadata(stored).get("origin")

    def load(self, symbol: str, timeframe: Timeframe) -> Bars:
        """``read``, by the name that all sources share."""
        return self.read(symbol, timeframe)

    @contextmanager
    def locked(self, symbol: str, timeframe: Timeframe) -> Iterator[None]:
        """Lock a market for writing; readers do not wait.

        Whoever reads, changes and writes in here loses nothing that others write.

        Raises:
            DataError: The store cannot be written, or another process keeps
                the lock.
            ConfigError: The symbol is no market or an old name of one.
        """
        path = self.path(symbol, timeframe)

        def tell() -> None:
            logger.info("%s %s: waiting for another process to write", symbol, timeframe)

        with ExitStack() as held:
            try:
                with _write_errors(path, symbol, timeframe):
                    path.parent.mkdir(parents=True, exist_ok=True)
                    lock = self.root / ".locks" / f"{symbol}-{timeframe}"
                    lock.parent.mkdir(exist_ok=True)
                    held.enter_context(file_lock(lock, _LOCK_TIMEOUT_SECS, tell))
                    remove_leftovers(path)
            except InUseError as error:
                found = f"{error.holder} has been writing the bars for {_LOCK_TIMEOUT_SECS:.0f} s"
                raise DataError(symbol, timeframe, found, "wait, or end it if it hangs") from None
            yield

    def write(self, bars: Bars) -> bool:
        """Store checked bars in place of those stored before, all or nothing.

        The file is written aside, synced and moved into place, so that a reader
        and a killed process find the old bars or the new ones.

        Returns:
            Whether the file was written; not if content and origin are the same.

        Raises:
            DataError: The store cannot be written, or simulated bars would take the
                place of real ones.
            ConfigError: The symbol is no market or an old name of one.
        """
        if self._holds(bars):
            return False
        with self.locked(bars.symbol, bars.timeframe):
            return not self._holds(bars) and self.write_locked(bars)

    def write_locked(self, bars: Bars, segments: Sequence[Segment] = ()) -> bool:
        """``write`` for a caller that is inside ``locked`` already.

        Args:
            bars: As for ``write``.
            segments: The stretches of time that the source answered for.

        Returns:
            Whether the file was written; not if it says the same already.

        Raises:
            DataError: The store cannot be written, or simulated bars would take the
                place of real ones.
            ConfigError: The symbol is no market or an old name of one.
        """
        path = self.path(bars.symbol, bars.timeframe)
        _refuse_unwritable(bars, segments, path)
        metadata = _metadata(bars, segments)
        stored = _stored_metadata(path)
        if {**stored, "written_at": None} == {**metadata, "written_at": None}:
            return False
        _refuse_simulated(bars, stored, path)
        _log_replaced(bars, stored)
        with _write_errors(path, bars.symbol, bars.timeframe):
            write_whole(path, partial(_write_table, _to_table(bars, metadata)))
        return True

    def _holds(self, bars: Bars) -> bool:
        """Whether exactly these bars are stored, whatever else their file says."""
        stored = _stored_metadata(self.path(bars.symbol, bars.timeframe))
        return (stored.get("sha256"), stored.get("origin")) == (bars.sha256(), bars.origin)

    def _not_found(self, symbol: str, timeframe: Timeframe) -> BarsNotFoundError:
        """The error for a market that is not stored, with what is stored instead."""
        markets = self.markets()
        same = [stored.value for name, stored in markets if name == symbol]
        names = sorted({name for name, _ in markets})
        near = difflib.get_close_matches(symbol, [name for name in names if name != symbol])
        found = f"no bars are stored in {self.root}"
        if same:
            found += f" (stored for {symbol}: {', '.join(same)})"
        elif near:
            found += f" (close names stored: {', '.join(near)})"
        action = (
            "give a source: source=files source.path=<folder of bars>, "
            "source=sample or source=simulated"
        )
        return BarsNotFoundError(symbol, timeframe, found, action)


@contextmanager
def _write_errors(path: Path, symbol: str, timeframe: Timeframe) -> Iterator[None]:
    """Say in one line that the store cannot be written, and why."""
    try:
        yield
    except OSError as error:
        found = f"{path} cannot be written ({error.strerror or error})"
        action = "make the folder writable, or free some space"
        raise DataError(symbol, timeframe, found, action) from error


def _read_file(
    path: Path, symbol: str, timeframe: Timeframe, found_as: str
) -> tuple[Bars, tuple[Segment, ...]]:
    """One file of the store, verified against its hash or checked in full."""
    if not path.is_file():
        found = f"{path} is no regular file"
        raise InvalidBarsError(symbol, timeframe, found, "move it away and load the bars again")
    try:
        table = pq.ParquetFile(path, page_checksum_verification=True).read()
        metadata = _parse_metadata(table.schema.metadata, path)
    except _UNREADABLE as error:
        reason = printable(str(error).partition("\n")[0].rstrip(". "), _MOST_CHARS)
        found = f"{path} cannot be read as Parquet ({reason or type(error).__name__})"
        raise InvalidBarsError(symbol, timeframe, found, _LOAD_AGAIN) from error
    belongs_to = (metadata.get("symbol", found_as), metadata.get("timeframe", timeframe))
    if belongs_to[0] not in stored_names(symbol) or belongs_to[1] != timeframe:
        found = f"{path} holds bars of {printable(' '.join(belongs_to), _MOST_CHARS)}"
        raise InvalidBarsError(symbol, timeframe, found, "move the file back to its place")
    origin = metadata["origin"]
    if not _is_text(origin):
        found = f"the origin of {path} is no text ({printable(origin, _MOST_CHARS)})"
        raise InvalidBarsError(symbol, timeframe, found, _LOAD_AGAIN)
    origin += old_name_note(symbol, found_as)
    if metadata.get("format_version") == FORMAT_VERSION and table.schema.equals(_SCHEMA):
        bars = Bars(symbol, timeframe, _to_frame(table), origin)
        if len(bars) and bars.sha256() == metadata.get("sha256"):
            return bars, _parse_segments(metadata.get("segments", ()))
    logger.info("%s %s: %s was not written by this store, checking it", symbol, timeframe, path)
    frame = _of_any_writer(table, path, symbol, timeframe)
    return Bars(symbol, timeframe, check_bars(frame, symbol, timeframe), origin), ()


def _of_any_writer(table: pa.Table, path: Path, symbol: str, timeframe: Timeframe) -> pd.DataFrame:
    """The columns of a table, without what its pandas metadata would change."""
    names = table.column_names
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        found = f"{path} has the column {printable(twice, _MOST_CHARS)} more than once"
        raise InvalidBarsError(symbol, timeframe, found, _LOAD_AGAIN)
    try:
        frame: pd.DataFrame = table.replace_schema_metadata(None).to_pandas()
    except _UNREADABLE as error:
        reason = printable(str(error).partition("\n")[0].rstrip(". "), _MOST_CHARS)
        found = f"{path} holds no table of bars ({reason or type(error).__name__})"
        raise InvalidBarsError(symbol, timeframe, found, _LOAD_AGAIN) from error
    if "open_time" not in names and _UNNAMED_INDEX in names:
        frame = frame.rename(columns={_UNNAMED_INDEX: "open_time"})
    return frame


def _is_text(text: str) -> bool:
    """Whether ``text`` can be written to a file or sent; half a surrogate pair cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _parse_segments(entries: Any) -> tuple[Segment, ...]:
    """The stretches of a file's metadata; none at all if one of them is no stretch."""
    try:
        segments = tuple(Segment(int(start), int(end), str(via)) for start, end, via in entries)
    except (TypeError, ValueError):
        return ()
    return segments if all(_is_text(segment.via) for segment in segments) else ()


def _to_frame(table: pa.Table) -> pd.DataFrame:
    """A table of exactly ``_SCHEMA`` as in ``Bars.frame``."""
    open_time = table["open_time"].to_numpy().astype("datetime64[ms]")
    index = pd.DatetimeIndex(open_time, name="open_time").tz_localize("UTC")
    return pd.DataFrame({name: table[name].to_numpy() for name in COLUMNS}, index=index)


def _metadata(bars: Bars, segments: Sequence[Segment]) -> dict[str, Any]:
    """What the file says of its bars."""
    metadata = {
        "format_version": FORMAT_VERSION,
        "symbol": bars.symbol,
        "timeframe": bars.timeframe.value,
        "origin": bars.origin,
        "sha256": bars.sha256(),
        "written_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    if segments:
        metadata["segments"] = [list(astuple(segment)) for segment in segments]
    return metadata


def _to_table(bars: Bars, metadata: dict[str, Any]) -> pa.Table:
    """Bars as a table that carries where they came from."""
    columns = [bars.open_time, *(bars.column(name) for name in COLUMNS)]
    arrays = [
        pa.array(values).cast(field.type) for values, field in zip(columns, _SCHEMA, strict=True)
    ]
    schema = _SCHEMA.with_metadata({_METADATA_KEY: json.dumps(metadata)})
    return pa.Table.from_arrays(arrays, schema=schema)


def _write_table(table: pa.Table, file: BinaryIO) -> None:
    # Prices hardly repeat: a dictionary of them takes more room and time than it saves.
    pq.write_table(table, file, compression="lz4", use_dictionary=False, write_page_checksum=True)


def _stored_metadata(path: Path) -> dict[str, Any]:
    """What the file at ``path`` says of itself; empty if it is absent or unreadable."""
    if not path.is_file():
        return {}
    try:
        return _parse_metadata(pq.read_schema(path).metadata, path)
    except _UNREADABLE:
        return {}


def _parse_metadata(metadata: dict[bytes, bytes] | None, path: Path) -> dict[str, Any]:
    """The part of Parquet metadata that ``write`` put there; the origin alone for other files."""
    unknown = {"origin": f"files: {path.parent.name}/{path.name} in the store"}
    try:
        parsed = json.loads((metadata or {}).get(_METADATA_KEY, b"{}"))
    except (ValueError, RecursionError):
        return unknown
    words = ("symbol", "timeframe", "origin")
    is_ours = isinstance(parsed, dict) and all(isinstance(parsed.get(w, ""), str) for w in words)
    stored: dict[str, Any] = parsed if is_ours else {}
    return stored if stored.get("origin") else stored | unknown


def _refuse_unwritable(bars: Bars, segments: Sequence[Segment], path: Path) -> None:
    """Refuse an origin that could not be read back, and a path that is no file."""
    for text in (bars.origin, *(segment.via for segment in segments)):
        if not _is_text(text):
            found = f"where the bars came from is no text ({printable(text, _MOST_CHARS)})"
            action = "give the file or folder a name that is valid UTF-8"
            raise DataError(bars.symbol, bars.timeframe, found, action)
    if path.exists() and not path.is_file():
        found = f"{path} is no regular file"
        raise DataError(bars.symbol, bars.timeframe, found, "move it away and try again")


def _refuse_simulated(bars: Bars, stored: dict[str, Any], path: Path) -> None:
    before = stored.get("origin")
    if before and is_simulated(bars.origin) and not is_simulated(before):
        origin = printable(before, _MOST_CHARS)
        found = f"{path} holds real bars ({origin}) that simulated ones would replace"
        action = "keep the simulation apart: data_dir=<folder> models_dir=<folder>"
        raise DataError(bars.symbol, bars.timeframe, found, action)


def _log_replaced(bars: Bars, stored: dict[str, Any]) -> None:
    """Say so when bars of one source take the place of those of another."""
    before = stored.get("origin")
    # Up to the colon: spot and perpetual bars of one exchange are two sources.
    if before and before.split(":", 1)[0] != bars.origin.split(":", 1)[0]:
        logger.warning(
            "%s %s: stored bars (%s) are replaced by bars of another source (%s)",
            bars.symbol,
            bars.timeframe,
            printable(before, _MOST_CHARS),
            bars.origin,
        )
