"""Bars of one market, kept up to date in the store."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from percoin.bars.renames import stored_names
from percoin.bars.schema import Bars, check_bars, format_time
from percoin.bars.sources.binance.archive import Archive, discard_files
from percoin.bars.sources.binance.exchange import BINANCE, PAGE_BARS, Exchange
from percoin.bars.sources.binance.transfer import Patience, Persistence
from percoin.bars.store import BarStore
from percoin.bars.update import Segment, Span, Stretch, add_segments, join, missing_spans
from percoin.errors import BarsNotFoundError, FetchError, InvalidBarsError
from percoin.types import Timeframe

logger = logging.getLogger(__name__)

MARKETS = ("spot", "perp")

# A bar that is not there so long after its close will not come.
_LATE_BAR_MS = 3_600_000
_CLOCK_TOLERANCE_MS = 60_000
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

        What is stored already is enough where the rest cannot be had just now: a
        warning says why and how old it is.

        Raises:
            FetchError: The bars cannot be had, and none that would do are stored.
            BarsNotFoundError: The exchange has no such market.
            InvalidBarsError: What came is not what was published, or breaks the
                schema; the store is as it was.
            DataError: The store cannot be written.
            ConfigError: ``symbol`` is no market or an old name of one.
        """
        update = self.update(symbol, timeframe)
        if update.failure is not None:
            closed = update.bars.close_time()
            logger.warning(
                "%s; going on with the bars stored until %s UTC, %s ago",
                update.failure,
                format_time(closed),
                _age(time.time() - closed.timestamp()),
            )
        return update.bars

    def update(self, symbol: str, timeframe: Timeframe) -> Update:
        """As ``load``, for a caller that says itself what could not be had."""
        if not self.replace:
            origin = self.store.origin(symbol, timeframe)
            if origin is not None and not self.owns(origin):
                for market in MARKETS:
                    other = dataclasses.replace(self, market=market)
                    if other.owns(origin):
                        logger.info("%s %s: going on with %s bars", symbol, timeframe, market)
                        return other.update(symbol, timeframe)
                logger.info(
                    "%s %s: stored are bars of another source (%s), used as they are",
                    symbol,
                    timeframe,
                    origin,
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
        failure: Why the newest are missing, if they are.
    """

    bars: Bars
    n_new: int
    failure: FetchError | None = None


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
        now_ms, failure = self._read_clock()
        wanted = self._wanted(now_ms)
        missing = missing_spans(self._segments, *wanted)
        if not missing and self._stored is not None:
            return Update(self._stored, 0)
        bulk = missing if failure else [span for span in missing if not self._is_page(span, wanted)]
        stretches: list[Stretch] = []
        is_answered = False
        try:
            if bulk and self._has_archive:
                stretches += self._open_archive().fetch(bulk, now_ms, self._renamed_at())
                is_answered = True
            if failure is None:
                segments = [*self._segments, *(stretch.segment for stretch in stretches)]
                for span in missing_spans(segments, *wanted):
                    stretches += self._ask_exchange(span, now_ms)
        except FetchError as error:
            failure = error if failure is None else _both(failure, error)
        except BarsNotFoundError as error:
            if not stretches and self._stored is None:
                raise
            # A market that has ended: the archive still has it, the exchange does not.
            failure = FetchError(self._symbol, self._timeframe, error.found, error.action)
        update = self._store(stretches, failure)
        if update.failure is not None and not self._will_do(wanted, is_answered):
            raise self._hopeless(update.failure)
        return update

    def _read_stored(self) -> tuple[Bars | None, tuple[Segment, ...]]:
        """Bars of this source, if the file is as it was written; anything else is replaced."""
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

    def _downloads(self) -> Path:
        """Where files of the archive lie until their bars are stored."""
        folder = f"{self._source.market}-{self._symbol}-{self._timeframe}"
        return self._source.store.root.parent / "archive" / folder

    def _read_clock(self) -> tuple[int, FetchError | None]:
        """The exchange's clock; this machine's where that cannot be asked, and why."""
        local_ms = int(time.time() * 1000)
        try:
            now_ms = self._exchange.now_ms()
        except FetchError as error:
            # Only whole days of the archive are asked for then, and a day that has not
            # ended is not there, whatever this machine's clock says.
            return local_ms, error
        if abs(now_ms - local_ms) > _CLOCK_TOLERANCE_MS:
            logger.warning(
                "the clock of this machine is %s off that of %s, which is the one that counts",
                _age(abs(now_ms - local_ms) / 1000),
                self._source.exchange,
            )
        return now_ms, None

    def _wanted(self, now_ms: int) -> Span:
        """From the oldest bar that is needed to the close of the newest closed one."""
        step = self._timeframe.milliseconds
        end = now_ms // step * step
        return end - self._source.n_bars * step, end

    def _is_page(self, span: Span, wanted: Span) -> bool:
        """Whether a missing stretch is the newest one and a single page of the API."""
        is_short = (span[1] - span[0]) // self._timeframe.milliseconds <= PAGE_BARS
        # Under its old name a market is in the archive only.
        is_known = len(self._names) == 1 or any(part.end == span[0] for part in self._segments)
        return span[1] == wanted[1] and is_short and is_known

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

    def _ask_exchange(self, span: Span, now_ms: int) -> list[Stretch]:
        """The API's answer for one stretch; its newest bars may not be there yet."""
        frame = self._exchange.bars(*span)
        step = self._timeframe.milliseconds
        settled = (now_ms - _LATE_BAR_MS) // step * step
        newest = round(frame.index[-1].timestamp() * 1000) + step if len(frame) else span[0]
        end = min(max(newest, settled), span[1])
        segment = Segment(span[0], end, f"API {self._symbol}")
        return [Stretch(segment, frame)] if end > span[0] else []

    def _store(self, stretches: Sequence[Stretch], failure: FetchError | None) -> Update:
        """Join what came to what is stored, check it all once more, write it whole."""
        n_before = 0 if self._stored is None else len(self._stored)
        if stretches:
            frame = join(self._stored, self._segments, stretches)
            segments = add_segments(self._segments, [stretch.segment for stretch in stretches])
            if len(frame):
                checked = check_bars(frame, self._symbol, self._timeframe)
                bars = Bars(self._symbol, self._timeframe, checked, self._origin(segments))
                self._source.store.write_locked(bars, segments)
                self._stored, self._segments = bars, segments
                discard_files(self._downloads())
        if self._stored is None:
            raise self._hopeless(failure) if failure is not None else self._not_found()
        return Update(self._stored, len(self._stored) - n_before, failure)

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

    def _hopeless(self, failure: FetchError) -> FetchError:
        action = f"{failure.action}, {_OTHER_SOURCES}"
        return FetchError(self._symbol, self._timeframe, failure.found, action)

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
