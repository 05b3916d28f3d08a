from dataclasses import replace

import numpy as np
import pytest

from percoin.evaluation.baselines import (
    BaselineInputs,
    RollingPrior,
    class_shares,
    default_baselines,
    last_known_labels,
    pooled_baselines,
    rolling_prior_bars,
    rolling_prior_days,
    settled_class_counts,
)
from percoin.evaluation.metrics import check_probabilities, row_log_loss
from percoin.types import Signal, Timeframe

N_TRAIN = 900


def market(n_rows=1200, seed=0):
    """Labels that follow the first feature; the rest is noise."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n_rows, 4))
    labels = np.digitize(features[:, 0] + rng.normal(scale=0.7, size=n_rows), [-0.5, 0.5])
    noise = rng.normal(size=(2, n_rows))
    inputs = BaselineInputs(
        features=features,
        last_known_label=last_known_labels(labels, horizon=3),
        rsi_ma=rng.choice(list(Signal), size=n_rows, p=[0.05, 0.9, 0.05]),
        momentum=rng.choice(list(Signal), size=n_rows, p=[0.2, 0.6, 0.2]),
        settled_counts=settled_class_counts(labels, horizon=3, n_bars=200),
        # The first of them are not known yet; the second follows the labels' first feature.
        volatility=np.stack(
            [np.where(np.arange(n_rows) < 50, np.nan, noise[0]), features[:, 0] + noise[1]], axis=1
        ),
        clock=rng.normal(size=(n_rows, 6)),
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
        "rolling_prior",
        "persistence",
        "rsi_ma",
        "momentum",
        "logistic",
        "boosting",
        "volatility",
        "volatility_clock",
    ]
    assert [baseline.name for baseline in pooled_baselines()] == [
        "pooled_logistic",
        "pooled_boosting",
        "pooled_volatility_clock_boosting",
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
    calm = np.ones_like(labels)
    inputs = replace(inputs, settled_counts=settled_class_counts(calm, horizon=3, n_bars=200))
    probabilities = fitted(name, inputs, calm).predict_proba(inputs)
    assert (probabilities.argmax(axis=1) == Signal.NO_TRADE).all()


@pytest.mark.parametrize("name", ["logistic", "boosting", "volatility", "volatility_clock"])
def test_classifiers_learn_what_is_there(name):
    inputs, labels = market()
    later = inputs.take(slice(N_TRAIN, None))
    losses = [
        row_log_loss(fitted(each, inputs, labels).predict_proba(later), labels[N_TRAIN:]).mean()
        for each in (name, "train_prior")
    ]
    limit = 0.85 if name in ("logistic", "boosting") else 0.95
    assert losses[0] < limit * losses[1]


def test_rows_whose_spans_are_not_full_get_the_prior_and_teach_nothing():
    inputs, labels = market()
    baseline = fitted("volatility", inputs, labels)
    said = baseline.predict_proba(inputs)
    np.testing.assert_allclose(said[:50], np.tile(class_shares(labels[:N_TRAIN]), (50, 1)))
    other = labels.copy()
    other[:50] = 2 - other[:50]
    # The same rows to learn from, and other shares of classes that were all seen.
    taught = fitted("volatility", inputs, other)
    np.testing.assert_allclose(taught.predict_proba(inputs)[50:], said[50:])


def test_the_rolling_prior_counts_the_settled_labels_of_the_last_bars():
    labels = np.array([0, 1, 1, -1, 2, 2, 2, 0, 1, 2])
    counts = settled_class_counts(labels, horizon=2, n_bars=4)
    assert counts.tolist() == [
        [0, 0, 0],
        [0, 0, 0],
        [1, 0, 0],
        [1, 1, 0],
        [1, 2, 0],
        [1, 2, 0],
        [0, 2, 1],
        [0, 1, 2],
        [0, 0, 3],
        [1, 0, 3],
    ]
    inputs = replace(market()[0].take(slice(10)), settled_counts=counts)
    baseline = RollingPrior()
    baseline.fit(inputs, labels[labels >= 0])
    said = baseline.predict_proba(inputs)
    np.testing.assert_allclose(said[0], class_shares(labels[labels >= 0]))
    np.testing.assert_allclose(said[9], [2 / 7, 1 / 7, 4 / 7])
    assert baseline.predict(inputs)[9] == Signal.LONG


@pytest.mark.parametrize(
    ("timeframe", "n_bars"), [("5m", 2016), ("15m", 672), ("1h", 720), ("4h", 672), ("1d", 672)]
)
def test_the_rolling_prior_looks_back_a_week_or_as_many_rows(timeframe, n_bars):
    assert rolling_prior_bars(Timeframe(timeframe)) == n_bars


def test_the_rolling_prior_looks_back_for_more_days_where_bars_are_longer():
    """As the docs and the report say."""
    days = {timeframe.value: rolling_prior_days(timeframe) for timeframe in Timeframe}
    assert days == {"1m": 7, "5m": 7, "15m": 7, "30m": 30, "1h": 30, "4h": 112, "1d": 672}


def test_pooled_baselines_learn_from_all_markets_at_once():
    one, two = (market(seed=seed) for seed in (0, 1))
    together = BaselineInputs.joined([one[0], two[0]])
    assert len(together) == len(one[0]) + len(two[0])
    np.testing.assert_array_equal(together.clock[len(one[0]) :], two[0].clock)
    labels = np.concatenate([one[1], two[1]])
    baseline = pooled_baselines()[0]
    baseline.fit(together, labels)
    alone = fitted("logistic", *one)
    assert not np.allclose(baseline.predict_proba(one[0]), alone.predict_proba(one[0]))


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
