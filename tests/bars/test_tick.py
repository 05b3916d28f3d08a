"""The tick of a market, found in its prices."""

import numpy as np
import pytest
from builders import bars_from_closes, make_bars
from hypothesis import given
from hypothesis import strategies as st

from percoin.bars.schema import PRICE_COLUMNS
from percoin.bars.tick import find_ticks, newest_tick

N_BARS = 300


def quoted(unit: int, decimals: int, n_ticks: np.ndarray):
    """Bars whose prices are whole numbers of ticks of ``unit / 10 ** decimals``."""
    return bars_from_closes((n_ticks * unit / 10**decimals).tolist())


def walk(start: int, seed: int = 0, n_bars: int = N_BARS) -> np.ndarray:
    steps = np.random.default_rng(seed).integers(-3, 4, n_bars)
    return np.maximum(start + np.cumsum(steps), 1)


@pytest.mark.parametrize(
    ("unit", "decimals", "start"),
    [
        (1, 1, 1_082_084),  # BTCUSDT at 108,208.4
        (1, 2, 438_958),
        (1, 8, 1_234),  # SHIBUSDT and PEPEUSDT at 0.00001234
        (1, 10, 70_000),
        (5, 1, 60_001),  # a tick of 0.5
        (25, 2, 4_003),  # a tick of 0.25
        (10, 0, 5_003),  # a tick of 10
    ],
)
def test_the_tick_is_the_step_that_the_prices_are_quoted_in(unit, decimals, start):
    ticks = find_ticks(quoted(unit, decimals, walk(start)))

    assert ticks.units[-1] / 10**ticks.decimals == unit / 10**decimals


def test_a_changed_tick_is_followed():
    coarse, fine = walk(2_000) * 10, walk(20_001)
    ticks = find_ticks(quoted(1, 3, np.concatenate([coarse, fine, coarse])))

    assert ticks.decimals == 3
    assert ticks.units[N_BARS - 1] == 10
    assert ticks.units[2 * N_BARS - 1] == 1
    assert ticks.units[-1] == 10


def test_the_tick_at_a_bar_comes_from_the_last_256_bars():
    prices = np.random.default_rng(1).integers(1, 500, 700) * 6
    bars = quoted(1, 2, prices)
    columns = [np.rint(bars.column(name) * 100).astype(np.int64) for name in PRICE_COLUMNS]
    expected = [
        np.gcd.reduce(np.concatenate([column[max(0, bar - 255) : bar + 1] for column in columns]))
        for bar in range(len(bars))
    ]

    # One price alone shows no tick.
    np.testing.assert_array_equal(find_ticks(bars).units[1:], expected[1:])
    assert find_ticks(bars).units[0] == 0


@pytest.mark.parametrize("n_bars", [1, 2, 255, 256, 257, 700])
def test_the_newest_tick_is_the_last_of_all(n_bars):
    prices = np.random.default_rng(n_bars).integers(1, 500, n_bars) * 6
    # Older bars are quoted in more decimals.
    bars = quoted(1, 4, np.where(np.arange(n_bars) < n_bars - 300, prices + 1, prices * 100))
    newest, ticks = newest_tick(bars), find_ticks(bars)

    assert len(newest.units) == 1
    assert newest.units[0] / 10**newest.decimals == ticks.units[-1] / 10**ticks.decimals
    price, up = np.array([0.123456789]), np.array([True])
    assert newest.round(price, up) == ticks.take(np.array([-1])).round(price, up)


@pytest.mark.parametrize("bars", [make_bars(N_BARS), bars_from_closes([100.0] * N_BARS)])
def test_results_of_a_calculation_and_a_price_that_never_moves_show_no_tick(bars):
    ticks, price = find_ticks(bars), np.full(N_BARS, 100.123456789)

    assert (ticks.units == 0).all()
    np.testing.assert_array_equal(ticks.round(price, np.full(N_BARS, True)), price)


@pytest.mark.parametrize(("start", "unit"), [(99_999_999_000, 1), (1_000_000_001_000, 0)])
def test_prices_of_more_than_twelve_digits_show_no_tick(start, unit):
    assert find_ticks(quoted(1, 6, walk(start))).units[-1] == unit


def test_prices_of_zero_and_below_are_not_rounded():
    ticks = find_ticks(quoted(1, 2, walk(1_003))).take(np.array([-1, -1, -1]))
    prices = np.array([0.0, -0.005, -3.141])

    for is_up in (True, False):
        np.testing.assert_array_equal(ticks.round(prices, np.full(3, is_up)), prices)


@given(
    unit=st.sampled_from([1, 2, 5, 10, 25]),
    decimals=st.integers(0, 10),
    price=st.floats(0.001, 1e5),
    is_up=st.booleans(),
)
def test_a_rounded_price_is_a_tick_on_the_asked_side_and_less_than_a_tick_away(
    unit, decimals, price, is_up
):
    ticks = find_ticks(quoted(unit, decimals, walk(1_003))).take(np.array([-1]))
    tick, meant = unit / 10**decimals, price * unit / 10**decimals
    [rounded] = ticks.round(np.array([meant]), np.array([is_up]))

    n_ticks = round(rounded / tick)
    assert n_ticks >= 1
    # The very float that the decimals of the price stand for.
    assert rounded == n_ticks * unit / 10**decimals
    if is_up:
        assert meant <= rounded < meant + tick * (1 + 1e-9)
    elif price >= 1:
        assert meant >= rounded > meant - tick * (1 + 1e-9)
