"""Klines, as Binance calls its bars: rows of text or numbers that become bars here."""

from __future__ import annotations

import io
import logging
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa  # type: ignore[import-untyped]

from percoin.bars.schema import COLUMNS, check_bars, format_time
from percoin.bars.sources.epoch import from_epoch
from percoin.bars.update import open_times
from percoin.errors import InvalidBarsError
from percoin.types import Timeframe

logger = logging.getLogger(__name__)

# A month of 1m bars unpacks to 6 MB.
_LARGEST_CSV_BYTES = 64 * 1024**2
_N_CSV_COLUMNS = 12
_NOTHING_STORED = "nothing of it was stored"


class KlineReader:
    """Reads the klines of one market, and refuses what cannot be bars of it.

    Args:
        symbol: For the messages: today's name.
        timeframe: Length of each bar.
        advice: What to do about content that cannot be bars, without a full stop.
    """

    def __init__(self, symbol: str, timeframe: Timeframe, advice: str) -> None:
        self.symbol = symbol
        self.timeframe = timeframe
        self._advice = f"{_NOTHING_STORED}; {advice}"

    def read_zip(self, path: Path, start: int, end: int) -> pd.DataFrame:
        """One file of the archive.

        Args:
            path: A zip with one CSV file of twelve columns, with a header line or
                without, open times in milliseconds or microseconds.
            start: First moment of the file's month or day, milliseconds since
                1970-01-01 UTC. That every open time lies within also proves that
                its unit was understood.
            end: Where the month or day ends.

        Returns:
            As ``Bars.frame``, but for the values, which ``check`` has yet to look
            at; empty if the file has no rows.

        Raises:
            InvalidBarsError: It is no such file.
        """
        rows = self._parse(self._unpack(path), path.name)
        return self.to_frame(rows, start, end, path.name)

    def to_frame(self, rows: pd.DataFrame, start: int, end: int, name: str) -> pd.DataFrame:
        """Rows with the numbers of ``open_time`` as they came -> bars in order of time.

        The same row twice is one row, and rows in another order are sorted, as
        neither loses anything; the log says so. Bars off the grid, as the exchange
        itself has them after some halts, are left out and named. Two rows that differ
        for one open time are left for ``check`` to refuse.

        Args:
            rows: ``open_time`` in milliseconds or microseconds, and ``COLUMNS``.
            start: Open times lie at or after it, milliseconds since 1970-01-01 UTC.
            end: Open times lie before it.
            name: What is read, for the messages.

        Raises:
            InvalidBarsError: The rows cannot be bars of this stretch of time.
        """
        try:
            times = from_epoch(rows["open_time"].to_numpy(dtype=np.int64)).as_unit("ms")
        except ValueError as error:
            raise self.error(f"{name}: {error}") from error
        outside = times[(times.asi8 < start) | (times.asi8 >= end)]
        if len(outside):
            raise self.error(
                f"{name} holds a bar of {format_time(outside[0])}, outside of its month or day"
            )
        frame = rows.assign(open_time=times)
        if not times.is_monotonic_increasing or times.has_duplicates:
            logger.warning(
                "%s %s: %s has rows out of order or twice", self.symbol, self.timeframe, name
            )
            frame = frame.drop_duplicates().sort_values("open_time")
        return self._on_grid(frame.set_index("open_time"), name)

    def _on_grid(self, frame: pd.DataFrame, name: str) -> pd.DataFrame:
        """The bars that open when bars of this length do, unless most of them do not."""
        is_off = open_times(frame) % self.timeframe.milliseconds != 0
        n_off = int(is_off.sum())
        if not n_off:
            return frame
        off = frame.index[is_off]
        found = (
            f"{name} has {n_off:,} of {len(frame):,} bars off the {self.timeframe} grid, "
            f"from {format_time(off[0])} to {format_time(off[-1])} UTC"
        )
        if 2 * n_off > len(frame):
            raise self.error(found)
        logger.warning("%s %s: %s; they are left out", self.symbol, self.timeframe, found)
        return frame.iloc[np.flatnonzero(~is_off)]

    def check(self, frame: pd.DataFrame, name: str) -> pd.DataFrame:
        """Bars that keep every rule of the schema.

        Args:
            frame: Of ``to_frame``; may be empty.
            name: What was read, for the message.

        Raises:
            InvalidBarsError: They break a rule.
        """
        if frame.empty:
            return frame
        try:
            return check_bars(frame, self.symbol, self.timeframe)
        except InvalidBarsError as error:
            raise self.error(f"{name}: {error.found}") from error

    def error(self, found: str) -> InvalidBarsError:
        """The error for content that is not what it should be."""
        return InvalidBarsError(self.symbol, self.timeframe, found, self._advice)

    def _unpack(self, path: Path) -> bytes:
        """The CSV file, if it is the only one and of a size that it may have."""
        try:
            with zipfile.ZipFile(path) as archive:
                members = archive.infolist()
                if len(members) != 1 or members[0].filename != f"{path.stem}.csv":
                    raise self.error(f"{path.name} does not hold {path.stem}.csv alone")
                with archive.open(members[0]) as file:
                    # The size that a zip states may be wrong.
                    content = file.read(_LARGEST_CSV_BYTES + 1)
        except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError, RuntimeError) as error:
            raise self.error(f"{path.name} is not a zip that can be read ({error})") from error
        if len(content) > _LARGEST_CSV_BYTES:
            limit = _LARGEST_CSV_BYTES // 1024**2
            raise self.error(f"{path.name} unpacks to more than {limit} MB, no file of bars does")
        return content

    def _parse(self, content: bytes, name: str) -> pd.DataFrame:
        """The first six of the twelve columns; text that is no number is an error."""
        from pyarrow import csv

        content = content.lstrip()
        if not content:
            return pd.DataFrame({"open_time": np.empty(0, np.int64)} | dict.fromkeys(COLUMNS, 0.0))
        names = ["open_time", *COLUMNS, *(f"unused_{n}" for n in range(6, _N_CSV_COLUMNS))]
        try:
            table = csv.read_csv(
                io.BytesIO(content),
                csv.ReadOptions(
                    column_names=names, skip_rows=int(_has_names(content)), use_threads=False
                ),
                convert_options=csv.ConvertOptions(
                    include_columns=names[:6],
                    column_types={"open_time": pa.int64()} | dict.fromkeys(COLUMNS, pa.float64()),
                ),
            )
        except pa.ArrowException as error:
            reason = str(error).splitlines()[0].rstrip(". ")
            raise self.error(f"{name} cannot be read as klines ({reason})") from error
        rows: pd.DataFrame = table.to_pandas()
        return rows


def _has_names(content: bytes) -> bool:
    """Whether the first line names the columns: more than that it does not begin with a digit."""
    return b"open" in content.split(b"\n", 1)[0].lower()
