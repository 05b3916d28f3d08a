"""Keeps the newest bars of all markets in memory, each refreshed after its bar has closed."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from threading import Condition, Thread

import numpy as np

from percoin.bars.schema import Bars, format_time
from percoin.errors import BarsNotFoundError
from percoin.serving.each_market import EachMarket
from percoin.serving.offer import Clock, Market, utc_now
from percoin.types import IntArray, Timeframe

# However long the wait, the clock of the machine may be set meanwhile.
_LONGEST_WAIT_SECS = 5.0

LoadBars = Callable[[str, Timeframe], Bars]


@dataclass(frozen=True)
class Rhythm:
    """When bars are asked for.

    Attributes:
        delay_secs: From the close of a bar to the first question for it.
        jitter_secs: At most so much later, another time for each symbol and bar, so that
            not everything is asked for at once.
        retry_secs: To the second question, where the first did not bring the bar; twice
            as long after each further one.
        max_retry_secs: The longest time between two questions, if a bar is not shorter.
    """

    delay_secs: float = 2.0
    jitter_secs: float = 3.0
    retry_secs: float = 5.0
    max_retry_secs: float = 300.0


@dataclass(frozen=True, eq=False)
class Held:
    """What is known of the bars of one market.

    Attributes:
        bars: The last that came; None if none have.
        close_times: Of these, milliseconds since 1970-01-01 UTC, shape (n_bars,).
        failure: Why the last question brought none; empty if it did.
        n_tries: Questions since the newest bar that was due had come; 0 before the first.
    """

    bars: Bars | None = None
    close_times: IntArray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    failure: str = ""
    n_tries: int = 0


class BarKeeper:
    """Bars of every symbol in every timeframe that answers need.

    The timeframes of a symbol that are due together are loaded together and seen
    together. What fails keeps the bars that were there, and is tried again after a while
    that doubles.

    Args:
        load: Brings the bars of one market; may be called by several threads at once.
        symbols: The markets.
        timeframes: Of each.
        rhythm: When bars are asked for.
        clock: The time.
        on_change: Called after bars of a symbol have come.
        on_load: Called after each question with its timeframe and whether it failed.
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
    ) -> None:
        self._load = load
        self._rhythm = rhythm
        self._clock = clock
        self._on_change = on_change
        self._on_load = on_load
        self._steps = EachMarket("BARS", "the bars cannot be had", clock)
        self._held = {symbol: dict.fromkeys(timeframes, Held()) for symbol in symbols}
        self._due = {symbol: dict.fromkeys(timeframes, 0.0) for symbol in symbols}
        self._under_way: set[str] = set()
        self._salt = random.random()
        self._is_stopped = False
        self._wake = Condition()
        self._threads: list[Thread] = []

    @property
    def symbols(self) -> tuple[str, ...]:
        """The markets."""
        return tuple(self._held)

    def held(self, symbol: str) -> Mapping[Timeframe, Held]:
        """What is known of a symbol's bars now; it does not change afterwards."""
        return self._held[symbol]

    def source(self, symbol: str) -> HeldSource:
        """A symbol's bars as they are now, as a source for the rules."""
        return HeldSource(self._held[symbol])

    def refresh(self, symbol: str) -> None:
        """Ask for the bars of a symbol that are due, and say when to ask again."""
        now_ms = int(self._clock().timestamp() * 1000)
        known = self._held[symbol]
        due = [tf for tf, moment in self._due[symbol].items() if moment * 1000 <= now_ms]
        found = {tf: self._ask((symbol, tf), known[tf], now_ms) for tf in due}
        self._held[symbol] = known | found
        for timeframe, held in found.items():
            self._due[symbol][timeframe] = self._next_time((symbol, timeframe), held, now_ms)
        if found:
            self._on_change()

    def start(self, n_threads: int) -> None:
        """Refresh in the background from now on."""
        self._add_thread(n_helpers=n_threads - 1)

    def stop(self) -> None:
        """Begin no further question."""
        with self._wake:
            self._is_stopped = True
            self._wake.notify_all()

    @property
    def is_working(self) -> bool:
        """Whether all threads that were started are there."""
        return all(thread.is_alive() for thread in self._threads)

    def _ask(self, market: Market, known: Held, now_ms: int) -> Held:
        found = self._steps.run(market, partial(self._loaded, market, known, now_ms), None)
        self._on_load(market[1], found is None)
        if found is not None:
            return found
        failure = self._steps.failure(market)
        return Held(known.bars, known.close_times, failure, known.n_tries + 1)

    def _loaded(self, market: Market, known: Held, now_ms: int) -> Held:
        symbol, timeframe = market
        bars = self._load(symbol, timeframe)
        close_times = bars.open_time + timeframe.milliseconds
        is_current = int(close_times[-1]) >= _last_close(now_ms, timeframe)
        return Held(bars, close_times, "", 0 if is_current else known.n_tries + 1)

    def _next_time(self, market: Market, held: Held, now_ms: int) -> float:
        """When to ask again, in seconds since 1970-01-01 UTC."""
        rhythm, (symbol, timeframe) = self._rhythm, market
        if held.n_tries:
            doubled = rhythm.retry_secs * 2.0 ** min(held.n_tries - 1, 30)
            wait = min(doubled, rhythm.max_retry_secs, timeframe.milliseconds / 1000)
            return now_ms / 1000 + wait * random.uniform(0.75, 1.25)
        close = (_last_close(now_ms, timeframe) + timeframe.milliseconds) / 1000
        # The same for all timeframes of a symbol that close together.
        share = random.Random(f"{self._salt} {symbol} {close}").random()
        return close + rhythm.delay_secs + rhythm.jitter_secs * share

    def _add_thread(self, n_helpers: int) -> None:
        # What it waits for may take its time; the process does not wait for it.
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
            # Not before: the first question loads libraries, and several threads that load
            # the same one at once can end in a deadlock.
            for _ in range(n_helpers):
                self._add_thread(n_helpers=0)
            n_helpers = 0

    def _take(self) -> str | None:
        """Wait for the symbol that is due next; None once there is nothing more to do."""
        with self._wake:
            while not self._is_stopped:
                free = [symbol for symbol in self._held if symbol not in self._under_way]
                soonest = min(free, key=self._soonest, default=None)
                now = self._clock().timestamp()
                if soonest is not None and self._soonest(soonest) <= now:
                    self._under_way.add(soonest)
                    return soonest
                wait = _LONGEST_WAIT_SECS if soonest is None else self._soonest(soonest) - now
                self._wake.wait(min(max(wait, 0.01), _LONGEST_WAIT_SECS))
        return None

    def _soonest(self, symbol: str) -> float:
        return min(self._due[symbol].values())


class HeldSource:
    """Bars of one symbol from memory alone.

    Args:
        held: Of each timeframe.
    """

    def __init__(self, held: Mapping[Timeframe, Held]) -> None:
        self._held = held

    def load(self, symbol: str, timeframe: Timeframe) -> Bars:
        """As ``BarSource.load``.

        Raises:
            BarsNotFoundError: None have come.
        """
        held = self._held.get(timeframe, Held())
        if held.bars is None:
            found = held.failure.removeprefix(f"{symbol} {timeframe}: ") or "no bars have come yet"
            raise BarsNotFoundError(symbol, timeframe, found, "they are asked for again")
        return held.bars


def tell_missing(symbol: str, timeframe: Timeframe, held: Held) -> str:
    """Why a market has no bars, or not the newest; empty if nothing is known to be wrong."""
    if held.failure:
        return held.failure
    if held.bars is None:
        return f"{symbol} {timeframe}: no bars have come yet; ask again in a moment"
    if held.n_tries > 1:
        closed = format_time(held.bars.close_time())
        return f"{symbol} {timeframe}: nothing newer than the bar that closed {closed} UTC has come"
    return ""


def _last_close(now_ms: int, timeframe: Timeframe) -> int:
    """When the bar that closed last did so, milliseconds since 1970-01-01 UTC."""
    return now_ms // timeframe.milliseconds * timeframe.milliseconds
