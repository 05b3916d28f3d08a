"""Bars of one market, kept up to date in the store."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from percoin.bars.gaps import describe_gaps, find_gaps
from percoin.bars.renames import stored_names
from percoin.bars.schema import Bars, check_bars, format_time
from percoin.bars.sources.base import Renewed
from percoin.bars.sources.binance.archive import Archive, Published, discard_files
from percoin.bars.sources.binance.exchange import BINANCE, PAGE_BARS, Answered, Exchange
from percoin.bars.sources.binance.transfer import Patience, Persistence
from percoin.bars.store import BarStore
from percoin.bars.update import (
    Segment,
    Span,
    Stretch,
    add_segments,
    holes,
    in_pages,
    join,
    missing_spans,
    open_times,
    outside,
    overlaps,
    without,
)
from percoin.errors import BarsNotFoundError, DataError, FetchError, InvalidBarsError
from percoin.printable import printable
from percoin.types import DAY_MILLISECONDS, IntArray, Timeframe

logger = logging.getLogger(__name__)

MARKETS = ("spot", "perp")

# A bar that is still missing so long after its close will not come.
_LATE_BAR_MS = 3_600_000
_CLOCK_TOLERANCE_MS = 60_000
# Until then the archive may still publish a day, and the exchange repair its bars.
_RECENT_MS = 3 * DAY_MILLISECONDS
# Where bars without trades are usual, so many of the newest are looked through again.
_RECENT_BARS = 500
# A server asks for no more, of bars of 15m and longer.
_BARS_OF_AN_ANSWER = 1200
# A pause between stored and needed bars that is made up for: 104 days of 15m.
_LONGEST_PAUSE_BARS = 10_000
# 2009-01-03, the day of the first block: no market of a cryptocurrency is older.
_FIRST_BLOCK_MS = 1_230_940_800_000
# Only the archive was asked; the exchange is asked once it can be reached.
_ARCHIVE_ALONE = "archive alone"
_OTHER_SOURCES = (
    "or use other bars: source=files source.path=FOLDER, source=sample, source=simulated"
)


@dataclass(frozen=True)
class ExchangeSource:
    """The newest bars of an exchange, of which only what is missing is fetched.

    What Binance's archive has by month and by day comes from there, verified
    against its published sha256. The rest, and everything of other exchanges,
    comes from the API. Closed bars only, by the exchange's own clock. Spot and
    perpetual bars are two sources and never joined; bars of another source are
    replaced once the new ones are there, or with ``replace=False`` left alone.

    Attributes:
        store: Holds the bars between calls.
        n_bars: How many of the newest bars are needed; a history that is longer
            already is kept.
        exchange: As ccxt calls it.
        market: ``spot`` or ``perp`` (margined in USDT).
        archive_url: Of the archive or a mirror; None does without it.
        api_url: Of another host with Binance's API; None is the exchange's own.
        replace: Whether stored bars of another source may be replaced. If not,
            they are the answer; bars of the exchange's other kind of market are
            brought up to date in its place.
        n_parallel: Files of the archive under way at a time.
        patience: How long to wait and how often to try.
    """

    store: BarStore
    n_bars: int
    exchange: str = BINANCE
    market: str = "spot"
    archive_url: str | None = None
    api_url: str | None = None
    replace: bool = True
    n_parallel: int = 8
    patience: Patience = field(default_factory=Patience)

    def load(self, symbol: str, timeframe: Timeframe) -> Bars:
        """Bring the store up to date and return all bars it then has of the market.

        If the exchange cannot be reached, the stored bars have to do: a warning says
        why, and how old they are.

        Raises:
            FetchError: The bars cannot be had, and none that would do are stored.
            BarsNotFoundError: The exchange has no such market.
            InvalidBarsError: What came is not what was published, or breaks the
                schema; the store is as it was.
            DataError: The store cannot be written.
            ConfigError: ``symbol`` is no market or an old name of one.
        """
        renewed = self.renew(symbol, timeframe)
        if renewed.failure is not None:
            closed = renewed.bars.close_time()
            logger.warning(
                "%s; going on with the bars stored until %s UTC, %s ago",
                renewed.failure,
                format_time(closed),
                _age(time.time() - closed.timestamp()),
            )
        return renewed.bars

    def renew(self, symbol: str, timeframe: Timeframe) -> Renewed:
        """As ``load``, for a caller that reports itself why the newest bars are missing."""
        update = self.update(symbol, timeframe)
        if update.ended_note:
            _warn_once(f"{symbol} {timeframe}: {update.ended_note}")
        return Renewed(update.bars, update.failure)

    def update(self, symbol: str, timeframe: Timeframe) -> Update:
        """As ``load``, for a caller that reports itself what is missing."""
        if not self.replace:
            origin = self.store.origin(symbol, timeframe)
            if origin is not None and not self.owns(origin):
                for market in MARKETS:
                    other = dataclasses.replace(self, market=market)
                    if other.owns(origin):
                        logger.info("%s %s: going on with %s bars", symbol, timeframe, market)
                        return other.update(symbol, timeframe)
                logger.info(
                    "%s %s: the stored bars are of another source (%s) and are used as they are",
                    symbol,
                    timeframe,
                    printable(origin),
                )
                return Update(self.store.read(symbol, timeframe), 0)
        with self.store.locked(symbol, timeframe):
            return _Run(self, symbol, timeframe).update()

    def owns(self, origin: str) -> bool:
        """Whether bars of that origin are of this exchange and kind of market."""
        return origin.startswith(f"{self.exchange} {self.market}:")


@dataclass(frozen=True)
class Update:
    """What the store has after a call.

    Attributes:
        bars: All of the market.
        n_new: How many of them were not there before.
        failure: Why the newest are missing, if they are; a ``BarsNotFoundError`` if the exchange
            no longer lists the market.
        ended_note: That the market seems to have ended, and when; empty if it has not.
        young_note: That bars begin later than asked for, and when; empty if they do not.
    """

    bars: Bars
    n_new: int
    failure: FetchError | BarsNotFoundError | None = None
    ended_note: str = ""
    young_note: str = ""


class _Run:
    """One call for one market; the store is locked meanwhile."""

    def __init__(self, source: ExchangeSource, symbol: str, timeframe: Timeframe) -> None:
        self._source = source
        self._symbol = symbol
        self._timeframe = timeframe
        is_binance = source.exchange == BINANCE
        self._names = stored_names(symbol) if is_binance else (symbol,)
        self._stored, self._segments = self._read_stored()
        self._exchange = Exchange(
            source.exchange,
            source.market,
            symbol,
            timeframe,
            source.api_url,
            Persistence(symbol, timeframe, source.patience),
        )
        self._has_archive = is_binance and source.archive_url is not None

    def update(self) -> Update:
        """Fetch what is missing, store it, and say what the store then has."""
        failure: FetchError | BarsNotFoundError | None
        now_ms, failure = self._read_clock()
        wanted = self._wanted(now_ms)
        known = without(self._segments, self._doubtful_holes(now_ms))
        of_archive, of_exchange = self._split(missing_spans(known, *wanted), wanted, failure)
        if failure is None:
            alone = [part for part in known if part.via == _ARCHIVE_ALONE]
            known = tuple(part for part in known if part.via != _ARCHIVE_ALONE)
            of_exchange += overlaps([(part.start, part.end) for part in alone], [wanted])
        if not of_archive and not of_exchange and self._stored is not None:
            return self._told(Update(self._stored, 0), wanted)
        stretches: list[Stretch] = []
        read: list[Span] = []
        is_answered = False
        try:
            if of_archive and self._has_archive:
                published = self._ask_archive(of_archive, now_ms)
                stretches, read = published.stretches, published.read
                is_answered = True
            if failure is None:
                failure = self._ask_exchange(known, stretches, wanted, now_ms)
                stretches = self._fill_from_days(known, stretches, of_archive, now_ms)
        except FetchError as error:
            failure = error if failure is None else _both(failure, error)
        except BarsNotFoundError as error:
            if not stretches and self._stored is None:
                raise
            # A market that has ended: the archive still has it, the exchange does not.
            failure = error
        if failure is not None:
            stretches += self._archive_alone(known, stretches, read, wanted)
        update = self._store(known, stretches, failure)
        if update.failure is not None and not self._will_do(wanted, is_answered):
            raise self._hopeless(update.failure)
        return self._told(update, wanted)

    def _split(
        self, missing: Sequence[Span], wanted: Span, failure: FetchError | None
    ) -> tuple[list[Span], list[Span]]:
        """What is asked of the archive first, and what of the exchange alone."""
        if failure is not None:
            return list(missing), []
        # The archive has two files a day.
        is_paused = self._is_pause(wanted)
        of_exchange = [span for span in missing if is_paused or self._is_page(span, wanted)]
        return [span for span in missing if span not in of_exchange], of_exchange

    def _doubtful_holes(self, now_ms: int) -> list[Span]:
        """Where bars are missing and the source that said so is asked again.

        Those of the last days may still come. Files of the archive answer for bars that
        they have, and no longer for others, as they did in stores of earlier versions.
        """
        if self._stored is None:
            return []
        step = self._timeframe.milliseconds
        length = _RECENT_MS if self._has_archive else min(_RECENT_MS, _RECENT_BARS * step)
        start = -(-(now_ms - length) // step) * step
        doubtful: list[Span] = []
        for part in self._segments:
            of_files = part.via.startswith("archive ") and part.via != _ARCHIVE_ALONE
            first = part.start if of_files else max(part.start, start)
            if first < part.end:
                doubtful += holes(self._stored.open_time, first, part.end, step)
        return doubtful

    def _ask_archive(
        self, spans: Sequence[Span], now_ms: int, only_days: bool = False
    ) -> Published:
        with self._download_errors():
            archive = self._open_archive()
            fetch = archive.fetch_days if only_days else archive.fetch
            return fetch(spans, now_ms, self._renamed_at())

    def _ask_exchange(
        self, known: Sequence[Segment], stretches: list[Stretch], wanted: Span, now_ms: int
    ) -> FetchError | None:
        """Add what the exchange answers for all that is missing; return what it does not answer."""
        segments = [*known, *(stretch.segment for stretch in stretches)]
        step = self._timeframe.milliseconds
        # Those that are under today's name; the exchange no longer has others.
        own = [(part.start, part.end) for part in segments if part.via.endswith(f" {self._symbol}")]
        times = self._times(known, stretches)
        failure = None
        for span in in_pages(missing_spans(segments, *wanted), PAGE_BARS * step):
            before = span[0] - step
            has_before = before in times and not outside(own, before, span[0])
            answer = self._exchange.bars(*span, now_ms, has_before)
            stretches += self._stretches_of(answer, span, now_ms)
            failure = failure or self._silence(answer, span, now_ms)
        return failure

    def _stretches_of(self, answer: Answered, span: Span, now_ms: int) -> list[Stretch]:
        """The stretch that an answer settles; its newest bars may still come."""
        end = answer.end
        if end < span[1] and self._silence(answer, span, now_ms) is None:
            end = min(max(end, self._settled(now_ms)), span[1])
        segment = Segment(answer.start, end, f"API {self._symbol}")
        return [Stretch(segment, answer.frame)] if end > answer.start else []

    def _silence(self, answer: Answered, span: Span, now_ms: int) -> FetchError | None:
        """The error for a traded market whose newest bars are missing."""
        is_binance = self._source.exchange == BINANCE
        # Others leave out bars without trades.
        settled = self._settled(now_ms) if is_binance else now_ms - DAY_MILLISECONDS
        if answer.end >= min(span[1], settled):
            return None
        since = format_time(pd.Timestamp(answer.end, unit="ms", tz="UTC"))
        found = (
            f"{self._source.exchange} gives no bars since {since} UTC of a market that it trades"
        )
        return FetchError(self._symbol, self._timeframe, found, "run the same command again later")

    def _settled(self, now_ms: int) -> int:
        """From when on a missing bar may still come."""
        step = self._timeframe.milliseconds
        return (now_ms - _LATE_BAR_MS) // step * step

    def _fill_from_days(
        self,
        known: Sequence[Segment],
        stretches: list[Stretch],
        asked: Sequence[Span],
        now_ms: int,
    ) -> list[Stretch]:
        """What the exchange lacks between bars may lie in the archive, if that was not asked."""
        if not self._has_archive:
            return stretches
        answered = [
            (stretch.segment.start, stretch.segment.end)
            for stretch in stretches
            if stretch.segment.via.startswith("API ")
        ]
        times = self._times(known, stretches)
        if not len(times):
            return stretches
        step = self._timeframe.milliseconds
        lacking = overlaps(holes(times, int(times[0]), int(times[-1]), step), answered)
        unasked = [part for span in lacking for part in outside(asked, *span)]
        if not unasked:
            return stretches
        return [*self._ask_archive(unasked, now_ms, only_days=True).stretches, *stretches]

    def _times(self, known: Sequence[Segment], stretches: Sequence[Stretch]) -> IntArray:
        """The open times of all bars so far, rising."""
        if self._stored is None and not stretches:
            return np.empty(0, np.int64)
        return open_times(join(self._stored, known, stretches))

    def _archive_alone(
        self,
        known: Sequence[Segment],
        stretches: Sequence[Stretch],
        read: Sequence[Span],
        wanted: Span,
    ) -> list[Stretch]:
        """What the archive lacks while the exchange cannot be asked."""
        segments = [*known, *(stretch.segment for stretch in stretches)]
        nothing = pd.DataFrame(index=pd.DatetimeIndex([], tz="UTC").as_unit("ms"))
        return [
            Stretch(Segment(start, end, _ARCHIVE_ALONE), nothing)
            for start, end in overlaps(missing_spans(segments, *wanted), read)
        ]

    def _told(self, update: Update, wanted: Span) -> Update:
        """The same, with notes on where the bars begin and end."""
        bars, step = update.bars, self._timeframe.milliseconds
        long = max(DAY_MILLISECONDS, 3 * step)
        first, closed = int(bars.open_time[0]), int(bars.open_time[-1]) + step
        ended = young = ""
        if wanted[1] - closed >= long and update.failure is None:
            ended = f"no bars since {format_time(bars.close_time())} UTC (ended?)"
        if first - wanted[0] >= long:
            young = (
                f"no bars before {format_time(bars.frame.index[0])} UTC; if the market was "
                "renamed then, older ones lie under its other name"
            )
            if self._source.exchange != BINANCE:
                young += ", and some exchanges give the newest bars alone"
        return replace(update, ended_note=ended, young_note=young)

    def _read_stored(self) -> tuple[Bars | None, tuple[Segment, ...]]:
        """Stored bars of this source, if the file is unchanged; anything else is replaced."""
        try:
            bars, segments = self._source.store.read_segments(self._symbol, self._timeframe)
        except BarsNotFoundError:
            return None, ()
        except InvalidBarsError as error:
            logger.warning("%s; they are fetched again", error.found)
            return None, ()
        return (bars, segments) if segments and self._source.owns(bars.origin) else (None, ())

    def _open_archive(self) -> Archive:
        source = self._source
        return Archive(
            str(source.archive_url),
            source.market,
            self._names,
            self._timeframe,
            self._downloads(),
            Persistence(self._symbol, self._timeframe, source.patience),
            source.n_parallel,
        )

    @contextmanager
    def _download_errors(self) -> Iterator[None]:
        """Say in one line that files of the archive cannot be kept, and why."""
        try:
            yield
        except OSError as error:
            found = f"{self._downloads()} cannot be written ({error.strerror or error})"
            action = "make the folder writable, or free some space"
            raise DataError(self._symbol, self._timeframe, found, action) from error

    def _downloads(self) -> Path:
        """Where files of the archive lie until their bars are stored."""
        folder = f"{self._source.market}-{self._symbol}-{self._timeframe}"
        return self._source.store.root.parent / "archive" / folder

    def _read_clock(self) -> tuple[int, FetchError | None]:
        """The exchange's clock; if it cannot be asked, this machine's, and why."""
        local_ms = int(time.time() * 1000)
        try:
            now_ms = self._exchange.now_ms()
        except FetchError as error:
            # Only whole days of the archive are asked for then, and a day that has not
            # ended is not there, whatever this machine's clock says.
            return local_ms, error
        if abs(now_ms - local_ms) > _CLOCK_TOLERANCE_MS:
            logger.warning(
                "the clock of this machine is %s off that of %s, and percoin goes by the latter",
                _age(abs(now_ms - local_ms) / 1000),
                self._source.exchange,
            )
        return now_ms, None

    def _wanted(self, now_ms: int) -> Span:
        """From the oldest needed bar to the close of the newest closed one.

        Bars between the stored ones and these are needed too: a prediction that was made before
        a pause is judged by them, and a hole in the store would look like one of the exchange.
        """
        step = self._timeframe.milliseconds
        end = now_ms // step * step
        first = -(-_FIRST_BLOCK_MS // step) * step
        start = max(end - self._source.n_bars * step, first)
        closed = self._paused_at(start)
        return (start if closed is None else closed), end

    def _paused_at(self, start: int) -> int | None:
        """When the stored bars end, if there is a pause to make up for before the needed ones."""
        if self._stored is None:
            return None
        step = self._timeframe.milliseconds
        closed = int(self._stored.open_time[-1]) + step
        return closed if closed < start <= closed + _LONGEST_PAUSE_BARS * step else None

    def _is_page(self, span: Span, wanted: Span) -> bool:
        """Whether a stretch is the newest one or of the last days, and a single page of the API."""
        is_short = (wanted[1] - span[0]) // self._timeframe.milliseconds <= PAGE_BARS
        is_new = span[1] == wanted[1] or span[0] >= wanted[1] - _RECENT_MS
        return is_new and is_short and self._is_known_since(span[0])

    def _is_pause(self, wanted: Span) -> bool:
        """Whether somebody waits for an answer by few bars, and a pause is made up for."""
        n_bars = (wanted[1] - wanted[0]) // self._timeframe.milliseconds
        is_few = self._source.n_bars <= _BARS_OF_AN_ANSWER
        return is_few and n_bars > self._source.n_bars and self._is_known_since(wanted[0])

    def _is_known_since(self, start: int) -> bool:
        """Whether the exchange has the market's bars: under its old name the archive alone."""
        return len(self._names) == 1 or any(part.end >= start for part in self._segments)

    def _renamed_at(self) -> int | None:
        """The first stored bar that came under today's name, if there was another."""
        if self._stored is None or len(self._names) == 1:
            return None
        open_time = self._stored.open_time
        firsts = []
        for segment in self._segments:
            first, stop = open_time.searchsorted([segment.start, segment.end])
            if first < stop and segment.via.endswith(f" {self._symbol}"):
                firsts.append(int(open_time[first]))
        return min(firsts, default=None)

    def _store(
        self,
        known: Sequence[Segment],
        stretches: Sequence[Stretch],
        failure: FetchError | BarsNotFoundError | None,
    ) -> Update:
        """Join what came to what is stored, check it all once more, write it whole."""
        n_before = 0 if self._stored is None else len(self._stored)
        if stretches:
            frame = join(self._stored, known, stretches)
            # Where asking again brought no answer, the earlier answer stays.
            segments = add_segments(
                add_segments(known, [stretch.segment for stretch in stretches]), self._segments
            )
            if len(frame):
                checked = check_bars(frame, self._symbol, self._timeframe)
                bars = Bars(self._symbol, self._timeframe, checked, self._origin(segments))
                self._source.store.write_locked(bars, segments)
                self._log_gaps(bars, segments)
                self._stored, self._segments = bars, segments
                with self._download_errors():
                    discard_files(self._downloads())
        if self._stored is None:
            raise self._hopeless(failure) if failure is not None else self._not_found()
        return Update(self._stored, len(self._stored) - n_before, failure)

    def _log_gaps(self, bars: Bars, segments: Sequence[Segment]) -> None:
        """Name the gaps that were not there before."""
        before = () if self._stored is None else find_gaps(self._stored)
        known = {(gap.last_before, gap.first_after) for gap in before}
        # Between the parts lies what nobody was asked for.
        parts = [(segment.start, segment.end) for segment in segments]
        step = self._timeframe.timedelta
        new = [
            gap
            for gap in find_gaps(bars)
            if (gap.last_before, gap.first_after) not in known
            and overlaps(parts, [(_ms(gap.last_before + step), _ms(gap.first_after))])
        ]
        if new:
            logger.warning("%s; no place that was asked has them", describe_gaps(bars, new))

    def _origin(self, segments: Sequence[Segment]) -> str:
        source = self._source
        vias = {segment.via.split(" ")[-1] for segment in segments}
        before = [f", before it {name}" for name in self._names[1:] if name in vias]
        return f"{source.exchange} {source.market}: {self._symbol}{''.join(before)}"

    def _will_do(self, wanted: Span, is_answered: bool) -> bool:
        """Whether the stored bars lack only the newest of those that are needed.

        Args:
            wanted: What is needed.
            is_answered: Whether the archive was asked for the oldest of them and
                has none.
        """
        first = min(segment.start for segment in self._segments)
        last = max(segment.end for segment in self._segments)
        length = self._source.n_bars * self._timeframe.milliseconds
        starts = [wanted[0] if last > wanted[0] else last - length, last - length]
        return any(
            not missing_spans(self._segments, max(start, first) if is_answered else start, last)
            for start in starts
        )

    def _hopeless(self, failure: FetchError | BarsNotFoundError) -> FetchError | BarsNotFoundError:
        action = f"{failure.action}, {_OTHER_SOURCES}"
        return type(failure)(self._symbol, self._timeframe, failure.found, action)

    def _not_found(self) -> BarsNotFoundError:
        source = self._source
        found = f"{source.exchange} has no {source.market} bars of this market in the last "
        found += f"{source.n_bars:,} bars of time"
        action = "check symbol and source.market, or give it a longer history_days"
        return BarsNotFoundError(self._symbol, self._timeframe, found, action)


def _both(first: FetchError, second: FetchError) -> FetchError:
    """Two failures in one line."""
    found = f"{first.found}, {second.found}"
    return FetchError(first.symbol, first.timeframe, found, first.action)


def _age(secs: float) -> str:
    """A length of time for people."""
    for unit, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if secs >= 2 * length:
            return f"{secs / length:.0f} {unit}"
    return f"{secs:.0f} s"


@cache
def _warn_once(text: str) -> None:
    """A server asks for the bars of a market over and over."""
    logger.warning(text)


def _ms(moment: pd.Timestamp) -> int:
    return int(moment.timestamp() * 1000)
