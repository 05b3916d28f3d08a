"""From probabilities to decisions, and how sure to be: chosen on validation rows only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from percoin.evaluation.backtest import Costs, ExitRule, Prices, backtest
from percoin.evaluation.metrics import check_probabilities
from percoin.types import FloatArray, IntArray, Signal

# A threshold that no confidence reaches: what earned nothing on validation rows trades never.
NO_TRADES = 1.0


@dataclass(frozen=True)
class ThresholdChoice:
    """The confidence that earned most on validation rows.

    Attributes:
        threshold: Least probability that a LONG or SHORT must have; ``NO_TRADES`` where no
            confidence earned anything, since staying out was better.
        net_return: What it earned there after costs, as a fraction.
        n_trades: Round trips there.
    """

    threshold: float
    net_return: float
    n_trades: int


def decide(probabilities: FloatArray, threshold: float = 0.0) -> IntArray:
    """The most probable class, or NO_TRADE where a direction is not probable enough.

    Args:
        probabilities: Shape (n, C).
        threshold: Least probability for LONG and SHORT; from ``NO_TRADES`` on there are none.

    Returns:
        Signals, shape (n,).
    """
    checked = check_probabilities(probabilities)
    signals = checked.argmax(axis=1)
    is_sure = (checked.max(axis=1) >= threshold) & (threshold < NO_TRADES)
    return np.where(is_sure, signals, Signal.NO_TRADE).astype(np.int64)


def choose_threshold(
    probabilities: FloatArray,
    rows: IntArray,
    prices: Prices,
    exit_rule: ExitRule,
    costs: Costs,
    *,
    min_trades: int = 20,
    n_candidates: int = 20,
) -> ThresholdChoice:
    """Choose the confidence threshold that earns most after costs.

    Only pass validation rows and bars: a threshold chosen on test rows makes the
    test period's money meaningless.

    Args:
        probabilities: Of the validation rows, shape (n, C).
        rows: Position among the bars of each row, shape (n,).
        prices: Bars of the validation period.
        exit_rule: When positions close.
        costs: Of each side.
        min_trades: Fewer trades than this are luck, whatever they earned.
        n_candidates: Thresholds tried: 0 and quantiles of the confidences.

    Returns:
        The best candidate, of equal ones the lowest; ``NO_TRADES`` if none with enough
        trades earned anything.
    """
    signals = decide(probabilities)
    confidences = check_probabilities(probabilities).max(axis=1)[signals != Signal.NO_TRADE]
    candidates = [0.0]
    if len(confidences):
        levels = np.linspace(0, 1, n_candidates, endpoint=False)[1:]
        candidates += np.unique(np.quantile(confidences, levels)).tolist()
    tried = [
        _try_threshold(probabilities, rows, prices, exit_rule, costs, threshold)
        for threshold in candidates
    ]
    paid = [choice for choice in tried if choice.n_trades >= min_trades and choice.net_return > 0]
    if not paid:
        return ThresholdChoice(NO_TRADES, 0.0, 0)
    return max(paid, key=lambda choice: choice.net_return)


def spread_signals(signals: IntArray, rows: IntArray, n_bars: int) -> IntArray:
    """Signals of some rows as one per bar, NO_TRADE elsewhere, shape (n_bars,).

    Args:
        signals: Shape (n,).
        rows: Position of each among the bars, shape (n,).
        n_bars: Number of bars.
    """
    per_bar = np.full(n_bars, Signal.NO_TRADE, dtype=np.int64)
    per_bar[rows] = signals
    return per_bar


def _try_threshold(
    probabilities: FloatArray,
    rows: IntArray,
    prices: Prices,
    exit_rule: ExitRule,
    costs: Costs,
    threshold: float,
) -> ThresholdChoice:
    signals = spread_signals(decide(probabilities, threshold), rows, len(prices))
    result = backtest("validation", prices, signals, exit_rule, costs, bars_per_year=1.0)
    return ThresholdChoice(threshold, result.net_return, result.n_trades)
