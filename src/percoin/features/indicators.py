"""Technical indicators: values in, values out, NaN until there are enough bars.

Bars lie along the first axis, oldest first. A second axis may hold markets: they are
computed side by side for little more than the cost of one, and each gets the same bits as
alone. The conventions are those of StockCharts and of the ``ta`` library, but for two
exceptions: see each function. All indicators look backwards only; a value at bar ``t`` is
known when bar ``t`` closes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from percoin.types import FloatArray

ATR_BARS = 14
RSI_BARS = 14
BOLLINGER_BARS = 20
BOLLINGER_DEVIATIONS = 2
MACD_FAST_BARS = 12
MACD_SLOW_BARS = 26
MACD_SIGNAL_BARS = 9
VOLATILITY_BARS = 20
ADX_BARS = 14
MONEY_FLOW_BARS = 20

# Near the square root of the bars of a prediction: there the steps within a block and the
# steps over blocks add up to the fewest.
_BLOCK_BARS = 32


class Bollinger(NamedTuple):
    """Bollinger bands in price units, and their width."""

    lower: FloatArray
    middle: FloatArray
    upper: FloatArray
    width: FloatArray


class Macd(NamedTuple):
    """MACD line, its signal line and their difference, all in price units."""

    line: FloatArray
    signal: FloatArray
    difference: FloatArray


class DirectionalMovement(NamedTuple):
    """Wilder's three lines, 0 to 100: strength of a trend, and how much moves up and down."""

    adx: FloatArray
    plus: FloatArray
    minus: FloatArray


def atr(high: FloatArray, low: FloatArray, close: FloatArray) -> FloatArray:
    """Average true range over 14 bars, in price units (Wilder, 1978).

    The first value, at row 13, is the mean of the first 14 ranges.
    """
    before = np.concatenate([close[:1], close[:-1]])
    ranges = np.maximum(high, before) - np.minimum(low, before)
    return _preceded_by_nan(_wilder(ranges, ATR_BARS), ATR_BARS - 1)[: len(close)]


def rsi(close: FloatArray) -> FloatArray:
    """Relative strength index over 14 bars, 0 to 100 (Wilder, 1978).

    Both averages start at zero, as in ``ta``, not at the mean of the first 14 moves, so
    early values differ from Wilder's table: by less than 0.1 after 100 bars and 0.0001
    after 200. A price that has not moved since the first bar gets 50, neither strong nor
    weak; ``ta`` says 100.
    """
    moves = np.diff(close, axis=0, prepend=close[:1])
    moved = np.stack([moves.clip(min=0), -moves.clip(max=0)], axis=1)
    gain, loss = np.moveaxis(_smoothed(moved, 1 / RSI_BARS), 1, 0)
    total = gain + loss
    strength = np.divide(gain, total, out=np.full_like(total, 0.5), where=total != 0)
    return _hidden(100 * strength, RSI_BARS - 1)


def bollinger(close: FloatArray) -> Bollinger:
    """Bands 2 population standard deviations around the mean of 20 closes (Bollinger, 2001).

    The width is a fraction of the middle band, ``(upper - lower) / middle``.
    """
    middle, squares = _moments(close, BOLLINGER_BARS)
    distance = BOLLINGER_DEVIATIONS * np.sqrt(squares / BOLLINGER_BARS)
    lower, upper = middle - distance, middle + distance
    return Bollinger(lower, middle, upper, (upper - lower) / middle)


def ema(close: FloatArray, span: int) -> FloatArray:
    """Exponential moving average with weight ``2 / (span + 1)``, seeded with the first close.

    NaN on the first ``span - 1`` rows.
    """
    return _hidden(_smoothed(close, 2 / (span + 1)), span - 1)


def macd(close: FloatArray) -> Macd:
    """Moving average convergence divergence 12/26/9, in price units (Appel, 1979)."""
    line = ema(close, MACD_FAST_BARS) - ema(close, MACD_SLOW_BARS)
    n_hidden = MACD_SLOW_BARS - 1
    signal = _preceded_by_nan(ema(line[n_hidden:], MACD_SIGNAL_BARS), n_hidden)[: len(line)]
    return Macd(line, signal, line - signal)


def relative_change(values: FloatArray) -> FloatArray:
    """Change against the bar before, as a fraction; NaN where that bar has 0.

    Growth from zero has no size, so after a bar without volume the change is unknown.
    """
    return _over(values, before(values)) - 1


def symmetric_change(values: FloatArray) -> FloatArray:
    """Change against the mean of this bar and the one before, -2 to 2; NaN where that has 0.

    ``2 (v - w) / (v + w)``, which is ``2 tanh(log(v / w) / 2)``: for small changes the same
    as ``relative_change``, without its outliers after a bar with hardly any volume.
    """
    earlier = before(values)
    change = 2 * _over(values - earlier, values + earlier)
    return np.where(earlier == 0, np.nan, change)


def log_returns(close: FloatArray) -> FloatArray:
    """Natural logarithm of close over the close before."""
    return np.log(close / before(close))


def volatility(returns: FloatArray) -> FloatArray:
    """Sample standard deviation of the last 20 returns, as a fraction per bar."""
    _, squares = _moments(returns, VOLATILITY_BARS)
    return np.sqrt(squares / (VOLATILITY_BARS - 1))


def directional_movement(
    high: FloatArray, low: FloatArray, close: FloatArray
) -> DirectionalMovement:
    """ADX, +DI and -DI over 14 bars (Wilder, 1978).

    The first values are means of the first 14: of the movements at row 14, of the
    directional index at row 27. On a price that has never moved all three are 0.
    """
    up, down = np.diff(high, axis=0), -np.diff(low, axis=0)
    earlier = close[:-1]
    moved = np.stack(
        [
            np.maximum(high[1:], earlier) - np.minimum(low[1:], earlier),
            np.where((up > down) & (up > 0), up, 0.0),
            np.where((down > up) & (down > 0), down, 0.0),
        ],
        axis=1,
    )
    ranges, plus, minus = np.moveaxis(_wilder(moved, ADX_BARS), 1, 0)
    plus, minus = (100 * _share(line, ranges) for line in (plus, minus))
    index = 100 * _share(np.abs(plus - minus), plus + minus)
    lines = (_wilder(index, ADX_BARS), plus, minus)
    return DirectionalMovement(*(_preceded_by_nan(line, len(close) - len(line)) for line in lines))


def money_flow(
    high: FloatArray, low: FloatArray, close: FloatArray, volume: FloatArray
) -> FloatArray:
    """Chaikin money flow over 20 bars, -1 to 1; NaN where nothing was traded in them.

    Volume with closes near the high, minus volume with closes near the low, over all
    volume. A bar without a range counts as neither.
    """
    pressure = _share((close - low) - (high - close), high - low)
    signed, total = (_sums(values, MONEY_FLOW_BARS) for values in (pressure * volume, volume))
    return _preceded_by_nan(_over(signed, total), len(close) - len(total))


def before(values: FloatArray, n_bars: int = 1) -> FloatArray:
    """Each bar's value ``n_bars`` before; NaN on the first bars."""
    return _preceded_by_nan(values, n_bars)[: len(values)]


def _smoothed(values: FloatArray, weight: float) -> FloatArray:
    """``y[t] = (1 - weight) * y[t-1] + weight * values[t]``, with ``y[0] = values[0]``.

    The recursion is linear. So it first runs in all blocks of bars side by side, as if each
    began with zero, and then adds the faded value of the block before: some 60 steps over
    arrays for a thousand bars. Blocks are counted from the first bar and padded at the end,
    so a later bar changes no value, not even in its last bit.
    """
    n_bars, markets = len(values), values.shape[1:]
    if n_bars == 0:
        return values
    n_blocks = -(-n_bars // _BLOCK_BARS)
    filled = np.zeros((n_blocks * _BLOCK_BARS, *markets))
    np.multiply(values, weight, out=filled[:n_bars])
    blocks = filled.reshape(n_blocks, _BLOCK_BARS, *markets)
    for bar in range(1, _BLOCK_BARS):
        blocks[:, bar] += (1 - weight) * blocks[:, bar - 1]
    fading = (1 - weight) ** np.arange(1, _BLOCK_BARS + 1)
    newest = values[0]
    for block in blocks:
        block += np.multiply.outer(fading, newest)
        newest = block[-1]
    return filled[:n_bars]


def _wilder(values: FloatArray, n_bars: int) -> FloatArray:
    """Wilder's average; it begins with the mean of the first ``n_bars``."""
    first = _sums(values[:n_bars], n_bars) / n_bars
    return _smoothed(np.concatenate([first, values[n_bars:]]), 1 / n_bars)


def _moments(values: FloatArray, n_bars: int) -> tuple[FloatArray, FloatArray]:
    """Mean of each last ``n_bars`` values, and the sum of their squared distances from it.

    Computed from the differences to the newest value: a price that stands still gives
    exactly itself and 0, and older values leave no trace in the rounding.
    """
    newest = values[n_bars - 1 :]
    earlier = [
        values[start : start + len(newest)] - newest for start in range(min(n_bars, len(values)))
    ]
    offset = sum(earlier, np.zeros_like(newest)) / n_bars
    squares = np.zeros_like(newest)
    for difference in earlier:
        difference -= offset
        squares += np.square(difference, out=difference)
    n_hidden = min(n_bars - 1, len(values))
    return _preceded_by_nan(newest + offset, n_hidden), _preceded_by_nan(squares, n_hidden)


def _sums(values: FloatArray, n_bars: int) -> FloatArray:
    """The sum of every ``n_bars`` consecutive values, always added in the same order."""
    n_sums = max(0, len(values) - n_bars + 1)
    total = np.zeros((n_sums, *values.shape[1:]))
    for start in range(n_bars):
        total += values[start : start + n_sums]
    return total


def _over(values: FloatArray, divisor: FloatArray) -> FloatArray:
    """The quotient; NaN where the divisor is 0."""
    return np.divide(values, divisor, out=np.full_like(divisor, np.nan), where=divisor != 0)


def _share(values: FloatArray, divisor: FloatArray) -> FloatArray:
    """The quotient; 0 where the divisor is 0."""
    return np.divide(values, divisor, out=np.zeros_like(divisor), where=divisor != 0)


def _hidden(values: FloatArray, n_bars: int) -> FloatArray:
    """The same values with NaN in place of the first ``n_bars``."""
    values[:n_bars] = np.nan
    return values


def _preceded_by_nan(values: FloatArray, n_bars: int) -> FloatArray:
    return np.concatenate([np.full((n_bars, *values.shape[1:]), np.nan), values])
