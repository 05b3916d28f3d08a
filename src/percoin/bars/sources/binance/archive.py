"""The public archive: a zip for every month and day, each with its sha256 beside it."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from percoin.bars.sources.binance.klines import KlineReader
from percoin.bars.sources.binance.transfer import Persistence, Transfer
from percoin.bars.update import (
    Segment,
    Span,
    Stretch,
    holes,
    open_times,
    outside,
    overlaps,
    with_bars,
)
from percoin.errors import InvalidBarsError
from percoin.types import DAY_MILLISECONDS, Timeframe

logger = logging.getLogger(__name__)

_FOLDERS = {"spot": "spot", "perp": "futures/um"}
# A month is published early in the next one; until then there are days.
_MONTH_IS_LATE_MS = 35 * DAY_MILLISECONDS
_ADVICE = "source.archive_url=null asks the exchange alone"
_CHECKSUM = re.compile(r"(?P<sha256>[0-9a-fA-F]{64}) [ *](?P<name>\S+)\s*")


@dataclass(frozen=True)
class Period:
    """A month or a day of the archive, in UTC.

    Attributes:
        folder: ``monthly`` or ``daily``.
        label: As in file names, ``2024-01`` or ``2024-01-31``.
        start: Milliseconds since 1970-01-01 UTC.
        end: Milliseconds, not included.
    """

    folder: str
    label: str
    start: int
    end: int


# A month or day under one symbol.
_File = tuple[Period, str]


@dataclass(frozen=True)
class Published:
    """What the archive has of some stretches of time.

    Attributes:
        stretches: Months and days, as far as they have bars. A bar that is missing
            here may still exist elsewhere.
        read: The time of all files that were read, with bars and without.
    """

    stretches: list[Stretch]
    read: list[Span]


class _UnverifiedError(Exception):
    """A file of the archive that cannot be trusted; the message says why."""


def months_within(spans: Iterable[Span], now_ms: int) -> list[Period]:
    """Every month that has ended and has a part in one of the spans, oldest first."""
    found = {period.start: period for span in spans for period in _periods(span, "MS")}
    return [found[start] for start in sorted(found) if found[start].end <= now_ms]


def days_within(spans: Iterable[Span], now_ms: int) -> list[Period]:
    """Every day that has ended and has a part in one of the spans, oldest first."""
    found = {period.start: period for span in spans for period in _periods(span, "D")}
    return [found[start] for start in sorted(found) if found[start].end <= now_ms]


def _periods(span: Span, freq: str) -> list[Period]:
    """The months (MS) or days (D) with a part in ``span``."""
    first, last = (pd.Timestamp(moment, unit="ms", tz="UTC") for moment in (span[0], span[1] - 1))
    folder, text, length = (
        ("monthly", "%Y-%m", pd.offsets.MonthBegin(1))
        if freq == "MS"
        else ("daily", "%Y-%m-%d", pd.Timedelta(days=1))
    )
    begin = first.normalize() if freq == "D" else first.normalize().replace(day=1)
    return [
        Period(folder, start.strftime(text), _milliseconds(start), _milliseconds(start + length))
        for start in pd.date_range(begin, last, freq=freq)
    ]


def _milliseconds(moment: pd.Timestamp) -> int:
    return round(moment.timestamp() * 1000)


class Archive:
    """What the archive has of one market.

    Args:
        url: Of the archive or of a mirror with the same layout.
        market: ``spot`` or ``perp``.
        names: Symbols of the market, today's first, then older ones.
        timeframe: Length of each bar.
        folder: Where files lie until their bars are stored.
        persistence: How long and how often to try.
        n_parallel: Files under way at a time.
    """

    def __init__(
        self,
        url: str,
        market: str,
        names: Sequence[str],
        timeframe: Timeframe,
        folder: Path,
        persistence: Persistence,
        n_parallel: int,
    ) -> None:
        self._root = f"{url.rstrip('/')}/data/{_FOLDERS[market]}"
        self._names = tuple(names)
        self._timeframe = timeframe
        self._folder = folder
        self._persistence = persistence
        self._n_parallel = n_parallel
        self._reader = KlineReader(names[0], timeframe, _ADVICE)
        self._unverified: set[str] = set()
        self._transfer = Transfer(persistence)

    def fetch(self, spans: Sequence[Span], now_ms: int, renamed_at: int | None = None) -> Published:
        """The months and days that have a part in the spans, as far as they are published.

        Months come as a whole, also where only a part is asked for. Days that a month
        lacks or has in part, and those of a month that does not match its checksum or
        is absent between others, are asked for one by one. Bars of an older name count
        up to the first bar of today's name.

        Args:
            spans: Milliseconds since 1970-01-01 UTC, end not included.
            now_ms: What has not ended by then is not asked for.
            renamed_at: First bar under today's name, as far as one is known already.

        Raises:
            FetchError: The archive cannot be reached or refuses.
            InvalidBarsError: A file that is what its checksum says holds no bars.
        """
        months = months_within(spans, now_ms)
        tables = self._fetch_periods(months)
        days = days_within(self._asked_by_day(months, tables, spans, now_ms), now_ms)
        return self._published([*months, *days], tables | self._fetch_periods(days), renamed_at)

    def fetch_days(
        self, spans: Sequence[Span], now_ms: int, renamed_at: int | None = None
    ) -> Published:
        """As ``fetch``, but days alone."""
        days = days_within(spans, now_ms)
        return self._published(days, self._fetch_periods(days), renamed_at)

    def _published(
        self, periods: Sequence[Period], tables: dict[_File, pd.DataFrame], renamed_at: int | None
    ) -> Published:
        step = self._timeframe.milliseconds
        joined = self._join_names(periods, tables, renamed_at)
        stretches = [part for stretch in joined for part in with_bars(stretch, step)]
        return Published(stretches, sorted({(period.start, period.end) for period, _ in tables}))

    def _asked_by_day(
        self,
        months: Sequence[Period],
        tables: Mapping[_File, pd.DataFrame],
        spans: Sequence[Span],
        now_ms: int,
    ) -> list[Span]:
        """The parts of the spans that months lack and days may have."""
        served = {period for period, _ in tables}
        read = sorted(period.start for period in served)
        times = [open_times(table) for table in tables.values() if len(table)]
        open_time = np.unique(np.concatenate([np.empty(0, np.int64), *times]))
        lacking: list[Span] = []
        for month in months:
            is_between = bool(read) and read[0] < month.start < read[-1]
            is_late = now_ms - month.end < _MONTH_IS_LATE_MS
            if month in served:
                lacking += holes(open_time, month.start, month.end, self._timeframe.milliseconds)
            elif is_between or is_late or month.label in self._unverified:
                lacking.append((month.start, month.end))
        # A month that has not ended is published as days only.
        ended = [(month.start, month.end) for month in months]
        begun = [part for span in spans for part in outside(ended, *span)]
        return [*overlaps(lacking, spans), *begun]

    def _fetch_periods(self, periods: Sequence[Period]) -> dict[_File, pd.DataFrame]:
        """Bars by period and symbol; what is not published is left out."""
        jobs = [(period, name) for period in periods for name in self._names]
        if not jobs:
            return {}
        with ThreadPoolExecutor(min(self._n_parallel, len(jobs))) as pool:
            futures = {pool.submit(self._fetch_file, *job): job for job in jobs}
            try:
                tables = self._read_files(futures)
            except BaseException:
                self._persistence.cancel()
                pool.shutdown(cancel_futures=True)
                raise
        self._check(tables)
        return tables

    def _read_files(
        self, futures: Mapping[Future[Path | None], _File]
    ) -> dict[_File, pd.DataFrame]:
        """The bars of each file once it is there, with one progress bar for all of them."""
        from tqdm import tqdm

        text = f"{self._names[0]} {self._timeframe}"
        tables = {}
        # disable=None: a bar for a terminal, nothing in a log file.
        with tqdm(total=len(futures), desc=text, unit="file", leave=False, disable=None) as bar:
            for future in as_completed(futures):
                period, name = futures[future]
                path = future.result()
                if path is not None:
                    table = self._reader.read_zip(path, period.start, period.end)
                    tables[period, name] = table
                bar.update()
        return tables

    def _check(self, tables: Mapping[_File, pd.DataFrame]) -> None:
        """Check all bars of a name at once, which is quicker; look closer if some are wrong."""
        for name in self._names:
            ordered = sorted((period for period, of in tables if of == name), key=_start)
            frames = [tables[period, name] for period in ordered]
            filled = [frame for frame in frames if len(frame)]
            try:
                self._reader.check(pd.concat(filled) if filled else pd.DataFrame(), name)
            except InvalidBarsError:
                for period, frame in zip(ordered, frames, strict=True):
                    self._reader.check(frame, self._file_name(period, name))
                raise

    def _file_name(self, period: Period, name: str) -> str:
        return f"{name}-{self._timeframe}-{period.label}.zip"

    def _fetch_file(self, period: Period, name: str) -> Path | None:
        """One file, verified; None if it is not published, or not as its checksum says."""
        file_name = self._file_name(period, name)
        url = f"{self._root}/{period.folder}/klines/{name}/{self._timeframe}/{file_name}"
        try:
            return self._fetch_verified(url)
        except _UnverifiedError as error:
            logger.warning(
                "%s %s: %s; other files or the API are asked for its bars",
                name,
                self._timeframe,
                error,
            )
            self._unverified.add(period.label)
            return None

    def _fetch_verified(self, url: str) -> Path | None:
        sha256 = self._read_checksum(url)
        if sha256 is None:
            return None
        # Old files are replaced now and then, the checksum not at the same instant.
        path = self._download(url, sha256) or self._download(
            url, self._read_checksum(url) or sha256
        )
        if path is None:
            raise _UnverifiedError(f"{Path(url).name} does not match its published sha256")
        return path

    def _read_checksum(self, url: str) -> str | None:
        """The published sha256 of a file; None if there is none."""
        text = self._transfer.text(f"{url}.CHECKSUM")
        if text is None:
            return None
        match = _CHECKSUM.fullmatch(text)
        if match is None or match["name"] != Path(url).name:
            raise _UnverifiedError(f"{Path(url).name}.CHECKSUM is not a sha256 with that name")
        return match["sha256"].lower()

    def _download(self, url: str, sha256: str) -> Path | None:
        """The verified file; None if what came has another hash."""
        path = self._folder / Path(url).name
        if path.is_file() and _sha256(path) == sha256:
            return path
        self._folder.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.part")
        if not self._transfer.file(url, part):
            raise _UnverifiedError(f"{path.name} has a checksum, but is not there itself")
        if _sha256(part) != sha256:
            part.unlink()
            return None
        return part.replace(path)

    def _join_names(
        self,
        periods: Sequence[Period],
        tables: dict[_File, pd.DataFrame],
        renamed_at: int | None,
    ) -> list[Stretch]:
        """Each period under the name that the market had then, in order of time."""
        today, *before = self._names
        firsts = [
            _milliseconds(table.index[0])
            for (_, name), table in tables.items()
            if name == today and len(table)
        ]
        changed = min(firsts if renamed_at is None else [*firsts, renamed_at], default=None)
        stretches = []
        for period in sorted(periods, key=_start):
            start = period.start
            old = next((name for name in before if (period, name) in tables), None)
            if old is not None:
                end = period.end if changed is None else min(max(changed, start), period.end)
                stretches.append(_stretch(start, end, old, tables[period, old]))
                start = end
            if (period, today) in tables:
                stretches.append(_stretch(start, period.end, today, tables[period, today]))
        return [stretch for stretch in stretches if stretch.segment.start < stretch.segment.end]


def _start(period: Period) -> int:
    return period.start


def _stretch(start: int, end: int, name: str, table: pd.DataFrame) -> Stretch:
    return Stretch(Segment(start, end, f"archive {name}"), table)


def discard_files(folder: Path) -> None:
    """Remove the files of a market; their bars are stored."""
    if folder.is_dir():
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
