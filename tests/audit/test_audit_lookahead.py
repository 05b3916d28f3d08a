from dataclasses import dataclass, replace

import numpy as np
import pytest
from builders import make_bars
from cheats import LEAKS, RELATIVE, RULE, honest_dataset, last_return, leak, with_features

from percoin.audit.findings import FindingStatus
from percoin.audit.lookahead import (
    check_contents,
    check_features,
    check_labels,
    choose_cuts,
)
from percoin.bars.schema import Bars
from percoin.features.feature_set import FeatureDefinition, FeatureSet, compute_features
from percoin.labels import FixedHorizon, Labels, TripleBarrier

BARS = make_bars(1500)


@pytest.mark.parametrize("name", LEAKS)
def test_a_leaky_feature_is_detected_and_named(name):
    column, change = LEAKS[name]
    finding = check_features(BARS, RELATIVE, leak(column, change), n_cuts=40)
    assert finding.status is FindingStatus.LEAK
    # The others leak at every bar; there only every tenth is filled from the bar after it.
    newest = choose_cuts(len(BARS), 40, seed=0) - 1
    n_guilty = (newest % 10 == 0).sum() if name == "filled backwards" else 40
    assert finding.evidence.startswith(f"{column}: changed by later bars at {n_guilty} of 40 cuts")


def test_the_example_is_the_newest_bar_that_knew_too_much():
    # Every bar differs; the newest is the one that a reader can look up soonest.
    compute = leak(*LEAKS["standardised over all bars"])
    (cut,) = choose_cuts(len(BARS), 1, seed=0)
    finding = check_features(BARS, RELATIVE, compute, n_cuts=1)
    assert f"{BARS.close_time(int(cut) - 1):%Y-%m-%d %H:%M} changes when bars" in finding.evidence


@pytest.mark.parametrize("definition", list(FeatureDefinition))
def test_honest_features_pass(definition):
    assert check_features(BARS, FeatureSet(definition), compute_features).status is FindingStatus.OK


def test_a_feature_that_is_late_passes():
    finding = check_features(BARS, RELATIVE, leak("returns", last_return), n_cuts=10)
    assert finding.status is FindingStatus.OK


def test_cuts_are_distinct_seeded_and_leave_the_newest_bar_out():
    cuts = choose_cuts(1000, 40, seed=1)
    assert len(np.unique(cuts)) == 40
    assert cuts.min() >= 100
    assert cuts.max() < 1000
    np.testing.assert_array_equal(cuts, choose_cuts(1000, 40, seed=1))
    assert not np.array_equal(cuts, choose_cuts(1000, 40, seed=2))
    assert choose_cuts(12, 40, seed=0).tolist() == list(range(1, 12))


@dataclass(frozen=True)
class FurtherThanItSays(FixedHorizon):
    """A label that looks one bar further ahead than its horizon."""

    def label(self, bars: Bars) -> Labels:
        return replace(self, horizon=self.horizon + 1).as_promised(bars)

    def as_promised(self, bars: Bars) -> Labels:
        return super().label(bars)


def test_a_label_beyond_its_horizon_is_detected():
    finding = check_labels(BARS, FurtherThanItSays(RULE.horizon, RULE.threshold), n_cuts=20)
    assert finding.status is FindingStatus.LEAK
    assert "older than 3 bars change with later bars" in finding.evidence


@pytest.mark.parametrize("rule", [RULE, TripleBarrier(5, 1.0, 20)], ids=["fixed", "barrier"])
def test_labels_that_keep_to_their_horizon_pass(rule):
    assert check_labels(BARS, rule, n_cuts=20).status is FindingStatus.OK


def test_a_dataset_holds_what_its_functions_give():
    dataset = honest_dataset()
    assert check_contents(dataset, compute_features).status is FindingStatus.OK

    leaky = with_features(dataset, leak("returns", LEAKS["next return"][1]))
    finding = check_contents(replace(dataset, features=leaky.features), compute_features)
    assert finding.status is FindingStatus.LEAK
    assert finding.evidence.startswith("returns: ")

    shifted = replace(dataset, label=np.roll(dataset.label, 1))
    assert "differ from the label rule" in check_contents(shifted, compute_features).evidence


def test_a_leak_in_an_extra_column_is_found_by_its_name():
    features = FeatureSet(extra=("clock", "volatility"))
    place = features.names(BARS.timeframe).index("range_volatility_4")

    def compute(bars, feature_set):
        columns = compute_features(bars, feature_set)
        columns[:-1, place] = columns[1:, place]
        return columns

    assert check_features(BARS, features, compute_features).status is FindingStatus.OK
    finding = check_features(BARS, features, compute)
    assert finding.status is FindingStatus.LEAK
    assert finding.evidence.startswith("range_volatility_4: changed by later bars")
