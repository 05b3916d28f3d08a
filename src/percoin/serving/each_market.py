"""Runs a step for each market: a failure is logged, and the other markets go on."""

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
# If many markets fail for one reason, the log names this many of them.
_NAMED = 3
_LONGEST_TEXT = 1000


class Pauses:
    """Pauses before a retry: one second at first, doubled after each failure, at most a minute.

    Args:
        clock: Gives the current time.
    """

    def __init__(self, clock: Clock = utc_now) -> None:
        self._clock = clock
        self._known: dict[Market, tuple[datetime, float]] = {}

    def begin(self, market: Market) -> None:
        """Begin a market's next pause after a failure."""
        _, before = self._known.get(market, (None, _FIRST_PAUSE_SECS / 2))
        self._known[market] = (self._clock(), min(2 * before, _LONGEST_PAUSE_SECS))

    def are_over(self, market: Market) -> bool:
        """Whether a try is allowed now; also true without a failure or if the clock went back."""
        if market not in self._known:
            return True
        began, secs = self._known[market]
        return not 0 <= (self._clock() - began).total_seconds() < secs

    def is_due(self, market: Market) -> bool:
        """Whether the market has failed and its pause is over."""
        return market in self._known and self.are_over(market)

    def end(self, market: Market) -> None:
        """Forget a market's failures after a success."""
        self._known.pop(market, None)


class EachMarket:
    """Runs a step for one market at a time; threads may share it.

    A failure is logged once with the market's name, until the step works again or fails for
    another reason. An expected error (``PercoinError``) gives one log line, an unexpected
    error gives a traceback.

    Args:
        label: First word of the log line, for example ``ANSWER``.
        lack: What a failed market lacks, as a phrase for people.
        clock: Gives the current time.
    """

    def __init__(self, label: str, lack: str, clock: Clock = utc_now) -> None:
        self._label = label
        self._lack = lack
        self._failures: dict[Market, tuple[str, str]] = {}
        self._pauses = Pauses(clock)
        self._lock = Lock()

    def run(self, market: Market, step: Callable[[], Value], otherwise: Value) -> Value:
        """Run ``step`` and return its value, or ``otherwise`` if it raises an exception."""
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
        """Why the last step of a market failed; empty if it worked."""
        return self._failures.get(market, ("", ""))[1]

    def may_try(self, market: Market) -> bool:
        """Whether a market's step may run: it worked last time, or its pause is over."""
        return self._pauses.are_over(market)

    def _fail(self, market: Market, error: Exception) -> None:
        symbol, timeframe = market
        is_foreseen = isinstance(error, PercoinError)
        found = str(error) if is_foreseen else f"{type(error).__name__}: {error}"
        # Without the market's name, the text is the same for all markets with one problem.
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
