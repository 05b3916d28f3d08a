import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from percoin.evaluation.backtest import (
    Basket,
    Brackets,
    Costs,
    ExitRule,
    Prices,
    backtest,
    buy_and_hold,
    find_trades,
)
from percoin.evaluation.sharpe import deflated_sharpe
from percoin.types import Signal

S, N, L = Signal.SHORT, Signal.NO_TRADE, Signal.LONG
FREE = Costs(fee_bps=0, slippage_bps=0)


def flat_bars(close):
    """Bars that open at the last close and reach no further than open and close."""
    closes = np.array(close, dtype=float)
    opens = np.concatenate([closes[:1], closes[:-1]])
    return Prices(opens, np.maximum(opens, closes), np.minimum(opens, closes), closes)


def random_market(n_bars, seed):
    rng = np.random.default_rng(seed)
    prices = flat_bars(100 * np.exp(rng.normal(scale=0.01, size=n_bars).cumsum()))
    return prices, rng.choice([S, N, L], size=n_bars)


def run(prices, signals, rule, costs=FREE, **options):
    return backtest("model", prices, np.array(signals), rule, costs, bars_per_year=365, **options)


def test_hand_worked_table_of_a_fixed_horizon():
    # Decided at the close of bar 0, in at the open of 1 (100), out at the close of 2 (110):
    # +10 %. The SHORT of bar 1 comes while that is open. The SHORT of bar 2 is in at the
    # open of 3 (110) and out at the close of 4 (99): +10 %. Nothing fits after that.
    prices = flat_bars([100, 104, 110, 105, 99, 99])
    signals = [L, S, S, N, L, L]
    trades = find_trades(prices, np.array(signals), ExitRule(2))
    assert [(t.decided, t.closed, t.side) for t in trades] == [(0, 2, 1), (2, 4, -1)]
    assert [t.gross_return for t in trades] == pytest.approx([0.1, 0.1])

    result = run(prices, signals, ExitRule(2))
    np.testing.assert_allclose(
        result.equity, [1, 1.04, 1.1, 1.1 * (2 - 105 / 110), 1.21, 1.21], rtol=1e-12
    )
    assert result.net_return == pytest.approx(0.21)
    assert result.hit_rate == 1.0
    assert result.profit_factor is None
    assert result.exposure == pytest.approx(4 / 6)
    assert result.max_drawdown == 0.0


def test_the_sharpe_ratio_is_deflated_by_every_trial():
    prices, signals = random_market(1000, seed=5)
    one, many = (run(prices, signals, ExitRule(2), n_trials=n) for n in (1, 50))
    before = np.concatenate([[1.0], one.equity[:-1]])
    returns = one.equity / before - 1

    assert one.sharpe == many.sharpe
    assert (one.n_trials, many.n_trials) == (1, 50)
    assert one.deflated_sharpe == pytest.approx(deflated_sharpe(returns, 1))
    assert many.deflated_sharpe == pytest.approx(deflated_sharpe(returns, 50))
    assert many.deflated_sharpe < one.deflated_sharpe


def test_hand_worked_table_of_costs():
    # 10 bps a side. LONG 100 -> 102: 2 % less .1 % of 100 and of 102.
    prices = flat_bars([100, 102, 102, 101])
    result = run(prices, [L, N, S, N], ExitRule(1), Costs(fee_bps=8, slippage_bps=2))
    first = 1 + 0.02 - 0.001 - 0.001 * 1.02
    second = 1 + 1 / 102 - 0.001 - 0.001 * 101 / 102
    assert result.net_return == pytest.approx(first * second - 1)
    np.testing.assert_allclose(result.equity, [1, first, first, first * second])


def test_entry_is_the_next_open_not_the_close_of_the_decision():
    prices = Prices(
        open=np.array([100.0, 105, 110]),
        high=np.array([101.0, 111, 111]),
        low=np.array([99.0, 104, 109]),
        close=np.array([100.0, 110, 110]),
    )
    assert run(prices, [L, N, N], ExitRule(1)).net_return == pytest.approx(110 / 105 - 1)


def test_drawdown_and_hit_rates_by_hand():
    # +10 %, -20 %, +5 % one after the other.
    prices = flat_bars([100, 110, 88, 92.4])
    result = run(prices, [L, L, L, N], ExitRule(1))
    assert result.n_trades == 3
    assert result.max_drawdown == pytest.approx(0.2)
    assert result.hit_rate == pytest.approx(2 / 3)
    # Mean gain 7.5 %, mean loss 20 %, no costs.
    assert result.break_even_hit_rate == pytest.approx(0.2 / 0.275)
    assert result.profit_factor == pytest.approx(0.15 / 0.2)


def barrier_bars(bars):
    """Rows of open, high, low, close after a first bar that closes at 100."""
    return Prices(*np.array([[100, 100, 100, 100], *bars], dtype=float).T)


@pytest.mark.parametrize(
    ("bars", "long", "short"),
    [
        # Upper barrier 102 in the second bar.
        ([[100, 101, 99, 101], [101, 103, 100, 100], [100, 100, 100, 100]], 102, 102),
        # Lower barrier 98 at once.
        ([[100, 101, 97, 99], [99, 105, 99, 105], [105, 105, 105, 105]], 98, 98),
        # Both in one bar: each side is given its loss.
        ([[100, 103, 97, 100], [100, 100, 100, 100], [100, 100, 100, 100]], 98, 102),
        # Neither: the close after three bars.
        ([[100, 101, 99, 100], [100, 101, 99, 100], [100, 101, 99, 100.5]], 100.5, 100.5),
        # A gap over the barrier is filled at the open, not at the barrier.
        ([[100, 101, 99, 100], [104, 104, 101, 103], [103, 103, 103, 103]], 104, 104),
    ],
)
def test_hand_worked_barriers(bars, long, short):
    prices = barrier_bars(bars)
    rule = ExitRule(3, barrier_width=np.full(4, 0.02))
    for signal, expected in ((L, long), (S, short)):
        (trade,) = find_trades(prices, np.array([signal, N, N, N]), rule)
        assert trade.exit_price == pytest.approx(expected)


def test_a_barrier_frees_the_position_early():
    prices = barrier_bars([[100, 103, 100, 103], [103, 103, 103, 103], [103, 103, 103, 103]])
    rule = ExitRule(2, barrier_width=np.full(4, 0.02))
    trades = find_trades(prices, np.array([L, L, N, N]), rule)
    assert [trade.decided for trade in trades] == [0, 1]


def test_trades_agree_with_a_walk_through_the_bars():
    prices, signals = random_market(400, seed=0)
    expected, open_until = [], -1
    for bar in range(400 - 4):
        if bar >= open_until and signals[bar] != N:
            open_until = bar + 4
            side = 1 if signals[bar] == L else -1
            move = prices.close[bar + 4] / prices.open[bar + 1] - 1
            expected.append((bar, side * move))
    trades = find_trades(prices, signals, ExitRule(4))
    assert [trade.decided for trade in trades] == [bar for bar, _ in expected]
    assert [trade.gross_return for trade in trades] == pytest.approx([r for _, r in expected])


@given(seed=st.integers(0, 500), fee_bps=st.floats(0, 30), horizon=st.integers(1, 6))
def test_trades_pay_on_average_exactly_when_the_hit_rate_is_above_break_even(
    seed, fee_bps, horizon
):
    prices, signals = random_market(80, seed)
    costs = Costs(fee_bps=fee_bps, slippage_bps=0)
    trades = find_trades(prices, signals, ExitRule(horizon))
    net = np.mean([trade.gross_return - trade.cost(costs) for trade in trades])
    result = run(prices, signals, ExitRule(horizon), costs)
    assert (result.hit_rate > result.break_even_hit_rate) == (net > 0)


@given(seed=st.integers(0, 500), horizon=st.integers(1, 6))
def test_costs_never_help_and_equity_compounds_the_trades(seed, horizon):
    prices, signals = random_market(80, seed)
    rule, costs = ExitRule(horizon), Costs()
    with_costs, without = run(prices, signals, rule, costs), run(prices, signals, rule)
    assert with_costs.net_return < without.net_return
    net = [t.gross_return - t.cost(costs) for t in find_trades(prices, signals, rule)]
    assert with_costs.net_return == pytest.approx(np.prod(1 + np.array(net)) - 1)
    assert 0 <= with_costs.max_drawdown <= 1
    assert 0 <= with_costs.exposure <= 1


def test_later_bars_do_not_change_earlier_equity():
    prices, signals = random_market(200, seed=1)
    each = (prices.open, prices.high, prices.low, prices.close)
    changed = Prices(*(np.where(np.arange(200) < 150, v, v * 2) for v in each))
    before, after = run(prices, signals, ExitRule(3)), run(changed, signals, ExitRule(3))
    np.testing.assert_array_equal(before.equity[:150], after.equity[:150])


def test_no_signals_no_trades_no_ratios():
    prices, _ = random_market(50, seed=2)
    result = run(prices, [N] * 50, ExitRule(3), Costs())
    assert (result.net_return, result.n_trades, result.exposure) == (0, 0, 0)
    assert result.hit_rate is None
    assert result.break_even_hit_rate is None
    assert result.sharpe is None
    assert result.deflated_sharpe is None


def test_a_short_position_cannot_lose_more_than_everything():
    result = run(flat_bars([100, 250, 250, 260]), [S, N, L, N], ExitRule(1))
    assert result.net_return == -1
    assert result.max_drawdown == 1


def test_sharpe_is_that_of_the_bar_returns():
    prices, signals = random_market(300, seed=3)
    result = run(prices, signals, ExitRule(2), Costs())
    returns = np.diff(np.concatenate([[1.0], result.equity])) / np.concatenate(
        [[1.0], result.equity[:-1]]
    )
    assert result.sharpe == pytest.approx(returns.mean() / returns.std(ddof=1) * np.sqrt(365))


def test_buy_and_hold_pays_once_and_stays_in():
    prices = flat_bars([100, 110, 99, 121])
    result = buy_and_hold(prices, Costs(fee_bps=10, slippage_bps=0), bars_per_year=365)
    assert result.net_return == pytest.approx(0.21 - 0.001 - 0.001 * 1.21)
    assert result.max_drawdown == pytest.approx(1 - (0.99 - 0.001) / (1.1 - 0.001))
    assert result.exposure == pytest.approx(3 / 4)


def test_signals_that_are_none_are_refused():
    prices, _ = random_market(10, seed=4)
    with pytest.raises(ValueError, match="one signal per bar"):
        find_trades(prices, np.full(10, -1), ExitRule(1))
    with pytest.raises(ValueError, match="one signal per bar"):
        find_trades(prices, np.full(9, N), ExitRule(1))


def test_the_deflated_sharpe_ratio_pays_for_all_models_that_are_shown_together():
    rng = np.random.default_rng(1)
    close = 100 * np.exp(np.cumsum(rng.normal(0.0005, 0.01, 400)))
    prices = Prices(close, close, close, close)
    signals = np.full(400, int(Signal.LONG))
    alone, twice = (
        backtest("m", prices, signals, ExitRule(3), Costs(0, 0), bars_per_year=365, n_trials=n)
        for n in (1, 8)
    )
    among = alone.shown_among(8)
    assert among.n_trials == 8
    assert among.deflated_sharpe == pytest.approx(twice.deflated_sharpe)
    assert among.deflated_sharpe < alone.deflated_sharpe
    assert alone.shown_among(1) is alone


def brackets(long: tuple[float, float], short: tuple[float, float], n_bars: int = 4) -> Brackets:
    """The same lower and upper price at each bar."""
    return Brackets(np.tile(long, (n_bars, 1)), np.tile(short, (n_bars, 1)))


@pytest.mark.parametrize(
    ("bars", "long", "short"),
    [
        # The target of the LONG in the second bar; the SHORT's stop is not reached.
        ([[100, 101, 99.5, 101], [101, 102, 100, 100], [100, 100, 100, 100]], 102, 100),
        # The target of the SHORT at once; the LONG's stop is not reached.
        ([[100, 101, 98, 99], [99, 99, 99, 99], [99, 99, 99, 99]], 99, 98),
        # Each one's stop.
        ([[100, 103, 97, 100], [100, 100, 100, 100], [100, 100, 100, 100]], 97, 103),
        # Neither: the close after three bars.
        ([[100, 101, 99, 100], [100, 101, 99, 100], [100, 101, 99, 100.5]], 100.5, 100.5),
        # A gap over the stop or the target is filled at the open.
        ([[100, 101, 99, 100], [104, 104, 101, 103], [103, 103, 103, 103]], 104, 104),
        ([[100, 101, 99, 100], [95, 99, 95, 97], [97, 97, 97, 97]], 95, 95),
    ],
)
def test_hand_worked_stops_and_targets(bars, long, short):
    prices = barrier_bars(bars)
    # LONG: stop 97, target 102. SHORT: stop 103, target 98.
    rule = ExitRule(3, brackets=brackets((97, 102), (98, 103)))
    for signal, expected in ((L, long), (S, short)):
        (trade,) = find_trades(prices, np.array([signal, N, N, N]), rule)
        assert trade.exit_price == pytest.approx(expected)


def random_bars(n_bars: int, seed: int):
    """Bars with wicks and gaps, signals, and a stop and a target of each side at each bar."""
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(rng.normal(scale=0.01, size=n_bars).cumsum())
    opened = np.roll(close, 1) * (1 + rng.normal(scale=0.004, size=n_bars))
    reach = 1 + np.abs(rng.normal(scale=0.006, size=(2, n_bars)))
    prices = Prices(
        opened, np.maximum(opened, close) * reach[0], np.minimum(opened, close) / reach[1], close
    )
    away = 1 + np.abs(rng.normal(scale=0.012, size=(4, n_bars)))
    both = Brackets(
        np.stack([close / away[0], close * away[1]], axis=1),
        np.stack([close / away[2], close * away[3]], axis=1),
    )
    return prices, rng.choice([S, N, L], size=n_bars), both


def walk(prices: Prices, signals: np.ndarray, both: Brackets, horizon: int):
    """Decided, closed and exit price of each trade, bar by bar."""
    found, free = [], 0
    for bar in range(len(prices) - horizon):
        if bar < free or signals[bar] == N:
            continue
        is_long = signals[bar] == L
        stop, target = both.long[bar] if is_long else both.short[bar][::-1]
        for later in range(bar + 1, bar + horizon + 1):
            opened, high, low = prices.open[later], prices.high[later], prices.low[later]
            hits_stop = low <= stop if is_long else high >= stop
            hits_target = high >= target if is_long else low <= target
            gaps = min(stop, target) >= opened or opened >= max(stop, target)
            if hits_stop or hits_target:
                price = opened if gaps else stop if hits_stop else target
                break
        else:
            price = prices.close[later]
        found.append((bar, later, price))
        free = later
    return found


@given(seed=st.integers(0, 300), horizon=st.integers(1, 8))
def test_stops_and_targets_agree_with_a_walk_through_the_bars(seed, horizon):
    prices, signals, both = random_bars(120, seed)
    trades = find_trades(prices, signals, ExitRule(horizon, brackets=both))

    found = [(trade.decided, trade.closed, trade.exit_price) for trade in trades]
    assert found == walk(prices, signals, both, horizon)


@given(seed=st.integers(0, 300), horizon=st.integers(1, 8))
def test_no_exit_by_levels_is_later_than_the_horizon_or_beyond_the_bar(seed, horizon):
    prices, signals, both = random_bars(120, seed)
    for trade in find_trades(prices, signals, ExitRule(horizon, brackets=both)):
        assert trade.decided < trade.closed <= trade.decided + horizon
        assert prices.low[trade.closed] <= trade.exit_price <= prices.high[trade.closed]


@given(seed=st.integers(0, 100), horizon=st.integers(1, 6))
def test_bars_without_levels_close_at_the_horizon_and_symmetric_ones_as_barriers(seed, horizon):
    prices, signals, _ = random_bars(80, seed)
    unknown = brackets((np.nan, np.nan), (np.nan, np.nan), 80)
    width = np.full(80, 0.01)
    same = np.stack([prices.close * (1 - width), prices.close * (1 + width)], axis=1)

    by_horizon = find_trades(prices, signals, ExitRule(horizon))
    assert find_trades(prices, signals, ExitRule(horizon, brackets=unknown)) == by_horizon
    by_barrier = find_trades(prices, signals, ExitRule(horizon, barrier_width=width))
    rule = ExitRule(horizon, brackets=Brackets(same, same))
    assert find_trades(prices, signals, rule) == by_barrier


def test_a_basket_on_the_other_side_earns_its_own_return_and_pays_its_own_costs():
    # LONG at the close of bar 0: in at the open of 1, out at the close of 2. The market goes from
    # 100 to 110, the two markets of the basket that have all bars from 50 to 52 and 10 to 10.2.
    prices = flat_bars([100, 104, 110, 110])
    basket_close = np.array(
        [[50, 10, np.nan], [51, 10, 7.0], [52, 10.2, 9.0], [52, 10.2, 9.0]], dtype=float
    )
    basket_open = np.vstack([basket_close[:1], basket_close[:-1]])
    both = Prices(
        prices.open, prices.high, prices.low, prices.close, Basket(basket_open, basket_close)
    )
    basket_then, basket_end = (1.02 + 1.0) / 2, (1.04 + 1.02) / 2
    for side, signal in ((1, L), (-1, S)):
        signals = [signal, N, N, N]
        [trade] = find_trades(both, np.array(signals), ExitRule(2))
        assert trade.gross_return == pytest.approx(side * (0.10 - (basket_end - 1)))
        costs = Costs(fee_bps=8, slippage_bps=2)
        assert trade.cost(costs) == pytest.approx(0.001 * (1 + 1.1 + 1 + basket_end))
        result = run(both, signals, ExitRule(2), costs)
        assert result.net_return == pytest.approx(trade.gross_return - trade.cost(costs))
        assert result.equity[1] == pytest.approx(1 + side * (1.04 - basket_then) - 0.002)
        assert result.n_legs == 2
        assert result.costs_text.endswith("a side, of the market's leg and of the basket's")
    hold = buy_and_hold(both, FREE, bars_per_year=365)
    assert (hold.net_return, hold.n_legs) == (pytest.approx(0.1), 1)
