import numpy as np
import pytest
from forecast_builders import draw_labels, random_probabilities
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as reference

from percoin.evaluation.metrics import (
    brier_score,
    calibration_error,
    check_probabilities,
    log_loss_skill,
    reliability,
    row_log_loss,
    score,
)
from percoin.types import Signal

PROBABILITIES = random_probabilities(400)
LABELS = draw_labels(PROBABILITIES, seed=1)


@pytest.mark.parametrize("n_rows", [80_000, 300_000])
def test_the_correlation_of_many_rows_agrees_with_scikit_learn(n_rows):
    probabilities = random_probabilities(n_rows)
    labels = draw_labels(probabilities, seed=2)
    expected = reference.matthews_corrcoef(labels, probabilities.argmax(axis=1))
    assert score(probabilities, labels).mcc == pytest.approx(expected)


def test_scores_agree_with_scikit_learn():
    decisions = PROBABILITIES.argmax(axis=1)
    scores = score(PROBABILITIES, LABELS)
    weighted = reference.precision_recall_fscore_support(LABELS, decisions, average="weighted")
    assert scores.log_loss == pytest.approx(reference.log_loss(LABELS, PROBABILITIES))
    assert scores.mcc == pytest.approx(reference.matthews_corrcoef(LABELS, decisions))
    assert scores.balanced_accuracy == pytest.approx(
        reference.balanced_accuracy_score(LABELS, decisions)
    )
    assert scores.macro_f1 == pytest.approx(reference.f1_score(LABELS, decisions, average="macro"))
    assert scores.accuracy == pytest.approx(reference.accuracy_score(LABELS, decisions))
    assert (
        scores.weighted_precision,
        scores.weighted_recall,
        scores.weighted_f1,
    ) == pytest.approx(weighted[:3])
    assert np.array_equal(scores.confusion_matrix, reference.confusion_matrix(LABELS, decisions))
    assert scores.brier == pytest.approx(
        reference.brier_score_loss(LABELS, PROBABILITIES, scale_by_half=False)
    )


def test_class_scores_agree_with_a_loop_over_rows():
    decisions = PROBABILITIES.argmax(axis=1)
    for signal, entry in zip(Signal, score(PROBABILITIES, LABELS).classes, strict=True):
        pairs = list(zip(signal == LABELS, decisions == signal, strict=True))
        hits = sum(came and said for came, said in pairs)
        said = sum(said for _, said in pairs)
        came = sum(came for came, _ in pairs)
        assert entry.n_rows == came
        assert entry.precision == pytest.approx(hits / said)
        assert entry.recall == pytest.approx(hits / came)
        assert entry.f1 == pytest.approx(2 * hits / (said + came))


def test_pr_auc_agrees_with_the_steps_of_the_curve():
    promised, came = PROBABILITIES[:, Signal.LONG], LABELS == Signal.LONG
    area, hits = 0.0, 0
    for rank, row in enumerate(np.argsort(-promised), start=1):
        if came[row]:
            hits += 1
            area += hits / rank / came.sum()
    assert score(PROBABILITIES, LABELS).classes[Signal.LONG].pr_auc == pytest.approx(area)


def test_an_absent_class_does_not_count_in_macro_f1():
    labels = np.array([0, 0, 1, 1])
    probabilities = np.array([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.1, 0.8, 0.1], [0.1, 0.8, 0.1]])
    scores = score(probabilities, labels)
    # SHORT: 2 * 1 / 3, NO_TRADE: 2 * 2 / 5
    assert scores.macro_f1 == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert scores.classes[Signal.LONG].pr_auc is None
    assert scores.balanced_accuracy == pytest.approx((0.5 + 1) / 2)


@pytest.mark.parametrize("absent", list(Signal))
def test_macro_f1_over_the_classes_present_is_that_of_scikit_learn(absent):
    rows = absent != LABELS
    labels, probabilities = LABELS[rows], PROBABILITIES[rows]
    decisions = probabilities.argmax(axis=1)
    expected = reference.f1_score(
        labels, decisions, labels=np.unique(labels), average="macro", zero_division=0.0
    )

    assert (decisions == absent).any()
    assert score(probabilities, labels).macro_f1 == pytest.approx(expected)


def test_one_class_that_is_always_named_has_a_macro_f1_of_one():
    scores = score(np.tile([0.1, 0.8, 0.1], (5, 1)), np.ones(5, dtype=int))
    assert (scores.accuracy, scores.macro_f1, scores.balanced_accuracy) == (1, 1, 1)


def test_one_and_the_same_class_everywhere_correlates_with_nothing():
    scores = score(np.tile([0.1, 0.8, 0.1], (5, 1)), np.ones(5, dtype=int))
    assert scores.mcc == 0
    assert scores.accuracy == 1


def test_a_rule_is_scored_by_its_own_decisions():
    decisions = np.full(len(LABELS), Signal.LONG)
    scores = score(PROBABILITIES, LABELS, decisions)
    assert scores.accuracy == pytest.approx((LABELS == Signal.LONG).mean())
    assert scores.log_loss == score(PROBABILITIES, LABELS).log_loss


@pytest.mark.parametrize("bad", [np.nan, np.inf, -0.2])
def test_probabilities_that_are_no_numbers_are_refused(bad):
    probabilities = PROBABILITIES.copy()
    probabilities[7, 1] = bad
    with pytest.raises(ValueError, match=r"not finite|negative"):
        score(probabilities, LABELS)


def test_logits_are_refused():
    with pytest.raises(ValueError, match="logits"):
        check_probabilities(np.array([[2.0, 1.0, -0.5]]))


@pytest.mark.parametrize("row", [[-0.1, 0.6, 0.5], [0.3, 0.3, 0.401], [0.3, 0.3, 0.399]])
def test_rows_that_are_no_distribution_are_refused(row):
    with pytest.raises(ValueError, match="negative or do not sum to one"):
        check_probabilities(np.array([row]))


def test_unknown_labels_are_refused():
    with pytest.raises(ValueError, match="no class"):
        row_log_loss(PROBABILITIES, np.where(LABELS == 2, -1, LABELS))


def test_float32_rounding_is_forgiven():
    rounded = PROBABILITIES.astype(np.float32)
    assert score(rounded, LABELS).log_loss == pytest.approx(
        score(PROBABILITIES, LABELS).log_loss, abs=1e-6
    )


def test_certain_and_wrong_costs_what_scikit_learn_says():
    probabilities = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    labels = np.array([1, 1, 2])
    assert row_log_loss(probabilities, labels).mean() == pytest.approx(
        reference.log_loss(labels, probabilities, labels=[0, 1, 2])
    )


def test_skill_is_the_share_of_the_references_loss_removed():
    assert log_loss_skill(np.array([0.4, 0.6]), np.array([1.0, 1.0])) == pytest.approx(0.5)
    assert log_loss_skill(np.array([2.0]), np.array([1.0])) == pytest.approx(-1.0)


def test_oracle_scores_are_perfect():
    scores = score(np.eye(3)[LABELS], LABELS)
    assert scores.log_loss == pytest.approx(0)
    assert scores.mcc == pytest.approx(1)
    assert scores.macro_f1 == pytest.approx(1)
    assert brier_score(np.eye(3)[LABELS], LABELS) == 0


def test_calibration_error_of_a_hand_worked_table():
    # One bin a class: .6 promised and 1/2 came, .3 and 1/2, .1 and 0.
    probabilities = np.tile([0.6, 0.3, 0.1], (2, 1))
    expected = (0.1 + 0.2 + 0.1) / 3
    assert calibration_error(probabilities, np.array([0, 1])) == pytest.approx(expected)


def test_calibration_error_is_small_where_labels_come_as_promised():
    probabilities = random_probabilities(20_000, seed=3)
    labels = draw_labels(probabilities, seed=4)
    sharpened = probabilities**2 / (probabilities**2).sum(axis=1, keepdims=True)
    assert calibration_error(probabilities, labels) < 0.01
    assert calibration_error(sharpened, labels) > 0.05


@given(n_bins=st.integers(1, 30))
def test_reliability_bins_share_out_every_row(n_bins):
    bins = reliability(PROBABILITIES, LABELS, Signal.SHORT, n_bins)
    assert sum(entry.n_rows for entry in bins) == len(LABELS)
    came = sum(entry.n_rows * entry.frequency for entry in bins)
    assert came == pytest.approx((LABELS == Signal.SHORT).sum())
