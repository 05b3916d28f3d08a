import json

import numpy as np
import pytest
from forecast_builders import draw_labels
from hypothesis import given, settings
from hypothesis import strategies as st

from percoin.evaluation.calibration import (
    CALIBRATION_METHODS,
    apply_calibration,
    fit_calibration,
)
from percoin.evaluation.metrics import row_log_loss

NONE = {"method": "none"}


def logits_and_labels(n_rows=4000, seed=0, temperature=1.0):
    """Labels that follow the logits divided by the temperature."""
    logits = np.random.default_rng(seed).normal(size=(n_rows, 3)) * temperature
    return logits, draw_labels(apply_calibration(logits / temperature, NONE), seed=seed + 1)


def mean_loss(logits, labels, calibration):
    return row_log_loss(apply_calibration(logits, calibration), labels).mean()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_temperature_is_recovered(temperature):
    logits, labels = logits_and_labels(20_000, temperature=temperature)
    calibration = fit_calibration(logits, labels)
    assert calibration["temperature"] == pytest.approx(temperature, rel=0.05)


def test_temperature_is_the_best_of_a_fine_grid():
    logits, labels = logits_and_labels(temperature=2.0)
    found = mean_loss(logits, labels, fit_calibration(logits, labels))
    grid = np.geomspace(1, 4, 201)
    losses = [mean_loss(logits, labels, {"method": "temperature", "temperature": t}) for t in grid]
    assert found <= min(losses) + 1e-9


@pytest.mark.parametrize("method", CALIBRATION_METHODS)
@settings(max_examples=30)
@given(seed=st.integers(0, 10_000), n_rows=st.integers(1, 60), scale=st.floats(0, 30))
def test_fitting_never_makes_validation_rows_worse(method, seed, n_rows, scale):
    rng = np.random.default_rng(seed)
    logits, labels = rng.normal(size=(n_rows, 3)) * scale, rng.integers(0, 3, n_rows)
    calibration = fit_calibration(logits, labels, method)
    assert mean_loss(logits, labels, calibration) <= mean_loss(logits, labels, NONE) + 1e-9


def test_vector_scaling_undoes_class_weights():
    logits, labels = logits_and_labels(20_000)
    distorted = logits + np.log([5.0, 1.0, 5.0])
    before = apply_calibration(distorted, fit_calibration(distorted, labels))
    after = apply_calibration(distorted, fit_calibration(distorted, labels, "vector"))
    shares = np.bincount(labels) / len(labels)
    assert np.abs(before.mean(axis=0) - shares).max() > 0.05
    np.testing.assert_allclose(after.mean(axis=0), shares, atol=0.002)
    np.testing.assert_allclose(after, apply_calibration(logits, NONE), atol=0.03)


def test_vector_scaling_is_at_least_as_good_as_temperature():
    logits, labels = logits_and_labels(temperature=2.0)
    losses = [
        mean_loss(logits, labels, fit_calibration(logits, labels, method))
        for method in ("vector", "temperature")
    ]
    assert losses[0] <= losses[1]


@pytest.mark.parametrize("method", CALIBRATION_METHODS)
def test_log_probabilities_serve_as_logits(method):
    logits, labels = logits_and_labels(temperature=2.0)
    log_probabilities = np.log(apply_calibration(logits, NONE))
    calibration = fit_calibration(logits, labels, method)
    np.testing.assert_allclose(
        apply_calibration(log_probabilities, calibration), apply_calibration(logits, calibration)
    )
    np.testing.assert_allclose(
        mean_loss(logits, labels, fit_calibration(log_probabilities, labels, method)),
        mean_loss(logits, labels, calibration),
        rtol=1e-6,
    )


@pytest.mark.parametrize("method", CALIBRATION_METHODS)
def test_calibration_survives_json(method):
    logits, labels = logits_and_labels()
    calibration = fit_calibration(logits, labels, method)
    reread = json.loads(json.dumps(calibration, allow_nan=False))
    probabilities = apply_calibration(logits, calibration)
    assert np.array_equal(apply_calibration(logits, reread), probabilities)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)


def test_temperature_keeps_the_decisions():
    logits, labels = logits_and_labels(temperature=4.0)
    calibrated = apply_calibration(logits, fit_calibration(logits, labels))
    assert np.array_equal(calibrated.argmax(axis=1), logits.argmax(axis=1))


def test_huge_logits_do_not_overflow():
    probabilities = apply_calibration(np.array([[1e4, -1e4, 0.0]]), NONE)
    np.testing.assert_allclose(probabilities, [[1, 0, 0]])


def test_nan_logits_are_refused():
    with pytest.raises(ValueError, match="not finite"):
        apply_calibration(np.array([[np.nan, 0.0, 0.0]]), NONE)
    with pytest.raises(ValueError, match="not finite"):
        fit_calibration(np.array([[np.nan, 0.0, 0.0]]), np.array([0]))


@pytest.mark.parametrize(
    "calibration",
    [
        {},
        {"method": "isotonic"},
        {"method": "temperature"},
        {"method": "temperature", "temperature": 0.0},
        {"method": "temperature", "temperature": float("nan")},
        {"method": "temperature", "temperature": "hot"},
        {"method": "vector", "weights": [1.0, 1.0], "bias": [0.0, 0.0, 0.0]},
    ],
)
def test_calibrations_nobody_wrote_are_refused(calibration):
    with pytest.raises(ValueError, match="calibration"):
        apply_calibration(np.zeros((1, 3)), calibration)


def test_unknown_method_is_refused():
    with pytest.raises(ValueError, match="known are none, temperature, vector"):
        fit_calibration(np.zeros((2, 3)), np.array([0, 1]), "isotonic")


@pytest.mark.parametrize("weight", [-1e308, -1.7e308])
def test_a_calibration_that_makes_no_probabilities_is_refused(weight):
    calibration = {"method": "vector", "weights": [weight] * 3, "bias": [0.0, 0.0, 0.0]}
    logits = np.array([[50.0, 0.0, -50.0]])

    with pytest.raises(ValueError, match=r"calibration .* makes no probabilities"):
        apply_calibration(logits, calibration)
