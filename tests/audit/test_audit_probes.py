import re
from dataclasses import replace

import numpy as np
import pytest
from cheats import LEAKS, all_rows, honest_dataset, leak, with_features

from percoin.audit import probes
from percoin.audit.findings import FindingStatus
from percoin.audit.probes import (
    check_last_row,
    check_oracle,
    check_shuffled_labels,
    check_single_features,
)
from percoin.bars.sources.simulated import SimulatedSource
from percoin.features.feature_set import FEATURE_NAMES
from percoin.types import Signal, Timeframe

DATASET = honest_dataset(SimulatedSource(seed=1, n_bars=3000).load("BTCUSDT", Timeframe.M15))


def knowing(dataset, noise: float):
    """``returns`` is the move to come, more or less."""
    rng = np.random.default_rng(0)
    move = np.nan_to_num(dataset.forward_return / np.nanstd(dataset.forward_return))
    features = dataset.features.copy()
    known = move + noise * rng.standard_normal(len(move))
    features[:, FEATURE_NAMES.index("returns")] = known.astype(np.float32)
    return replace(dataset, features=features)


def test_an_honest_market_passes():
    assert check_single_features(DATASET).status is FindingStatus.OK
    assert check_oracle(DATASET).status is FindingStatus.OK
    assert check_shuffled_labels(DATASET).status is FindingStatus.OK
    assert check_last_row(DATASET, "logistic").status is FindingStatus.OK


def test_a_feature_that_knows_the_direction_is_detected_and_named():
    finding = check_single_features(knowing(DATASET, noise=0.1))
    assert finding.status is FindingStatus.LEAK
    assert "furthest from .5 is returns" in finding.evidence


def test_a_feature_that_knows_the_opposite_is_detected():
    dataset = knowing(DATASET, noise=0.1)
    assert (
        check_single_features(replace(dataset, features=-dataset.features)).status
        is FindingStatus.LEAK
    )


def test_a_feature_that_knows_a_little_is_held_for_suspicious():
    finding = check_single_features(knowing(DATASET, noise=2.5))
    assert finding.status is FindingStatus.CANNOT_TELL


def test_the_next_return_as_a_feature_shows_in_the_probes():
    dataset = with_features(DATASET, leak("returns", LEAKS["next return"][1]))
    assert check_single_features(dataset).status is not FindingStatus.OK
    assert check_last_row(dataset, "logistic").status is not FindingStatus.OK


def test_a_model_that_knows_the_future_is_not_plausible():
    finding = check_last_row(knowing(DATASET, noise=0.1), "logistic")
    assert finding.status is FindingStatus.LEAK
    assert "direction AUC 1.0 [" in finding.evidence


def test_a_change_of_regime_is_told_apart_from_skill():
    # Test labels calm down; the features, shuffled over all rows, know nothing.
    rng = np.random.default_rng(0)
    rows, test = all_rows(DATASET), DATASET.rows("test")
    features, label = DATASET.features.copy(), DATASET.label.copy()
    features[rows] = features[rng.permutation(rows)]
    label[DATASET.rows("train")] = rng.choice(3, len(DATASET.rows("train")), p=[0.3, 0.4, 0.3])
    label[test] = rng.choice(3, len(test), p=[0.1, 0.8, 0.1])
    finding = check_last_row(replace(DATASET, features=features, label=label), "logistic")
    told = re.search(r"explain (\S+); (\S+) beyond that", finding.evidence)
    assert float(told[1]) > 0.25
    assert float(told[2]) < 0
    assert finding.status is FindingStatus.OK


def test_shuffled_labels_that_can_be_known_are_detected(monkeypatch):
    # A probe that peeks at the very labels that were dealt out.
    class Peeking:
        def __init__(self, label):
            self.label = label

        def predict_proba(self, inputs):
            return 0.9 * np.eye(3)[self.label[DATASET.rows("test")]] + 0.1 / 3

    monkeypatch.setattr(probes, "_fit", lambda dataset, name, label: Peeking(label))
    assert check_shuffled_labels(DATASET).status is FindingStatus.LEAK


def test_shuffled_labels_cry_wolf_on_no_seed_of_twenty():
    small = honest_dataset(n_bars=900)
    assert {check_shuffled_labels(small, seed).status for seed in range(20)} == {FindingStatus.OK}


def test_an_oracle_that_is_not_noticed_makes_the_probes_worthless(monkeypatch):
    monkeypatch.setattr(probes, "_fit", lambda dataset, name, label, extra: Blind())
    assert check_oracle(DATASET).status is FindingStatus.CANNOT_TELL


class Blind:
    def predict_proba(self, inputs):
        return np.full((len(inputs), 3), 1 / 3)


@pytest.mark.parametrize("edge", [0.3, 0.6])
def test_a_planted_edge_that_is_no_leak_passes(edge):
    bars = SimulatedSource(seed=2, n_bars=3000, edge=edge).load("BTCUSDT", Timeframe.M15)
    dataset = honest_dataset(bars)
    assert check_single_features(dataset).status is not FindingStatus.LEAK
    assert check_last_row(dataset, "logistic").status is not FindingStatus.LEAK


def test_where_no_move_came_direction_is_not_asked():
    label = DATASET.label.copy()
    label[DATASET.rows("test")] = Signal.NO_TRADE
    finding = check_last_row(replace(DATASET, label=label), "logistic")
    assert finding.evidence.endswith("as the test rows lack one of the two")
