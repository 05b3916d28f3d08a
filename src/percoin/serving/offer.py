"""What a server offers: which markets, in which timeframes, answered by whom."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from percoin.types import Timeframe

Clock = Callable[[], datetime]
Market = tuple[str, Timeframe]


def utc_now() -> datetime:
    """This machine's clock, with a zone."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class Offer:
    """The markets that may be asked about.

    Attributes:
        symbols: In the order in which they are answered for.
        timeframes: Of each of them.
        default_timeframe: One of these, for a request that names none.
    """

    symbols: tuple[str, ...]
    timeframes: tuple[Timeframe, ...]
    default_timeframe: Timeframe

    def markets(self) -> Iterator[Market]:
        """Every symbol in every timeframe."""
        return ((symbol, tf) for symbol in self.symbols for tf in self.timeframes)
