"""Forecasts that are stamped a few bars off change with another bar than their own."""

from dataclasses import replace

import numpy as np
import pytest
from market_judgements import RULE

from percoin.bars.sources.simulated import SimulatedSource
from percoin.dataset import DatasetSpec, PreparedMarket, SplitSpec
from percoin.evaluation.fold_forecasts import forecast_baselines
from percoin.evaluation.uncertainty import Bootstrap
from percoin.features.feature_set import FeatureSet
from percoin.judge.reaction import Reaction
from percoin.splits import chronological_split
from percoin.types import Timeframe

BOOTSTRAP = Bootstrap(RULE.horizon, repetitions=200, day=24)
LATER, EARLIER = range(1, 15), range(-14, 0)


def reaction(bars, rows, probabilities) -> Reaction:
    return Reaction(bars, rows, probabilities, BOOTSTRAP)


@pytest.fixture(scope="module", params=[0.0, 0.5], ids=["random walk", "with an edge"])
def market(request):
    bars = SimulatedSource(3, 4000, request.param).load("BTCUSDT", Timeframe.H1)
    spec = SplitSpec(purge_bars=RULE.horizon, embargo_bars=RULE.horizon)
    prepared = PreparedMarket.prepare(bars, DatasetSpec(RULE, FeatureSet(), 8, spec, 10_000))
    return prepared.dataset(
        lambda rows: chronological_split(rows, spec.fractions, spec.purge_bars, spec.embargo_bars)
    )


@pytest.fixture(scope="module")
def baselines(market):
    return {each.name: each.probabilities for each in forecast_baselines(market).forecasts}


def test_no_model_in_its_place_is_suspected(market, baselines):
    rows = market.rows("test")
    assert len(baselines) > 8
    for name, said in baselines.items():
        found = reaction(market.bars, rows, said)
        assert found.to_range(LATER) is None, name
        assert found.to_return(LATER) is None, name
        assert found.to_range(EARLIER) is None, name


@pytest.mark.parametrize("n_bars", [-9, -1, 1, 3, 12])
def test_what_looks_at_ranges_tells_by_how_many_bars_its_stamps_are_off(market, baselines, n_bars):
    # What was said at a bar is stamped so many bars earlier, or later.
    rows = market.rows("test")[20:-20]
    said = baselines["volatility"][20 : 20 + len(rows)]
    found = reaction(market.bars, rows - n_bars, said)
    bars, excess = found.to_range(LATER if n_bars > 0 else EARLIER)
    assert bars == n_bars
    assert 0 < excess.lower < excess.value < excess.upper


@pytest.mark.parametrize("n_early", [1, 4])
def test_what_looks_at_returns_tells_it_too(market, baselines, n_early):
    rows = market.rows("test")[20:-20]
    said = baselines["logistic"][20 : 20 + len(rows)]
    assert reaction(market.bars, rows - n_early, said).to_return(LATER)[0] == n_early


def test_forecasts_that_do_not_follow_each_other_tell_nothing(market, baselines):
    rows = market.rows("test")[20:-20]
    early = reaction(market.bars, rows[::2] - 3, baselines["volatility"][20:][: len(rows)][::2])
    assert early.to_range(LATER) is None


def test_bars_are_not_compared_across_holes(market, baselines):
    rows = market.rows("test")[20:-20]
    said = baselines["volatility"][20 : 20 + len(rows)]
    is_there = np.arange(len(market.bars)) % 8 < 6
    pieces = replace(market.bars, frame=market.bars.frame[is_there])
    early = is_there[rows - 1]
    place = (np.cumsum(is_there) - 1)[rows[early] - 1]
    found = reaction(pieces, place, said[early])
    assert found.to_range(range(1, 2))[0] == 1
    assert found.to_range(LATER) is None


def test_a_few_rows_of_chance_are_not_suspected(market):
    """Of the many shifts that are looked at one fits by chance, the more so on few rows."""
    several_a_day = replace(BOOTSTRAP, day=6)
    for seed in range(40):
        rows = np.arange(100 + 90 * seed, 170 + 90 * seed)
        said = np.random.default_rng(seed).dirichlet([4, 6, 4], len(rows))
        found = Reaction(market.bars, rows, said, several_a_day)
        assert found.to_range(LATER) is None
        assert found.to_return(LATER) is None
        assert found.to_range(EARLIER) is None


@pytest.mark.parametrize("said", [[0.2, 0.6, 0.2], [0.0, 1.0, 0.0]])
def test_a_constant_tells_nothing(market, said):
    rows = market.rows("test")
    found = reaction(market.bars, rows, np.tile(said, (len(rows), 1)))
    assert (found.to_range(LATER), found.to_return(LATER)) == (None, None)


def test_what_knows_the_time_of_day_alone_is_not_suspected():
    """A market that is wild from noon to three every day, and forecasts that know so."""
    calm = SimulatedSource(5, 3000, 0.0).load("ETHUSDT", Timeframe.H1)
    hour = (calm.open_time // 3_600_000) % 24
    frame = calm.frame.copy()
    middle = (frame["high"] + frame["low"]) / 2
    stretched = np.where((hour >= 12) & (hour < 15), 6.0, 1.0)
    for name in ("high", "low"):
        frame[name] = middle + stretched * (frame[name] - middle)
    rows = np.arange(100, 2900)
    # One of the next three hours is wild.
    still = np.where((hour[rows] >= 9) & (hour[rows] < 14), 0.5, 0.8)
    said = np.column_stack([(1 - still) / 2, still, (1 - still) / 2])
    assert reaction(replace(calm, frame=frame), rows, said).to_range(LATER) is None
