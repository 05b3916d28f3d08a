from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from builders import START, drop_bars, make_bars

from percoin.bars.panel import with_panel
from percoin.bars.schema import Bars
from percoin.dataset import DatasetSpec, SplitSpec
from percoin.errors import ConfigError, NotEnoughBarsError, PoolError
from percoin.evaluation.trading import prices_of
from percoin.features.feature_set import FeatureSet, compute_features
from percoin.features.scaling import Scaling
from percoin.labels import FixedHorizon, Relative, VolatilityScaled
from percoin.training.recipes.pool import (
    CalendarCuts,
    Pool,
    build_pool,
    build_pooled_market,
)

STEP = 15 * 60_000
HORIZON = 3
SPEC = DatasetSpec(
    FixedHorizon(horizon=HORIZON, threshold=0.0025),
    FeatureSet(),
    8,
    SplitSpec(purge_bars=HORIZON, embargo_bars=2),
    365,
)
PARTS = ("train", "validation", "test")


def market(symbol: str, n_bars: int = 900, first_bar: int = 0) -> Bars:
    """Bars that begin so many bars after the others."""
    start = START + first_bar * pd.Timedelta(minutes=15)
    return make_bars(n_bars, symbol, seed=sum(map(ord, symbol)), start=start)


def three() -> list[Bars]:
    """One that begins later, one that ends earlier."""
    return [market("AAA"), market("BBB", 700, 200), market("CCC", 850)]


def pool(markets: list[Bars] | None = None, left_out: tuple[str, ...] = (), **changes) -> Pool:
    return build_pool(three() if markets is None else markets, left_out, replace(SPEC, **changes))


def opened(dataset, part: str) -> np.ndarray:
    return dataset.bars.open_time[dataset.rows(part)]


def test_no_row_of_one_market_lies_in_the_part_that_another_has_at_that_time():
    made = pool()
    cuts = made.cuts
    for dataset in made.seen:
        train, validation, test = (opened(dataset, part) for part in PARTS)
        assert train.min() >= cuts.first_time
        # The last label looks at no bar of the next part.
        assert train.max() + HORIZON * STEP < cuts.validation_time
        assert validation.min() == cuts.validation_time + 2 * STEP
        assert validation.max() + HORIZON * STEP < cuts.test_time
        assert test.min() == cuts.test_time + 2 * STEP


def test_the_cuts_are_shares_of_the_time_from_the_first_row_of_all_to_the_last():
    made = pool()
    rows = [opened(dataset, part) for dataset in made.seen for part in PARTS]
    first, last = min(own.min() for own in rows), max(own.max() for own in rows)
    n_bars = (last - first) // STEP + 1
    assert made.cuts == CalendarCuts(
        first, first + round(0.7 * n_bars) * STEP, first + round(0.85 * n_bars) * STEP
    )


def test_a_market_with_a_shorter_history_joins_with_what_it_has():
    whole, short = pool().seen[:2]
    assert len(short.rows("train")) == len(whole.rows("train")) - 200
    assert opened(short, "test").tolist() == opened(whole, "test").tolist()


def test_the_history_reaches_back_from_the_newest_bar_of_any_market():
    made = pool(history_days=7)
    newest = make_bars(900).close_time().timestamp() * 1000
    assert made.cuts.first_time == newest - 7 * 86_400_000
    early, late = made.seen[0], made.seen[2]
    assert opened(early, "train")[0] == opened(late, "train")[0] == made.cuts.first_time


def test_the_scaling_is_that_of_all_train_rows_of_the_seen_markets():
    made = pool(left_out=("CCC",))
    rows = [
        compute_features(dataset.bars, SPEC.feature_set)[dataset.rows("train")]
        for dataset in made.seen
    ]
    expected = Scaling.fit(np.concatenate(rows))
    np.testing.assert_allclose(made.scaling.mean_, expected.mean_, rtol=1e-12)
    np.testing.assert_allclose(made.scaling.scale_, expected.scale_, rtol=1e-12)
    assert all(dataset.scaling is made.scaling for dataset in made.markets)


def disturbed(bars: Bars, first: int) -> Bars:
    """The same with other prices from that moment on."""
    frame = bars.frame.copy()
    late = bars.open_time >= first
    frame.loc[late, ["open", "high", "low", "close"]] *= 1.5
    return replace(bars, frame=frame)


@pytest.mark.parametrize("changed", ["AAA", "BBB", "CCC"])
def test_test_rows_have_no_say_in_scaling_and_train_rows(changed):
    before = pool()
    markets = [
        disturbed(bars, before.cuts.test_time) if bars.symbol == changed else bars
        for bars in three()
    ]
    after = pool(markets)
    assert after.cuts == before.cuts
    assert after.scaling.mean_.tobytes() == before.scaling.mean_.tobytes()
    assert after.scaling.scale_.tobytes() == before.scaling.scale_.tobytes()
    for one, other in zip(before.seen, after.seen, strict=True):
        rows = one.rows("train")
        assert np.array_equal(rows, other.rows("train"))
        assert np.array_equal(one.features[rows], other.features[rows])
        assert np.array_equal(one.label[rows], other.label[rows])


def test_a_market_left_out_has_the_cuts_and_the_scaling_and_nothing_to_say():
    with_it, without = pool(left_out=("CCC",)), pool([market("AAA"), market("BBB", 700, 200)])
    assert [dataset.bars.symbol for dataset in with_it.unseen] == ["CCC"]
    assert with_it.cuts == without.cuts
    assert with_it.scaling.mean_.tobytes() == without.scaling.mean_.tobytes()
    assert np.array_equal(with_it.features, without.features, equal_nan=True)


def test_features_are_held_once():
    made = pool()
    assert all(np.shares_memory(dataset.features, made.features) for dataset in made.seen)
    assert len(made.features) == sum(len(dataset.bars) for dataset in made.seen)


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        (market("OLD", 740), "no test rows are left"),
        (market("NEW", 250, 650), "no train rows are left"),
        (market("GONE", 100, -5000), "no bar of its history"),
    ],
    ids=["ends before the test", "begins after train", "ended before the history"],
)
def test_a_market_that_cannot_be_judged_is_refused_and_moves_no_cut(odd, reason):
    made = pool([*three(), odd], history_days=30)
    assert list(made.refused) == [odd.symbol]
    assert reason in made.refused[odd.symbol]
    assert str(pd.Timestamp(made.cuts.test_time, unit="ms").date()) in made.refused[odd.symbol]
    assert made.cuts == pool(history_days=30).cuts
    assert odd.symbol not in [dataset.bars.symbol for dataset in made.markets]


def test_a_market_without_a_class_is_refused():
    still = market("STILL")
    frame = still.frame.copy()
    for name in ("open", "high", "low", "close"):
        frame[name] = 100 + (frame[name] - 100) / 1e4
    frame["high"], frame["low"] = frame.max(axis=1), frame["low"]
    made = pool([*three(), replace(still, frame=frame)])
    assert "lack a class" in made.refused["STILL"]


def test_a_pool_of_less_than_two_is_refused_and_every_market_named():
    with pytest.raises(PoolError, match="at least 2 markets to train on, and 1 is left; OLD: no "):
        build_pool([market("AAA"), market("OLD", 300)], (), SPEC)
    with pytest.raises(PoolError, match="1 is left"):
        build_pool([market("AAA"), market("BBB")], ("BBB",), SPEC)


def test_a_purge_shorter_than_the_labels_reach_is_refused():
    with pytest.raises(ConfigError, match="purge_bars=2"):
        pool(split=SplitSpec(purge_bars=2, embargo_bars=2))


def test_each_market_has_labels_fitted_on_its_own_train_rows():
    rule = VolatilityScaled(horizon=HORIZON, no_trade_share=0.4, volatility_bars=20)
    made = pool(label_rule=rule, left_out=("CCC",))
    for dataset in made.markets:
        counts = dataset.class_counts("train")
        assert counts[1] / counts.sum() == pytest.approx(0.4, abs=0.01)


def test_a_market_is_made_again_from_cuts_and_scaling():
    made = pool(left_out=("BBB",))
    for dataset in made.markets:
        again = build_pooled_market(dataset.bars, SPEC, made.cuts, made.scaling)
        assert again.bars.sha256() == dataset.bars.sha256()
        assert np.array_equal(again.features, dataset.features, equal_nan=True)
        assert all(np.array_equal(again.rows(part), dataset.rows(part)) for part in PARTS)


def test_a_market_made_from_cuts_that_it_has_no_rows_for_says_so():
    cuts = pool().cuts
    scaling = pool().scaling
    with pytest.raises(NotEnoughBarsError, match=r"OLD 15m: no test rows .* its test 2024-01-"):
        build_pooled_market(market("OLD", 740), SPEC, cuts, scaling)


def test_a_gap_over_a_cut_keeps_train_labels_on_their_side():
    cuts = pool().cuts
    position = int(np.searchsorted(market("AAA").open_time, cuts.validation_time))
    gappy = drop_bars(market("AAA"), range(position - 4, position + 6))
    (dataset,) = [m for m in pool([gappy, *three()[1:]]).seen if m.bars.symbol == "AAA"]
    assert opened(dataset, "train").max() + HORIZON * STEP < cuts.validation_time
    assert opened(dataset, "validation").min() >= cuts.validation_time


RELATIVE = Relative(horizon=HORIZON, no_trade_share=0.4, volatility_bars=20)


def test_relative_labels_take_the_mean_of_the_markets_that_are_trained_on():
    made = pool([*three(), market("DDD"), market("OLD", 300)], ("CCC",), label_rule=RELATIVE)
    assert list(made.refused) == ["OLD"]
    for dataset in made.markets:
        assert dataset.label_rule.compared_with == ("AAA", "BBB", "DDD")
        counts = dataset.class_counts("train")
        assert counts[1] / counts.sum() == pytest.approx(0.4, abs=0.01)
    # LONG in one market is SHORT in another.
    rows = opened(made.seen[0], "train")
    moved = [dataset.label[np.searchsorted(dataset.bars.open_time, rows)] for dataset in made.seen]
    assert np.corrcoef(moved[0] == 2, moved[2] == 0)[0, 1] > 0.1


def test_relative_labels_are_made_again_from_the_bars_that_a_manifest_names():
    made = pool(label_rule=RELATIVE, history_days=6)
    known = [dataset.bars for dataset in made.seen]
    for dataset in made.seen:
        bars = with_panel(replace(dataset.bars, panel=None), known)
        again = build_pooled_market(bars, dataset.spec, made.cuts, made.scaling)
        assert np.array_equal(again.label, dataset.label)
        assert all(np.array_equal(again.rows(part), dataset.rows(part)) for part in PARTS)


def test_relative_positions_are_traded_against_the_basket():
    [dataset, *_] = pool(label_rule=RELATIVE).seen
    row = int(dataset.rows("test")[0])
    prices = prices_of(dataset, row, row + HORIZON + 1)
    basket = prices.basket.path(0, HORIZON)[-1]
    close, opened_at = prices.basket.close, prices.basket.open
    assert basket == pytest.approx(np.nanmean(close[HORIZON] / opened_at[1]))
    assert pool().seen[0].bars.panel is None
    assert prices_of(pool().seen[0], row, row + HORIZON + 1).basket is None
