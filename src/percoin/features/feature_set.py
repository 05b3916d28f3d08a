"""The 15 features: their names, order and two definitions.

Units, with ``price`` the quote currency of the market:

===========================================  ==============  ====================
feature                                      raw             relative
===========================================  ==============  ====================
atr_14, macd, macd_diff, macd_signal         price           fraction of the close
bb_lower, bb_middle, bb_upper                price           multiple of the close
ema_20, ema_50                               price           multiple of the close
bb_width                                     fraction of bb_middle, in both
log_returns, returns                         fraction of the bar before, in both
volume_change                                fraction        fraction, -2 to 2
rsi_14                                       0 to 100, in both
volatility                                   fraction per bar, in both
===========================================  ==============  ====================
"""

from __future__ import annotations

import math
from enum import StrEnum

import numpy as np
import pandas as pd

from percoin.bars.gaps import contiguous_run
from percoin.bars.schema import Bars
from percoin.features import indicators
from percoin.types import FloatArray

# Order and count are the contract with every saved model.
FEATURE_NAMES = (
    "atr_14",
    "bb_lower",
    "bb_middle",
    "bb_upper",
    "bb_width",
    "ema_20",
    "ema_50",
    "log_returns",
    "macd",
    "macd_diff",
    "macd_signal",
    "returns",
    "rsi_14",
    "volatility",
    "volume_change",
)

PRICE_LIKE = frozenset(
    {
        "atr_14",
        "bb_lower",
        "bb_middle",
        "bb_upper",
        "ema_20",
        "ema_50",
        "macd",
        "macd_diff",
        "macd_signal",
    }
)

_FAST_EMA_BARS = 20
_SLOW_EMA_BARS = 50

# Leading rows that are never complete: the slow EMA is the last to speak.
WARM_UP_BARS = _SLOW_EMA_BARS - 1


class FeatureDefinition(StrEnum):
    """How price-like features are expressed."""

    RAW = "raw"
    """In the price units of the market."""
    RELATIVE = "relative"
    """Divided by the close, so that a model holds at another price level; the change of
    volume against the mean of the two bars, so that it has no outliers."""


def _recursive_memory_bars() -> int:
    """Bars after which an EMA's seed weighs less than one float64 rounding error.

    Each bar multiplies the weight of everything before it by ``1 - 2 / (span + 1)``,
    (span - 1) / (span + 1). The slow EMA forgets last: Wilder's averages of ATR
    and RSI (13/14 a bar) and the averages inside MACD (at most 25/27) are quicker.
    """
    decay = (_SLOW_EMA_BARS - 1) / (_SLOW_EMA_BARS + 1)
    return math.ceil(math.log(np.finfo(np.float64).eps) / math.log(decay))


RECURSIVE_MEMORY_BARS = _recursive_memory_bars()  # 901


def history_bars(lookback: int) -> int:
    """How many bars a caller loads so that one window's features equal training's.

    The oldest row of the window must lie ``RECURSIVE_MEMORY_BARS`` after the
    first bar: 961 bars for a lookback of 60. One case forgets more slowly, the
    RSI of a price that has stood still for hundreds of bars: it is the ratio of
    two averages that fade alike.
    """
    return RECURSIVE_MEMORY_BARS + lookback


def compute_features(bars: Bars, definition: FeatureDefinition) -> FloatArray:
    """The features of every bar, known when that bar closes.

    Recursive indicators run on over a gap, as on every chart. A change across a
    gap is not one bar's change, so ``returns``, ``log_returns`` and
    ``volume_change`` are NaN on the first bar after it, and with them
    ``volatility`` for as long as that bar is among its 20.

    Args:
        bars: Closed bars of one market, checked against the schema.
        definition: Raw or relative.

    Returns:
        Shape (n_bars, F) in the order of ``FEATURE_NAMES``, NaN where not defined:
        at least the first ``WARM_UP_BARS`` rows, after gaps, and
        ``volume_change`` after a bar without volume.
    """
    columns = _columns(bars)
    if definition is FeatureDefinition.RELATIVE:
        close = bars.frame["close"]
        columns = {
            name: values / close if name in PRICE_LIKE else values
            for name, values in columns.items()
        }
        # After a near-silent bar the plain change is hundreds of standard deviations.
        change = indicators.symmetric_change(bars.frame["volume"])
        columns["volume_change"] = change.where(columns["volume_change"].notna())
    return np.stack([columns[name].to_numpy(dtype=np.float64) for name in FEATURE_NAMES], axis=1)


def _columns(bars: Bars) -> dict[str, pd.Series]:
    """Every feature by name, by the raw definition."""
    frame = bars.frame
    close = frame["close"]
    follows_gap = contiguous_run(bars.open_time, bars.timeframe) == 1
    returns = indicators.relative_change(close).mask(follows_gap)
    bands = indicators.bollinger(close)
    macd = indicators.macd(close)
    return {
        "atr_14": indicators.atr(frame["high"], frame["low"], close),
        "bb_lower": bands.lower,
        "bb_middle": bands.middle,
        "bb_upper": bands.upper,
        "bb_width": bands.width,
        "ema_20": indicators.ema(close, _FAST_EMA_BARS),
        "ema_50": indicators.ema(close, _SLOW_EMA_BARS),
        "log_returns": indicators.log_returns(close).mask(follows_gap),
        "macd": macd.line,
        "macd_diff": macd.difference,
        "macd_signal": macd.signal,
        "returns": returns,
        "rsi_14": indicators.rsi(close),
        "volatility": indicators.volatility(returns),
        "volume_change": indicators.relative_change(frame["volume"]).mask(follows_gap),
    }
