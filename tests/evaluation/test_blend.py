import numpy as np
import pytest
from forecast_builders import draw_labels, random_probabilities
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from percoin.evaluation.blend import (
    PartSkill,
    blend_probabilities,
    choose_weights,
    network_text,
)
from percoin.evaluation.metrics import row_log_loss
from percoin.evaluation.uncertainty import Bootstrap

SHARES = (0.3, 0.4, 0.5, 0.6, 0.7)


def loss_of(parts, labels, weights):
    return row_log_loss(blend_probabilities(parts, weights), labels).mean()


def loss(network, regression, labels, weight):
    return loss_of([network, regression], labels, [weight, 1 - weight])


def choose_weight(network, regression, labels):
    """Of the first of two."""
    weight, other = choose_weights([network, regression], labels)
    assert weight + other == 1
    return weight


@st.composite
def forecasts(draw, least=2, most=2):
    """Any forecasts of the same rows, certain and impossible ones among them."""
    n_rows = draw(st.integers(1, 30))
    shares = arrays.arrays(np.float64, (n_rows, 3), elements=st.floats(0, 1))
    made = [draw(shares) for _ in range(draw(st.integers(least, most)))]
    for forecast in made:
        forecast[forecast.sum(axis=1) < 1e-3] = 1.0
        forecast /= forecast.sum(axis=1, keepdims=True)
    labels = draw(arrays.arrays(np.int64, n_rows, elements=st.integers(0, 2)))
    return (*made, labels)


@given(forecasts(least=1, most=6), st.randoms(use_true_random=False))
def test_on_its_rows_no_part_and_no_other_weights_are_better(drawn, random):
    *parts, labels = drawn
    weights = choose_weights(parts, labels)
    assert min(weights) >= 0
    assert sum(weights) == pytest.approx(1, abs=1e-12)
    chosen = loss_of(parts, labels, weights)
    drawn_weights = np.random.default_rng(random.randrange(99)).dirichlet(np.ones(len(parts)), 30)
    for others in (*np.eye(len(parts)), *drawn_weights):
        assert chosen <= loss_of(parts, labels, others) + 1e-7


def two_that_know_something_else():
    """Labels, and two forecasts that are right about half of the rows; else they say the shares."""
    truth = random_probabilities(4000)
    labels = draw_labels(truth)
    known = np.random.default_rng(4).random(4000) < 0.5
    shares = truth.mean(axis=0)
    one, other = (np.where(rows[:, None], truth, shares) for rows in (known, ~known))
    return labels, one, other


def test_of_five_forecasts_the_two_that_know_something_share_the_weight():
    labels, one, other = two_that_know_something_else()
    noise = [random_probabilities(4000, seed=seed) for seed in (1, 2, 3)]
    weights = choose_weights([noise[0], one, noise[1], other, noise[2]], labels)
    assert min(weights[1], weights[3]) > 0.3
    assert weights[0] + weights[2] + weights[4] < 0.1
    # The same ones, whatever their order: the best weights of these rows are unique.
    again = choose_weights([one, other, *noise], labels)
    np.testing.assert_allclose(again[:2], [weights[1], weights[3]], rtol=0, atol=1e-3)


def test_no_other_weights_could_be_better_by_more_than_a_hundred_millionth_of_a_nat():
    truth = random_probabilities(2000)
    labels, rows = draw_labels(truth), np.arange(2000)
    noise = [random_probabilities(2000, seed=seed) for seed in range(1, 6)]
    parts = [share * truth + (1 - share) * each for share, each in zip(SHARES, noise, strict=True)]
    weights = choose_weights(parts, labels)
    said = blend_probabilities(parts, weights)[rows, labels]
    # Moving weight to a part gains at most this, as the loss is convex.
    assert max((part[rows, labels] / said).mean() for part in parts) - 1 < 1e-8
    assert sum(weight > 0.02 for weight in weights) >= 3


def test_one_forecast_has_all_of_the_weight():
    said = random_probabilities(40)
    assert choose_weights([said], draw_labels(said)) == (1.0,)


@given(forecasts())
def test_on_its_rows_the_weight_is_never_worse_than_either_end_or_any_other(drawn):
    network, regression, labels = drawn
    weight = choose_weight(network, regression, labels)
    assert 0 <= weight <= 1
    chosen = loss(network, regression, labels, weight)
    for other in (0.0, 1.0, *np.linspace(0.01, 0.99, 25)):
        assert chosen <= loss(network, regression, labels, other) + 1e-9


def test_the_weight_of_a_worked_case_is_found_to_nine_digits():
    # Two rows of one class: losses -log(.2 + .6 w) and -log(.8 - .6 w) are even at one half.
    network = np.array([[0.8, 0.1, 0.1], [0.2, 0.4, 0.4]])
    regression = network[::-1]
    assert choose_weight(network, regression, np.zeros(2, np.int64)) == pytest.approx(0.5, abs=1e-9)


def test_of_a_forecast_that_knows_and_one_that_guesses_the_first_gets_nearly_all():
    truth, noise = random_probabilities(5000), random_probabilities(5000, seed=1)
    labels = draw_labels(truth)
    assert choose_weight(truth, noise, labels) > 0.95
    assert choose_weight(noise, truth, labels) < 0.05
    assert choose_weight(np.eye(3)[labels], noise, labels) == 1.0
    assert choose_weight(noise, np.eye(3)[labels], labels) == 0.0


def test_two_that_each_know_something_else_are_both_asked():
    labels, one, other = two_that_know_something_else()
    weight = choose_weight(one, other, labels)
    assert 0.3 < weight < 0.7
    assert loss(one, other, labels, weight) < min(loss(one, other, labels, end) for end in (0, 1))


def test_forecasts_that_say_the_same_leave_the_network_out():
    said = random_probabilities(40)
    assert choose_weight(said, said, draw_labels(said)) == 0.0


def test_a_certain_error_costs_a_weight_but_no_infinity():
    network = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    regression = np.full((3, 3), 1 / 3)
    # One row in three is impossible to the network; by hand the best weight is a half.
    assert choose_weight(network, regression, np.zeros(3, np.int64)) == pytest.approx(0.5, abs=1e-6)


def test_what_is_no_forecast_is_refused():
    said = random_probabilities(4)
    with pytest.raises(ValueError, match="not finite"):
        choose_weight(np.full((4, 3), np.nan), said, np.zeros(4, np.int64))
    with pytest.raises(ValueError, match="no class"):
        choose_weight(said, said, np.full(4, -1))


def test_a_skill_is_shown_with_its_interval_where_it_has_one():
    values = np.random.default_rng(0).normal(0.1, 0.1, 300)
    estimate = Bootstrap(horizon=3, repetitions=100).estimate(values)
    skill = PartSkill.of(estimate)
    assert (skill.value, skill.lower, skill.upper) == (
        estimate.value,
        estimate.lower,
        estimate.upper,
    )
    assert str(skill) == f"{skill.value:+.4f} [{skill.lower:+.4f}, {skill.upper:+.4f}]"
    assert str(PartSkill.of(Bootstrap(horizon=3).estimate(values[:5]))).count("[") == 0


@pytest.mark.parametrize("upper", [None, 0.0, 0.001])
def test_a_network_that_may_be_worth_something_is_not_advised_against(upper):
    lower = None if upper is None else -0.02
    assert "model=average" not in network_text(PartSkill(-0.01, lower, upper))


def test_where_the_other_parts_are_surely_better_alone_they_are_advised():
    told = network_text(PartSkill(-0.01, -0.02, -0.001))
    assert told.endswith(
        "to the same parts without it: better alone, by model=average, or model=NAME of one part"
    )
