"""How all markets move together, by a few reference markets: the group ``market``.

A market follows the others within minutes. So the state of the largest markets says something
of its next bars that its own bars do not say, and its own return less theirs says how far it has
run ahead or fallen behind.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce

import numpy as np

from percoin.bars.panel import MarketPanel
from percoin.bars.schema import Bars
from percoin.errors import BarsNotFoundError
from percoin.features.volatility import log_deviation, mean_of_last, parkinson_variance
from percoin.types import FloatArray

_SPANS = (4, 16, 96)
_STEPS = (1, 4, 16)
# In units of the volatility; a jump beyond says no more.
_FURTHEST = 10.0

MARKET_NAMES = (
    *(f"market_volatility_{span}" for span in _SPANS),
    *(f"market_return_{step}" for step in _STEPS),
    *(f"market_spread_{step}" for step in _STEPS),
    *(f"beside_market_return_{step}" for step in _STEPS),
)
MARKET_MEMORY_BARS = max(*_SPANS, *_STEPS) - 1


def market_columns(bars: Bars, references: Sequence[str]) -> FloatArray:
    """The state of the reference markets at each bar's close, and the market beside them.

    The mean over the references of the log range volatility of 4, 16 and 96 bars; mean and
    standard deviation over them of the log returns over 1, 4 and 16 bars; and the market's own
    such returns less the mean. Each return is divided by its market's volatility of 96 bars and
    by the root of its bars, and cut at 10. A bar of another market counts only if it closes at
    the same time, and a row is NaN if one of the references lacks a bar of it.

    Args:
        bars: Closed bars of one market, with the references in ``bars.panel``.
        references: Symbols of the reference markets.

    Returns:
        Shape (n_bars, 12), in the order of ``MARKET_NAMES``.

    Raises:
        BarsNotFoundError: A reference is not in the panel.
    """
    opened, panel = bars.open_time, reference_panel(bars, references)
    alone = MarketPanel.of([bars])
    own = alone.rows_at(_moves(alone, bars.symbol), opened)[:, len(_SPANS) :]
    key = ("market state", *references)
    state = panel.rows_at(panel.computed(key, lambda: _means(panel, references)), opened)
    return np.hstack([state, own - state[:, len(_SPANS) : len(_SPANS) + len(_STEPS)]])


def late_reference(bars: Bars, references: Sequence[str]) -> str | None:
    """The first reference that lacks the newest bar; None if all have it.

    Raises:
        BarsNotFoundError: As ``market_columns``.
    """
    if not references:
        return None
    panel, newest = reference_panel(bars, references), bars.open_time[-1:]
    closes = panel.rows_at(panel.column("close", references), newest)[0]
    return next((s for s, close in zip(references, closes, strict=True) if np.isnan(close)), None)


def reference_panel(bars: Bars, references: Sequence[str]) -> MarketPanel:
    """The panel of the bars, which has all references.

    Raises:
        BarsNotFoundError: It lacks one.
    """
    panel = bars.panel or MarketPanel.of([bars])
    if missing := panel.lacks(references):
        raise BarsNotFoundError(
            bars.symbol,
            bars.timeframe,
            f"its features compare it with {', '.join(references)}, and {missing[0]} is missing",
            f"bring the {bars.timeframe} bars of {', '.join(missing)} to the same source",
        )
    return panel


def _means(panel: MarketPanel, references: Sequence[str]) -> FloatArray:
    """Mean of the moves of all references, then the spread of their returns, shape (n, 9)."""
    each = [_moves(panel, symbol) for symbol in references]
    # One after the other, so that the order of the sums does not depend on the number of rows.
    mean = reduce(np.add, each) / len(each)
    squares = reduce(np.add, [(moves - mean) ** 2 for moves in each]) / len(each)
    return np.hstack([mean, np.sqrt(squares)[:, len(_SPANS) :]])


def _moves(panel: MarketPanel, symbol: str) -> FloatArray:
    """Log volatility over each span and scaled returns over each step, shape (n_times, 6)."""
    high, low, close = (panel.column(name, [symbol])[:, 0] for name in ("high", "low", "close"))
    variance = parkinson_variance(high, low)
    volatility = log_deviation(np.stack([mean_of_last(variance, span) for span in _SPANS], axis=1))
    log_close, longest = np.log(close), np.exp(volatility[:, -1])
    # A bar that is missing between the ends is missing in the volatility too.
    returns = [
        np.clip(_change(log_close, step) / (longest * math.sqrt(step)), -_FURTHEST, _FURTHEST)
        for step in _STEPS
    ]
    return np.column_stack([volatility, *returns])


def _change(values: FloatArray, n_bars: int) -> FloatArray:
    change: FloatArray = np.full(len(values), np.nan)
    change[n_bars:] = values[n_bars:] - values[:-n_bars]
    return change
