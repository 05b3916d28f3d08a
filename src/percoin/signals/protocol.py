"""What every source of the chain is given, and what it can do."""

from __future__ import annotations

from typing import Protocol

from percoin.bars.schema import Bars
from percoin.types import Passed, Prediction, Timeframe


class MarketBars(Protocol):
    """The closed bars of one market at one moment: the close of the newest asked bar."""

    @property
    def asked(self) -> Bars:
        """The bars of the timeframe that is asked about."""
        ...

    def of(self, timeframe: Timeframe, n_bars: int) -> Bars:
        """The bars of another timeframe, none of which closed after the newest asked one.

        Args:
            timeframe: Shorter or longer than the asked one, or the same.
            n_bars: How many of the newest are wanted; more or fewer may come.

        Raises:
            DataError: There are none.
        """
        ...


class SignalSource(Protocol):
    """Something that may have an answer for a market."""

    def answer(self, market: MarketBars) -> Prediction | Passed:
        """Answer for the newest asked bar, or say why not."""
        ...
