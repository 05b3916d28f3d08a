"""Simulated bars that close in real time: a market to watch without an exchange."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from threading import Lock

import numpy as np

from percoin.bars.schema import Bars
from percoin.bars.sources.simulated import SimulatedSource
from percoin.types import Timeframe

_LONGEST_YEAR_DAYS = 366


class PlayingSource:
    """The newest closed bars of a simulated market that ends with the year.

    The whole year is made at once from the seed, so that a bar never changes, not even
    after a restart. Each new year begins another market.

    Args:
        simulated: Seed, edge and how many of the newest bars are handed out; its own end
            does not count.
        clock: The time, with a zone; None is this machine's clock.
    """

    def __init__(
        self, simulated: SimulatedSource, clock: Callable[[], datetime] | None = None
    ) -> None:
        self._simulated = simulated
        self._clock = clock or (lambda: datetime.now(UTC))
        self._years: dict[tuple[str, Timeframe], tuple[int, Bars]] = {}
        self._lock = Lock()

    def load(self, symbol: str, timeframe: Timeframe) -> Bars:
        """The bars that have closed by now.

        Raises:
            ConfigError: ``symbol`` is no market or an old name of one.
        """
        now = self._clock().astimezone(UTC)
        bars = self._year(now.year, symbol, timeframe)
        newest_open_ms = int(now.timestamp() * 1000) - timeframe.milliseconds
        n_closed = int(np.searchsorted(bars.open_time, newest_open_ms, side="right"))
        return bars.slice(n_closed - self._simulated.n_bars, n_closed)

    def _year(self, year: int, symbol: str, timeframe: Timeframe) -> Bars:
        """All bars of a year, and the history before its first one."""
        key = (symbol, timeframe)
        with self._lock:
            made = self._years.get(key)
        if made is not None and made[0] == year:
            return made[1]
        n_of_year = int(_LONGEST_YEAR_DAYS * timeframe.bars_per_day)
        source = replace(
            self._simulated, n_bars=self._simulated.n_bars + n_of_year, end=f"{year + 1}-01-01"
        )
        bars = source.load(symbol, timeframe)
        with self._lock:
            self._years[key] = (year, bars)
        return bars
