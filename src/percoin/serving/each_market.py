"""The one place that runs a step for every market: one that fails is told, the others go on."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from threading import Lock
from typing import TypeVar

from percoin.errors import PercoinError
from percoin.printable import printable
from percoin.serving.offer import Clock, Market, utc_now

log = logging.getLogger(__name__)

Value = TypeVar("Value")

_FIRST_PAUSE_SECS = 1.0
_LONGEST_PAUSE_SECS = 60.0
# What many markets fail for at once is told of so many by name.
_NAMED = 3
_LONGEST_TEXT = 1000


class Pauses:
    """When to try again what failed: after a second, and twice as long after each further time.

    Args:
        clock: The time.
    """

    def __init__(self, clock: Clock = utc_now) -> None:
        self._clock = clock
        self._known: dict[Market, tuple[datetime, float]] = {}

    def begin(self, market: Market) -> None:
        """It failed once more."""
        _, before = self._known.get(market, (None, _FIRST_PAUSE_SECS / 2))
        self._known[market] = (self._clock(), min(2 * before, _LONGEST_PAUSE_SECS))

    def are_over(self, market: Market) -> bool:
        """Whether it may be tried now; also if it never failed, or the clock was set back."""
        if market not in self._known:
            return True
        began, secs = self._known[market]
        return not 0 <= (self._clock() - began).total_seconds() < secs

    def is_due(self, market: Market) -> bool:
        """Whether it failed, and may be tried again."""
        return market in self._known and self.are_over(market)

    def end(self, market: Market) -> None:
        """It works."""
        self._known.pop(market, None)


class EachMarket:
    """Runs a step for one market after the other; threads may share it.

    A failure is logged once, with the market's name, until the step works again or fails in
    another way. An error that was foreseen is one line, any other a traceback.

    Args:
        label: Begins the log line, for example ``ANSWER``.
        lack: What a market has to do without meanwhile, for people.
        clock: The time.
    """

    def __init__(self, label: str, lack: str, clock: Clock = utc_now) -> None:
        self._label = label
        self._lack = lack
        self._failures: dict[Market, tuple[str, str]] = {}
        self._pauses = Pauses(clock)
        self._lock = Lock()

    def run(self, market: Market, step: Callable[[], Value], otherwise: Value) -> Value:
        """What ``step`` returns, or ``otherwise`` if it raises an exception."""
        try:
            value = step()
        except Exception as error:  # noqa: BLE001 - logged by _fail, with the market's name
            self._fail(market, error)
            return otherwise
        with self._lock:
            self._failures.pop(market, None)
            self._pauses.end(market)
        return value

    def failure(self, market: Market) -> str:
        """Why the last step of a market failed; empty if it did not."""
        return self._failures.get(market, ("", ""))[1]

    def may_try(self, market: Market) -> bool:
        """Whether a market's step did not fail, or long enough ago to try it again."""
        return self._pauses.are_over(market)

    def _fail(self, market: Market, error: Exception) -> None:
        symbol, timeframe = market
        is_foreseen = isinstance(error, PercoinError)
        found = str(error) if is_foreseen else f"{type(error).__name__}: {error}"
        # The same for all markets that fail for one reason.
        kind = found.replace(f"{symbol} {timeframe}", "").replace(symbol, "")
        failure = found
        if not is_foreseen:
            failure = f"{symbol} {timeframe}: {self._lack} ({type(error).__name__})"
        with self._lock:
            is_known = self._failures.get(market, ("", ""))[0] == kind
            n_others = sum(other == kind for other, _ in self._failures.values()) - is_known
            self._failures[market] = (kind, printable(failure, _LONGEST_TEXT))
            self._pauses.begin(market)
        if is_known or n_others > _NAMED:
            log.debug("%s failed: %s", self._label, printable(failure, _LONGEST_TEXT))
        elif n_others == _NAMED:
            log.warning("%s failed: further markets for the same reason", self._label)
        elif is_foreseen:
            log.warning("%s failed: %s", self._label, printable(failure, _LONGEST_TEXT))
        else:
            log.error("%s %s tf=%s failed", self._label, symbol, timeframe, exc_info=error)
