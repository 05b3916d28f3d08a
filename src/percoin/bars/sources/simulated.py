"""Bars from a seed: a market whose rules are known, for tests and for trying things out."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from datetime import date

import numpy as np
import pandas as pd

from percoin.bars.renames import current_symbol
from percoin.bars.schema import Bars, check_bars
from percoin.errors import ConfigError
from percoin.types import FloatArray, Timeframe

MOMENTUM_BARS = 12

_END = "2025-09-01"
_DAILY_VOLATILITY = 0.03
_GARCH_ALPHA = 0.08
_GARCH_BETA = 0.90
_SIGNIFICANT_DIGITS = 8


@dataclass(frozen=True)
class SimulatedSource:
    """Bars of any market and timeframe, the same for the same arguments.

    The log return of bar ``t`` is ``v[t] * (drift[t] + z[t]) - v[t]**2 / 2`` with
    ``z`` standard normal and::

        v[t]       = daily volatility of 3 %, scaled to the bar, * hour of day * s[t]
        s[t]**2    = 0.02 + 0.08 * (s[t-1] * z[t-1])**2 + 0.90 * s[t-1]**2
        drift[t]   = -edge * tanh(momentum[t])
        momentum[t] = sum of the last 12 values of (drift + z) before t, / sqrt(12)

    So volatility clusters (GARCH(1,1), Bollerslev 1986) and follows the hour of
    the day. With ``edge=0`` the price is a martingale: no rule can foresee its
    direction, only its volatility. With ``edge > 0`` a market that has risen
    over the last 12 bars, measured in its own volatility, is drawn down over
    the next ones and the other way round, by up to ``edge`` standard deviations
    of a bar. Everything on the right-hand side is known at the close of bar
    ``t - 1``. It can be learned from the features, as ``macd_diff``,
    ``rsi_14`` and sums of ``log_returns`` follow the same momentum. The edge
    draws back rather than on, so that prices do not run away.

    Each bar opens at the last close; high and low are drawn from the extremes
    of a Brownian bridge between the two; volume follows the size of the move
    and the hour of the day.

    Attributes:
        seed: Mixed with symbol and timeframe, so that every market differs.
        n_bars: Length of the history.
        edge: Strength of the planted drift, from 0 to 1.
        end: When the newest bar closes, a day in UTC. Fixed, so that the bars
            do not depend on when they are made.
    """

    seed: int = 0
    n_bars: int = 20_000
    edge: float = 0.0
    end: str = _END

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        if self.seed < 0 or self.n_bars < 1:
            raise ConfigError(
                f"source.seed={self.seed} and source.n_bars={self.n_bars}: "
                "the seed is at least 0, the number of bars at least 1"
            )
        if not 0 <= self.edge <= 1:
            raise ConfigError(f"source.edge={self.edge} is not between 0 and 1")

    def load(self, symbol: str, timeframe: Timeframe) -> Bars:
        """Make the bars of one market.

        Raises:
            ConfigError: ``symbol`` is no market or an old name of one.
        """
        current_symbol(symbol)
        rng = np.random.default_rng(_stable_seed(self.seed, symbol, timeframe))
        open_time = self._open_time(timeframe)
        daily_rhythm = _daily_rhythm(open_time)
        bar_volatility = _DAILY_VOLATILITY / math.sqrt(timeframe.bars_per_day) * daily_rhythm
        start = 10.0 ** rng.uniform(-0.5, 4.5)
        scale, moves = _scale_and_moves(rng.standard_normal(self.n_bars), self.edge)
        volatility = bar_volatility * scale
        log_close = np.cumsum(volatility * moves - volatility**2 / 2)
        log_open = np.concatenate([[0.0], log_close[:-1]])
        log_high, log_low = _bridge_extremes(log_open, log_close, volatility, rng)
        noise = rng.normal(0, 0.4, self.n_bars)
        activity = daily_rhythm**2 * scale * (0.5 + np.abs(moves)) * np.exp(noise)
        frame = pd.DataFrame(
            {
                "open": _rounded(start * np.exp(log_open)),
                "high": _rounded(start * np.exp(log_high)),
                "low": _rounded(start * np.exp(log_low)),
                "close": _rounded(start * np.exp(log_close)),
                "volume": _rounded(1e6 / start * activity / timeframe.bars_per_day),
            },
            index=open_time,
        )
        origin = f"simulated: seed={self.seed} n_bars={self.n_bars} edge={self.edge} end={self.end}"
        return Bars(symbol, timeframe, check_bars(frame, symbol, timeframe), origin)

    def _open_time(self, timeframe: Timeframe) -> pd.DatetimeIndex:
        """Open times without a gap up to ``end``."""
        try:
            day = date.fromisoformat(self.end)
        except ValueError:
            raise ConfigError(f"source.end={self.end} is not a day such as {_END}") from None
        last = pd.Timestamp(day, tz="UTC") - timeframe.timedelta
        freq = timeframe.timedelta
        return pd.date_range(end=last, periods=self.n_bars, freq=freq, unit="ms", name="open_time")


def _stable_seed(seed: int, symbol: str, timeframe: Timeframe) -> int:
    """One seed per market; ``hash()`` would differ from process to process."""
    digest = hashlib.sha256(f"{seed} {symbol} {timeframe.value}".encode()).digest()
    return int.from_bytes(digest[:8], "big")


def _daily_rhythm(open_time: pd.DatetimeIndex) -> FloatArray:
    """Factor by hour of day, highest at 15:00 UTC, its square 1 on average."""
    hours = open_time.hour.to_numpy() + open_time.minute.to_numpy() / 60
    return np.sqrt(1 + 0.5 * np.cos(2 * np.pi * (hours - 15) / 24))


def _scale_and_moves(shocks: FloatArray, edge: float) -> tuple[FloatArray, FloatArray]:
    """The recursions of the class docstring, bar after bar.

    Args:
        shocks: ``z``, shape (n_bars,).
        edge: Strength of the drift.

    Returns:
        ``s`` and ``drift + z``, each of shape (n_bars,).
    """
    variance, momentum_sum = 1.0, 0.0
    scale, moves = [], [0.0] * MOMENTUM_BARS
    for position, shock in enumerate(shocks.tolist()):
        scale.append(math.sqrt(variance))
        moves.append(shock - edge * math.tanh(momentum_sum / math.sqrt(MOMENTUM_BARS)))
        momentum_sum += moves[-1] - moves[position]
        variance *= _GARCH_ALPHA * shock**2 + _GARCH_BETA
        variance += 1 - _GARCH_ALPHA - _GARCH_BETA
    return np.array(scale), np.array(moves[MOMENTUM_BARS:])


def _bridge_extremes(
    log_open: FloatArray, log_close: FloatArray, volatility: FloatArray, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Highest and lowest log price of a Brownian motion between open and close.

    The maximum of a bridge from 0 to ``r`` with variance ``v**2`` is
    ``(r + sqrt(r**2 - 2 v**2 log U)) / 2`` (Beaglehole, Dybvig and Zhou 1997).
    The minimum is drawn independently of it, a simplification.
    """
    change = log_close - log_open
    exponential = rng.standard_exponential((2, len(change)))
    reach = np.sqrt(change**2 + 2 * volatility**2 * exponential)
    return log_open + (change + reach[0]) / 2, log_open + (change - reach[1]) / 2


def _rounded(values: FloatArray) -> FloatArray:
    """Eight significant digits, which hides the last bits in which machines differ."""
    decimals = _SIGNIFICANT_DIGITS - 1 - np.floor(np.log10(values)).astype(np.int64)
    # An integer power is exact, so that the quotient is the double nearest to the decimal.
    factor = (10 ** np.clip(decimals, 0, 18)).astype(np.float64)
    return np.round(values * factor) / factor
