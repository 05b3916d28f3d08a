import numpy as np
import pytest
from forecast_builders import random_probabilities, true_probabilities
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, precision_recall_fscore_support

from percoin.evaluation.collapse import (
    CollapseKind,
    describe_lopsided,
    detect_collapse,
    forecast_information,
    recognise_constant,
)


def test_constant_predictor_is_named():
    finding = detect_collapse(np.tile([0.1, 0.8, 0.1], (90, 1)))
    assert finding.kind is CollapseKind.CONSTANT
    assert "NO_TRADE" in finding.detail


def test_near_constant_predictor_is_named():
    jitter = np.random.default_rng(0).normal(scale=0.005, size=(500, 1))
    probabilities = np.array([0.2, 0.6, 0.2]) + jitter * np.array([1, -2, 1])
    assert detect_collapse(probabilities).kind is CollapseKind.NEAR_CONSTANT


def test_signals_that_are_all_the_same_are_named():
    doubt = np.random.default_rng(0).uniform(0.0, 0.45, 500)
    probabilities = np.stack([doubt / 2, 1 - doubt, doubt / 2], axis=1)
    finding = detect_collapse(probabilities, decisions=np.ones(500, dtype=np.int64))
    assert finding.kind is CollapseKind.ONE_ANSWER
    assert finding.detail == "decides NO_TRADE on 500 of 500 rows"
    # Probabilities that differ from row to row may have skill, whatever is likeliest.
    assert detect_collapse(probabilities) is None
    assert describe_lopsided(probabilities) == "decides NO_TRADE on 100.0% of the rows"


def test_what_is_decided_counts_where_it_is_not_the_likeliest_class():
    longs = np.arange(500) % 3 == 0
    probabilities = np.where(longs[:, None], [0.1, 0.6, 0.3], [0.2, 0.7, 0.1])
    decisions = np.where(longs, 2, 1)
    assert describe_lopsided(probabilities) == "decides NO_TRADE on 100.0% of the rows"
    assert detect_collapse(probabilities, decisions=decisions) is None
    assert describe_lopsided(probabilities, decisions=decisions) is None
    always = detect_collapse(probabilities, decisions=np.zeros(500, dtype=np.int64))
    assert always.detail == "decides SHORT on 500 of 500 rows"


def test_an_informative_forecast_has_not_collapsed():
    assert detect_collapse(random_probabilities(500)) is None
    assert detect_collapse(true_probabilities(2000, edge=0.3)) is None


def test_nearly_always_the_same_decision_earns_a_caution():
    doubt = np.full(100, 0.2)
    doubt[3] = 0.8
    probabilities = np.stack([doubt * 0.9, 1 - doubt, doubt * 0.1], axis=1)
    assert describe_lopsided(probabilities) == "decides NO_TRADE on 99.0% of the rows"
    assert describe_lopsided(random_probabilities(500)) is None
    exactly = np.tile([0.1, 0.8, 0.1], (100, 1))
    exactly[:2] = [0.8, 0.1, 0.1]
    assert describe_lopsided(exactly) == "decides NO_TRADE on 98.0% of the rows"


def test_information_of_a_hand_worked_table():
    # Two certain rows against their mean .5/.5: log 2 each.
    assert forecast_information(np.array([[1.0, 0, 0], [0, 1.0, 0]])) == pytest.approx(np.log(2))


def test_the_four_numbers_of_the_old_system_are_those_of_a_constant():
    reading = recognise_constant(0.9778, 0.9560, 0.9778, 0.9668, n_rows=90)
    assert reading.majority_share == 0.9778
    assert "constant" in reading.detail
    assert "88 of 90 rows" in reading.detail


@given(n_rows=st.integers(2, 5000), data=st.data())
def test_every_constant_is_recognised_from_its_rounded_scores(n_rows, data):
    n_right = data.draw(st.integers(1, n_rows))
    labels = np.array([1] * n_right + [0] * (n_rows - n_right))
    constant = np.ones(n_rows, dtype=int)
    weighted = precision_recall_fscore_support(
        labels, constant, average="weighted", zero_division=0
    )
    scores = [accuracy_score(labels, constant), *weighted[:3]]
    assert recognise_constant(*scores) is not None
    assert recognise_constant(*(round(value, 4) for value in scores)) is not None


@pytest.mark.parametrize(
    "scores",
    [
        (0.9778, 0.9570, 0.9778, 0.9668),
        (0.9778, 0.9560, 0.9778, 0.9680),
        (0.9778, 0.9560, 0.9760, 0.9668),
        (0.52, 0.51, 0.52, 0.50),
        (float("nan"), 0.9560, 0.9778, 0.9668),
        (0.0, 0.0, 0.0, 0.0),
    ],
)
def test_scores_that_no_constant_gives_are_not_called_one(scores):
    assert recognise_constant(*scores) is None
