"""Which levels later bars reach, and how often."""

import numpy as np
import pytest
from builders import make_bars, make_index
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from percoin.bars.schema import Bars
from percoin.evaluation.level_reach import find_reached, levels_reached, reached_text
from percoin.evaluation.uncertainty import Bootstrap
from percoin.features.levels import LevelPrices, levels_along
from percoin.types import Signal, Timeframe

BARS = make_bars(3000, seed=3)
# The stop, then the targets.
LONG = np.array([[97.0, 102.0, 104.0, 106.0]])
SHORT = np.array([[103.0, 98.0, 96.0, 94.0]])


def bars_of(rows: list[tuple[float, float, float, float]]) -> Bars:
    """Bars of open, high, low, close after a first bar at 100."""
    import pandas as pd

    frame = pd.DataFrame(
        [(100.0, 100.0, 100.0, 100.0), *rows], columns=["open", "high", "low", "close"]
    )
    frame["volume"] = 1.0
    frame.index = make_index(len(frame), Timeframe.M15)
    return Bars("BTCUSDT", Timeframe.M15, frame, "test: by hand")


@pytest.mark.parametrize(
    ("rows", "long", "short"),
    [
        # Quiet bars reach nothing.
        ([(100, 101, 99, 100)] * 3, "....", "...."),
        # A touch is enough.
        ([(100, 102, 99, 100), (100, 101, 97, 100), (100, 100, 100, 100)], "s1..", ".1.."),
        # Both in one bar: the stop counts as the first.
        ([(100, 106, 97, 100), (100, 100, 100, 100), (100, 100, 100, 100)], "s...", "s..."),
        # What comes after the stop does not count.
        ([(100, 100, 96, 96), (96, 107, 94, 100), (100, 100, 100, 100)], "s...", "s12."),
        # A gap beyond a level reaches it.
        ([(105, 105, 105, 105), (100, 100, 100, 100), (100, 100, 100, 100)], ".12.", "s..."),
        # The bar after the horizon does not count.
        ([(100, 100, 100, 100)] * 3 + [(100, 120, 80, 100)], "....", "...."),
    ],
)
def test_hand_worked_touches(rows, long, short):
    bars = bars_of([tuple(map(float, row)) for row in rows])
    for prices, is_long, expected in ((LONG, True, long), (SHORT, False, short)):
        levels = LevelPrices(prices, np.array([is_long]))
        [reached] = find_reached(bars, np.array([0]), levels, 3)
        words = "".join(
            name if has else "." for name, has in zip("s123", reached.tolist(), strict=True)
        )
        assert words == expected


def slowly(bars: Bars, row: int, prices: np.ndarray, is_long: bool, horizon: int) -> list[bool]:
    reached = [False] * 4
    for bar in range(row + 1, row + horizon + 1):
        high, low = bars.column("high")[bar], bars.column("low")[bar]
        if low <= prices[0] if is_long else high >= prices[0]:
            return [True, *reached[1:]]
        for k in (1, 2, 3):
            reached[k] |= bool(high >= prices[k] if is_long else low <= prices[k])
    return reached


@given(seed=st.integers(0, 50), horizon=st.integers(1, 12))
def test_touches_agree_with_a_walk_through_the_bars(seed, horizon):
    bars = make_bars(200, seed=seed)
    rows = np.arange(20, 200 - horizon)
    signals = np.random.default_rng(seed).choice([Signal.SHORT, Signal.LONG], len(rows))
    levels = levels_along(bars, rows, signals)
    expected = [
        slowly(bars, int(row), prices, bool(is_long), horizon)
        for row, prices, is_long in zip(rows, levels.prices, levels.is_long, strict=True)
    ]
    found = find_reached(bars, rows, levels, horizon)

    np.testing.assert_array_equal(found, expected)
    # The second target lies beyond the first.
    assert (found[:, 1] | ~found[:, 2]).all()
    assert (found[:, 2] | ~found[:, 3]).all()


def measured(rows: np.ndarray, horizon: int = 8, repetitions: int = 500):
    signals = np.where(rows % 3, Signal.LONG, Signal.SHORT)
    levels = levels_along(BARS, rows, signals)
    return levels_reached(BARS, rows, levels, Bootstrap(horizon, repetitions=repetitions)), levels


def test_shares_are_those_of_the_touches_with_their_intervals():
    rows = np.arange(100, 2900, 2)
    reached, levels = measured(rows)
    expected = find_reached(BARS, rows, levels, 8).mean(axis=0)

    assert reached.n_signals == len(rows)
    shares = (reached.stop_loss, reached.tp1, reached.tp2, reached.tp3)
    assert [share.value for share in shares] == pytest.approx(expected)
    assert all(0 <= s.lower < s.value < s.upper <= 1 for s in shares)


def test_rows_without_levels_are_left_out_and_too_few_days_show_nothing():
    reached, _ = measured(np.arange(5, 2900, 2))
    assert reached.n_signals == len(np.arange(13, 2900, 2))
    assert measured(np.arange(100, 400))[0] is None
    assert measured(np.arange(0, 0))[0] is None


def test_what_was_never_reached_may_still_be():
    rows = np.arange(100, 2900, 96)
    far = LevelPrices(np.tile([1.0, 1e6, 1e6, 1e6], (len(rows), 1)), np.full(len(rows), True))
    near = LevelPrices(np.tile([1.0, 2.0, 2.0, 2.0], (len(rows), 1)), np.full(len(rows), True))
    never = levels_reached(BARS, rows, far, Bootstrap(3)).tp1
    always = levels_reached(BARS, rows, near, Bootstrap(3)).tp1

    exact = binomtest(0, len(rows)).proportion_ci(0.95, method="exact")
    assert (never.value, never.lower, never.upper) == (0, 0, pytest.approx(exact.high))
    assert (always.value, always.lower, always.upper) == (1, pytest.approx(1 - exact.high), 1)


def test_an_interval_of_a_share_ends_at_0_and_at_1():
    rows = np.arange(100, 2900, 96)
    prices = np.tile([1.0, 2.0, 1e6, 1e6], (len(rows), 1))
    # One signal alone misses the first target, and another one alone reaches the second.
    prices[3, 1], prices[7, 2] = 1e6, 2.0
    reached = levels_reached(BARS, rows, LevelPrices(prices, rows > 0), Bootstrap(3))

    assert reached.tp1.lower < reached.tp1.value < reached.tp1.upper == 1
    assert 0 == reached.tp2.lower < reached.tp2.value < reached.tp2.upper


def test_words_for_people():
    reached, _ = measured(np.arange(100, 2900, 2))
    text = reached_text(reached, 8)
    stop = reached.stop_loss
    assert text.startswith(
        f"within 8 bars 1,400 judged signals reached the stop in {stop.value:.3f} "
        f"[{stop.lower:.3f}, {stop.upper:.3f}], the targets before the stop in "
    )
    assert text.count("[") == 4
    assert reached_text(reached, 1).startswith("within 1 bar ")
