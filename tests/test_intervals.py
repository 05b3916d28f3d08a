"""One interval type, one way to print it."""

import pytest

from percoin.evaluation.joint import JointMean
from percoin.evaluation.uncertainty import Estimate
from percoin.intervals import Interval, ends_text, interval_text, number_text


def test_an_interval_is_printed_behind_its_figure():
    assert interval_text(Interval(0.0176, 0.0012, 0.034)) == "+0.0176 [+0.0012, +0.0340]"
    assert interval_text(Interval(-0.5, -1.25, 0.25)) == "-0.5000 [-1.2500, +0.2500]"


def test_a_share_has_no_sign_and_as_many_decimals_as_asked_for():
    assert interval_text(Interval(0.52, 0.5, 0.54), 3, signed=False) == "0.520 [0.500, 0.540]"


def test_a_hopeless_figure_is_told_by_its_size():
    assert interval_text(Interval(-12.3456, -20.0, -5.04)) == "-12.3 [-20.0, -5.0]"
    assert number_text(-12.3456) == "-12.3"


@pytest.mark.parametrize(("lower", "upper"), [(None, None), (None, 0.1), (0.1, None)])
def test_without_both_ends_there_is_no_interval(lower, upper):
    interval = Interval(0.1, lower, upper)

    assert interval.ends is None
    assert ends_text(interval) == "[too few rows]"
    assert interval_text(interval) == "+0.1000 [too few rows]"
    assert interval_text(interval, without="[too few days]") == "+0.1000 [too few days]"
    assert interval_text(interval, without="") == "+0.1000"


def test_no_figure_is_a_dash():
    assert interval_text(None) == "-"


@pytest.mark.parametrize("kind", [Estimate, JointMean])
def test_every_mean_that_has_an_interval_is_one(kind):
    assert issubclass(kind, Interval)


def test_as_json_tells_the_figure_and_its_ends_alone():
    assert JointMean(0.1, 0.0, None, 3, 20).as_json() == {"value": 0.1, "lower": 0.0, "upper": None}
