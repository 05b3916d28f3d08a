"""Keeps the newest bars of all markets in memory and loads new ones after each bar close."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from threading import Condition, Thread

import numpy as np

from percoin.bars.schema import Bars, format_time
from percoin.bars.sources.base import Renewed
from percoin.errors import BarsNotFoundError
from percoin.serving.each_market import EachMarket
from percoin.serving.offer import Clock, Market, utc_now
from percoin.types import IntArray, Timeframe

# Threads look at the clock at least this often, because someone may set it during a wait.
_LONGEST_WAIT_SECS = 5.0
# Waits before a retry are longer or shorter by chance, up to so many times.
_MOST_SPREAD = 1.25

LoadBars = Callable[[str, Timeframe], Bars | Renewed]


@dataclass(frozen=True)
class Rhythm:
    """When bars are loaded.

    Attributes:
        delay_secs: Seconds from the close of a bar to the first try to load it.
        jitter_secs: Maximum extra delay, random per symbol and bar, to spread the requests.
        retry_secs: Seconds to the second try if the first did not bring the bar. The wait
            doubles after each further try.
        max_retry_secs: Maximum wait between two tries. A shorter bar length is the limit
            instead.
    """

    delay_secs: float = 2.0
    jitter_secs: float = 3.0
    retry_secs: float = 5.0
    max_retry_secs: float = 300.0


@dataclass(frozen=True, eq=False)
class Held:
    """The loaded bars of one market.

    Attributes:
        bars: The last loaded bars; None before the first.
        close_times: Their close times, milliseconds since 1970-01-01 UTC, shape (n_bars,).
        failure: Why the last try to load failed; empty if it worked.
        n_tries: Tries since the last one that brought the newest closed bar; 0 before the
            first try.
    """

    bars: Bars | None = None
    close_times: IntArray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    failure: str = ""
    n_tries: int = 0


class BarKeeper:
    """Holds the bars of every symbol in every timeframe that answers need.

    Timeframes of a symbol that are due at the same time are loaded together and become
    visible together. If a load fails, the old bars stay and the next try comes after a
    wait that doubles each time.

    Args:
        load: Loads the bars of one market; several threads may call it at once. Stored bars
            without the newest one are held, and their try counts as failed.
        symbols: Symbols to load.
        timeframes: Timeframes to load for each symbol.
        rhythm: When bars are loaded.
        clock: Gives the current time.
        on_change: Called after each try to load bars of a symbol, also if it failed.
        on_load: Called after each try with the timeframe and whether it failed.
        optional: Those of the timeframes that only rules read. A source without such bars is
            no failure: the rules say themselves what they lack.
    """

    def __init__(
        self,
        load: LoadBars,
        symbols: Sequence[str],
        timeframes: Sequence[Timeframe],
        rhythm: Rhythm,
        clock: Clock = utc_now,
        on_change: Callable[[], None] = lambda: None,
        on_load: Callable[[Timeframe, bool], None] = lambda timeframe, failed: None,
        optional: Collection[Timeframe] = (),
    ) -> None:
        self._load = load
        self._rhythm = rhythm
        self._clock = clock
        self._on_change = on_change
        self._on_load = on_load
        self._optional = frozenset(optional)
        self._steps = EachMarket("BARS", "the bars cannot be loaded", clock)
        self._held = {symbol: dict.fromkeys(timeframes, Held()) for symbol in symbols}
        self._due = {symbol: dict.fromkeys(timeframes, 0.0) for symbol in symbols}
        self._under_way: set[str] = set()
        self._salt = random.random()
        self._is_stopped = False
        self._wake = Condition()
        self._threads: list[Thread] = []

    def keep_also(self, markets: Iterable[Market]) -> None:
        """Load the bars of further markets from now on, those that models compare with."""
        with self._wake:
            for symbol, timeframe in markets:
                if not self.keeps(symbol, timeframe):
                    self._due.setdefault(symbol, {})[timeframe] = 0.0
                    self._held[symbol] = {**self._held.get(symbol, {}), timeframe: Held()}
                    self._wake.notify()

    @property
    def symbols(self) -> tuple[str, ...]:
        """The symbols whose bars are kept."""
        return tuple(self._held)

    def keeps(self, symbol: str, timeframe: Timeframe) -> bool:
        """Whether the bars of a market are kept."""
        return timeframe in self._held.get(symbol, {})

    def awaits(self, symbol: str, timeframe: Timeframe, close_ms: int) -> bool:
        """Whether a kept market lacks the bar of this close, and no load has tried to bring it.

        Args:
            symbol: The market.
            timeframe: Timeframe of the market.
            close_ms: Close time, milliseconds since 1970-01-01 UTC.
        """
        held = self._held.get(symbol, {}).get(timeframe)
        if held is None or held.n_tries:
            return False
        return held.bars is None or int(held.close_times[-1]) < close_ms

    def held(self, symbol: str) -> Mapping[Timeframe, Held]:
        """A symbol's bars as they are now; later loads leave the returned mapping unchanged."""
        return self._held[symbol]

    def source(self) -> HeldSource:
        """A bar source with all bars as they are now; later loads do not change it."""
        return HeldSource(dict(self._held))

    def refresh(self, symbol: str) -> None:
        """Load the due bars of a symbol and set the time of the next load."""
        now_ms = int(self._clock().timestamp() * 1000)
        with self._wake:
            known = self._held[symbol]
            due = [tf for tf in known if self._when(symbol, tf, now_ms / 1000) * 1000 <= now_ms]
        found = {tf: self._ask((symbol, tf), known[tf], now_ms) for tf in due}
        with self._wake:
            self._held[symbol] = {**self._held[symbol], **found}
        for timeframe, held in found.items():
            self._due[symbol][timeframe] = self._next_time((symbol, timeframe), held, now_ms)
        if found:
            self._on_change()

    def start(self, n_threads: int) -> None:
        """Begin loading bars in background threads."""
        self._add_thread(n_helpers=n_threads - 1)

    def stop(self) -> None:
        """Start no further load."""
        with self._wake:
            self._is_stopped = True
            self._wake.notify_all()

    @property
    def is_working(self) -> bool:
        """Whether all started threads are alive."""
        return all(thread.is_alive() for thread in self._threads)

    def _ask(self, market: Market, known: Held, now_ms: int) -> Held:
        kept = [known]
        found = self._steps.run(market, partial(self._loaded, market, kept, now_ms), None)
        self._on_load(market[1], found is None)
        if found is not None:
            return found
        failure = self._steps.failure(market)
        return replace(kept[-1], failure=failure, n_tries=known.n_tries + 1)

    def _loaded(self, market: Market, kept: list[Held], now_ms: int) -> Held:
        """Load bars; those that come in spite of a failure are added to ``kept``."""
        symbol, timeframe = market
        known = kept[-1]
        try:
            loaded = self._load(symbol, timeframe)
        except BarsNotFoundError as error:
            if timeframe not in self._optional:
                raise
            return replace(known, failure=str(error), n_tries=known.n_tries + 1)
        renewed = loaded if isinstance(loaded, Renewed) else Renewed(loaded)
        bars, failure = renewed.bars, renewed.failure
        close_times = bars.open_time + timeframe.milliseconds
        is_current = int(close_times[-1]) >= _last_close(now_ms, timeframe)
        if failure is not None and not is_current:
            kept.append(Held(bars, close_times))
            raise failure
        return Held(bars, close_times, "", 0 if is_current else known.n_tries + 1)

    def _next_time(self, market: Market, held: Held, now_ms: int) -> float:
        """When to load again, in seconds since 1970-01-01 UTC."""
        rhythm, (symbol, timeframe) = self._rhythm, market
        if held.n_tries:
            doubled = rhythm.retry_secs * 2.0 ** min(held.n_tries - 1, 30)
            wait = min(doubled, rhythm.max_retry_secs, timeframe.milliseconds / 1000)
            return now_ms / 1000 + wait * random.uniform(2 - _MOST_SPREAD, _MOST_SPREAD)
        close = (_last_close(now_ms, timeframe) + timeframe.milliseconds) / 1000
        # The delay is the same for all timeframes of a symbol that close together.
        share = random.Random(f"{self._salt} {symbol} {close}").random()
        return close + rhythm.delay_secs + rhythm.jitter_secs * share

    def _add_thread(self, n_helpers: int) -> None:
        # A daemon thread: a load can take long, and the process must not wait for it at exit.
        name = f"percoin-bars-{len(self._threads)}"
        thread = Thread(target=self._work, args=(n_helpers,), name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _work(self, n_helpers: int) -> None:
        while (symbol := self._take()) is not None:
            try:
                self.refresh(symbol)
            finally:
                with self._wake:
                    self._under_way.discard(symbol)
                    self._wake.notify()
            # The other threads start after the first load, which imports libraries: several
            # threads that import the same library at once can deadlock.
            for _ in range(n_helpers):
                self._add_thread(n_helpers=0)
            n_helpers = 0

    def _take(self) -> str | None:
        """Wait until a symbol is due and take it; None after ``stop``."""
        with self._wake:
            while not self._is_stopped:
                free = [symbol for symbol in self._held if symbol not in self._under_way]
                now = self._clock().timestamp()
                dues = {symbol: self._soonest(symbol, now) for symbol in free}
                soonest = min(dues, key=lambda symbol: dues[symbol], default=None)
                if soonest is not None and dues[soonest] <= now:
                    self._under_way.add(soonest)
                    return soonest
                wait = _LONGEST_WAIT_SECS if soonest is None else dues[soonest] - now
                self._wake.wait(min(max(wait, 0.01), _LONGEST_WAIT_SECS))
        return None

    def _soonest(self, symbol: str, now: float) -> float:
        return min(self._when(symbol, timeframe, now) for timeframe in self._due[symbol])

    def _when(self, symbol: str, timeframe: Timeframe, now: float) -> float:
        """When a market is due, in seconds since 1970-01-01 UTC.

        At once if that lies further ahead than it can have been set: the clock has gone back.
        """
        due, rhythm = self._due[symbol][timeframe], self._rhythm
        bar_secs = timeframe.milliseconds / 1000
        longest = bar_secs + rhythm.delay_secs + rhythm.jitter_secs
        if self._held[symbol][timeframe].n_tries:
            longest = _MOST_SPREAD * min(rhythm.max_retry_secs, bar_secs)
        return 0.0 if due > now + longest + 1 else due


class HeldSource:
    """A bar source that reads from memory only.

    Args:
        held: The loaded bars of each symbol and timeframe.
    """

    def __init__(self, held: Mapping[str, Mapping[Timeframe, Held]]) -> None:
        self._held = held

    def load(self, symbol: str, timeframe: Timeframe) -> Bars:
        """See ``BarSource.load``.

        Raises:
            BarsNotFoundError: No bars are loaded yet.
        """
        held = self._held.get(symbol, {}).get(timeframe, Held())
        if symbol not in self._held:
            found, action = "this server does not serve it", "add it to symbol="
            raise BarsNotFoundError(symbol, timeframe, found, action)
        if held.bars is None:
            found = held.failure.removeprefix(f"{symbol} {timeframe}: ") or "no bars have come yet"
            raise BarsNotFoundError(symbol, timeframe, found, "they are requested again")
        return held.bars


def tell_missing(symbol: str, timeframe: Timeframe, held: Held) -> str:
    """Why a market has no bars, or lacks the newest one; empty if no problem is known."""
    if held.failure:
        return held.failure
    if held.bars is None:
        return f"{symbol} {timeframe}: no bars have come yet; ask again in a moment"
    if held.n_tries > 1:
        closed = format_time(held.bars.close_time())
        return f"{symbol} {timeframe}: no bar has come since the one that closed {closed} UTC"
    return ""


def _last_close(now_ms: int, timeframe: Timeframe) -> int:
    """Close time of the newest closed bar, milliseconds since 1970-01-01 UTC."""
    return now_ms // timeframe.milliseconds * timeframe.milliseconds
