"""The symbols and timeframes that a server offers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from percoin.types import Timeframe

Clock = Callable[[], datetime]
Market = tuple[str, Timeframe]


def utc_now() -> datetime:
    """This machine's current time, with the UTC time zone."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class Offer:
    """The served markets.

    Attributes:
        symbols: Symbols in the order of their answers.
        timeframes: Timeframes of each symbol.
        default_timeframe: Used for a request without a timeframe; one of ``timeframes``.
    """

    symbols: tuple[str, ...]
    timeframes: tuple[Timeframe, ...]
    default_timeframe: Timeframe

    def markets(self) -> Iterator[Market]:
        """Every symbol in every timeframe."""
        return ((symbol, tf) for symbol in self.symbols for tf in self.timeframes)
