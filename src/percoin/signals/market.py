"""Bars of one market in every timeframe, as known at one moment."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from percoin.bars.panel import load_panel
from percoin.bars.resample import divides, resample
from percoin.bars.schema import Bars, format_time, is_simulated
from percoin.bars.sources.base import BarSource
from percoin.errors import BarsNotFoundError, DataError, NotEnoughBarsError
from percoin.types import IntArray, Timeframe


class SourcedBars:
    """Gives bars of other timeframes: resampled from the asked bars, or loaded.

    A longer timeframe is loaded only if the asked bars make too few of it. A shorter one
    is always loaded. Loaded bars that closed after the newest asked bar are dropped, and
    bars of another source are refused.

    Args:
        asked: Closed bars of the timeframe that is asked about, at least one.
        source: Loads other timeframes, each at its first request; None allows only
            resampling.
    """

    def __init__(self, asked: Bars, source: BarSource | None = None) -> None:
        self._asked = asked
        self._source = source
        self._known = {asked.timeframe: asked}

    @property
    def asked(self) -> Bars:
        """The bars of the timeframe that is asked about."""
        return self._asked

    def of(self, timeframe: Timeframe, n_bars: int) -> Bars:
        """Return bars of a timeframe, as ``MarketBars.of``.

        Raises:
            DataError: Neither the asked bars nor the source give a single bar that had
                closed by then.
        """
        if timeframe not in self._known:
            self._known[timeframe] = self._find(timeframe, n_bars)
        return self._known[timeframe]

    def beside(self, symbols: Sequence[str]) -> Bars:
        """Return the asked bars with those of other markets, as ``MarketBars.beside``.

        Raises:
            BarsNotFoundError: A market has no bars; names it.
        """
        asked, source = self._asked, self._source

        def load(symbol: str) -> Bars:
            if source is None:
                found = "there is no source of its bars"
                raise BarsNotFoundError(symbol, asked.timeframe, found, "give one")
            return source.load(symbol, asked.timeframe)

        return asked if asked.panel is not None else load_panel(asked, symbols, load)

    def _find(self, timeframe: Timeframe, n_bars: int) -> Bars:
        made = self._resampled(timeframe)
        if made is not None and len(made) >= n_bars:
            return made
        try:
            loaded = self._loaded(timeframe)
        except DataError:
            if made is None:
                raise
            return made
        if made is None:
            return loaded
        return max(made, loaded, key=lambda bars: (bars.open_time[-1], len(bars)))

    def _resampled(self, timeframe: Timeframe) -> Bars | None:
        """Resample the asked bars to complete bars; None if there is no complete bar."""
        if not divides(self._asked.timeframe, timeframe):
            return None
        try:
            return resample(self._asked, timeframe)
        except NotEnoughBarsError:
            return None

    def _loaded(self, timeframe: Timeframe) -> Bars:
        asked = self._asked
        known = f"{len(asked):,} {asked.timeframe} bars do not make up {timeframe}"
        if is_simulated(asked.origin):
            found = f"{known}, and simulated bars of each timeframe are a market of their own"
            action = "ask for a shorter timeframe, with more bars"
            raise BarsNotFoundError(asked.symbol, timeframe, found, action)
        if self._source is None:
            raise BarsNotFoundError(asked.symbol, timeframe, known, "load more bars")
        bars = self._source.load(asked.symbol, timeframe)
        if _kind(bars) != _kind(asked):
            found = f"bars are {bars.origin!r}, those of {asked.timeframe} {asked.origin!r}"
            raise BarsNotFoundError(asked.symbol, timeframe, found, "load bars of one source")
        return _closed_by(bars, _close_ms(asked))


def close_times(bars: Bars) -> IntArray:
    """Close time of each bar, in milliseconds since 1970-01-01 UTC, shape (n_bars,)."""
    return bars.open_time + bars.timeframe.milliseconds


def newest_closed(bars: Bars, moments: IntArray) -> IntArray:
    """Find the bar that closed last at each moment; an older bar never takes its place.

    Args:
        bars: Bars of any timeframe.
        moments: Milliseconds since 1970-01-01 UTC, shape (n,).

    Returns:
        Positions among the bars, shape (n,); -1 where the latest bar is missing.
    """
    step = bars.timeframe.milliseconds
    due = moments // step * step - step
    rows = np.searchsorted(bars.open_time, due)
    found = bars.open_time[np.minimum(rows, len(bars) - 1)] == due
    return np.where(found, rows, -1).astype(np.int64)


def _kind(bars: Bars) -> str:
    """Name of the source; spot and perpetual bars of one exchange are two sources."""
    return bars.origin.split(":", 1)[0]


def _close_ms(bars: Bars) -> int:
    return int(bars.open_time[-1]) + bars.timeframe.milliseconds


def _closed_by(bars: Bars, moment: int) -> Bars:
    n_closed = int(np.searchsorted(close_times(bars), moment, side="right"))
    if n_closed == 0:
        opened = format_time(bars.frame.index[0])
        found = f"the first of the bars opens at {opened} UTC, after the moment that is asked about"
        raise NotEnoughBarsError(bars.symbol, bars.timeframe, found, "load a longer history")
    return bars.slice(0, n_closed)
