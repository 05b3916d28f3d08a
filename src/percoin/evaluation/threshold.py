"""Turn probabilities into signals, with a confidence threshold chosen on validation rows only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from percoin.evaluation.backtest import Costs, ExitRule, Prices, backtest
from percoin.evaluation.metrics import check_probabilities
from percoin.types import NO_TRADES, FloatArray, IntArray, Signal


@dataclass(frozen=True)
class ThresholdChoice:
    """A confidence threshold and its result on validation rows.

    Attributes:
        threshold: Minimum probability for a LONG or SHORT; ``NO_TRADES`` if no threshold makes
            a profit, because no trade is then the better choice.
        net_return: Return on the validation rows after costs, as a fraction.
        n_trades: Number of round trips on the validation rows.
    """

    threshold: float
    net_return: float
    n_trades: int


def decide(probabilities: FloatArray, threshold: float = 0.0) -> IntArray:
    """The most probable class, or NO_TRADE if its probability is below the threshold.

    Args:
        probabilities: Shape (n, C).
        threshold: Minimum probability for LONG and SHORT; from ``NO_TRADES`` on, every signal
            is NO_TRADE.

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
    """Choose the confidence threshold with the highest return after costs.

    Only pass validation rows and bars: a threshold chosen on test rows makes the
    backtest of the test period meaningless.

    Args:
        probabilities: Probabilities of the validation rows, shape (n, C).
        rows: Position of each row among the bars, shape (n,).
        prices: Bars of the validation period.
        exit_rule: When positions close.
        costs: Costs of each side.
        min_trades: Candidates with fewer trades are skipped, because their return is luck.
        n_candidates: Number of thresholds tried: 0 and quantiles of the confidences.

    Returns:
        The best candidate, or the lowest of equally good ones. ``NO_TRADES`` if no candidate
        with enough trades makes a profit.
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
    """Turn the signals of some rows into one per bar, NO_TRADE elsewhere, shape (n_bars,).

    Args:
        signals: Shape (n,).
        rows: Position of each signal among the bars, shape (n,).
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
