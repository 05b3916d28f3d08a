import numpy as np
import pandas as pd
import pytest

from percoin.features import indicators


def walk(n_bars: int, seed: int = 7) -> pd.Series:
    steps = np.random.default_rng(seed).normal(0, 0.01, n_bars)
    return pd.Series(100 * np.exp(np.cumsum(steps)))


def test_rsi_is_100_when_every_close_rises():
    rsi = indicators.rsi(pd.Series(np.arange(1.0, 41.0)))
    assert (rsi.iloc[13:] == 100).all()


def test_rsi_is_0_when_every_close_falls():
    rsi = indicators.rsi(pd.Series(np.arange(40.0, 0.0, -1.0)))
    assert (rsi.iloc[13:] == 0).all()


def test_rsi_is_50_while_the_price_has_never_moved():
    rsi = indicators.rsi(pd.Series([5.0] * 30 + [6.0] * 3))
    assert rsi.iloc[:13].isna().all()
    assert (rsi.iloc[13:30] == 50).all()
    assert (rsi.iloc[30:] == 100).all()


@pytest.mark.parametrize("seed", range(5))
def test_rsi_forgets_that_it_was_not_seeded_as_wilder_does(seed):
    close = walk(300, seed)
    difference = np.abs(wilder_rsi(close.to_numpy()) - indicators.rsi(close))
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


def test_atr_starts_with_nan_where_ta_has_zeros():
    close = walk(40)
    atr = indicators.atr(close + 1, close - 1, close)
    assert atr.iloc[:13].isna().all()
    assert (atr.iloc[13:] > 0).all()


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
    ]
    assert all(len(row) == n_bars for row in rows)
    assert indicators.ema(close, 50).isna().all()
    assert indicators.atr(close + 1, close - 1, close).notna().sum() == max(n_bars - 13, 0)


def test_change_after_zero_is_unknown_not_infinite():
    change = indicators.relative_change(pd.Series([2.0, 0.0, 0.0, 3.0, 6.0]))
    np.testing.assert_array_equal(change, [np.nan, -1.0, np.nan, np.nan, 1.0])


def test_bollinger_bands_of_a_price_that_stands_still_meet():
    bands = indicators.bollinger(pd.Series([3.0] * 25))
    assert (bands.lower.iloc[19:] == 3.0).all()
    assert (bands.upper.iloc[19:] == 3.0).all()
    assert (bands.width.iloc[19:] == 0.0).all()
