"""What every source of bars can do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from percoin.bars.schema import Bars
from percoin.errors import DataError
from percoin.types import Timeframe


class BarSource(Protocol):
    """Somewhere that bars come from."""

    def load(self, symbol: str, timeframe: Timeframe) -> Bars:
        """All bars of one market, checked, with their origin.

        Raises:
            BarsNotFoundError: The source has none of this market.
            InvalidBarsError: It has some that break the schema or cannot be read.
            ConfigError: ``symbol`` is no market or an old name of one.
        """
        ...


@dataclass(frozen=True)
class Renewed:
    """Bars from somewhere that keeps them, brought up to date if that was possible.

    Attributes:
        bars: As in ``BarSource.load``.
        failure: Why the newest are missing, if they are.
    """

    bars: Bars
    failure: DataError | None = None


@runtime_checkable
class RenewingSource(Protocol):
    """A source that gives its stored bars, and the reason, if it cannot be reached."""

    def renew(self, symbol: str, timeframe: Timeframe) -> Renewed:
        """As ``BarSource.load``, for a caller that reports itself what is missing."""
        ...
