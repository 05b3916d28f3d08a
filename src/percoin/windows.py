"""Windows over consecutive bars, as views: memory grows with bars, not with lookback."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from percoin.bars.gaps import contiguous_run
from percoin.types import FloatArray, IntArray, Timeframe

_FloatT = TypeVar("_FloatT", bound=np.floating)


def make_windows(features: NDArray[_FloatT], lookback: int) -> NDArray[_FloatT]:
    """Stack every run of consecutive rows into a window, oldest bar first.

    Window ``i`` ends on row ``i + lookback - 1`` and takes that row's label, so
    it holds nothing that was unknown when that bar closed. The newest bar is
    always part of the last window. ``eligible_rows`` says which windows are whole,
    without NaN and without a gap.

    Args:
        features: Scaled features, shape (n_bars, F).
        lookback: Window length in bars; 48 bars of 4h are 8 days.

    Returns:
        Read-only view, shape (n_bars - lookback + 1, lookback, F).

    Raises:
        ValueError: Fewer rows than ``lookback``, or a lookback below 1.
    """
    if not 1 <= lookback <= len(features):
        raise ValueError(f"no window of {lookback} bars in {len(features)} rows")
    # sliding_window_view appends the window axis: (n, F, L) -> (n, L, F).
    return sliding_window_view(features, lookback, axis=0).transpose(0, 2, 1)


def eligible_rows(
    features: FloatArray, open_time: IntArray, timeframe: Timeframe, lookback: int
) -> IntArray:
    """Positions of the bars on which a whole window ends.

    A window is whole if all its features are finite and no bar is missing inside it.
    The bars before it do not matter.

    Args:
        features: Shape (n_bars, F), NaN where undefined.
        open_time: Start of each bar in milliseconds, shape (n_bars,).
        timeframe: Length of each bar.
        lookback: Window length in bars.

    Returns:
        Ascending positions, each at least ``lookback - 1``.
    """
    position = np.arange(len(features))
    is_finite = np.isfinite(features).all(axis=1)
    last_undefined = np.maximum.accumulate(np.where(is_finite, -1, position))
    is_defined = position - last_undefined >= lookback
    return np.flatnonzero(is_defined & (contiguous_run(open_time, timeframe) >= lookback))
