from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from builders import drop_bars
from tuning_builders import hourly_bars, make_space, spoil, tuning

from percoin.config import FixedHorizonConfig, TrainConfig
from percoin.config.dates import moment_ms
from percoin.dataset import with_newest_test_rows
from percoin.registry.field_checks import open_time_text
from percoin.training.folds import make_folds
from percoin.tuning.rows import SearchRows

BASE = replace(tuning(), experiment=None)


def variant(lookback: int, horizon: int, base: TrainConfig = BASE) -> TrainConfig:
    split = replace(base.split, purge_bars=horizon, embargo_bars=horizon)
    labels = FixedHorizonConfig(horizon=horizon, threshold=0.004)
    return replace(base, lookback=lookback, labels=labels, split=split)


def times(dataset, part: str) -> np.ndarray:
    return dataset.bars.open_time[dataset.rows(part)]


@pytest.mark.parametrize(("lookback", "horizon"), [(8, 3), (6, 1), (20, 12)])
def test_no_trial_has_a_bar_of_the_test_part(lookback, horizon):
    bars = hourly_bars()
    rows = SearchRows.of(BASE, bars)
    (ordinary,) = make_folds(BASE, bars)
    assert rows.end_time == times(ordinary, "test")[0]
    dataset = rows.dataset(variant(lookback, horizon))
    assert dataset.bars.open_time[-1] < rows.end_time
    assert len(dataset.rows("test")) == 0
    # Validation begins alike for all, but for their embargo, and uses all that is left.
    step = bars.timeframe.milliseconds
    assert times(dataset, "validation")[0] == rows.validation_time + horizon * step
    assert times(dataset, "validation")[-1] == rows.end_time - (horizon + 1) * step


def test_the_own_settings_train_on_the_rows_of_an_ordinary_training():
    bars = hourly_bars()
    (ordinary,) = make_folds(BASE, bars)
    searched = SearchRows.of(BASE, bars).dataset(BASE)
    assert np.array_equal(times(searched, "train"), times(ordinary, "train"))
    assert times(searched, "validation")[0] == times(ordinary, "validation")[0]
    assert np.array_equal(searched.scaling.mean_, ordinary.scaling.mean_)


def test_a_history_shorter_than_the_bars_begins_alike_for_every_lookback():
    bars = hourly_bars(900)
    rows = SearchRows.of(replace(BASE, history_days=20), bars)
    newest_close = bars.open_time[-1] + bars.timeframe.milliseconds
    for lookback in (6, 20):
        first = times(rows.dataset(variant(lookback, 3)), "train")[0]
        assert first == newest_close - 20 * 86_400_000


def test_spoiling_every_test_bar_changes_nothing_that_a_trial_sees():
    bars = hourly_bars()
    rows = SearchRows.of(BASE, bars)
    spoilt = SearchRows.of(BASE, spoil(bars, rows.end_time))
    assert (spoilt.validation_time, spoilt.end_time) == (rows.validation_time, rows.end_time)
    for settings in (BASE, variant(20, 12)):
        before, after = rows.dataset(settings), spoilt.dataset(settings)
        pd.testing.assert_frame_equal(before.bars.frame, after.bars.frame)
        assert np.array_equal(before.features, after.features, equal_nan=True)
        assert np.array_equal(before.label, after.label)
        for part in ("train", "validation"):
            assert np.array_equal(before.rows(part), after.rows(part))


def test_chosen_settings_are_judged_on_later_rows_than_any_trial_saw():
    # A gap in the test part takes more rows from a long lookback: its cut comes earlier.
    bars = drop_bars(hourly_bars(), range(660, 664))
    rows = SearchRows.of(BASE, bars)
    (fold,) = make_folds(variant(20, 12), bars)
    assert times(fold, "test")[0] < rows.end_time
    chosen, (fresh,) = rows.fresh(variant(20, 12), bars)
    assert moment_ms("test_from", chosen.test_from) == rows.end_time
    # Every later training with these settings leaves out the same rows, with newer bars too.
    (later,) = make_folds(chosen, bars)
    assert np.array_equal(later.rows("test"), fresh.rows("test"))
    assert times(fresh, "test")[0] >= rows.end_time
    assert set(times(fresh, "test")) == {t for t in times(fold, "test") if t >= rows.end_time}
    assert np.array_equal(fresh.rows("train"), fold.rows("train"))
    # Older manifests only count them; so they are found again without the search.
    (again,) = with_newest_test_rows([fold], len(fresh.rows("test")))
    assert np.array_equal(again.rows("test"), fresh.rows("test"))


def test_settings_that_begin_no_earlier_say_nothing_of_the_rows_of_the_search():
    bars = hourly_bars()
    rows = SearchRows.of(BASE, bars)
    chosen, (fold,) = rows.fresh(BASE, bars)
    assert (chosen, times(fold, "test")[0]) == (BASE, rows.end_time)


def test_no_trial_sees_test_rows_that_the_command_leaves_out():
    bars = hourly_bars()
    plain, later = SearchRows.of(BASE, bars), bars.open_time[-20]
    base = replace(BASE, test_from=open_time_text(int(later)))
    rows = SearchRows.of(base, bars)
    assert rows.end_time == plain.end_time < later
    chosen, (fold,) = rows.fresh(base, bars)
    assert (chosen.test_from, times(fold, "test")[0]) == (base.test_from, later)


@pytest.mark.parametrize("words", [(), ("evaluation=walk_forward", "folds=3")])
def test_only_rows_of_the_first_fold_are_left_out_and_never_all_of_them(words):
    base = replace(tuning(*words), experiment=None)
    folds = make_folds(base, hourly_bars(900))
    counts = [len(fold.rows("test")) for fold in folds]

    def left(n_rows: int) -> list[int]:
        return [len(fold.rows("test")) for fold in with_newest_test_rows(folds, n_rows)]

    total = sum(counts)
    assert left(total - 4) == [counts[0] - 4, *counts[1:]]
    assert left(total - counts[0] + 1) == [1, *counts[1:]]
    for n_rows in (0, total - counts[0], total, total + 1):
        assert left(n_rows) == counts


def test_a_walk_forward_is_searched_before_the_first_of_its_test_parts():
    base = replace(tuning("evaluation=walk_forward", "folds=2"), experiment=None)
    bars = hourly_bars(900)
    rows = SearchRows.of(base, bars)
    first, second = make_folds(base, bars)
    assert rows.end_time == times(first, "test")[0] < times(second, "test")[0]
    assert rows.dataset(base).bars.open_time[-1] < rows.end_time


def test_a_space_without_proposals_of_its_own_still_has_the_longest_window():
    assert make_space("lookback=48").largest_lookback == 48
    assert make_space().largest_lookback == 20
