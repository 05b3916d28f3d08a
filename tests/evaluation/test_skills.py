import numpy as np
import pytest
from forecast_builders import draw_labels, random_probabilities
from sklearn.metrics import roc_auc_score

from percoin.evaluation.metrics import row_log_loss
from percoin.evaluation.skills import activity, direction
from percoin.types import Signal

PROBABILITIES = random_probabilities(500)
LABELS = draw_labels(PROBABILITIES, seed=1)


def test_log_loss_is_the_sum_of_activity_and_direction_on_every_row():
    parts = activity(PROBABILITIES, LABELS).row_losses()
    parts += direction(PROBABILITIES, LABELS).row_losses()
    np.testing.assert_allclose(parts, row_log_loss(PROBABILITIES, LABELS), rtol=1e-9)


def test_activity_auc_agrees_with_scikit_learn():
    expected = roc_auc_score(LABELS != Signal.NO_TRADE, 1 - PROBABILITIES[:, Signal.NO_TRADE])
    assert activity(PROBABILITIES, LABELS).auc() == pytest.approx(expected)


def test_ties_count_half_as_in_scikit_learn():
    tied = np.array([[1, 2, 1], [1, 1, 2], [2, 1, 1]])[np.arange(500) % 3] / 4
    expected = roc_auc_score(LABELS != Signal.NO_TRADE, 1 - tied[:, Signal.NO_TRADE])
    assert activity(tied, LABELS).auc() == pytest.approx(expected, rel=1e-12)


def test_direction_auc_agrees_with_scikit_learn_on_the_moves():
    moves = LABELS != Signal.NO_TRADE
    long, short = PROBABILITIES[moves, Signal.LONG], PROBABILITIES[moves, Signal.SHORT]
    expected = roc_auc_score(LABELS[moves] == Signal.LONG, long / (long + short))
    assert direction(PROBABILITIES, LABELS).auc() == pytest.approx(expected)


def test_ties_count_half():
    # Eighths are exact, so that equal values stay equal.
    rounded = np.floor(PROBABILITIES * 8) / 8
    rounded[:, 1] = 1 - rounded[:, 0] - rounded[:, 2]
    expected = roc_auc_score(LABELS != Signal.NO_TRADE, rounded[:, 0] + rounded[:, 2])
    assert activity(rounded, LABELS).auc() == pytest.approx(expected)


def test_constant_forecast_has_an_auc_of_one_half():
    constant = np.tile([0.3, 0.4, 0.3], (len(LABELS), 1))
    assert activity(constant, LABELS).auc() == pytest.approx(0.5)
    assert direction(constant, LABELS).auc() == pytest.approx(0.5)


def test_auc_rows_move_as_the_auc_does():
    # Leaving out one row changes the AUC by about its influence: the jackknife.
    view = activity(PROBABILITIES, LABELS)
    rows, auc = view.auc_rows(), view.auc()
    came, promised = LABELS != Signal.NO_TRADE, view.probability
    n_rows = len(LABELS)
    for left_out in range(0, n_rows, 50):
        kept = np.arange(n_rows) != left_out
        without = roc_auc_score(came[kept], promised[kept])
        assert (n_rows - 1) * (auc - without) == pytest.approx(rows[left_out] - auc, abs=0.02)


def test_auc_is_undefined_without_both_answers():
    assert activity(PROBABILITIES, np.full(len(LABELS), Signal.LONG)).auc() is None
    assert direction(PROBABILITIES, np.full(len(LABELS), Signal.NO_TRADE)).auc() is None


def test_a_row_without_probability_for_any_move_is_undecided():
    certain = np.array([[0.0, 1.0, 0.0], [0.2, 0.4, 0.4]])
    view = direction(certain, np.array([Signal.LONG, Signal.SHORT]))
    np.testing.assert_allclose(view.probability, [0.5, 2 / 3])


def test_a_model_of_activity_alone_shows_no_direction():
    move = np.random.default_rng(0).uniform(0.1, 0.9, 4000)
    probabilities = np.stack([move / 2, 1 - move, move / 2], axis=1)
    labels = draw_labels(probabilities, seed=2)
    assert activity(probabilities, labels).auc() > 0.7
    assert direction(probabilities, labels).auc() == pytest.approx(0.5)
