"""Technical indicators: series in, series out, NaN until there are enough bars.

Thin functions over the ``ta`` library, which follows the charting conventions
of StockCharts, with two of its oddities straightened: see each function. All of
them look backwards only; a value at bar ``t`` is known when bar ``t`` closes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from ta.momentum import RSIIndicator
from ta.trend import MACD, EMAIndicator
from ta.volatility import AverageTrueRange, BollingerBands

ATR_BARS = 14
RSI_BARS = 14
BOLLINGER_BARS = 20
BOLLINGER_DEVIATIONS = 2
MACD_FAST_BARS = 12
MACD_SLOW_BARS = 26
MACD_SIGNAL_BARS = 9
VOLATILITY_BARS = 20

Series = pd.Series  # of float64, one value a bar


class Bollinger(NamedTuple):
    """Bollinger bands in price units, and their width."""

    lower: Series
    middle: Series
    upper: Series
    width: Series


class Macd(NamedTuple):
    """MACD line, its signal line and their difference, all in price units."""

    line: Series
    signal: Series
    difference: Series


def atr(high: Series, low: Series, close: Series) -> Series:
    """Average true range over 14 bars, in price units (Wilder, 1978).

    The first value, at row 13, is the mean of the first 14 ranges; ``ta`` puts
    zeros before it and raises ``IndexError`` if it never comes.
    """
    if len(close) < ATR_BARS:
        return _undefined(close)
    values: Series = AverageTrueRange(high, low, close, window=ATR_BARS).average_true_range()
    values.iloc[: ATR_BARS - 1] = np.nan
    return values


def rsi(close: Series) -> Series:
    """Relative strength index over 14 bars, 0 to 100 (Wilder, 1978).

    ``ta`` starts both averages at zero instead of at the mean of the first 14
    moves, so early values differ from Wilder's table: by less than 0.1 after 100
    bars and 0.0001 after 200. A price that has not moved since the first bar is neither strong
    nor weak: 50, where ``ta`` says 100.
    """
    values: Series = RSIIndicator(close, window=RSI_BARS).rsi()
    has_moved = close.diff().fillna(0.0).ne(0.0).cummax()
    return values.where(has_moved | values.isna(), 50.0)


def bollinger(close: Series) -> Bollinger:
    """Bands 2 population standard deviations around the mean of 20 closes (Bollinger, 2001).

    The width is a fraction of the middle band, ``(upper - lower) / middle``;
    ``ta`` itself would give it in percent.
    """
    bands = BollingerBands(close, window=BOLLINGER_BARS, window_dev=BOLLINGER_DEVIATIONS)
    lower, middle, upper = (
        bands.bollinger_lband(),
        bands.bollinger_mavg(),
        bands.bollinger_hband(),
    )
    return Bollinger(lower, middle, upper, (upper - lower) / middle)


def ema(close: Series, span: int) -> Series:
    """Exponential moving average with weight ``2 / (span + 1)``, seeded with the first close.

    NaN on the first ``span - 1`` rows.
    """
    values: Series = EMAIndicator(close, window=span).ema_indicator()
    return values


def macd(close: Series) -> Macd:
    """Moving average convergence divergence 12/26/9, in price units (Appel, 1979)."""
    lines = MACD(
        close,
        window_fast=MACD_FAST_BARS,
        window_slow=MACD_SLOW_BARS,
        window_sign=MACD_SIGNAL_BARS,
    )
    return Macd(lines.macd(), lines.macd_signal(), lines.macd_diff())


def relative_change(values: Series) -> Series:
    """Change against the bar before, as a fraction; NaN where that bar has 0.

    Growth from nothing has no size, so after a bar without volume the answer is
    unknown. It is never replaced by a number.
    """
    return values.pct_change().replace([np.inf, -np.inf], np.nan)


def symmetric_change(values: Series) -> Series:
    """Change against the mean of this bar and the one before, -2 to 2; NaN where that has 0.

    ``2 (v - w) / (v + w)``, which is ``2 tanh(log(v / w) / 2)``: the plain change for
    small ones, without the plain change's outliers when a near-silent bar ends.
    """
    before = values.shift(1)
    return (2 * (values - before) / (values + before)).where(before != 0)


def log_returns(close: Series) -> Series:
    """Natural logarithm of close over the close before."""
    ratio: Series = close / close.shift(1)
    return ratio.transform(np.log)


def volatility(returns: Series) -> Series:
    """Sample standard deviation of the last 20 returns, as a fraction per bar."""
    return returns.rolling(VOLATILITY_BARS).std()


def _undefined(like: Series) -> Series:
    return pd.Series(np.nan, index=like.index, dtype=np.float64)
