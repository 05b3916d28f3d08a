from dataclasses import replace

import numpy as np
import pytest

from percoin.evaluation.baselines import (
    BaselineInputs,
    class_shares,
    default_baselines,
    last_known_labels,
)
from percoin.evaluation.metrics import check_probabilities, row_log_loss
from percoin.types import Signal

N_TRAIN = 900


def market(n_rows=1200, seed=0):
    """Labels that follow the first feature; the rest is noise."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n_rows, 4))
    labels = np.digitize(features[:, 0] + rng.normal(scale=0.7, size=n_rows), [-0.5, 0.5])
    inputs = BaselineInputs(
        features=features,
        last_known_label=last_known_labels(labels, horizon=3),
        rsi_ma=rng.choice(list(Signal), size=n_rows, p=[0.05, 0.9, 0.05]),
        momentum=rng.choice(list(Signal), size=n_rows, p=[0.2, 0.6, 0.2]),
    )
    return inputs, labels.astype(np.int64)


def fitted(name, inputs, labels):
    baseline = next(b for b in default_baselines() if b.name == name)
    baseline.fit(inputs.take(slice(N_TRAIN)), labels[:N_TRAIN])
    return baseline


NAMES = [baseline.name for baseline in default_baselines()]


def test_every_baseline_of_the_report_is_there():
    assert NAMES == [
        "majority",
        "train_prior",
        "persistence",
        "rsi_ma",
        "momentum",
        "logistic",
        "boosting",
    ]


@pytest.mark.parametrize("name", NAMES)
def test_probabilities_are_valid_on_rows_never_seen(name):
    inputs, labels = market()
    later = inputs.take(slice(N_TRAIN, None))
    baseline = fitted(name, inputs, labels)
    probabilities = baseline.predict_proba(later)
    assert probabilities.shape == (300, 3)
    np.testing.assert_allclose(check_probabilities(probabilities), probabilities)
    assert np.isin(baseline.predict(later), list(Signal)).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_forecast_depends_on_its_own_row_and_the_train_rows_only(name):
    inputs, labels = market()
    other_labels = labels.copy()
    other_labels[N_TRAIN:] = 2 - other_labels[N_TRAIN:]
    expected = fitted(name, inputs, labels).predict_proba(inputs.take(slice(N_TRAIN, None)))
    alone = fitted(name, inputs, other_labels).predict_proba(inputs.take(slice(1000, 1001)))
    np.testing.assert_allclose(alone[0], expected[100])


@pytest.mark.parametrize("name", NAMES)
def test_train_rows_without_one_class_still_allow_it(name):
    inputs, labels = market()
    two_classes = np.where(labels == Signal.LONG, Signal.NO_TRADE, labels)
    probabilities = fitted(name, inputs, two_classes).predict_proba(inputs)
    losses = row_log_loss(probabilities, labels)
    assert np.isfinite(losses).all()
    if name != "majority":
        assert (probabilities[:, Signal.LONG] > 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_train_rows_of_one_class_do_not_stop_it(name):
    inputs, labels = market()
    probabilities = fitted(name, inputs, np.ones_like(labels)).predict_proba(inputs)
    assert (probabilities.argmax(axis=1) == Signal.NO_TRADE).all()


@pytest.mark.parametrize("name", ["logistic", "boosting"])
def test_classifiers_learn_what_is_there(name):
    inputs, labels = market()
    later = inputs.take(slice(N_TRAIN, None))
    losses = [
        row_log_loss(fitted(each, inputs, labels).predict_proba(later), labels[N_TRAIN:]).mean()
        for each in (name, "train_prior")
    ]
    assert losses[0] < 0.85 * losses[1]


def test_last_known_label_is_the_one_settled_at_the_close():
    labels = np.array([2, 0, 1, 1, 0])
    assert last_known_labels(labels, horizon=3).tolist() == [-1, -1, -1, 2, 0]
    assert last_known_labels(labels, horizon=9).tolist() == [-1] * 5


def test_last_known_label_never_knows_a_later_one():
    labels = np.arange(100) % 3
    changed = labels.copy()
    changed[60:] = 2 - changed[60:]
    assert np.array_equal(
        last_known_labels(labels, horizon=4)[:64], last_known_labels(changed, horizon=4)[:64]
    )


def test_persistence_gives_the_train_rows_transition_frequencies():
    # After SHORT always LONG, after LONG always SHORT: 450 rows of each.
    labels = np.tile([0, 2], 600)
    inputs, _ = market()
    inputs = replace(inputs, last_known_label=last_known_labels(labels, horizon=1))
    baseline = fitted("persistence", inputs, labels)
    probabilities = baseline.predict_proba(inputs)
    prior = class_shares(labels[:N_TRAIN])
    after_short = (np.array([0, 0, 450]) + 30 * prior) / 480
    np.testing.assert_allclose(probabilities[1], after_short)
    np.testing.assert_allclose(probabilities[0], prior)
    assert baseline.predict(inputs)[:3].tolist() == [Signal.NO_TRADE, Signal.SHORT, Signal.LONG]


def test_a_rule_keeps_its_own_answer_beside_the_frequencies():
    inputs, labels = market()
    baseline = fitted("momentum", inputs, labels)
    answers = inputs.momentum
    assert np.array_equal(baseline.predict(inputs), answers)
    rows = answers[:N_TRAIN] == Signal.LONG
    counts = np.bincount(labels[:N_TRAIN][rows], minlength=3)
    expected = (counts + 30 * class_shares(labels[:N_TRAIN])) / (rows.sum() + 30)
    first = int(np.flatnonzero(answers == Signal.LONG)[0])
    np.testing.assert_allclose(baseline.predict_proba(inputs)[first], expected)


def test_train_prior_is_the_laplace_frequency():
    assert class_shares(np.array([0, 1, 1, 1])).tolist() == pytest.approx([2 / 7, 4 / 7, 1 / 7])
