"""Each part of the analysis on a market that is made for it."""

import numpy as np
import pytest
from builders import bars_from_closes, make_bars

from percoin.features import indicators
from percoin.signals.analysis.candles import Candles
from percoin.signals.analysis.levels import (
    N_SWINGS,
    SWING_BARS,
    known_swings,
    levels_score,
    room,
    swing_highs,
)
from percoin.signals.analysis.momentum import momentum_score
from percoin.signals.analysis.trend import trend_score
from percoin.signals.analysis.volatility import volatility_score
from percoin.signals.analysis.volume import volume_score

WALK = Candles.of(make_bars(400, seed=11))


def candles(closes) -> Candles:
    return Candles.of(bars_from_closes(closes))


def test_a_long_climb_is_a_trend_and_a_range_is_none():
    climb = 100 * 1.002 ** np.arange(200)
    assert trend_score(candles(climb))[-1] == 1.0
    swinging = 100 + np.sin(np.arange(400))
    assert np.abs(trend_score(candles(swinging))[-50:]).max() < 0.5


def test_trend_by_its_formula():
    row = 321
    fast, slow = (indicators.ema(WALK.close, span)[row] for span in (20, 50))
    lines = indicators.directional_movement(WALK.high, WALK.low, WALK.close)
    votes = (
        np.sign(WALK.close[row] - fast)
        + np.sign(fast - slow)
        + np.sign(lines.plus[row] - lines.minus[row])
    )
    strength = min(max((lines.adx[row] - 15) / 15, 0), 1)
    assert trend_score(WALK)[row] == pytest.approx(votes / 3 * strength)


def test_momentum_by_its_formula():
    rsi = np.clip((indicators.rsi(WALK.close) - 50) / 20, -1, 1)
    macd = np.clip(indicators.macd(WALK.close).difference / WALK.atr / 0.5, -1, 1)
    np.testing.assert_allclose(momentum_score(WALK), (rsi + macd) / 2)


def test_momentum_counts_a_rise_that_gathers_pace_more_than_one_that_fades():
    pace = candles(100 * 1.0005 ** (np.arange(120) ** 1.4))
    steady = candles(100 * 1.002 ** np.arange(120))
    assert momentum_score(pace)[-1] > momentum_score(steady)[-1] > 0.4


def test_a_breakout_counts_in_a_market_that_wakes_up_and_not_in_one_at_rest():
    rng = np.random.default_rng(0)
    noise = 100 + rng.normal(0, 0.2, 300).cumsum() * 0.1
    awake = [*noise, *(noise[-1] + np.arange(1, 9))]
    assert volatility_score(candles(awake))[-1] > 0.9
    wild = 100 + rng.normal(0, 3, 300)
    calm = [*wild, *(wild[-1] + 0.001 * np.arange(60))]
    position = indicators.bollinger(np.array(calm))
    assert calm[-1] > position.middle[-1]
    assert volatility_score(candles(calm))[-1] == 0


def test_volatility_by_its_formula():
    row = 321
    bands = indicators.bollinger(WALK.close)
    position = (WALK.close[row] - bands.middle[row]) / (bands.upper[row] - bands.middle[row])
    usual = WALK.atr[row - 99 : row + 1].mean()
    expansion = min(max(WALK.atr[row] / usual - 0.5, 0), 1)
    assert volatility_score(WALK)[row] == pytest.approx(np.clip(position, -1, 1) * expansion)
    assert 0 < expansion < 1


def test_a_close_that_has_stood_still_is_at_no_edge():
    moved = [*(100 + np.arange(200) % 7), *([103.0] * 20)]
    assert np.isnan(volatility_score(candles(moved))).sum() == 112
    assert volatility_score(candles(moved))[-1] == 0
    assert volatility_score(candles([*moved[:-1], 150.0]))[-1] > 0.5


def test_volume_by_closes_at_the_high_and_at_the_low():
    n_bars = 40
    low, high = np.full(n_bars, 99.0), np.full(n_bars, 101.0)

    def score(close: float) -> float:
        closes, volume = np.full(n_bars, close), np.ones(n_bars)
        return volume_score(Candles(high, low, closes, volume, high - low))[-1]

    assert score(101.0) == 1.0
    assert score(100.0) == 0.0
    assert score(100.125) == pytest.approx(0.5)
    assert score(99.0) == -1.0


def test_swing_highs_against_a_slow_loop():
    high = np.round(WALK.high, 0)  # so that some are equal
    expected = [
        SWING_BARS <= bar < len(high) - SWING_BARS
        and high[bar] > high[bar - SWING_BARS : bar].max()
        and high[bar] >= high[bar + 1 : bar + SWING_BARS + 1].max()
        for bar in range(len(high))
    ]
    assert swing_highs(high).tolist() == expected
    assert sum(expected) > 5


@pytest.mark.parametrize("n_bars", [0, 1, 5, 9, 10, 11])
def test_few_bars_have_no_swings(n_bars):
    peak = np.minimum(np.arange(11.0), np.arange(11.0)[::-1])[:n_bars]
    assert swing_highs(peak).sum() == (n_bars == 11)


def test_a_swing_is_known_once_it_is_confirmed_and_not_before():
    high = np.array([1, 2, 3, 4, 5, 9, 5, 4, 3, 2, 1, 1], dtype=float)
    known = known_swings(high, swing_highs(high))
    assert np.isnan(known[:10]).all()
    assert known[10].tolist()[:1] == [9]
    assert np.isnan(known[10, 1:]).all()


def test_the_newest_swings_come_first():
    high, is_swing = WALK.high, swing_highs(WALK.high)
    known = known_swings(high, is_swing)
    for bar in (150, 399):
        confirmed = [high[k] for k in range(bar - SWING_BARS + 1) if is_swing[k]]
        np.testing.assert_array_equal(known[bar], confirmed[::-1][:N_SWINGS])


def zigzag() -> Candles:
    """Between 100 and 110, ten bars each way, and now at 103 on the way up."""
    leg = np.linspace(100, 110, 11)
    closes = np.concatenate([np.tile(np.concatenate([leg, leg[::-1][1:-1]]), 6), leg[:4]])
    return candles(closes)


def test_room_is_measured_to_the_nearest_swing_in_atr():
    market = zigzag()
    up, down = room(market)
    unit = market.atr[-1]
    assert market.close[-1] == 103
    assert up[-1] == pytest.approx(min((110 - 103) / unit, 3))
    assert down[-1] == pytest.approx(min((103 - 100) / unit, 3))


def test_near_support_there_is_room_above_and_under_resistance_there_is_none():
    leg = np.concatenate([np.linspace(100, 110, 6), np.linspace(110, 100, 6)[1:-1]])
    closes = np.concatenate([np.tile(leg, 1).repeat(2), np.tile(leg.repeat(2), 5)])
    low = candles([*closes, 100.5])
    high = candles([*closes, *np.linspace(100, 109.5, 8)])
    assert levels_score(low)[-1] > 0.5
    assert levels_score(high)[-1] < -0.5


def test_a_close_above_every_swing_has_nothing_overhead():
    market = candles([*zigzag().close, 120.0])
    up, _ = room(market)
    assert up[-1] == 3
