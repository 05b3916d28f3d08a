"""What every source of bars can do."""

from __future__ import annotations

from typing import Protocol

from percoin.bars.schema import Bars
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
