import os
import tracemalloc
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from builders import bars_from_closes, drop_bars, make_bars

from percoin.bars.schema import Bars
from percoin.dataset import (
    PARTS,
    DatasetSpec,
    MarketDataset,
    SplitSpec,
    build_dataset,
    build_folds,
    build_search_dataset,
)
from percoin.errors import ConfigError, MissingClassError, NotEnoughBarsError
from percoin.features.feature_set import (
    WARM_UP_BARS,
    FeatureDefinition,
    FeatureSet,
    compute_features,
    history_bars,
)
from percoin.features.scaling import Scaling
from percoin.labels import FixedHorizon, LabelRule, TripleBarrier, VolatilityScaled
from percoin.types import Signal, Timeframe

LOOKBACK = 20
RULE = FixedHorizon(horizon=3, threshold=0.0025)
SPLIT = SplitSpec(purge_bars=3, embargo_bars=12)
KLINES = Path(
    os.environ.get(
        "PERCOIN_KLINES", Path(__file__).parents[1] / ".." / "shared" / "data" / "klines"
    )
)


def build(
    bars: Bars,
    label_rule: LabelRule = RULE,
    split_spec: SplitSpec = SPLIT,
    lookback: int = LOOKBACK,
    history_days: float = 365,
    definition: FeatureDefinition = FeatureDefinition.RELATIVE,
    extra: tuple[str, ...] = (),
    start: int | None = None,
) -> MarketDataset:
    spec = DatasetSpec(
        label_rule, FeatureSet(definition, extra), lookback, split_spec, history_days, start
    )
    return build_dataset(bars, spec)


def change_from(bars: Bars, position: int) -> Bars:
    frame = bars.frame.copy()
    frame.iloc[position:] = frame.iloc[position:] * 5.0 + 1.0
    return replace(bars, frame=frame)


@pytest.mark.parametrize("definition", list(FeatureDefinition))
def test_changing_validation_and_test_bars_leaves_the_scaler_bytes(definition):
    bars = make_bars(1500)
    dataset = build(bars, definition=definition)
    first_validation = int(dataset.split.validation[0])
    changed = build(change_from(bars, first_validation - SPLIT.embargo_bars), definition=definition)
    assert changed.scaling.mean_.tobytes() == dataset.scaling.mean_.tobytes()
    assert changed.scaling.scale_.tobytes() == dataset.scaling.scale_.tobytes()
    train = slice(0, int(dataset.split.train[-1]) + 1)
    assert changed.features[train].tobytes() == dataset.features[train].tobytes()
    assert (
        changed.label[dataset.split.train].tolist() == dataset.label[dataset.split.train].tolist()
    )


def test_changing_train_bars_changes_the_scaler():
    bars = make_bars(1500)
    changed = build(change_from(bars, 400))
    assert changed.scaling.mean_.tobytes() != build(bars).scaling.mean_.tobytes()


def test_train_rows_are_standardised():
    dataset = build(make_bars(1500))
    train = dataset.features[dataset.split.train]
    np.testing.assert_allclose(train.mean(axis=0, dtype=np.float64), 0, atol=1e-5)
    np.testing.assert_allclose(train.std(axis=0, dtype=np.float64), 1, atol=1e-5)


def test_train_windows_and_labels_never_reach_the_validation_cut():
    dataset = build(make_bars(1500))
    for earlier, later in (("train", "validation"), ("validation", "test")):
        cut = int(dataset.rows(later)[0]) - SPLIT.embargo_bars
        last_row = int(dataset.rows(earlier)[-1])
        assert last_row + RULE.horizon < cut
        last_window = dataset.windows[last_row - LOOKBACK + 1]
        np.testing.assert_array_equal(
            last_window, dataset.features[last_row - LOOKBACK + 1 : last_row + 1]
        )


def test_every_window_of_the_split_is_whole_and_labelled():
    bars = drop_bars(make_bars(1600), range(600, 605))
    bars.frame.iloc[300, bars.frame.columns.get_loc("volume")] = 0.0
    dataset = build(bars)
    for part in ("train", "validation", "test"):
        rows = dataset.rows(part)
        assert np.isfinite(dataset.windows[rows - LOOKBACK + 1]).all()
        assert (dataset.label[rows] >= 0).all()
        assert np.isfinite(dataset.forward_return[rows]).all()
        elapsed = bars.open_time[rows] - bars.open_time[rows - LOOKBACK + 1]
        assert (elapsed == (LOOKBACK - 1) * bars.timeframe.milliseconds).all()


def test_undefined_features_stay_nan_and_never_become_zero():
    bars = make_bars(1500)
    bars.frame.iloc[300, bars.frame.columns.get_loc("volume")] = 0.0
    undefined = np.isnan(build(bars).features).any(axis=1)
    assert np.flatnonzero(undefined).tolist() == [*range(WARM_UP_BARS), 301]


def test_only_the_gap_and_the_windows_over_it_are_lost():
    whole = build(make_bars(1500))
    gapped = build(drop_bars(make_bars(1500), [600]))
    n_whole, n_gapped = (len(rows_of_all_parts(dataset)) for dataset in (whole, gapped))
    # Before the gap the 3 labels that need the bar; at and after it 20 rows without
    # volatility and the 19 whose window still holds one of those; the bar itself.
    assert n_whole - n_gapped == 3 + 20 + LOOKBACK - 1 + 1


def rows_of_all_parts(dataset: MarketDataset) -> np.ndarray:
    return np.concatenate([dataset.rows(part) for part in ("train", "validation", "test")])


def test_windows_share_memory_with_the_features():
    dataset = build(make_bars(1500))
    assert np.shares_memory(dataset.windows, dataset.features)
    assert dataset.features.dtype == np.float32
    assert dataset.windows.shape == (1500 - LOOKBACK + 1, LOOKBACK, 15)


def test_memory_does_not_grow_with_the_lookback():
    bars = make_bars(3000)

    def peak_bytes(lookback: int) -> int:
        tracemalloc.start()
        dataset = build(bars, lookback=lookback)
        assert dataset.windows.shape[1] == lookback
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    peak_bytes(5)  # first use loads modules
    assert peak_bytes(200) < 1.2 * peak_bytes(5)


def test_earlier_bars_only_warm_up_the_indicators():
    bars = make_bars(4000)
    dataset = build(bars, history_days=10)
    first_row = int(dataset.split.train[0])
    # 10 days of 15m are 960 rows; the first window's oldest bar has its full memory.
    assert first_row == history_bars(LOOKBACK) - 1
    assert len(dataset.bars) == first_row + 960
    assert dataset.dates("train")[0] == bars.close_time() - pd.Timedelta(days=10)


def test_the_same_rows_come_from_a_longer_file():
    bars = make_bars(4000)
    short = build(bars.slice(4000 - 960 - history_bars(LOOKBACK) + 1), history_days=10)
    long = build(bars, history_days=10)
    assert short.bars.sha256() == long.bars.sha256()
    assert short.features.tobytes() == long.features.tobytes()


def test_a_history_longer_than_time_itself_takes_every_bar():
    assert len(build(make_bars(1500), history_days=1e12).bars) == 1500


def test_dates_are_the_opens_of_the_first_and_last_row():
    bars = make_bars(1500)
    dataset = build(bars)
    first, last = dataset.dates("test")
    assert first == bars.frame.index[dataset.split.test[0]]
    assert last == bars.frame.index[-1 - RULE.horizon]


VOLATILITY_SCALED = VolatilityScaled(horizon=3, no_trade_share=0.4, volatility_bars=50)


@pytest.mark.parametrize(
    "rule",
    [RULE, TripleBarrier(horizon=3, barrier_width=0.7, volatility_bars=50), VOLATILITY_SCALED],
)
def test_class_counts_are_in_the_order_of_signal(rule):
    dataset = build(make_bars(1500), label_rule=rule)
    counts = dataset.class_counts("validation")
    labels = dataset.label[dataset.rows("validation")].tolist()
    assert counts.tolist() == [labels.count(signal) for signal in Signal]


def test_a_label_rule_is_fitted_on_the_train_rows_alone():
    bars = make_bars(1500)
    dataset = build(bars, label_rule=VOLATILITY_SCALED)
    after = int(dataset.rows("validation")[0])
    changed = build(change_from(bars, after), label_rule=VOLATILITY_SCALED)
    assert dataset.label_rule.width is not None
    assert changed.label_rule == dataset.label_rule
    counts = dataset.class_counts("train")
    assert counts[Signal.NO_TRADE] / counts.sum() == pytest.approx(0.4, abs=0.002)


def test_a_class_missing_in_train_is_refused_with_the_counts():
    rising = bars_from_closes((100 * 1.01 ** np.arange(400)).tolist())
    with pytest.raises(MissingClassError) as caught:
        build(rising)
    message = str(caught.value)
    assert message.startswith(
        "BTCUSDT 15m: the train rows lack a class (SHORT 0, NO_TRADE 0, LONG "
    )
    assert "threshold=0.0025" in message
    assert message.endswith("or use a longer history_days")
    assert "\n" not in message
    with pytest.raises(MissingClassError, match=r"or use an earlier start$"):
        build(rising, start=int(rising.open_time[50]))


def still(n_bars: int = 1500, volume: float = 1.0, from_bar: int = 0) -> Bars:
    """A market whose price stands still from a bar on."""
    bars = make_bars(n_bars)
    bars.frame.iloc[from_bar:, :4] = bars.frame["close"].iloc[max(0, from_bar - 1)]
    bars.frame.iloc[from_bar:, 4] = volume
    return bars


def test_bars_that_were_never_traded_are_told_apart_from_too_few():
    bars = make_bars(1500)
    bars.frame["volume"] = 0.0
    with pytest.raises(NotEnoughBarsError) as raised:
        build(bars)
    assert "no bar has volume (1,500 bars), these are not traded bars" in str(raised.value)
    assert "load more bars" not in str(raised.value)


@pytest.mark.parametrize("n_bars", [40, 1500])
def test_a_history_of_flat_bars_is_named(n_bars):
    with pytest.raises(NotEnoughBarsError) as raised:
        build(still(n_bars, volume=0.0))
    assert f"all {n_bars:,} bars are flat at" in str(raised.value)
    assert "and without volume" in str(raised.value)
    assert "load more bars" not in str(raised.value)


def test_silent_bars_here_and_there_ask_for_a_longer_timeframe():
    bars = make_bars(1500)
    bars.frame.iloc[::15, 4] = 0.0
    with pytest.raises(NotEnoughBarsError) as raised:
        build(bars)
    assert "100 of 1,500 bars are without volume, the last at 2024-01-16 11:15" in str(raised.value)
    assert "take a longer timeframe" in str(raised.value)
    assert "load more bars" not in str(raised.value)


def test_many_bars_between_gaps_are_not_asked_to_be_more_of_the_same():
    bars = drop_bars(make_bars(1500), range(0, 1500, 25))
    with pytest.raises(NotEnoughBarsError, match=r"59 gaps lie between .*fill the gaps"):
        build(bars)


@pytest.mark.parametrize("rule", [RULE, VolatilityScaled(3, 0.4, 20), TripleBarrier(3, 1.0, 20)])
def test_a_price_that_stands_still_while_it_is_traded_is_named(rule):
    with pytest.raises((MissingClassError, NotEnoughBarsError)) as raised:
        build(still(), rule)
    assert "1,500 of 1,500 bars are flat: the price stands still" in str(raised.value)
    assert "take a time in which the market was traded" in str(raised.value)


def test_a_threshold_no_market_reaches_is_refused():
    with pytest.raises(MissingClassError, match=r"SHORT 0, NO_TRADE \d+, LONG 0"):
        build(make_bars(800), label_rule=FixedHorizon(horizon=3, threshold=0.9))


@pytest.mark.parametrize("n_bars", [0, 1, 13, 50, 100, 150])
def test_too_few_bars_are_refused_with_both_counts(n_bars):
    with pytest.raises(NotEnoughBarsError, match="BTCUSDT 15m") as caught:
        build(make_bars(200).slice(0, n_bars))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "rule",
    [
        FixedHorizon(horizon=3, threshold=0.002),
        TripleBarrier(horizon=3, barrier_width=0.5, volatility_bars=200),
        VolatilityScaled(horizon=3, no_trade_share=0.4, volatility_bars=200),
    ],
)
def test_the_number_of_bars_asked_for_is_the_smallest_that_works(rule):
    bars = make_bars(500)
    with pytest.raises(NotEnoughBarsError) as caught:
        build(bars.slice(0, 100), label_rule=rule)
    asked_for = int(str(caught.value).split("at least ")[1].split(" ")[0])
    assert len(build(bars.slice(0, asked_for), label_rule=rule).rows("validation")) >= 1
    with pytest.raises(NotEnoughBarsError, match=f"{asked_for - 1} bars in history_days"):
        build(bars.slice(0, asked_for - 1), label_rule=rule)


def test_a_long_sigma_is_given_the_bars_it_needs():
    rule = TripleBarrier(horizon=3, barrier_width=0.5, volatility_bars=1500)
    dataset = build(make_bars(4000), label_rule=rule, history_days=10)
    assert dataset.dates("train")[0] == build(make_bars(4000), history_days=10).dates("train")[0]


def test_a_spec_without_more_words_is_split_around_the_horizon_and_takes_all_bars():
    bars = make_bars(900)
    plain = build_dataset(bars, DatasetSpec(RULE, lookback=LOOKBACK))
    said = build(bars, split_spec=SplitSpec(purge_bars=3, embargo_bars=3), history_days=10_000)
    assert plain.spec.split_spec == said.spec.split_spec
    assert all(np.array_equal(plain.rows(part), said.rows(part)) for part in PARTS)


def test_bars_too_few_for_all_history_are_one_clear_error():
    with pytest.raises(NotEnoughBarsError, match=r"60 bars give .*: load more bars$"):
        build_dataset(make_bars(60), DatasetSpec(RULE, lookback=LOOKBACK))


def test_a_short_history_of_many_bars_is_refused():
    with pytest.raises(NotEnoughBarsError, match=r"history_days=0\.5"):
        build(make_bars(4000), history_days=0.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split_spec": SplitSpec(purge_bars=2, embargo_bars=0)}, "split.purge_bars=3 or more"),
        ({"lookback": 0}, "lookback=0"),
        ({"history_days": 0}, "history_days=0"),
        ({"history_days": float("nan")}, "history_days=nan"),
    ],
)
def test_arguments_that_cannot_be_meant_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        build(make_bars(300), **arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        {"fractions": (0.5, 0.5, 0.5), "purge_bars": 3, "embargo_bars": 0},
        {"purge_bars": -1, "embargo_bars": 0},
        {"purge_bars": 3, "embargo_bars": -1},
    ],
)
def test_a_split_that_cannot_be_meant_is_refused(arguments):
    with pytest.raises(ConfigError, match="split"):
        SplitSpec(**arguments)


@pytest.mark.skipif(
    not (KLINES / "BTCUSDT" / "15m.parquet").is_file(),
    reason="no real bars: set PERCOIN_KLINES to a folder of <SYMBOL>/<tf>.parquet",
)
def test_real_bars_lose_only_the_windows_over_flat_fills():
    frame = pd.read_parquet(KLINES / "BTCUSDT" / "15m.parquet").set_index("open_time")
    bars = Bars("BTCUSDT", Timeframe.M15, frame.loc[:"2024-11-10"], "files: BTCUSDT/15m.parquet")
    dataset = build(bars, lookback=60, history_days=60)
    first, last = dataset.dates("train")[0], dataset.dates("test")[1]
    n_decisions = round((last - first) / bars.timeframe.timedelta) + 1
    n_dropped_at_cuts = 2 * (SPLIT.purge_bars + SPLIT.embargo_bars)
    # 4 bars without volume on 2024-10-28 hide the volume change of 4 bars: 63 windows.
    assert n_decisions - len(rows_of_all_parts(dataset)) == n_dropped_at_cuts + 63


def search_dataset(bars: Bars, lookback: int, horizon: int, cut: int) -> MarketDataset:
    spec = DatasetSpec(FixedHorizon(horizon, 0.0025), lookback=lookback, history_days=365)
    return build_search_dataset(bars, spec, int(bars.open_time[cut]))


@pytest.mark.parametrize(("lookback", "horizon"), [(8, 3), (48, 3), (8, 12)])
def test_the_parts_of_a_search_lie_alike_in_time_for_every_lookback_and_label(lookback, horizon):
    bars = make_bars(900)
    dataset = search_dataset(bars, lookback, horizon, cut=700)
    train, validation = (
        dataset.bars.open_time[dataset.rows(part)] for part in ("train", "validation")
    )
    assert train[-1] == bars.open_time[700 - horizon - 1]
    assert validation[0] == bars.open_time[700 + horizon]
    # The last labels end on the last bar, and on none that a test may use.
    assert validation[-1] == bars.open_time[900 - horizon - 1]
    assert len(dataset.rows("test")) == 0
    fitted = Scaling.fit(compute_features(dataset.bars, FeatureSet())[dataset.rows("train")])
    assert np.array_equal(dataset.scaling.mean_, fitted.mean_)


def test_a_search_that_has_too_few_bars_is_one_clear_error():
    with pytest.raises(NotEnoughBarsError, match="no train rows are left"):
        search_dataset(make_bars(300), lookback=8, horizon=3, cut=20)


def test_folds_test_one_stretch_each_and_scale_on_their_own_train_rows():
    folds = build_folds(make_bars(2000), DatasetSpec(RULE, lookback=LOOKBACK), 3)
    tests = [fold.rows("test") for fold in folds]
    assert all(before[-1] < after[0] for before, after in pairwise(tests))
    for fold in folds:
        raw = compute_features(fold.bars, fold.feature_set)
        assert np.array_equal(fold.scaling.mean_, Scaling.fit(raw[fold.rows("train")]).mean_)
    assert len({fold.scaling.mean_.tobytes() for fold in folds}) == 3


def test_a_label_that_looks_beyond_all_bars_is_one_clear_error():
    with pytest.raises(NotEnoughBarsError, match="looks 100000000 bars ahead"):
        build(
            make_bars(300),
            FixedHorizon(horizon=100_000_000, threshold=0.0025),
            SplitSpec(purge_bars=100_000_000, embargo_bars=0),
        )


def test_too_many_folds_are_one_clear_error():
    with pytest.raises(NotEnoughBarsError, match="usable rows"):
        build_folds(make_bars(200), DatasetSpec(RULE, lookback=LOOKBACK), 60)
