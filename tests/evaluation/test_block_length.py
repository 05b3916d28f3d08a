import numpy as np
import pytest
from arch.bootstrap import optimal_block_length as reference
from scipy.signal import lfilter

from percoin.evaluation.block_length import MIN_BLOCKS, choose_block_length, optimal_block_length

HORIZON = 3


def autoregressive(n_rows, correlation, seed):
    """An AR(1) series of mean zero, shape (n_rows,)."""
    shocks = np.random.default_rng(seed).standard_normal(n_rows + 200)
    return lfilter([1], [1, -correlation], shocks)[200:]


SHAPES = {
    "as it is": lambda rows: rows,
    "hits": lambda rows: (rows > 0).astype(float),
    "skewed": lambda rows: np.exp(3 * rows),
    "a trend": lambda rows: rows + np.arange(len(rows)),
    "one that differs": lambda rows: np.eye(1, len(rows))[0],
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("correlation", [-0.5, 0.0, 0.6, 0.95])
@pytest.mark.parametrize("n_rows", [9, 25, 99, 100, 1001, 20_000])
def test_the_length_is_that_of_arch(n_rows, correlation, shape):
    rows = SHAPES[shape](autoregressive(n_rows, correlation, n_rows))
    with np.errstate(invalid="ignore", divide="ignore"):
        expected = float(reference(rows)["circular"].iloc[0])
    assert optimal_block_length(rows) == pytest.approx(expected, rel=1e-9, nan_ok=True)


def test_blocks_are_never_shorter_than_the_horizon():
    rows = np.random.default_rng(12).standard_normal(4000)
    assert choose_block_length(rows, 1) < 24
    assert choose_block_length(rows, 24) == 24


def test_blocks_grow_with_the_dependence_and_stay_at_least_eight():
    lengths = [
        choose_block_length(autoregressive(2000, correlation, seed=13), HORIZON)
        for correlation in (0.0, 0.6, 0.95)
    ]
    assert lengths[0] < lengths[1] < lengths[2]
    trend = np.arange(100.0)
    assert 100 // choose_block_length(trend, HORIZON) >= MIN_BLOCKS
