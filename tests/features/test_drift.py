import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from percoin.features.drift import STRETCH_ROWS, Bins, bin_features, measure_shifts
from percoin.features.feature_set import FEATURE_NAMES

ROWS = (
    np.random.default_rng(0).normal(size=(8 * STRETCH_ROWS, len(FEATURE_NAMES))).astype(np.float32)
)


def test_the_index_is_the_sum_over_bins_by_hand():
    bins = Bins(edges=(0.0, 1.0), shares=(0.5, 0.25, 0.25))
    # On an edge counts as below it: 1, 2 and 1 of four rows.
    after = np.array([0.0, 0.5, 1.0, 7.0])
    by_hand = (0.25 - 0.5) * np.log(0.25 / 0.5) + (0.5 - 0.25) * np.log(0.5 / 0.25)
    assert bins.stability_index(after) == pytest.approx(by_hand)


def test_the_edges_are_the_deciles_and_each_bin_has_a_tenth():
    bins = Bins.of(np.arange(1000.0))
    assert len(bins.edges) == 9
    assert bins.shares == pytest.approx([0.1] * 10)


def test_values_that_repeat_share_a_bin_and_their_share_is_kept():
    bins = Bins.of(np.array([0.0] * 700 + [1.0] * 300))
    assert (bins.edges, bins.shares) == ((0.0, 1.0), (0.7, 0.3, 0.0))
    assert bins.stability_index(np.array([0.0] * 7 + [1.0] * 3)) == pytest.approx(0, abs=1e-3)
    assert bins.stability_index(np.array([2.0] * 10)) > 5


def test_one_feature_that_moves_is_found_among_the_fifteen():
    bins = bin_features(FEATURE_NAMES, ROWS)
    assert tuple(bins) == FEATURE_NAMES
    later = ROWS[-STRETCH_ROWS:].copy()
    later[:, 4] += 1
    shifts = measure_shifts(bins, later)
    moved = shifts.pop(FEATURE_NAMES[4])
    assert moved.ratio > 2
    assert max(shift.ratio for shift in shifts.values()) <= 1


def test_the_furthest_is_the_highest_of_the_stretches():
    bins = Bins.of(ROWS[:, 0].astype(np.float64))
    stretches = ROWS[:, 0].reshape(8, STRETCH_ROWS).astype(np.float64)
    assert bins.furthest == max(bins.stability_index(stretch) for stretch in stretches)
    # Of rows that come in no order it is far from what means a change; of spells it is not.
    assert bins.furthest < 0.1
    assert Bins.of(np.sort(ROWS[:, 0]).astype(np.float64)).furthest > 1
    assert Bins.of(ROWS[1:, 0].astype(np.float64)).furthest is None


def test_a_steady_feature_is_held_against_what_means_no_change():
    bins = bin_features(FEATURE_NAMES, np.zeros_like(ROWS))
    later = np.zeros_like(ROWS[:STRETCH_ROWS])
    later[0] = 1
    shift = measure_shifts(bins, later)["rsi_14"]
    assert bins["rsi_14"].furthest == 0
    assert 0 < shift.psi < 0.1
    assert shift.ratio == pytest.approx(shift.psi / 0.1)


@given(arrays(np.float64, st.integers(1, 60), elements=st.floats(-1e6, 1e6)))
def test_rows_have_not_drifted_from_themselves_and_the_index_is_never_negative(values):
    bins = Bins.of(values)
    assert bins.stability_index(values) == pytest.approx(0, abs=1e-2)
    assert bins.stability_index(values[::-1] * 2 + 1) >= 0


@pytest.mark.parametrize(
    ("edges", "shares"),
    [
        ((0.0,), (1.0,)),
        ((1.0, 0.0), (0.3, 0.3, 0.4)),
        ((0.0, 0.0), (0.3, 0.3, 0.4)),
        ((0.0,), (0.4, 0.4)),
        ((0.0,), (1.5, -0.5)),
    ],
)
def test_bins_that_cannot_be_are_refused(edges, shares):
    with pytest.raises(ValueError, match=r"edges|shares"):
        Bins(edges, shares)
