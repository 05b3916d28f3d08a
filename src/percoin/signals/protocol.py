"""The interface of a source in the chain, and of the bars it gets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from percoin.bars.schema import Bars
from percoin.types import ExpectedMove, Passed, Prediction, Timeframe


class MarketBars(Protocol):
    """Closed bars of one market at one moment: the close of the newest bar asked about."""

    @property
    def asked(self) -> Bars:
        """The bars of the timeframe that is asked about."""
        ...

    def of(self, timeframe: Timeframe, n_bars: int) -> Bars:
        """Return bars of any timeframe; none closed after the newest bar of ``asked``.

        Args:
            timeframe: Shorter than the asked one, longer, or the same.
            n_bars: How many of the newest bars are wanted; more or fewer may come.

        Raises:
            DataError: There are no such bars.
        """
        ...

    def beside(self, symbols: Sequence[str]) -> Bars:
        """Return ``asked`` with the bars of other markets in ``Bars.panel``.

        Args:
            symbols: The markets; without any, ``asked`` comes as it is.

        Raises:
            DataError: A market has no bars; names it.
        """
        ...


class SignalSource(Protocol):
    """Something that may have an answer for a market."""

    def answer(self, market: MarketBars) -> Prediction | Passed:
        """Answer for the newest bar of ``market.asked``, or say why there is no answer."""
        ...


@runtime_checkable
class AsksTogether(Protocol):
    """A source that answers about many markets together sooner than about one after another."""

    def prepare(self, markets: Sequence[Bars]) -> None:
        """Find the answers for these bars, which ``answer`` then has at hand."""
        ...


@runtime_checkable
class TellsMove(Protocol):
    """A source that knows how far the price is expected to move, also if another one answers."""

    def expected_move(self, market: MarketBars) -> ExpectedMove | None:
        """Return the expected move from the newest close; None if it is not known."""
        ...
