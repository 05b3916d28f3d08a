import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from builders import drop_bars, make_bars
from hypothesis import given, settings
from hypothesis import strategies as st

from percoin.bars.schema import Bars
from percoin.features.feature_set import (
    FEATURE_NAMES,
    PRICE_LIKE,
    RECURSIVE_MEMORY_BARS,
    WARM_UP_BARS,
    FeatureDefinition,
    FeatureSet,
    compute_features,
    compute_newest_features,
    history_bars,
)
from percoin.types import Timeframe

DEFINITIONS = list(FeatureDefinition)
RAW = FeatureSet(FeatureDefinition.RAW)


def column(features: np.ndarray, name: str) -> np.ndarray:
    return features[:, FEATURE_NAMES.index(name)]


# --- Reference: each feature against a slow loop written from its formula


def slow_ema(values: list[float], span: int) -> list[float]:
    """From the first value that is a number; the first span - 1 of them are held back."""
    weight, average, seen, result = 2 / (span + 1), math.nan, 0, []
    for value in values:
        if not math.isnan(value):
            average = value if seen == 0 else weight * value + (1 - weight) * average
            seen += 1
        result.append(average if seen >= span else math.nan)
    return result


def slow_atr(high: list[float], low: list[float], close: list[float]) -> list[float]:
    ranges = [
        max(h - low_, abs(h - before), abs(low_ - before))
        for h, low_, before in zip(high[1:], low[1:], close[:-1], strict=True)
    ]
    ranges = [high[0] - low[0], *ranges]
    result = [math.nan] * 13 + [sum(ranges[:14]) / 14]
    for true_range in ranges[14:]:
        result.append((result[-1] * 13 + true_range) / 14)
    return result


def slow_rsi(close: list[float]) -> list[float]:
    """With the library's seeding: both averages start at zero on the first bar."""
    gain = loss = 0.0
    result = [math.nan]
    for bar in range(1, len(close)):
        move = close[bar] - close[bar - 1]
        gain = (gain * 13 + max(move, 0.0)) / 14
        loss = (loss * 13 + max(-move, 0.0)) / 14
        result.append(100 * gain / (gain + loss) if bar >= 13 else math.nan)
    return result


def slow_deviation(values: list[float], freedom: int) -> list[float]:
    """Standard deviation of each last 20 values."""
    result = []
    for end in range(1, len(values) + 1):
        window = values[max(end - 20, 0) : end]
        if len(window) < 20 or any(math.isnan(value) for value in window):
            result.append(math.nan)
            continue
        mean = math.fsum(window) / 20
        result.append(math.sqrt(math.fsum((v - mean) ** 2 for v in window) / (20 - freedom)))
    return result


def slow_features(bars: Bars) -> dict[str, list[float]]:
    high, low, close, volume = (
        bars.column(name).tolist() for name in ("high", "low", "close", "volume")
    )
    before = range(len(close) - 1)
    returns = [math.nan] + [(close[i + 1] - close[i]) / close[i] for i in before]
    middle = [math.nan] * 19 + [
        math.fsum(close[i - 19 : i + 1]) / 20 for i in range(19, len(close))
    ]
    deviation = slow_deviation(close, freedom=0)
    lower = [m - 2 * d for m, d in zip(middle, deviation, strict=True)]
    upper = [m + 2 * d for m, d in zip(middle, deviation, strict=True)]
    macd = [f - s for f, s in zip(slow_ema(close, 12), slow_ema(close, 26), strict=True)]
    signal = slow_ema(macd, 9)
    return {
        "atr_14": slow_atr(high, low, close),
        "bb_lower": lower,
        "bb_middle": middle,
        "bb_upper": upper,
        "bb_width": [(u - lo) / m for u, lo, m in zip(upper, lower, middle, strict=True)],
        "ema_20": slow_ema(close, 20),
        "ema_50": slow_ema(close, 50),
        "log_returns": [math.nan] + [math.log(close[i + 1]) - math.log(close[i]) for i in before],
        "macd": macd,
        "macd_diff": [m - s for m, s in zip(macd, signal, strict=True)],
        "macd_signal": signal,
        "returns": returns,
        "rsi_14": slow_rsi(close),
        "volatility": slow_deviation(returns, freedom=1),
        "volume_change": [math.nan] + [(volume[i + 1] - volume[i]) / volume[i] for i in before],
    }


@pytest.mark.parametrize("name", FEATURE_NAMES)
@pytest.mark.parametrize("definition", DEFINITIONS)
def test_feature_equals_a_slow_loop_over_its_formula(name, definition):
    bars = make_bars(300)
    expected = np.array(slow_features(bars)[name])
    is_divided = definition is FeatureDefinition.RELATIVE and name in PRICE_LIKE
    if is_divided:
        expected = expected / bars.column("close")
    if definition is FeatureDefinition.RELATIVE and name == "volume_change":
        volume = bars.column("volume").tolist()
        steps = [2 * (after - before) / (after + before) for before, after in pairwise(volume)]
        expected = np.array([math.nan, *steps])
    price = 1.0 if is_divided or name not in PRICE_LIKE else 100.0
    # Differences of prices (macd) round at the size of a price, not at their own.
    np.testing.assert_allclose(
        column(compute_features(bars, FeatureSet(definition)), name),
        expected,
        rtol=1e-9,
        atol=1e-13 * price,
    )


# --- No look-ahead


@st.composite
def bars_and_cut(draw) -> tuple[Bars, int]:
    n_bars = draw(st.integers(2, 160))
    bars = make_bars(n_bars, seed=draw(st.integers(0, 2**16)))
    missing = range(draw(st.integers(0, n_bars - 1)), n_bars - 1)
    bars = drop_bars(bars, missing[: draw(st.integers(0, 30))])
    silent = draw(st.lists(st.integers(0, max(len(bars) - 1, 0)), max_size=3))
    frame = bars.frame.copy()
    frame.iloc[silent, frame.columns.get_loc("volume")] = 0.0
    bars = replace(bars, frame=frame)
    return bars, draw(st.integers(0, len(bars)))


def change_later(bars: Bars, cut: int, factor: float, shift: float) -> Bars:
    frame = bars.frame.copy()
    frame.iloc[cut:] = frame.iloc[cut:] * factor + shift
    return replace(bars, frame=frame)


@pytest.mark.parametrize("definition", DEFINITIONS)
@settings(max_examples=60, deadline=None)
@given(
    case=bars_and_cut(),
    factor=st.sampled_from([1e-6, 0.5, 3.0, 1e6]),
    shift=st.sampled_from([0.0, 1.0, 1e5]),
)
def test_earlier_features_stay_bit_for_bit_when_later_bars_change_or_vanish(
    definition, case, factor, shift
):
    bars, cut = case
    before = compute_features(bars, FeatureSet(definition))[:cut].tobytes()
    changed = compute_features(change_later(bars, cut, factor, shift), FeatureSet(definition))
    assert changed[:cut].tobytes() == before
    assert compute_features(bars.slice(0, cut), FeatureSet(definition)).tobytes() == before


def test_the_look_ahead_test_would_notice_a_centred_window():
    bars = make_bars(120)
    later = change_later(bars, 100, 3.0, 0.0)

    def centred(of: Bars) -> bytes:
        return of.frame["close"].rolling(5, center=True).mean().to_numpy()[:100].tobytes()

    assert centred(bars) != centred(later)


# --- Definitions


@settings(max_examples=25, deadline=None)
@given(factor=st.floats(1e-6, 1e6), volume_factor=st.floats(1e-3, 1e3), seed=st.integers(0, 2**16))
def test_relative_features_do_not_change_with_the_price_level(factor, volume_factor, seed):
    bars = make_bars(120, seed)
    frame = bars.frame * factor
    frame["volume"] = bars.frame["volume"] * volume_factor
    scaled = replace(bars, frame=frame)
    np.testing.assert_allclose(
        compute_features(scaled, FeatureSet()),
        compute_features(bars, FeatureSet()),
        rtol=1e-9,
        atol=1e-12,
    )


def test_raw_price_features_grow_with_the_price_level():
    bars = make_bars(120)
    frame = bars.frame.copy()
    frame[["open", "high", "low", "close"]] *= 2
    doubled = compute_features(replace(bars, frame=frame), RAW)
    features = compute_features(bars, RAW)
    for name in FEATURE_NAMES:
        factor = 2 if name in PRICE_LIKE else 1
        np.testing.assert_allclose(
            column(doubled, name), factor * column(features, name), rtol=1e-9, atol=1e-9
        )


def test_there_are_15_names_in_alphabetical_order():
    assert len(FEATURE_NAMES) == 15
    assert list(FEATURE_NAMES) == sorted(FEATURE_NAMES)
    assert set(FEATURE_NAMES) >= PRICE_LIKE


# --- Several markets at once


@pytest.mark.parametrize("definition", DEFINITIONS)
@pytest.mark.parametrize("n_rows", [0, 1, 60, 278, 279, 280, 300])
def test_the_newest_rows_of_many_markets_equal_each_market_alone(definition, n_rows):
    markets = [
        make_bars(300, seed=0),
        drop_bars(make_bars(310, seed=1), range(230, 240)),
        make_bars(300, seed=2, timeframe=Timeframe.H4),
    ]
    together = compute_newest_features(markets, FeatureSet(definition), n_rows)

    assert together.shape == (3, n_rows, 15)
    for features, bars in zip(together, markets, strict=True):
        alone = compute_features(bars, FeatureSet(definition))[300 - n_rows :]
        assert features.tobytes() == alone.tobytes()


def test_columns_may_stand_in_any_order_and_beside_others():
    bars = make_bars(120)
    shuffled = replace(bars, frame=bars.frame[sorted(bars.frame)].assign(trades=1.0))
    features = compute_features(shuffled, RAW)

    assert features.tobytes() == compute_features(bars, RAW).tobytes()


# --- Warm-up, gaps, memory


@pytest.mark.parametrize("definition", DEFINITIONS)
def test_rows_are_complete_right_after_the_warm_up(definition):
    features = compute_features(make_bars(120), FeatureSet(definition))
    is_complete = np.isfinite(features).all(axis=1)
    assert not is_complete[:WARM_UP_BARS].any()
    assert is_complete[WARM_UP_BARS:].all()


@pytest.mark.parametrize("n_bars", [0, 1, 13, 14, 49, 50])
def test_few_bars_give_rows_without_an_answer(n_bars):
    features = compute_features(make_bars(60).slice(0, n_bars), FeatureSet())
    assert features.shape == (n_bars, 15)
    assert np.isfinite(features).all(axis=1).sum() == max(n_bars - WARM_UP_BARS, 0)


def test_a_gap_hides_changes_across_it_and_nothing_else():
    whole = make_bars(200)
    bars = drop_bars(whole, range(100, 104))
    features = compute_features(bars, RAW)
    unknown = {
        name: np.flatnonzero(np.isnan(column(features, name))[WARM_UP_BARS:]) + WARM_UP_BARS
        for name in FEATURE_NAMES
    }
    for name in ("returns", "log_returns", "volume_change"):
        assert unknown.pop(name).tolist() == [100]
    assert unknown.pop("volatility").tolist() == list(range(100, 120))
    assert all(len(rows) == 0 for rows in unknown.values())


def test_volume_change_is_unknown_after_a_bar_without_volume():
    bars = make_bars(120)
    bars.frame.iloc[80, bars.frame.columns.get_loc("volume")] = 0.0
    features = compute_features(bars, FeatureSet())
    assert np.flatnonzero(np.isnan(features[WARM_UP_BARS:]).any(axis=1)).tolist() == [
        81 - WARM_UP_BARS
    ]
    assert column(features, "volume_change")[80] == -2
    raw = compute_features(bars, RAW)
    assert column(raw, "volume_change")[80] == -1


def test_the_end_of_a_near_silent_bar_is_an_outlier_in_raw_features_alone():
    bars = make_bars(120)
    bars.frame.iloc[80, bars.frame.columns.get_loc("volume")] = 1e-6
    raw, relative = (
        column(compute_features(bars, FeatureSet(definition)), "volume_change")
        for definition in DEFINITIONS
    )
    assert raw[81] > 1e6
    assert relative[81] == pytest.approx(2)
    ordinary = np.abs(raw) < 0.05
    np.testing.assert_allclose(relative[ordinary], raw[ordinary], atol=2e-3)


def test_memory_is_where_the_seed_of_the_slow_ema_drops_below_rounding():
    eps = np.finfo(np.float64).eps
    assert (49 / 51) ** RECURSIVE_MEMORY_BARS <= eps < (49 / 51) ** (RECURSIVE_MEMORY_BARS - 1)
    assert history_bars(60) == 961


@pytest.mark.parametrize("definition", DEFINITIONS)
@pytest.mark.parametrize("lookback", [1, 60])
def test_history_bars_are_enough_to_equal_a_long_history(definition, lookback):
    bars = make_bars(6000, seed=3)
    long = compute_features(bars, FeatureSet(definition))[-lookback:]
    short = compute_features(
        bars.slice(len(bars) - history_bars(lookback)), FeatureSet(definition)
    )[-lookback:]
    price = 100.0 if definition is FeatureDefinition.RAW else 1.0
    # macd and its kin cross zero, where only the rounding of prices is left.
    np.testing.assert_allclose(short, long, rtol=1e-9, atol=1e-14 * price)


def test_a_hundred_bars_are_not_enough():
    bars = make_bars(6000, seed=3)
    long = compute_features(bars, FeatureSet())[-1]
    short = compute_features(bars.slice(len(bars) - 100), FeatureSet())[-1]
    assert np.abs(short / long - 1).max() > 1e-5


def test_a_change_that_no_market_has_is_undefined_and_its_neighbours_are_not():
    bars = make_bars(200)
    bars.frame.iloc[100, bars.frame.columns.get_loc("volume")] = 1e-300
    changes = compute_features(bars, RAW)[:, FEATURE_NAMES.index("volume_change")]

    assert np.flatnonzero(np.isnan(changes)).tolist() == [0, 101]
