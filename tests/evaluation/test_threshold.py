import numpy as np
import pytest

from percoin.evaluation.backtest import Costs, ExitRule, Prices
from percoin.evaluation.threshold import NO_TRADES, choose_threshold, decide, spread_signals
from percoin.types import Signal


def market(n_bars=600, seed=0, right_above=0.6):
    """A model that is right where it is surer than ``right_above`` and wrong elsewhere."""
    rng = np.random.default_rng(seed)
    moves = rng.choice([-0.01, 0.01], size=n_bars)
    close = 100 * np.cumprod(1 + moves)
    opens = np.concatenate([[100.0], close[:-1]])
    prices = Prices(opens, np.maximum(opens, close), np.minimum(opens, close), close)
    coming_up = np.append(moves[1:] > 0, True)
    confidence = rng.uniform(0.4, 0.8, n_bars)
    says_long = np.where(confidence > right_above, coming_up, ~coming_up)
    rest = (1 - confidence) / 2
    probabilities = np.stack([rest, rest, rest], axis=1)
    probabilities[np.arange(n_bars), np.where(says_long, Signal.LONG, Signal.SHORT)] = confidence
    return probabilities, prices


def test_decide_takes_the_likeliest_class_if_it_is_likely_enough():
    probabilities = np.array([[0.6, 0.3, 0.1], [0.1, 0.4, 0.5], [0.2, 0.7, 0.1]])
    assert decide(probabilities).tolist() == [0, 2, 1]
    assert decide(probabilities, threshold=0.55).tolist() == [0, 1, 1]
    assert decide(probabilities, threshold=0.9).tolist() == [1, 1, 1]
    # As likely as asked for is likely enough.
    assert decide(probabilities, threshold=0.6).tolist() == [0, 1, 1]


def test_the_threshold_that_separates_right_from_wrong_is_found():
    probabilities, prices = market()
    choice = choose_threshold(probabilities, np.arange(600), prices, ExitRule(1), Costs())
    assert choice.threshold == pytest.approx(0.6, abs=0.03)
    assert choice.net_return > 0


def test_if_no_threshold_pays_nothing_is_traded():
    probabilities, prices = market(right_above=1.0)
    choice = choose_threshold(probabilities, np.arange(600), prices, ExitRule(1), Costs())
    assert (choice.threshold, choice.n_trades, choice.net_return) == (NO_TRADES, 0, 0.0)
    assert (decide(probabilities, choice.threshold) == Signal.NO_TRADE).all()


def test_no_trades_is_beyond_certainty_itself():
    assert decide(np.array([[0.0, 0.0, 1.0]]), NO_TRADES).tolist() == [Signal.NO_TRADE]


def test_a_few_lucky_trades_do_not_set_the_threshold():
    probabilities, prices = market(right_above=0.79)
    choices = [
        choose_threshold(probabilities, np.arange(600), prices, ExitRule(1), Costs(), min_trades=n)
        for n in (5, 100)
    ]
    assert choices[0].threshold > 0.77
    assert choices[1].threshold == NO_TRADES


def test_as_many_trades_as_asked_for_are_enough():
    probabilities, prices = market(n_bars=60)
    arguments = (probabilities, np.arange(60), prices, ExitRule(1), Costs())
    best = choose_threshold(*arguments, min_trades=1)

    assert 1 < best.n_trades < 59
    assert choose_threshold(*arguments, min_trades=best.n_trades) == best


def test_without_enough_trades_nothing_has_been_earned():
    probabilities, prices = market(n_bars=15, right_above=0.0)
    choice = choose_threshold(probabilities, np.arange(15), prices, ExitRule(1), Costs())
    assert choice.threshold == NO_TRADES


def test_a_model_that_never_trades_has_nothing_to_choose():
    _, prices = market()
    quiet = np.tile([0.1, 0.8, 0.1], (600, 1))
    choice = choose_threshold(quiet, np.arange(600), prices, ExitRule(1), Costs())
    assert (choice.threshold, choice.n_trades, choice.net_return) == (NO_TRADES, 0, 0.0)


def test_rows_that_were_not_decided_do_not_trade():
    spread = spread_signals(np.array([2, 0]), np.array([1, 3]), n_bars=5)
    assert spread.tolist() == [1, 2, 1, 0, 1]
