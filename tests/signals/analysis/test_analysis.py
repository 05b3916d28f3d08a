"""What all parts of the analysis have in common."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from builders import bars_from_closes, make_bars
from hypothesis import given
from hypothesis import strategies as st

from percoin.bars.schema import Bars
from percoin.signals.analysis.candles import Candles
from percoin.signals.professional import PARTS
from percoin.types import FloatArray

BARS = make_bars(600, seed=5)
SCORES = {name: score for name, (_, score) in PARTS.items()}
every_part = pytest.mark.parametrize("score", SCORES.values(), ids=SCORES)


def mirrored(bars: Bars, price: float) -> Bars:
    """The same market upside down: each price as far below ``price`` as it was above."""
    frame = bars.frame
    values = {
        "open": 2 * price - frame["open"],
        "high": 2 * price - frame["low"],
        "low": 2 * price - frame["high"],
        "close": 2 * price - frame["close"],
        "volume": frame["volume"],
    }
    return Bars(bars.symbol, bars.timeframe, pd.DataFrame(values), bars.origin)


@every_part
def test_a_score_lies_between_minus_one_and_one(score: Callable[[Candles], FloatArray]):
    values = score(Candles.of(BARS))
    known = values[np.isfinite(values)]
    assert len(values) == len(BARS)
    assert len(known) >= 480
    assert (np.abs(known) <= 1).all()
    assert known.min() < -0.4
    assert known.max() > 0.4


@every_part
def test_no_part_prefers_a_side(score: Callable[[Candles], FloatArray]):
    there, back = (score(Candles.of(bars)) for bars in (BARS, mirrored(BARS, 200.0)))
    np.testing.assert_allclose(back, -there, atol=1e-9)


@every_part
@given(n_bars=st.integers(1, 599), factor=st.floats(0.5, 2.0))
def test_later_bars_change_nothing(score, n_bars: int, factor: float):
    full = score(Candles.of(BARS))
    np.testing.assert_array_equal(score(Candles.of(BARS.slice(0, n_bars))), full[:n_bars])
    later = BARS.frame.copy()
    later.iloc[n_bars:] *= factor
    changed = Candles.of(Bars(BARS.symbol, BARS.timeframe, later, BARS.origin))
    np.testing.assert_array_equal(score(changed)[:n_bars], full[:n_bars])


@every_part
def test_the_unit_of_price_does_not_matter(score: Callable[[Candles], FloatArray]):
    dearer = BARS.frame.copy()
    dearer[["open", "high", "low", "close"]] *= 1024.0
    there = score(Candles.of(Bars(BARS.symbol, BARS.timeframe, dearer, BARS.origin)))
    np.testing.assert_allclose(there, score(Candles.of(BARS)), atol=1e-9)


@every_part
def test_a_price_that_has_never_moved_gives_no_direction(score: Callable[[Candles], FloatArray]):
    values = score(Candles.of(bars_from_closes([100.0] * 300)))
    assert (np.nan_to_num(values) == 0).all()


@every_part
@pytest.mark.parametrize("n_bars", [1, 10, 27, 28])
def test_few_bars_are_no_error(score: Callable[[Candles], FloatArray], n_bars: int):
    assert len(score(Candles.of(BARS.slice(0, n_bars)))) == n_bars
