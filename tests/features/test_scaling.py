import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.preprocessing import StandardScaler

from percoin.features.scaling import Scaling

FEATURES = arrays(
    np.float64,
    st.tuples(st.integers(1, 40), st.integers(1, 15)),
    elements=st.floats(-1e9, 1e9, allow_subnormal=False),
)


@settings(deadline=None)
@given(features=FEATURES)
def test_fit_equals_scikit_learn(features):
    scaling, scaler = Scaling.fit(features), StandardScaler().fit(features)
    np.testing.assert_allclose(scaling.mean_, scaler.mean_, rtol=1e-12, atol=1e-6)
    np.testing.assert_allclose(scaling.scale_, scaler.scale_, rtol=1e-9)


def test_transform_equals_scikit_learn_to_float32():
    features = np.random.default_rng(0).normal(30_000, 2_000, (500, 15))
    scaler = StandardScaler().fit(features)
    scaled = Scaling.fit(features).transform(features)
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled, scaler.transform(features), rtol=1e-6, atol=1e-7)


def test_a_feature_that_never_varies_becomes_zero():
    features = np.column_stack([np.full(5, 0.1), np.arange(5.0)])
    scaling = Scaling.fit(features)
    assert scaling.scale_[0] == 1
    assert np.abs(scaling.transform(features)[:, 0]).max() < 1e-16


def test_nan_stays_nan():
    scaled = Scaling.fit(np.array([[1.0], [3.0]])).transform(np.array([[np.nan], [4.0]]))
    np.testing.assert_array_equal(scaled, np.array([[np.nan], [2.0]], dtype=np.float32))


@pytest.mark.parametrize("features", [np.empty((0, 3)), np.array([[1.0, np.nan]])])
def test_nothing_or_nan_cannot_be_measured(features):
    with pytest.raises(ValueError, match="finite"):
        Scaling.fit(features)


def test_markets_fitted_together_are_as_one_array_fitted_at_once():
    rng = np.random.default_rng(3)
    markets = [rng.normal(place, 10.0**place, (50 * place + 1, 4)) for place in range(4)]
    for market in markets:
        market[:, 3] = 7.1
    together, at_once = Scaling.fit_together(iter(markets)), Scaling.fit(np.concatenate(markets))
    np.testing.assert_allclose(together.mean_, at_once.mean_, rtol=1e-12)
    np.testing.assert_allclose(together.scale_, at_once.scale_, rtol=1e-12)
    assert together.scale_[3] == 1.0


@pytest.mark.parametrize(
    "markets", [[], [np.empty((0, 2))], [np.ones((2, 2)), np.full((1, 2), np.nan)]]
)
def test_markets_without_rows_or_with_nan_are_not_fitted_together(markets):
    with pytest.raises(ValueError, match="scaling is fitted on"):
        Scaling.fit_together(markets)
