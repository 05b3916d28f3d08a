import numpy as np
import pandas as pd
import pytest
import ta

from percoin.features import indicators


def walk(n_bars: int, seed: int = 7) -> np.ndarray:
    steps = np.random.default_rng(seed).normal(0, 0.01, n_bars)
    return 100 * np.exp(np.cumsum(steps))


def test_rsi_is_100_when_every_close_rises():
    rsi = indicators.rsi(np.arange(1.0, 41.0))
    assert (rsi[13:] == 100).all()


def test_rsi_is_0_when_every_close_falls():
    rsi = indicators.rsi(np.arange(40.0, 0.0, -1.0))
    assert (rsi[13:] == 0).all()


def test_rsi_is_50_while_the_price_has_never_moved():
    rsi = indicators.rsi(np.array([5.0] * 30 + [6.0] * 3))
    assert np.isnan(rsi[:13]).all()
    assert (rsi[13:30] == 50).all()
    assert (rsi[30:] == 100).all()


@pytest.mark.parametrize("seed", range(5))
def test_rsi_forgets_that_it_was_not_seeded_as_wilder_does(seed):
    close = walk(300, seed)
    difference = np.abs(wilder_rsi(close) - indicators.rsi(close))
    assert difference[20] > 0.1
    assert difference[100:].max() < 0.1
    assert difference[200:].max() < 1e-4


def wilder_rsi(close: np.ndarray) -> np.ndarray:
    """Wilder (1978): both averages start as the mean of the first 14 moves."""
    moves = np.diff(close)
    gain, loss = moves[:14].clip(min=0).mean(), -moves[:14].clip(max=0).mean()
    rsi = np.full(len(close), np.nan)
    for bar in range(15, len(close)):
        gain = (gain * 13 + max(moves[bar - 1], 0)) / 14
        loss = (loss * 13 + max(-moves[bar - 1], 0)) / 14
        rsi[bar] = 100 - 100 / (1 + gain / loss)
    return rsi


def test_atr_is_unknown_before_the_fourteenth_range():
    close = walk(40)
    atr = indicators.atr(close + 1, close - 1, close)
    assert np.isnan(atr[:13]).all()
    assert (atr[13:] > 0).all()


@pytest.mark.parametrize("n_bars", [0, 1, 2, 13, 14, 19, 20])
def test_few_bars_give_nan_and_no_error(n_bars):
    close = walk(n_bars)
    rows = [
        indicators.atr(close + 1, close - 1, close),
        indicators.rsi(close),
        *indicators.bollinger(close),
        indicators.ema(close, 50),
        *indicators.macd(close),
        indicators.relative_change(close),
        indicators.log_returns(close),
        indicators.volatility(indicators.relative_change(close)),
        *indicators.directional_movement(close + 1, close - 1, close),
        indicators.money_flow(close + 1, close - 1, close, close),
    ]
    assert all(len(row) == n_bars for row in rows)
    assert np.isnan(indicators.ema(close, 50)).all()
    assert np.isfinite(indicators.atr(close + 1, close - 1, close)).sum() == max(n_bars - 13, 0)


def test_change_after_zero_is_unknown_not_infinite():
    change = indicators.relative_change(np.array([2.0, 0.0, 0.0, 3.0, 6.0]))
    np.testing.assert_array_equal(change, [np.nan, -1.0, np.nan, np.nan, 1.0])


def test_bollinger_bands_of_a_price_that_stands_still_meet():
    bands = indicators.bollinger(np.array([3.0] * 25))
    assert (bands.lower[19:] == 3.0).all()
    assert (bands.upper[19:] == 3.0).all()
    assert (bands.width[19:] == 0.0).all()


def test_a_price_that_stands_still_has_averages_equal_to_it():
    close = np.full(200, 0.1)
    assert (indicators.bollinger(close).width[19:] == 0).all()
    np.testing.assert_allclose(indicators.ema(close, 50)[49:], 0.1, rtol=1e-15)
    np.testing.assert_allclose(indicators.macd(close).line[25:], 0, atol=1e-16)


ALL = {
    "atr": lambda close: [indicators.atr(close * 1.01, close * 0.99, close)],
    "rsi": lambda close: [indicators.rsi(close)],
    "bollinger": indicators.bollinger,
    "ema": lambda close: [indicators.ema(close, 20)],
    "macd": indicators.macd,
    "relative_change": lambda close: [indicators.relative_change(close)],
    "symmetric_change": lambda close: [indicators.symmetric_change(close)],
    "log_returns": lambda close: [indicators.log_returns(close)],
    "directional_movement": lambda close: indicators.directional_movement(
        close * 1.01, close * 0.99, close
    ),
    "money_flow": lambda close: [
        indicators.money_flow(close * 1.01, close * 0.98, close, np.abs(np.sin(close)))
    ],
    "volatility": lambda close: [indicators.volatility(indicators.relative_change(close))],
}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("n_bars", [0, 1, 13, 14, 15, 28, 40, 200])
def test_markets_side_by_side_are_each_as_alone_to_the_last_bit(name, n_bars):
    markets = [walk(n_bars, seed) for seed in range(5)]
    together = ALL[name](np.stack(markets, axis=1))
    for position, close in enumerate(markets):
        for beside, alone in zip(together, ALL[name](close), strict=True):
            assert beside[:, position].tobytes() == alone.tobytes()


def test_indicators_equal_those_of_the_ta_library():
    close, volume = walk(500), walk(500, seed=8)
    high, low = close * 1.01, close * 0.98
    series = pd.Series(close)
    bands = ta.volatility.BollingerBands(series)
    macd = ta.trend.MACD(series)
    expected = [
        ta.volatility.average_true_range(pd.Series(high), pd.Series(low), series)[13:],
        ta.momentum.rsi(series),
        ta.trend.ema_indicator(series, 50),
        *(bands.bollinger_lband(), bands.bollinger_mavg(), bands.bollinger_hband()),
        *(macd.macd(), macd.macd_signal(), macd.macd_diff()),
        pd.Series(volume).pct_change(),
    ]
    found = [
        indicators.atr(high, low, close)[13:],
        indicators.rsi(close),
        indicators.ema(close, 50),
        *indicators.bollinger(close)[:3],
        *indicators.macd(close),
        indicators.relative_change(volume),
    ]
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-11)


def ragged(n_bars: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """High, low, close and volume whose ranges differ from bar to bar."""
    rng = np.random.default_rng(seed)
    close = walk(n_bars, seed)
    high, low = (close * (1 + sign * rng.uniform(0, 0.02, n_bars)) for sign in (1, -1))
    return high, low, close, rng.lognormal(size=n_bars)


@pytest.mark.parametrize("seed", range(3))
def test_directional_movement_and_money_flow_equal_those_of_the_ta_library(seed):
    high, low, close, volume = ragged(500, seed)
    lines = ta.trend.ADXIndicator(*map(pd.Series, (high, low, close)), window=14)
    ours = indicators.directional_movement(high, low, close)
    flow = ta.volume.chaikin_money_flow(*map(pd.Series, (high, low, close, volume)), window=20)
    for found, expected, first in (
        (ours.adx, lines.adx(), 27),
        # Its own first value is a 0 that it does not mean.
        (ours.plus, lines.adx_pos(), 15),
        (ours.minus, lines.adx_neg(), 15),
        (indicators.money_flow(high, low, close, volume), flow, 19),
    ):
        np.testing.assert_allclose(found[first:], expected[first:], rtol=1e-10, atol=1e-10)
    assert np.isnan(ours.adx[:27]).all()
    assert np.isnan(ours.plus[:14]).all()
    assert np.isfinite(ours.plus[14:]).all()


def test_a_straight_climb_is_all_trend_and_no_fall():
    close = np.arange(100.0, 160.0)
    lines = indicators.directional_movement(close + 0.5, close - 0.5, close)
    np.testing.assert_allclose(lines.adx[27:], 100)
    assert (lines.minus[14:] == 0).all()
    assert (lines.plus[14:] > 0).all()


def test_a_price_that_stands_still_has_no_direction():
    close = np.full(60, 0.1)
    lines = indicators.directional_movement(close, close, close)
    assert all((line[27:] == 0).all() for line in lines)
    assert (indicators.money_flow(close, close, close, close)[19:] == 0).all()


def test_money_flow_is_unknown_where_nothing_was_traded():
    high, low, close, volume = ragged(60, 0)
    volume[20:41] = 0.0
    flow = indicators.money_flow(high, low, close, volume)
    assert np.flatnonzero(np.isnan(flow[19:])).tolist() == [39 - 19, 40 - 19]
