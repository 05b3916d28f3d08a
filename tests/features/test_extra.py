"""Extra groups of columns beside the 15: which there are, what they know and how far back."""

import math
from dataclasses import replace

import numpy as np
import pytest
from builders import drop_bars, make_bars
from test_volatility import by_loops

from percoin.bars.panel import with_panel
from percoin.errors import BarsNotFoundError, ConfigError
from percoin.features.extra import GROUPS
from percoin.features.feature_set import (
    FEATURE_NAMES,
    FeatureDefinition,
    FeatureSet,
    compute_features,
    compute_newest_features,
)
from percoin.features.market import late_reference
from percoin.features.volatility import clock_columns
from percoin.types import Timeframe

BOTH = FeatureSet(extra=("volatility", "clock"))
BARS = make_bars(1500)


def names_of(group: str, timeframe: Timeframe = Timeframe.M15) -> tuple[str, ...]:
    return FeatureSet(extra=(group,)).names(timeframe)[len(FEATURE_NAMES) :]


def test_the_names_of_the_extra_columns_are_a_contract_with_every_saved_model():
    assert names_of("volatility") == (
        "range_volatility_1",
        "range_volatility_4",
        "range_volatility_16",
        "range_volatility_96",
        "range_volatility_672",
        "return_volatility_50",
    )
    assert names_of("clock") == (
        *("hour_sin", "hour_cos", "weekday_sin", "weekday_cos", "minute_sin", "minute_cos"),
    )
    assert names_of("volatility", Timeframe.H1) == (
        *("range_volatility_1", "range_volatility_4", "range_volatility_24"),
        *("range_volatility_168", "return_volatility_50"),
    )


@pytest.mark.parametrize("timeframe", list(Timeframe))
@pytest.mark.parametrize("extra", [(), ("volatility",), ("clock", "volatility")])
def test_every_column_has_a_name_of_its_own(extra, timeframe):
    bars = make_bars(60, timeframe=timeframe)
    names = FeatureSet(extra=extra).names(timeframe)
    assert compute_features(bars, FeatureSet(extra=extra)).shape == (60, len(names))
    assert names[:15] == FEATURE_NAMES
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("definition", list(FeatureDefinition))
def test_the_15_are_the_same_to_the_last_bit_whatever_comes_after_them(definition):
    alone = compute_features(BARS, FeatureSet(definition))
    beside = compute_features(BARS, FeatureSet(definition, ("clock", "volatility")))
    assert beside[:, :15].tobytes() == alone.tobytes()


@pytest.mark.parametrize("row", [671, 800, 1499])
def test_the_extra_columns_are_those_of_a_slow_loop(row):
    found = compute_features(BARS, BOTH)[row, 15:]
    np.testing.assert_allclose(found[:6], by_loops(BARS, row), rtol=1e-9)
    np.testing.assert_array_equal(found[6:], clock_columns(BARS)[row])


def test_groups_come_in_the_order_in_which_they_are_named():
    turned = FeatureSet(extra=("clock", "volatility"))
    one, other = compute_features(BARS, BOTH), compute_features(BARS, turned)
    order = [turned.names(Timeframe.M15).index(name) for name in BOTH.names(Timeframe.M15)]
    assert other[:, order].tobytes() == one.tobytes()


@pytest.mark.parametrize("timeframe", [Timeframe.M15, Timeframe.H1, Timeframe.H4, Timeframe.D1])
def test_rows_are_complete_right_after_the_warm_up(timeframe):
    complete = np.isfinite(compute_features(make_bars(900, timeframe=timeframe), BOTH)).all(axis=1)
    n_bars = BOTH.warm_up_bars(timeframe)
    assert not complete[:n_bars].any()
    assert complete[n_bars:].all()


def test_the_warm_up_is_that_of_the_longest_span():
    assert BOTH.warm_up_bars(Timeframe.M15) == 671
    assert BOTH.warm_up_bars(Timeframe.H1) == 167
    assert BOTH.warm_up_bars(Timeframe.D1) == 50
    assert FeatureSet(extra=("clock",)).warm_up_bars(Timeframe.M15) == 49


@pytest.mark.parametrize(
    ("timeframe", "needed"), [(Timeframe.M15, 961), (Timeframe.M5, 2075), (Timeframe.D1, 961)]
)
def test_history_bars_are_enough_for_the_extra_columns_to_equal_a_long_history(timeframe, needed):
    bars = make_bars(2600, seed=3, timeframe=timeframe)
    assert BOTH.history_bars(60, timeframe) == needed
    long = compute_features(bars, BOTH)[-60:, 15:]
    short = compute_features(bars.slice(2600 - needed), BOTH)[-60:, 15:]
    assert short.tobytes() == long.tobytes()
    assert np.isfinite(short).all()
    if needed > 961:
        one_less = compute_features(bars.slice(2600 - needed + 1), BOTH)[-60:]
        assert not np.isfinite(one_less).all()


@pytest.mark.parametrize("cut", [700, 1000, 1499])
def test_earlier_rows_stay_bit_for_bit_when_later_bars_vanish(cut):
    whole = compute_features(BARS, BOTH)
    assert compute_features(BARS.slice(0, cut), BOTH).tobytes() == whole[:cut].tobytes()


@pytest.mark.parametrize("n_rows", [0, 1, 60, 700, 828, 829, 1500])
def test_the_newest_rows_of_many_markets_equal_each_market_alone(n_rows):
    gapped = drop_bars(make_bars(1503, seed=5), [700, 1200, 1400])
    markets = [BARS, make_bars(1500, seed=4), gapped]
    together = compute_newest_features(markets, BOTH, n_rows)
    for bars, found in zip(markets, together, strict=True):
        assert found.tobytes() == compute_features(bars, BOTH)[1500 - n_rows :].tobytes()


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (("volatility", "moon"), "names 'moon'; this percoin knows volatility, clock"),
        (("clock", "clock"), "names a group twice"),
    ],
)
def test_a_group_that_is_unknown_or_named_twice_is_refused(extra, words):
    with pytest.raises(ConfigError, match=words) as caught:
        FeatureSet(extra=extra)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("group", GROUPS)
def test_the_memory_of_a_group_is_what_its_first_known_row_looks_back_at(group):
    known = GROUPS[group].columns(with_panel(BARS, OTHERS), NAMES)
    complete = np.flatnonzero(np.isfinite(known).all(axis=1))
    assert complete[0] == GROUPS[group].memory_bars(Timeframe.M15)


# --- market

NAMES = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
MARKET = FeatureSet(extra=("market",), references=NAMES)
OTHERS = [make_bars(1500, name, seed=k) for k, name in enumerate(NAMES, start=7)]
# A market that is none of the references, with holes in its bars.
OWN = with_panel(drop_bars(make_bars(1500, "ADAUSDT", seed=3), [700, 1100, 1101]), OTHERS)


def market_columns_of(bars):
    return compute_features(bars, MARKET)[:, len(FEATURE_NAMES) :]


def moves_by_loop(bars, row):
    """Log volatility over 4, 16 and 96 bars, scaled returns over 1, 4 and 16."""
    high, low, close = (bars.column(name) for name in ("high", "low", "close"))
    variance = [math.log(high[k] / low[k]) ** 2 / (4 * math.log(2)) for k in range(len(bars))]
    sizes = [math.sqrt(np.mean(variance[row - n + 1 : row + 1])) for n in (4, 16, 96)]
    returns = [math.log(close[row] / close[row - n]) / (sizes[2] * n**0.5) for n in (1, 4, 16)]
    return np.array([*np.log(sizes), *np.clip(returns, -10, 10)])


@pytest.mark.parametrize("row", [95, 400, 1496])
def test_the_market_columns_are_those_of_a_slow_loop(row):
    found = market_columns_of(OWN)[row]
    at = int(np.searchsorted(OTHERS[0].open_time, OWN.open_time[row]))
    each = np.array([moves_by_loop(bars, at) for bars in OTHERS])
    mean, spread = each.mean(axis=0), each.std(axis=0)
    own = moves_by_loop(OWN, row)
    expected = [*mean, *spread[3:], *(own - mean)[3:]]
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("cut", [120, 700, 1300])
def test_no_market_column_knows_a_later_bar_of_any_market(cut):
    whole, times = market_columns_of(OWN), OWN.open_time
    assert market_columns_of(OWN.slice(0, cut)).tobytes() == whole[:cut].tobytes()
    # The others may be at hand already, even with other prices.
    wild = []
    for bars in OTHERS:
        frame = bars.frame.copy()
        frame.loc[bars.open_time >= times[cut]] = 1.0
        wild.append(replace(bars, frame=frame))
    told = market_columns_of(with_panel(replace(OWN, panel=None), wild))[:cut]
    assert told.tobytes() == whole[:cut].tobytes()


@pytest.mark.parametrize("start", [1, 250, 777])
def test_market_columns_are_the_same_bits_wherever_a_history_begins(start):
    whole = market_columns_of(OWN)
    alone = replace(OWN, panel=None)
    for bars in (
        OWN.slice(start),
        with_panel(alone.slice(start), OTHERS),
        with_panel(alone, [bars.slice(start) for bars in OTHERS]),
    ):
        n_rows = 1497 - start - 98
        assert market_columns_of(bars)[-n_rows:].tobytes() == whole[-n_rows:].tobytes()
    newest = compute_newest_features([OWN, OWN], MARKET, 40)
    assert newest[1, :, 15:].tobytes() == whole[-40:].tobytes()


def test_a_missing_bar_of_a_reference_leaves_its_rows_unknown_and_no_others():
    # After the warm-up and the gaps of the market itself.
    holed = [OTHERS[0], drop_bars(OTHERS[1], [1300]), OTHERS[2]]
    found = market_columns_of(with_panel(replace(OWN, panel=None), holed))
    missing, lacks = OTHERS[1].open_time[1300], np.isnan(found).any(axis=1)
    rows = np.flatnonzero(OWN.open_time >= missing)
    assert lacks[rows[:96]].all()
    assert not lacks[rows[96:]].any()
    np.testing.assert_array_equal(found[: rows[0]], market_columns_of(OWN)[: rows[0]])


def test_market_columns_without_their_markets_say_which_one_is_missing():
    alone = replace(OWN, panel=None)
    with pytest.raises(BarsNotFoundError, match=r"ADAUSDT 15m: .* and ETHUSDT is missing; bring"):
        market_columns_of(with_panel(alone, [OTHERS[0], OTHERS[2]]))
    assert late_reference(OWN, NAMES) is None
    behind = with_panel(alone, [OTHERS[0], OTHERS[1].slice(0, -1), OTHERS[2]])
    assert late_reference(behind, NAMES) == "ETHUSDT"


@pytest.mark.parametrize(
    ("extra", "references"),
    [
        (("market",), ()),
        (("market",), ("BTCUSDT",)),
        (("clock",), ("BTCUSDT", "ETHUSDT")),
        (("market",), ("BTCUSDT", "BTCUSDT")),
        (("market",), ("BTCUSDT", "no market")),
    ],
)
def test_references_are_two_markets_or_more_for_the_group_that_compares(extra, references):
    with pytest.raises(ConfigError):
        FeatureSet(extra=extra, references=references)
