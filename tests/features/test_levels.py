"""Stop and targets, for one signal and for many."""

from dataclasses import astuple, replace

import numpy as np
import pytest
from builders import bars_from_closes, make_bars
from hypothesis import given
from hypothesis import strategies as st

from percoin.bars.schema import PRICE_COLUMNS
from percoin.features.levels import atr_of, find_levels, levels_along
from percoin.types import Signal

DIRECTIONS = (Signal.SHORT, Signal.LONG)


def quoted(decimals: int, scale: float = 1.0, n_bars: int = 400, seed: int = 0):
    """A random walk whose prices have so many decimals, from about ``100 * scale`` on."""
    bars = make_bars(n_bars, seed=seed)
    frame = bars.frame.copy()
    for name in PRICE_COLUMNS:
        frame[name] = np.round(frame[name] * scale * 10**decimals) / 10**decimals
    return replace(bars, frame=frame)


@pytest.mark.parametrize("signal", DIRECTIONS)
@pytest.mark.parametrize(
    ("decimals", "scale"), [(1, 1000), (2, 1), (8, 1.2e-7), (8, 3e-9), (10, 7e-9)]
)
def test_levels_lie_on_ticks_and_never_nearer_than_meant(decimals, scale, signal):
    bars = quoted(decimals, scale)
    entry, unit = float(bars.column("close")[-1]), float(atr_of(bars)[-1])
    levels = find_levels(bars, signal)
    side = 1 if signal is Signal.LONG else -1

    assert levels is not None
    assert levels.entry_price == entry
    for price, distance in zip(astuple(levels)[1:], (-1.5, 1, 2, 3), strict=True):
        assert price == round(price * 10**decimals) / 10**decimals
        moved = (price - entry) * np.sign(distance) * side
        meant = abs(distance) * unit
        assert 0 < meant <= moved * (1 + 1e-9)
        assert moved < meant + 10.0**-decimals * (1 + 1e-9)


def test_levels_that_are_less_than_a_tick_away_move_to_the_next_tick():
    # The ATR has shrunk to a small part of the tick.
    bars = bars_from_closes([100.0, 100.5] + [100.25] * 120)
    frame = bars.frame.copy()
    frame["high"] = frame["low"] = frame["open"] = frame["close"]
    bars = replace(bars, frame=frame)
    assert 0 < atr_of(bars)[-1] < 0.01

    assert astuple(find_levels(bars, Signal.LONG)) == (100.25, 100.0, 100.5, 100.5, 100.5)
    assert astuple(find_levels(bars, Signal.SHORT)) == (100.25, 100.5, 100.0, 100.0, 100.0)


def test_a_unit_that_no_price_can_show_gives_no_levels():
    # The ATR has shrunk beneath what a float tells from the entry; the price alone shows no tick.
    bars = bars_from_closes([100.0, 100.5] + [100.25] * 700)
    frame = bars.frame.copy()
    frame["high"] = frame["low"] = frame["open"] = frame["close"]
    bars = replace(bars, frame=frame)
    assert 0 < atr_of(bars)[-1] < 1e-20

    for signal in DIRECTIONS:
        assert find_levels(bars, signal) is None


@given(
    closes=st.lists(st.integers(1, 12), min_size=30, max_size=60),
    decimals=st.integers(0, 9),
    signal=st.sampled_from(DIRECTIONS),
)
def test_in_a_market_of_a_few_ticks_no_level_is_the_entry(closes, decimals, signal):
    bars = bars_from_closes([close / 10**decimals for close in closes])
    levels = find_levels(bars, signal)
    if levels is None:
        return
    side = 1 if signal is Signal.LONG else -1
    first, second, third = (side * price for price in (levels.tp1, levels.tp2, levels.tp3))

    assert side * levels.stop_loss < side * levels.entry_price < first <= second <= third
    assert min(levels.tp1, levels.tp3) > 0


def test_levels_of_many_bars_are_those_that_each_bar_alone_had():
    bars = quoted(2, n_bars=1600)
    rows = np.arange(1100, 1600, 7)
    signals = np.where(rows % 2, Signal.LONG, Signal.SHORT)
    found = levels_along(bars, rows, signals)

    for row, signal, prices in zip(rows, signals, found.prices, strict=True):
        alone = find_levels(bars.slice(0, int(row) + 1), Signal(signal))
        assert astuple(alone)[1:] == tuple(prices)


def test_rows_without_an_atr_have_no_levels():
    found = levels_along(quoted(2), np.array([3, 300]), np.array([Signal.LONG, Signal.LONG]))

    assert np.isnan(found.prices[0]).all()
    assert np.isfinite(found.prices[1]).all()
