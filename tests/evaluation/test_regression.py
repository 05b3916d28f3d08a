import math

import numpy as np
import pytest

from percoin.evaluation.baselines import (
    LOGISTIC,
    BaselineInputs,
    ServableBaseline,
    default_baselines,
)
from percoin.evaluation.calibration import apply_calibration
from percoin.evaluation.regression import Regression
from percoin.types import Signal

RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(600, 5))
LABELS = np.digitize(FEATURES[:, 0] + RNG.normal(size=600), [-0.6, 0.6]).astype(np.int64)
SERVABLE = [each.name for each in default_baselines() if isinstance(each, ServableBaseline)]
FLAT = ((0.0, 0.0),) * 3


def inputs(features):
    n_rows = len(features)
    known = np.ones((n_rows, 3), dtype=np.int64)
    return BaselineInputs(
        features, *known.T, settled_counts=known, volatility=features, clock=features
    )


def fitted(name, labels=LABELS):
    baseline = next(each for each in default_baselines() if each.name == name)
    baseline.fit(inputs(FEATURES), labels)
    return baseline


def test_its_numbers_say_what_the_fitted_baseline_says():
    baseline = fitted(LOGISTIC)
    later = RNG.normal(size=(50, 5)) * 3
    said = apply_calibration(baseline.plain().logits(later), {"method": "none"})
    np.testing.assert_allclose(said, baseline.predict_proba(inputs(later)), rtol=0, atol=1e-14)


def test_a_row_gets_the_same_bits_whatever_rows_come_along():
    regression = fitted(LOGISTIC).plain().numbers
    rows = RNG.normal(size=(257, 5)).astype(np.float32)
    together = regression.logits(rows)
    for size in (1, 2, 3, 64, 255):
        np.testing.assert_array_equal(regression.logits(rows[-size:]), together[-size:])


@pytest.mark.parametrize("name", SERVABLE)
def test_the_numbers_of_a_baseline_say_what_it_says(name):
    baseline = fitted(name)
    later = RNG.normal(size=(500, 5)) * 3
    model = baseline.plain()
    rows = inputs(later).columns(model.columns)
    said = apply_calibration(model.logits(rows), {"method": "none"})
    np.testing.assert_allclose(said, baseline.predict_proba(inputs(later)), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", SERVABLE)
def test_only_a_baseline_of_all_three_classes_has_numbers(name):
    for labels in (np.minimum(LABELS, 1), np.full_like(LABELS, Signal.LONG)):
        with pytest.raises(ValueError, match=f"{name} was fitted without a train row of each"):
            fitted(name, labels).plain()


@pytest.mark.parametrize(
    ("coefficients", "intercept", "reason"),
    [
        (FLAT[:2], (0.0, 0.0, 0.0), "coefficients are not 3 rows of one length"),
        (((0.0,), (0.0,), (0.0, 0.0)), (0.0, 0.0, 0.0), "coefficients are not 3 rows"),
        (((), (), ()), (0.0, 0.0, 0.0), "coefficients are not 3 rows"),
        (FLAT, (0.0, 0.0), "intercept has 2 entries, not 3"),
        (FLAT, (0.0, 0.0, math.nan), "a coefficient is not finite"),
        ((*FLAT[:2], (math.inf, 0.0)), (0.0, 0.0, 0.0), "a coefficient is not finite"),
    ],
)
def test_numbers_of_anything_else_are_refused(coefficients, intercept, reason):
    with pytest.raises(ValueError, match=reason):
        Regression(coefficients, intercept)
