from dataclasses import replace

import numpy as np
import pytest
from cheats import (
    HORIZON,
    all_rows,
    honest_dataset,
    shuffled_split,
    split_with,
    with_scaler_of,
    with_split,
)
from hypothesis import given
from hypothesis import strategies as st

from percoin.audit.findings import FindingStatus
from percoin.audit.rows import check_dataset_rows, check_order, check_purge, check_scaling
from percoin.dataset import MarketDataset
from percoin.features.feature_set import compute_features
from percoin.features.scaling import Scaling
from percoin.splits import Split

DATASET = honest_dataset()


def scaling_finding(dataset: MarketDataset):
    features = compute_features(dataset.bars, dataset.feature_set)
    return check_scaling(dataset.scaling, features, dataset.split)


def statuses(dataset: MarketDataset) -> list[FindingStatus]:
    features = compute_features(dataset.bars, dataset.feature_set)
    return [finding.status for finding in check_dataset_rows(dataset, features)]


def test_an_honest_dataset_passes():
    assert statuses(DATASET) == [FindingStatus.OK] * 3


def test_a_scaler_fitted_on_all_rows_is_detected_and_named():
    finding = scaling_finding(with_scaler_of(DATASET, all_rows(DATASET)))
    assert finding.status is FindingStatus.LEAK
    assert finding.evidence == "fitted on the rows of all three parts"


@pytest.mark.parametrize(
    ("parts", "named"),
    [
        (("train", "validation"), "train and validation rows"),
        (("train", "test"), "train and test rows"),
    ],
)
def test_a_scaler_fitted_on_a_part_too_many_is_named(parts, named):
    rows = np.concatenate([DATASET.rows(part) for part in parts])
    assert scaling_finding(with_scaler_of(DATASET, rows)).evidence == f"fitted on {named}"


def test_a_scaler_fitted_on_every_bar_is_named():
    features = compute_features(DATASET.bars, DATASET.feature_set)
    rows = np.flatnonzero(np.isfinite(features).all(axis=1))
    assert "all bars" in scaling_finding(with_scaler_of(DATASET, rows)).evidence


def test_a_single_test_row_in_the_scaler_is_detected():
    rows = np.append(DATASET.rows("train"), DATASET.rows("test")[0])
    finding = scaling_finding(with_scaler_of(DATASET, rows))
    assert finding.status is FindingStatus.LEAK
    assert "deviations off those of the train rows" in finding.evidence


def test_a_scaler_that_is_a_little_off_is_detected():
    scale = DATASET.scaling.scale_.copy()
    scale[4] *= 1 + 1e-6
    dataset = replace(DATASET, scaling=Scaling(DATASET.scaling.mean_, scale))
    assert scaling_finding(dataset).status is FindingStatus.LEAK


def test_last_bits_of_a_scaler_may_be_rounded_otherwise():
    scaling = Scaling(DATASET.scaling.mean_ * (1 + 1e-14), DATASET.scaling.scale_ * (1 - 1e-14))
    assert scaling_finding(replace(DATASET, scaling=scaling)).status is FindingStatus.OK


@pytest.mark.parametrize("in_order", [True, False], ids=["parts sorted", "parts shuffled"])
def test_a_shuffled_split_is_detected(in_order):
    split = shuffled_split(DATASET, in_order=in_order)
    assert statuses(with_split(DATASET, split)) == [
        FindingStatus.OK,
        FindingStatus.LEAK,
        FindingStatus.LEAK,
    ]


def test_two_rows_that_changed_places_are_detected():
    train = DATASET.split.train.copy()
    train[[10, 11]] = train[[11, 10]]
    finding = check_order(replace(DATASET.split, train=train))
    assert finding.evidence == "1 train rows are not later than the train row before them"


def test_a_split_in_another_order_is_detected():
    honest = DATASET.split
    test_first = Split(honest.validation, honest.test, honest.train)
    finding = check_order(test_first)
    assert finding.status is FindingStatus.LEAK
    assert "not earlier than the first test row" in finding.evidence


def test_a_shared_row_is_detected():
    honest = DATASET.split
    split = Split(np.append(honest.train, honest.validation[0]), honest.validation, honest.test)
    assert (
        check_order(split).evidence == "1 train rows are not earlier than the first validation row"
    )


def test_an_unpurged_split_is_detected_and_counted():
    finding = check_purge(split_with(DATASET, 0, 0), HORIZON)
    assert finding.status is FindingStatus.LEAK
    assert "3 train rows reach into validation" in finding.evidence
    assert "3 validation rows reach into test" in finding.evidence
    assert statuses(with_split(DATASET, split_with(DATASET, 0, 0))) == [
        FindingStatus.OK,
        FindingStatus.OK,
        FindingStatus.LEAK,
    ]


@given(purge=st.integers(0, 6), embargo=st.integers(0, 6), horizon=st.integers(1, 6))
def test_a_split_passes_exactly_if_no_label_reaches_the_next_part(purge, embargo, horizon):
    split = split_with(DATASET, purge, embargo)
    reaches = any(
        row + ahead == other
        for one, others in ((split.train, split.validation), (split.validation, split.test))
        for row in one[-12:].tolist()
        for other in others[:12].tolist()
        for ahead in range(1, horizon + 1)
    )
    assert check_purge(split, horizon).status is (
        FindingStatus.LEAK if reaches else FindingStatus.OK
    )
