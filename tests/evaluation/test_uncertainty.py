import numpy as np
import pytest
from arch.bootstrap import CircularBlockBootstrap
from scipy.signal import lfilter

from percoin.evaluation import uncertainty
from percoin.evaluation.block_length import MIN_BLOCKS
from percoin.evaluation.metrics import log_loss_skill
from percoin.evaluation.skills import BinaryView
from percoin.evaluation.uncertainty import (
    MOST_BLOCKS,
    Bootstrap,
    _circular_block_means,
    _draw_t_statistics,
    _p_value,
    _standard_error,
    skill_rows,
)

HORIZON = 3


def autoregressive(n_rows, correlation, seed, n_series=1):
    """AR(1) series of mean zero, shape (n_series, n_rows)."""
    shocks = np.random.default_rng(seed).standard_normal((n_series, n_rows + 200))
    return lfilter([1], [1, -correlation], shocks, axis=1)[:, 200:]


# Nominal is .95. Below .90 an interval from dependent rows would be called broken; above .99
# it would be useless. The naive interval of independent rows covers .77 and .50 here.
@pytest.mark.parametrize("correlation", [0.0, 0.3, 0.6])
def test_interval_covers_the_truth_despite_autocorrelation(correlation):
    bootstrap = Bootstrap(HORIZON, seed=1, repetitions=300)
    covered = []
    for rows in autoregressive(1000, correlation, seed=2, n_series=300):
        estimate = bootstrap.estimate(rows)
        covered.append(estimate.lower <= 0 <= estimate.upper)
    assert 0.90 <= np.mean(covered) <= 0.99


def test_an_interval_for_independent_rows_would_be_fooled():
    rows = autoregressive(1000, 0.6, seed=2, n_series=300)
    reach = 1.96 * rows.std(axis=1) / np.sqrt(1000)
    assert np.mean(np.abs(rows.mean(axis=1)) <= reach) < 0.75


def test_both_tails_are_kept_for_skewed_rows():
    rng = np.random.default_rng(3)
    bootstrap = Bootstrap(HORIZON, seed=1, repetitions=400)
    too_high = too_low = 0
    for _ in range(300):
        # Many small gains and rare large losses, mean zero: an overconfident model.
        estimate = bootstrap.estimate(1 - rng.exponential(size=500))
        too_high += estimate.lower > 0
        too_low += estimate.upper < 0
    assert too_high / 300 <= 0.06
    assert too_low / 300 <= 0.06


def test_the_studentized_interval_turns_the_tails_of_the_draws_round(monkeypatch):
    """Where the draws reach far above the mean, the truth may lie far below it (Hall, 1988)."""
    draws = np.linspace(-1.0, 3.0, 1001)
    monkeypatch.setattr(uncertainty, "_draw_t_statistics", lambda *_: draws)
    rows = autoregressive(400, 0.0, seed=20)[0]
    estimate = Bootstrap(HORIZON).estimate(rows)

    assert estimate.lower == pytest.approx(estimate.value - 2.9 * estimate.standard_error)
    assert estimate.upper == pytest.approx(estimate.value + 0.9 * estimate.standard_error)


def test_rare_large_gains_leave_more_room_above_than_below():
    rows = np.random.default_rng(24).exponential(size=400) ** 3
    estimate = Bootstrap(HORIZON, seed=1, repetitions=999).estimate(rows)

    assert estimate.upper - estimate.value > 1.1 * (estimate.value - estimate.lower)


@pytest.mark.parametrize("edge", [-0.1, 0.0, 0.05, 0.2])
def test_a_null_value_moves_the_test_and_nothing_else(edge):
    rows = autoregressive(400, 0.3, seed=25)[0] + edge
    plain = Bootstrap(HORIZON, seed=1, repetitions=400).estimate(rows)
    moved = Bootstrap(HORIZON, seed=1, repetitions=400).estimate(rows + 0.5, null=0.5)

    assert moved.p_value == pytest.approx(plain.p_value, rel=1e-6)
    assert moved.lower - 0.5 == pytest.approx(plain.lower, abs=1e-9)


def test_the_standard_error_counts_the_rows_after_the_last_full_block():
    rows = np.array([1.0, 3.0, 2.0, 6.0, 0.0, 4.0, 9.0])
    # Blocks of two: means 2, 4, 2, whose sample standard deviation is 2 / sqrt(3); 7 rows.
    assert _standard_error(rows, 2) == pytest.approx(2 / np.sqrt(3) * np.sqrt(2 / 7))


def test_p_value_is_below_one_fortieth_exactly_when_the_interval_is_above_null():
    bootstrap = Bootstrap(HORIZON, seed=1, repetitions=999)
    for k, rows in enumerate(autoregressive(400, 0.3, seed=4, n_series=40)):
        estimate = bootstrap.estimate(rows + 0.01 * k)
        if abs(estimate.p_value - 0.025) > 0.003:
            assert (estimate.p_value < 0.025) == (estimate.lower > 0)


def test_p_values_are_uniform_without_an_edge():
    bootstrap = Bootstrap(HORIZON, seed=1, repetitions=400)
    p_values = np.array(
        [bootstrap.estimate(rows).p_value for rows in autoregressive(800, 0.3, 5, n_series=300)]
    )
    for level in (0.05, 0.25, 0.5, 0.75):
        assert (p_values <= level).mean() == pytest.approx(level, abs=0.07)


def test_evidence_beyond_the_draws_is_told_apart():
    rows = autoregressive(3000, 0.3, seed=21)[0]
    bootstrap = Bootstrap(HORIZON, seed=1, repetitions=300)
    found = [bootstrap.estimate(rows + edge).p_value for edge in (0.1, 0.2, 0.3, 0.5)]

    assert found == sorted(found, reverse=True)
    # A lone true model among 128 stands below .05 / (128 * 5.43).
    assert found[-1] < 7.2e-5 < 1 / 301


def stormy(n_rows, seed, n_series):
    """Rows without edge, with rare large losses, whose volatility comes in runs."""
    rng = np.random.default_rng(seed)
    shocks = 1 - rng.exponential(size=(n_series, n_rows + 100))
    log_volatility = lfilter([1], [1, -0.97], rng.normal(0, 0.17, (n_series, n_rows + 100)), axis=1)
    return (lfilter([1], [1, -0.4], shocks, axis=1) * np.exp(log_volatility))[:, 100:]


def test_small_p_values_come_no_more_often_than_they_say_in_stormy_rows():
    # Two are due. With 20,000 draws the bootstrap alone gave ten of them on these rows.
    bootstrap = Bootstrap(HORIZON, seed=1, repetitions=100)
    p_values = np.array([bootstrap.estimate(rows).p_value for rows in stormy(450, 22, 2000)])

    assert (p_values < 0.001).sum() <= 6


def test_draws_that_lie_beyond_are_never_forgotten():
    rows = autoregressive(400, 0.0, seed=23)[0] + 1.0

    assert _p_value(rows, 3, 0, 2000) < 1e-9
    assert _p_value(rows, 3, 9, 2000) == 9 / 2000
    assert _p_value(rows, 3, 10, 2000) == 11 / 2001


def test_the_same_seed_gives_the_same_interval():
    rows = autoregressive(500, 0.5, seed=6)[0]
    assert Bootstrap(HORIZON, seed=7).estimate(rows) == Bootstrap(HORIZON, seed=7).estimate(rows)
    assert Bootstrap(HORIZON, seed=7).estimate(rows) != Bootstrap(HORIZON, seed=8).estimate(rows)


def test_draws_equal_those_of_archs_own_resampling():
    rows, block_length = autoregressive(300, 0.5, seed=8)[0], 10
    found = _draw_t_statistics(rows, block_length, Bootstrap(HORIZON, seed=9, repetitions=200))
    reference = CircularBlockBootstrap(block_length, rows, seed=9).apply(
        lambda drawn: np.array([(drawn.mean() - rows.mean()) / _standard_error(drawn, 10)]), 200
    )
    np.testing.assert_allclose(found, reference[:, 0], rtol=1e-8)


def test_circular_block_means_agree_with_a_loop():
    rows = np.arange(7.0) ** 2
    expected = [np.mean([rows[(start + k) % 7] for k in range(3)]) for start in range(7)]
    np.testing.assert_allclose(_circular_block_means(rows, 3), expected)


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.8])
def test_effective_rows_of_an_autoregressive_series(correlation):
    rows = autoregressive(8000, correlation, seed=10)[0]
    expected = 8000 * (1 - correlation) / (1 + correlation)
    estimate = Bootstrap(HORIZON, repetitions=10).estimate(rows)
    assert estimate.n_effective_rows == pytest.approx(expected, rel=0.25)
    assert estimate.n_effective_rows <= 8000


def test_smallest_detectable_edge_is_found_four_times_in_five():
    bootstrap = Bootstrap(HORIZON, seed=1, repetitions=300)
    edge = 2.8 / np.sqrt(600)
    series = autoregressive(600, 0.0, seed=11, n_series=250)
    assert bootstrap.estimate(series[0]).smallest_detectable == pytest.approx(edge, rel=0.2)
    found = [bootstrap.estimate(rows + edge).lower > 0 for rows in series]
    assert np.mean(found) == pytest.approx(0.8, abs=0.08)


def test_the_rows_of_a_market_make_at_most_sixteen_blocks_and_other_rows_as_many_as_they_like():
    rows = np.random.default_rng(12).standard_normal(100 * 24)
    market = Bootstrap(HORIZON, repetitions=50, day=24).estimate(rows)
    assert len(rows) // market.block_length == MOST_BLOCKS
    assert Bootstrap(HORIZON, repetitions=50).estimate(rows).block_length < 24
    # So do daily bars, of which a day holds one; the sums of days are no rows of a market.
    daily = Bootstrap(HORIZON, repetitions=50, day=1).estimate(rows[:400])
    assert daily.block_length >= 400 // MOST_BLOCKS
    assert Bootstrap(HORIZON, repetitions=50).estimate(rows[:400]).block_length < 25
    # Of ten days there are ten blocks.
    assert Bootstrap(HORIZON, repetitions=50, day=24).estimate(rows[:240]).block_length == 24


def test_intervals_of_a_market_cover_the_truth_though_its_level_moves_for_days():
    # Eight rows a day for 96 days; the level forgets within days, and is small beside the noise.
    levels, noise = autoregressive(768, 0.95, 31, 200), autoregressive(768, 0.0, 32, 200)

    def covered(bootstrap):
        found = [bootstrap.estimate(rows) for rows in 0.15 * levels + noise]
        return np.mean([estimate.lower <= 0 <= estimate.upper for estimate in found])

    of_a_day = covered(Bootstrap(8, seed=1, repetitions=300))
    of_a_market = covered(Bootstrap(HORIZON, seed=1, repetitions=300, day=8))
    assert of_a_day < 0.87 < 0.88 <= of_a_market


def test_too_few_rows_give_no_interval():
    estimate = Bootstrap(horizon=24).estimate(np.random.default_rng(0).standard_normal(100))
    assert estimate.lower is None
    assert estimate.p_value is None
    assert estimate.block_length == 24
    assert estimate.n_effective_rows < MIN_BLOCKS


def test_rows_that_never_vary_are_certain():
    nothing = Bootstrap(HORIZON).estimate(np.zeros(100))
    assert (nothing.lower, nothing.upper, nothing.p_value) == (0, 0, 1)
    gain = Bootstrap(HORIZON, repetitions=99).estimate(np.full(100, 0.2))
    assert (gain.lower, gain.upper, gain.p_value) == (0.2, 0.2, 0.01)


def test_rows_that_vary_rarely_still_give_a_finite_interval():
    rows = np.zeros(500)
    rows[250] = 1.0
    estimate = Bootstrap(HORIZON, repetitions=200).estimate(rows)
    assert np.isfinite([estimate.lower, estimate.upper]).all()
    assert estimate.lower <= 0.0


def test_rows_with_nan_are_refused():
    with pytest.raises(ValueError, match="finite"):
        Bootstrap(HORIZON).estimate(np.array([0.1, np.nan]))


def test_mean_of_the_skill_rows_is_the_skill():
    rng = np.random.default_rng(14)
    reference = rng.exponential(size=800)
    losses = reference * rng.uniform(0.5, 1.3, size=800)
    assert skill_rows(losses, reference).mean() == pytest.approx(log_loss_skill(losses, reference))


def test_error_of_the_skill_rows_is_that_of_the_ratio():
    rng = np.random.default_rng(15)
    reference = rng.exponential(size=800)
    losses = reference * rng.uniform(0.5, 1.3, size=800)
    drawn = rng.integers(0, 800, (4000, 800))
    ratios = 1 - losses[drawn].mean(axis=1) / reference[drawn].mean(axis=1)
    expected = skill_rows(losses, reference).std() / np.sqrt(800)
    assert ratios.std() == pytest.approx(expected, rel=0.05)


def test_rows_that_repeat_themselves_in_every_block_have_an_interval_all_the_same():
    estimate = Bootstrap(horizon=3, repetitions=100).estimate(np.tile([0.1, -0.2, 0.3], 40))
    assert estimate.value == pytest.approx(0.2 / 3)
    assert estimate.lower <= estimate.value <= estimate.upper
    assert np.isfinite([estimate.lower, estimate.upper, estimate.p_value]).all()


def test_the_interval_of_an_auc_ends_at_0_and_1():
    rng, bootstrap = np.random.default_rng(1), Bootstrap(HORIZON)
    came = rng.random(40) < 0.4
    forecast = np.where(came, 0.6, 0.4) + rng.normal(0, 0.1, 40)
    for probability, is_right in ((forecast, True), (1 - forecast, False)):
        rows = BinaryView(np.ones(40, dtype=bool), came, probability).auc_rows()
        plain, found = bootstrap.estimate(rows, null=0.5), bootstrap.estimate_auc(rows)
        assert plain.upper > 1 if is_right else plain.lower < 0
        assert 0 <= found.lower < found.value < found.upper <= 1
        assert (found.lower, found.upper) == (max(0, plain.lower), min(1, plain.upper))
        assert found.p_value == plain.p_value
    assert bootstrap.estimate_auc(np.array([0.7, 0.8])).ends is None
