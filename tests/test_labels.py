import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from builders import bars_from_closes, drop_bars, make_bars, make_index
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from percoin.bars.panel import with_panel
from percoin.bars.schema import Bars
from percoin.errors import BarsNotFoundError, ConfigError, MissingClassError
from percoin.labels import (
    FixedHorizon,
    LabelRule,
    Labels,
    Relative,
    TripleBarrier,
    VolatilityScaled,
    is_relative,
    label_rule_from_json,
)
from percoin.types import UNKNOWN_LABEL as UNKNOWN
from percoin.types import Signal, Timeframe

SHORT, NO_TRADE, LONG = Signal.SHORT, Signal.NO_TRADE, Signal.LONG

FIXED_HORIZONS = st.builds(
    FixedHorizon,
    horizon=st.integers(1, 50),
    threshold=st.floats(0, 1, exclude_min=True, exclude_max=True),
)
TRIPLE_BARRIERS = st.builds(
    TripleBarrier,
    horizon=st.integers(1, 50),
    barrier_width=st.floats(0.01, 100),
    volatility_bars=st.integers(2, 500),
)
VOLATILITY_SCALED = st.builds(
    VolatilityScaled,
    horizon=st.integers(1, 50),
    no_trade_share=st.floats(0.01, 0.99),
    volatility_bars=st.integers(2, 500),
    width=st.none() | st.floats(0.01, 100),
)
RULES = st.one_of(FIXED_HORIZONS, TRIPLE_BARRIERS, VOLATILITY_SCALED)
SHORT_RULES = st.one_of(
    st.builds(
        FixedHorizon, horizon=st.integers(1, 8), threshold=st.sampled_from([1e-9, 0.002, 0.01])
    ),
    st.builds(
        TripleBarrier,
        horizon=st.integers(1, 8),
        barrier_width=st.sampled_from([0.3, 1.0, 2.0]),
        volatility_bars=st.integers(2, 12),
    ),
    st.builds(
        VolatilityScaled,
        horizon=st.integers(1, 8),
        no_trade_share=st.just(0.4),
        width=st.sampled_from([0.3, 1.0, 2.0]),
        volatility_bars=st.integers(2, 12),
    ),
)


def bars_of(close: list[float], high: list[float] | None = None, low: list[float] | None = None):
    frame = pd.DataFrame(
        {
            "open": close,
            "high": high or close,
            "low": low or close,
            "close": close,
            "volume": [1.0] * len(close),
        },
        index=make_index(len(close), Timeframe.H1),
        dtype=np.float64,
    )
    return Bars("BTCUSDT", Timeframe.H1, frame, "simulated: test")


def walk(n_bars: int, seed: int) -> Bars:
    random = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(random.normal(0, 0.005, n_bars)))
    high = close * (1 + random.exponential(0.003, n_bars))
    low = close * (1 - random.exponential(0.003, n_bars))
    return bars_of(close.tolist(), high.tolist(), low.tolist())


# --- Fixed horizon


def test_fixed_horizon_on_a_hand_worked_table():
    bars = bars_of([100, 100, 101, 103, 100, 97, 100])
    labels = FixedHorizon(horizon=2, threshold=0.02).label(bars)
    assert labels.label.tolist() == [NO_TRADE, LONG, NO_TRADE, SHORT, NO_TRADE, UNKNOWN, UNKNOWN]
    np.testing.assert_allclose(
        labels.forward_return, [0.01, 0.03, -1 / 101, -6 / 103, 0, np.nan, np.nan], atol=1e-15
    )


def test_a_return_equal_to_the_threshold_is_no_trade():
    labels = FixedHorizon(horizon=1, threshold=0.5).label(bars_of([2, 3, 1.5, 1.5]))
    assert labels.label.tolist() == [NO_TRADE, NO_TRADE, NO_TRADE, UNKNOWN]


def test_labels_that_would_reach_over_a_gap_are_unknown():
    bars = drop_bars(bars_of([100.0 * 1.1**bar for bar in range(12)]), [6])
    labels = FixedHorizon(horizon=3, threshold=0.01).label(bars)
    # Positions 3, 4 and 5 need the missing bar; 6 and later do not look back at it.
    assert np.flatnonzero(labels.label == UNKNOWN).tolist() == [3, 4, 5, 8, 9, 10]
    assert np.flatnonzero(np.isnan(labels.forward_return)).tolist() == [3, 4, 5, 8, 9, 10]


# --- Triple barrier: sigma is measured on 2 returns that are known and equal in size

# Returns +1 % and -1 %: sample standard deviation sqrt(2) %. Width 1/sqrt(2) makes it 1 %.
START = [100.0, 101.0, 99.99]
RULE = TripleBarrier(horizon=1, barrier_width=1 / math.sqrt(2), volatility_bars=2)


def label_after_start(rule: TripleBarrier, later: list[tuple[float, float, float]]) -> int:
    """Label of the bar at 99.99, followed by bars of (high, low, close)."""
    high, low, close = (list(values) for values in zip(*later, strict=True))
    bars = bars_of(START + close, START + high, START + low)
    return int(rule.label(bars).label[2])


@pytest.mark.parametrize(
    ("bar", "expected"),
    [
        ((101.0, 99.5, 99.99), LONG),  # 99.99 * 1.01 = 100.9899
        ((100.98, 99.5, 100.98), NO_TRADE),
        ((100.0, 98.98, 99.99), SHORT),  # 99.99 * 0.99 = 98.9901
        ((100.0, 99.0, 99.0), NO_TRADE),
        ((102.0, 98.0, 101.5), NO_TRADE),  # both in one bar: nobody knows which was first
    ],
)
def test_barriers_are_touched_by_high_and_low(bar, expected):
    assert label_after_start(RULE, [bar]) == expected


def test_the_first_touch_wins():
    quiet, up, down = (100.0, 99.9, 99.99), (105.0, 99.9, 99.99), (100.0, 95.0, 99.99)
    rule = replace(RULE, horizon=3)  # barriers at 1.73 %
    assert label_after_start(rule, [up, down, down]) == LONG
    assert label_after_start(rule, [quiet, down, up]) == SHORT
    assert label_after_start(rule, [quiet, quiet, quiet]) == NO_TRADE


def test_a_touch_after_the_horizon_does_not_count():
    quiet, up = (100.0, 99.9, 99.99), (105.0, 99.9, 99.99)
    assert label_after_start(replace(RULE, horizon=2), [quiet, quiet, up]) == NO_TRADE


def test_an_ambiguous_bar_ends_the_search():
    wide, up = (110.0, 90.0, 99.99), (110.0, 99.9, 99.99)
    assert label_after_start(replace(RULE, horizon=2), [wide, up]) == NO_TRADE


def test_barriers_widen_with_the_square_root_of_the_horizon():
    up = (100.0 * 1.015, 99.9, 99.99)
    assert label_after_start(RULE, [up, up, up, up]) == LONG
    assert label_after_start(replace(RULE, horizon=4), [up, up, up, up]) == NO_TRADE


def test_without_movement_there_is_no_barrier():
    labels = RULE.label(bars_of([5.0] * 8 + [6.0, 5.0, 6.0]))
    assert labels.label.tolist() == [UNKNOWN] * 8 + [SHORT, LONG, UNKNOWN]


def test_sigma_is_unknown_while_a_gap_lies_within_it():
    bars = drop_bars(walk(40, seed=1), [20])
    rule = TripleBarrier(horizon=1, barrier_width=1.0, volatility_bars=5)
    unknown = np.flatnonzero(rule.label(bars).label == UNKNOWN)
    assert unknown.tolist() == [0, 1, 2, 3, 4, 19, 20, 21, 22, 23, 24, 38]


# --- VolatilityScaled


def test_a_fitted_width_gives_the_train_rows_the_wanted_share():
    bars = walk(2000, 7)
    rule = VolatilityScaled(horizon=3, no_trade_share=0.4, volatility_bars=20)
    rows = np.flatnonzero(rule.knows(bars))[:1000]
    fitted = rule.fitted(bars, rows)
    assert (fitted.label(bars).label[rows] == NO_TRADE).mean() == pytest.approx(0.4, abs=0.001)
    assert fitted.fitted(bars, rows[:10]) == fitted


def test_a_price_that_mostly_stands_still_has_no_width_and_nobody_is_blamed_for_one():
    moves = np.where(np.arange(400) % 10 == 0, 1.01, 1.0)
    bars = bars_from_closes(100 * np.cumprod(moves))
    rule = VolatilityScaled(horizon=1, no_trade_share=0.4, volatility_bars=20)
    rows = np.flatnonzero(rule.knows(bars))

    with pytest.raises(MissingClassError) as raised:
        rule.fitted(bars, rows)
    assert str(raised.value).startswith("BTCUSDT 15m: 90% of the train rows have the same price")
    assert "labels.width" not in str(raised.value)
    assert rule.fitted(bars, rows[bars.column("close")[rows + 1] != bars.column("close")[rows]])


@pytest.mark.parametrize(
    "rule", [FixedHorizon(3, 0.01), VolatilityScaled(3, 0.4, 5, 1.0), TripleBarrier(3, 1.0, 5)]
)
@pytest.mark.parametrize("sizes", [(1e308, 1e-300), (5e-324, 1.0), (1e-300, 1e300)])
def test_prices_that_no_market_has_get_no_label_that_is_no_number(rule, sizes):
    closes = np.array([100.0] * 10 + [*sizes] * 10 + [100.0, 101.0] * 10)
    labels = rule.label(bars_from_closes(closes))

    known = labels.label >= 0
    assert np.isfinite(labels.forward_return[known]).all()
    assert not np.isinf(labels.forward_return).any()
    assert known.any()


def test_a_fitted_width_knows_nothing_of_later_bars():
    bars = walk(500, 3)
    rule = VolatilityScaled(horizon=3, no_trade_share=0.4, volatility_bars=20)
    rows = np.flatnonzero(rule.knows(bars))[:200]
    frame = bars.frame.copy()
    frame.iloc[rows[-1] + rule.horizon + 1 :] *= 3.0
    assert rule.fitted(replace(bars, frame=frame), rows) == rule.fitted(bars, rows)


def test_wild_and_quiet_times_have_the_same_shares():
    sizes = np.repeat([0.001, 0.01], 3000)
    returns = np.random.default_rng(0).normal(0, sizes)
    bars = bars_of((100 * np.exp(np.cumsum(returns))).tolist())
    rule = VolatilityScaled(horizon=3, no_trade_share=0.4, volatility_bars=50, width=0.5)
    label = rule.label(bars).label
    shares = [(label[part] == NO_TRADE).mean() for part in (slice(60, 2990), slice(3060, 5990))]
    assert shares[0] == pytest.approx(shares[1], abs=0.03)
    fixed = FixedHorizon(3, 0.003).label(bars).label
    assert (fixed[60:2990] == NO_TRADE).mean() > 0.9 > 0.2 > (fixed[3060:5990] == NO_TRADE).mean()


def test_a_rule_that_was_not_fitted_labels_nothing():
    rule = VolatilityScaled(horizon=3, no_trade_share=0.4, volatility_bars=20)
    with pytest.raises(ValueError, match="fit the rule"):
        rule.label(walk(50, 0))


@settings(max_examples=40, deadline=None)
@given(rule=SHORT_RULES, seed=st.integers(0, 2**16))
def test_what_a_rule_knows_is_what_it_labels(rule, seed):
    bars = walk(60, seed)
    np.testing.assert_array_equal(rule.knows(bars), rule.label(bars).label != UNKNOWN)


# --- All rules


def slow_labels(rule: LabelRule, bars: Bars) -> Labels:
    """The rules word for word, one bar at a time."""
    label = np.full(len(bars), UNKNOWN)
    forward_return = np.full(len(bars), np.nan)
    close, high, low = (bars.column(name) for name in ("close", "high", "low"))
    step = bars.timeframe.milliseconds
    for t in range(len(bars) - rule.horizon):
        if bars.open_time[t + rule.horizon] - bars.open_time[t] != rule.horizon * step:
            continue
        forward_return[t] = close[t + rule.horizon] / close[t] - 1
        if isinstance(rule, FixedHorizon):
            is_up, is_down = (
                forward_return[t] > rule.threshold,
                forward_return[t] < -rule.threshold,
            )
            label[t] = LONG if is_up else SHORT if is_down else NO_TRADE
            continue
        assert isinstance(rule, TripleBarrier | VolatilityScaled)
        first = t - rule.volatility_bars
        if first < 0 or bars.open_time[t] - bars.open_time[first] != rule.volatility_bars * step:
            continue
        returns = close[first + 1 : t + 1] / close[first:t] - 1
        expected = returns.std(ddof=1) * math.sqrt(rule.horizon)
        if isinstance(rule, VolatilityScaled):
            size = forward_return[t] / expected
            label[t] = LONG if size > rule.width else SHORT if size < -rule.width else NO_TRADE
            continue
        width = rule.barrier_width * expected
        label[t] = NO_TRADE
        for later in range(t + 1, t + rule.horizon + 1):
            is_up, is_down = (
                high[later] >= close[t] * (1 + width),
                low[later] <= close[t] * (1 - width),
            )
            if is_up or is_down:
                label[t] = NO_TRADE if is_up and is_down else LONG if is_up else SHORT
                break
    return Labels(label, forward_return)


@settings(max_examples=60, deadline=None)
@given(rule=SHORT_RULES, n_bars=st.integers(0, 60), seed=st.integers(0, 2**16), data=st.data())
def test_labels_equal_a_slow_loop_over_the_rule(rule, n_bars, seed, data):
    bars = walk(n_bars, seed)
    if n_bars > 2:
        bars = drop_bars(bars, list(data.draw(st.sets(st.integers(1, n_bars - 2), max_size=2))))
    labels, expected = rule.label(bars), slow_labels(rule, bars)
    assert labels.label.tolist() == expected.label.tolist()
    np.testing.assert_allclose(labels.forward_return, expected.forward_return, rtol=1e-12)


@settings(max_examples=60, deadline=None)
@given(rule=SHORT_RULES, seed=st.integers(0, 2**16), cut=st.integers(1, 60))
def test_a_label_depends_on_no_bar_beyond_its_horizon(rule, seed, cut):
    bars = walk(60, seed)
    frame = bars.frame.copy()
    frame.iloc[cut:] *= 3.0
    n_settled = max(cut - rule.horizon, 0)
    before = rule.label(bars).label[:n_settled]
    np.testing.assert_array_equal(rule.label(replace(bars, frame=frame)).label[:n_settled], before)
    np.testing.assert_array_equal(rule.label(bars.slice(0, cut)).label[:n_settled], before)


@settings(deadline=None)
@given(rule=RULES)
def test_rules_round_trip_through_json(rule):
    assert label_rule_from_json(json.loads(json.dumps(rule.to_json()))) == rule


@settings(deadline=None)
@given(first=RULES, second=RULES)
def test_different_rules_have_different_json(first, second):
    assume(first != second)
    assert first.to_json() != second.to_json()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "fixed_horizon", "horizon": 3, "threshold": 0.0}, "between 0 and 1"),
        ({"kind": "fixed_horizon", "horizon": 0, "threshold": 0.01}, "at least 1 bar ahead"),
        ({"kind": "fixed_horizon", "horizon": 3, "threshold": 25}, r"0\.0025 for 0\.25 %"),
        ({"kind": "fixed_horizon", "horizon": 3, "threshold": -0.1}, "between 0 and 1"),
        ({"kind": "fixed_horizon", "horizon": 3, "threshold": math.nan}, "threshold=nan"),
        ({"kind": "fixed_horizon", "horizon": 3}, "threshold"),
        ({"kind": "fixed_horizon", "horizon": 3, "threshold": 0.1, "extra": 1}, "extra"),
        (
            {"kind": "triple_barrier", "horizon": 3, "barrier_width": 0, "volatility_bars": 9},
            "positive number",
        ),
        (
            {"kind": "triple_barrier", "horizon": 3, "barrier_width": 1, "volatility_bars": 1},
            "at least 2 bars",
        ),
        (
            {
                "kind": "volatility_scaled",
                "horizon": 3,
                "no_trade_share": 1.0,
                "volatility_bars": 9,
            },
            "between 0 and 1",
        ),
        (
            {
                "kind": "volatility_scaled",
                "horizon": 3,
                "no_trade_share": 0.4,
                "volatility_bars": 9,
                "width": 0.0,
            },
            "positive number",
        ),
        (
            {"kind": "tea_leaves"},
            "known are fixed_horizon, volatility_scaled, triple_barrier, relative",
        ),
        ({}, "not known"),
    ],
)
def test_impossible_rules_are_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        label_rule_from_json(values)


# --- Relative

POOL = ("AAAUSDT", "BBBUSDT", "CCCUSDT", "DDDUSDT")


def pool_of_four(n_bars: int = 120) -> list[Bars]:
    """Random walks; one begins later, one has a hole, one ends earlier."""
    made = [make_bars(n_bars, name, seed=k) for k, name in enumerate(POOL)]
    return [made[0], made[1].slice(30), drop_bars(made[2], [60, 61]), made[3].slice(0, n_bars - 20)]


def relative_by_loop(
    markets: list[Bars], rule: Relative
) -> dict[tuple[str, int], tuple[float, float]]:
    """Relative return over the horizon and its expected size, by market and open time."""
    closes = [dict(zip(m.open_time.tolist(), m.column("close"), strict=True)) for m in markets]
    step, found = markets[0].timeframe.milliseconds, {}

    def difference(own: dict[int, float], t: int, n_bars: int) -> float:
        wanted = [t + k * step for k in range(n_bars + 1)]
        if not all(moment in own for moment in wanted):
            return math.nan
        known = [c for c in closes if all(moment in c for moment in wanted)]
        if len(known) < max(2, rule.min_share * len(markets)):
            return math.nan
        mean = sum(c[wanted[-1]] / c[t] - 1 for c in known) / len(known)
        return own[wanted[-1]] / own[t] - 1 - mean

    for market, own in zip(markets, closes, strict=True):
        for t in own:
            past = [difference(own, t - k * step, 1) for k in range(1, rule.volatility_bars + 1)]
            size = np.std(past, ddof=1) * math.sqrt(rule.horizon)
            found[market.symbol, t] = (difference(own, t, rule.horizon), size)
    return found


@pytest.mark.parametrize("min_share", [0.5, 1.0])
def test_relative_labels_are_those_of_a_slow_loop(min_share):
    markets = pool_of_four()
    rule = Relative(3, 0.4, 5, 0.8, min_share, POOL)
    expected = relative_by_loop(markets, rule)
    for bars in markets:
        labels = rule.label(with_panel(bars, markets))
        for t, label in zip(bars.open_time.tolist(), labels.label.tolist(), strict=True):
            moved, size = expected[bars.symbol, t]
            known = math.isfinite(moved) and math.isfinite(size)
            wanted = NO_TRADE + int(moved > 0.8 * size) - int(moved < -0.8 * size) if known else -1
            assert label == wanted, (bars.symbol, t)
        # What a position in the market alone earns.
        alone = FixedHorizon(3, 0.5).label(bars).forward_return
        np.testing.assert_array_equal(labels.forward_return, alone)
        assert set(labels.label.tolist()) == ({-1, 0, 1, 2} if (labels.label >= 0).any() else {-1})


def test_relative_labels_do_not_look_beyond_the_horizon_into_any_market():
    rule, markets = Relative(3, 0.4, 5, 0.8, 0.5, POOL), pool_of_four()
    bars = with_panel(markets[0], markets)
    whole = rule.label(bars).label
    for cut in (40, 63, 90, 119):
        np.testing.assert_array_equal(rule.label(bars.slice(0, cut)).label[:-3], whole[: cut - 3])
        assert (rule.label(bars.slice(0, cut)).label[-3:] == -1).all()


def test_relative_labels_fit_the_share_and_survive_json():
    markets = [make_bars(400, name, seed=k) for k, name in enumerate(POOL)]
    bars, rule = with_panel(markets[0], markets), Relative(3, 0.4, 20).among(POOL)
    rows = np.flatnonzero(rule.knows(bars))
    fitted = rule.fitted(bars, rows)
    assert np.mean(fitted.label(bars).label[rows] == NO_TRADE) == pytest.approx(0.4, abs=0.01)
    stored = json.loads(json.dumps(fitted.to_json()))
    assert stored["markets"] == list(POOL)
    assert label_rule_from_json(stored) == fitted
    assert is_relative(stored)


def test_relative_labels_without_the_other_markets_name_one_that_is_missing():
    rule, markets = Relative(3, 0.4, 5, 0.8, 0.5, POOL), pool_of_four()
    with pytest.raises(BarsNotFoundError, match="compares it with 4 markets, and CCCUSDT is miss"):
        rule.label(with_panel(markets[0], markets[:2]))
    with pytest.raises(BarsNotFoundError, match="AAAUSDT is missing"):
        rule.label(markets[0])
    with pytest.raises(ConfigError, match="use it with recipe=pooled"):
        Relative(3, 0.4, 5, 0.8).label(with_panel(markets[0], markets))


@pytest.mark.parametrize(
    "changes",
    [{"min_share": 0.0}, {"min_share": 1.1}, {"markets": ["no market"]}, {"markets": [3]}],
)
def test_relative_labels_refuse_numbers_and_markets_out_of_range(changes):
    values = Relative(3, 0.4, 5, None, 0.5, POOL).to_json() | changes
    with pytest.raises(ConfigError):
        label_rule_from_json(values)
