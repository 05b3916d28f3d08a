"""The two hand-made trading rules, as functions of indicator values.

They serve twice: as fallbacks behind the model, and as baselines it must beat.
A value that is not known yet (NaN) never trades.
"""

from __future__ import annotations

import numpy as np

from percoin.types import BoolArray, FloatArray, IntArray, Signal

RSI_OVERSOLD = 30.0
RSI_OVERBOUGHT = 70.0
MOMENTUM_CHANGE = 0.025
MOMENTUM_BARS = 14


def rsi_ma_rule(rsi_14: FloatArray, ma_5: FloatArray, ma_20: FloatArray) -> IntArray:
    """Oversold in a rising market is LONG, overbought in a falling one is SHORT.

    Args:
        rsi_14: Relative strength index over 14 bars, 0 to 100, shape (n,).
        ma_5: Mean close of 5 bars, shape (n,).
        ma_20: Mean close of 20 bars, shape (n,).

    Returns:
        Signals, shape (n,).
    """
    long = (rsi_14 < RSI_OVERSOLD) & (ma_5 > ma_20)
    short = (rsi_14 > RSI_OVERBOUGHT) & (ma_5 < ma_20)
    return _signals(long, short)


def momentum_rule(change_14: FloatArray) -> IntArray:
    """Follow a change of more than 2.5 % over 14 bars.

    Args:
        change_14: Close over the close 14 bars earlier, minus one, shape (n,).

    Returns:
        Signals, shape (n,).
    """
    return _signals(change_14 > MOMENTUM_CHANGE, change_14 < -MOMENTUM_CHANGE)


def _signals(long: BoolArray, short: BoolArray) -> IntArray:
    chosen = np.where(long, Signal.LONG, np.where(short, Signal.SHORT, Signal.NO_TRADE))
    return chosen.astype(np.int64)
