import numpy as np

from percoin.evaluation.rules import momentum_rule, rsi_ma_rule
from percoin.types import Signal


def test_rsi_ma_rule_by_hand():
    rsi = np.array([29.9, 29.9, 70.1, 70.1, 30.0, 70.0, np.nan])
    ma_5 = np.array([101.0, 99.0, 99.0, 101.0, 101.0, 99.0, 101.0])
    ma_20 = np.full(7, 100.0)
    expected = [Signal.LONG, 1, Signal.SHORT, 1, 1, 1, Signal.NO_TRADE]
    assert rsi_ma_rule(rsi, ma_5, ma_20).tolist() == expected


def test_momentum_rule_by_hand():
    change = np.array([0.0251, 0.025, -0.0251, -0.025, 0.0, np.nan])
    expected = [Signal.LONG, 1, Signal.SHORT, 1, 1, Signal.NO_TRADE]
    assert momentum_rule(change).tolist() == expected
