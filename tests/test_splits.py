from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from percoin.splits import (
    chronological_split,
    cut_rows,
    split_before_test,
    walk_forward_splits,
)

FRACTIONS = (0.70, 0.15, 0.15)


def test_a_search_gets_no_test_rows_and_no_row_near_the_cut():
    split = split_before_test(np.arange(0, 40, 2), 20, purge_bars=3, embargo_bars=4)
    assert split.train.tolist() == [0, 2, 4, 6, 8, 10, 12, 14, 16]
    assert split.validation.tolist() == [24, 26, 28, 30, 32, 34, 36, 38]
    assert split.test.tolist() == []


@pytest.mark.parametrize(("cut", "name"), [(3, "train"), (37, "validation")])
def test_a_search_without_train_or_validation_rows_is_refused(cut, name):
    with pytest.raises(ValueError, match=f"no {name} rows are left of 40"):
        split_before_test(np.arange(40), cut, purge_bars=3, embargo_bars=3)


@st.composite
def split_cases(draw):
    positions = draw(st.sets(st.integers(0, 2_000), min_size=100, max_size=400))
    shares = draw(st.sampled_from([FRACTIONS, (0.6, 0.2, 0.2), (0.34, 0.33, 0.33)]))
    horizon = draw(st.integers(1, 6))
    purge_bars = horizon + draw(st.integers(0, 3))
    return np.array(sorted(positions)), shares, horizon, purge_bars, draw(st.integers(0, 5))


@settings(deadline=None)
@given(case=split_cases())
def test_parts_are_ordered_disjoint_and_taken_from_the_rows(case):
    rows, fractions, _, purge_bars, embargo_bars = case
    split = chronological_split(rows, fractions, purge_bars, embargo_bars)
    together = np.concatenate([split.train, split.validation, split.test])
    assert (np.diff(together) > 0).all()
    assert set(together) <= set(rows)
    assert split.train[0] == rows[0]
    assert split.test[-1] == rows[-1]


@settings(deadline=None)
@given(case=split_cases())
def test_no_label_reaches_into_the_next_part(case):
    rows, fractions, horizon, purge_bars, embargo_bars = case
    split = chronological_split(rows, fractions, purge_bars, embargo_bars)
    assert split.train[-1] + horizon + embargo_bars < split.validation[0]
    assert split.validation[-1] + horizon + embargo_bars < split.test[0]


@settings(deadline=None)
@given(case=split_cases())
def test_only_rows_near_a_cut_are_dropped(case):
    rows, fractions, _, purge_bars, embargo_bars = case
    split = chronological_split(rows, fractions, purge_bars, embargo_bars)
    kept = np.concatenate([split.train, split.validation, split.test])
    cuts = rows[list(cut_rows(len(rows), fractions))]
    for row in np.setdiff1d(rows, kept):
        assert any(cut - purge_bars <= row < cut + embargo_bars for cut in cuts)


def test_a_hundred_rows_are_cut_at_70_and_85():
    split = chronological_split(np.arange(100), FRACTIONS, purge_bars=3, embargo_bars=2)
    assert (split.train[0], split.train[-1]) == (0, 66)
    assert (split.validation[0], split.validation[-1]) == (72, 81)
    assert (split.test[0], split.test[-1]) == (87, 99)


def test_distance_is_counted_in_bars_not_in_rows():
    # Between rows 6 and 7 lie 93 bars that are no rows: nothing is near the cut.
    rows = np.concatenate([np.arange(7), np.arange(100, 110)])
    split = chronological_split(rows, (0.42, 0.3, 0.28), purge_bars=3, embargo_bars=0)
    assert split.train.tolist() == [0, 1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("n_rows", "purge_bars", "embargo_bars", "message"),
    [
        (0, 0, 0, "cannot be cut"),
        (2, 0, 0, "cannot be cut"),
        (20, 14, 0, "no train rows"),
        (20, 2, 1, "no validation rows"),
        (20, 0, 3, "no validation rows"),
    ],
)
def test_an_empty_part_is_refused(n_rows, purge_bars, embargo_bars, message):
    with pytest.raises(ValueError, match=message):
        chronological_split(np.arange(n_rows), FRACTIONS, purge_bars, embargo_bars)


def test_an_empty_test_part_is_refused():
    with pytest.raises(ValueError, match="no test rows"):
        chronological_split(np.arange(30), (0.5, 0.4, 0.1), purge_bars=1, embargo_bars=3)


@pytest.mark.parametrize(
    "fractions", [(0.7, 0.3), (0.7, 0.3, 0.0), (0.7, 0.2, 0.2), (1.2, 0.1, -0.3)]
)
def test_shares_must_be_positive_and_sum_to_one(fractions):
    with pytest.raises(ValueError, match="three positive shares"):
        chronological_split(np.arange(100), fractions, 0, 0)


@pytest.mark.parametrize(("purge_bars", "embargo_bars"), [(-1, 0), (0, -1)])
def test_distances_are_not_negative(purge_bars, embargo_bars):
    with pytest.raises(ValueError, match="not below 0"):
        chronological_split(np.arange(100), FRACTIONS, purge_bars, embargo_bars)


@given(
    n_rows=st.integers(700, 1200),
    n_folds=st.integers(1, 6),
    purge_bars=st.integers(0, 5),
    embargo_bars=st.integers(0, 5),
)
def test_walk_forward_tests_every_later_stretch_once_and_trains_on_what_came_before(
    n_rows: int, n_folds: int, purge_bars: int, embargo_bars: int
) -> None:
    rows = np.arange(1000, 1000 + n_rows)
    folds = walk_forward_splits(rows, n_folds, (0.7, 0.15, 0.15), purge_bars, embargo_bars)
    assert len(folds) == n_folds
    tested = np.concatenate([fold.test for fold in folds])
    assert (np.diff(tested) > 0).all()
    assert tested[-1] == rows[-1]
    for before, fold in pairwise(folds):
        assert fold.train[0] == rows[0]
        assert len(fold.train) > len(before.train)
        assert fold.test[0] == before.test[-1] + 1 + embargo_bars
    for fold in folds:
        assert fold.validation[0] - fold.train[-1] > purge_bars + embargo_bars
        assert fold.test[0] - fold.validation[-1] > purge_bars + embargo_bars
        share = len(fold.train) / (len(fold.train) + len(fold.validation))
        assert share == pytest.approx(0.7 / 0.85, abs=0.15)


def test_walk_forward_needs_a_fold_and_rows_for_every_part() -> None:
    with pytest.raises(ValueError, match="n_folds=0"):
        walk_forward_splits(np.arange(100), 0, (0.7, 0.15, 0.15), 0, 0)
    with pytest.raises(ValueError, match="rows"):
        walk_forward_splits(np.arange(10), 8, (0.7, 0.15, 0.15), 3, 3)
