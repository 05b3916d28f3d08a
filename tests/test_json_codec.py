from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from percoin import json_codec


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True)
class Point:
    x: float
    n: int

    def __post_init__(self):
        if self.n < 0:
            raise ValueError("n is negative")


@dataclass(frozen=True)
class Drawing:
    points: tuple[Point, ...]
    by_name: Mapping[str, Point]
    colour: Colour
    is_closed: bool
    extra: object


@dataclass(frozen=True)
class Note:
    text: str
    author: str | None = None
    place: Point | None = None


finite = st.floats(allow_nan=False, allow_infinity=False)
counts = st.integers(min_value=0, max_value=2**80)
points = st.builds(Point, finite, counts)
any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | finite | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
drawings = st.builds(
    Drawing,
    st.lists(points).map(tuple),
    st.dictionaries(st.text(), points),
    st.sampled_from(Colour),
    st.booleans(),
    any_json,
)


@given(st.builds(Note, st.text(), st.none() | st.text(), st.none() | points))
def test_a_field_that_is_none_by_default_may_be_absent_and_is_left_out(note):
    written = json_codec.loads(json_codec.dumps(note))
    assert set(written) == {
        name for name in ("text", "author", "place") if getattr(note, name) is not None
    }
    assert json_codec.decode(Note, written) == note


@pytest.mark.parametrize(
    "content",
    [{"author": "me"}, {"text": "a", "author": None}, {"text": "a", "place": {"x": 1.0}}],
)
def test_what_may_be_absent_is_checked_where_it_is_there(content):
    with pytest.raises(ValueError, match=r"text|author|place"):
        json_codec.decode(Note, content)


@dataclass(frozen=True)
class Shape:
    kind: str = "circle"


def test_only_what_is_none_by_default_may_be_absent():
    with pytest.raises(ValueError, match="missing key 'kind'"):
        json_codec.decode(Shape, {})
    assert json_codec.decode(Shape, {}, is_exact=False) == Shape()


def test_a_lenient_reader_passes_over_unknown_keys_and_nulls():
    content = {"text": "a", "author": None, "place": {"x": 1, "n": 1, "new": []}, "new": 2}
    note = Note("a", place=Point(1.0, 1))
    assert json_codec.decode(Note, content, is_exact=False) == note
    with pytest.raises(ValueError, match="unexpected key 'author'"):
        json_codec.decode(Note, content)


def test_without_indent_all_is_on_one_line():
    assert json_codec.dumps(Note("a\nb"), indent=None) == '{"text": "a\\nb"}\n'


@given(drawings)
def test_what_is_written_is_read_back_equal(drawing):
    text = json_codec.dumps(drawing)
    assert json_codec.decode(Drawing, json_codec.loads(text)) == drawing


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", '{"a": -Infinity}', "1e999", "[-1e999]"])
def test_a_number_that_is_not_finite_is_refused_on_reading(text):
    with pytest.raises(ValueError, match=r"is not a (finite )?number"):
        json_codec.loads(text)


@pytest.mark.parametrize("value", [float("nan"), {"a": [float("inf")]}, np.array([1.0, np.nan])])
def test_a_number_that_is_not_finite_is_refused_on_writing_or_written_as_null(value):
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_codec.dumps(value)
    assert "null" in json_codec.dumps(value, nan_as_null=True)


def test_text_nested_beyond_reason_is_refused_without_a_crash():
    with pytest.raises(ValueError, match="nested too deeply"):
        json_codec.loads("[" * 200_000)


def test_numpy_values_are_written_as_the_plain_ones():
    values = {"a": np.float32(0.5), "b": np.int64(3), "c": np.arange(2), "d": np.bool_(True)}
    assert json_codec.loads(json_codec.dumps(values)) == {"a": 0.5, "b": 3, "c": [0, 1], "d": True}


def test_what_json_has_no_form_for_is_refused():
    with pytest.raises(TypeError, match="object"):
        json_codec.dumps({"a": object()})


DRAWING = {
    "points": [{"x": 1.0, "n": 1}],
    "by_name": {},
    "colour": "red",
    "is_closed": True,
    "extra": None,
}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"points": [{"x": "1", "n": 1}]}, r"points\[0\]\.x: Expected `float`, got `str`"),
        ({"points": [{"x": 1.0, "n": True}]}, r"points\[0\]\.n: Expected `int`, got `bool`"),
        ({"points": [{"x": 1.0, "n": 1.0}]}, r"points\[0\]\.n: Expected `int`, got `float`"),
        ({"points": [{"x": 1.0, "n": -1}]}, r"points\[0\]: n is negative"),
        ({"points": [{"x": 1.0}]}, r"points\[0\]: Object missing required field `n`"),
        ({"points": {"x": 1.0}}, "points: Expected `array`, got `object`"),
        ({"points": [{"x": 10**400, "n": 1}]}, r"points\[0\]\.x: Number out of range"),
        ({"by_name": {"a": 3}}, r"by_name\[\.\.\.\]: Expected `object`, got `int`"),
        ({"colour": "green"}, "colour: Invalid enum value 'green'"),
        ({"colour": ["red"]}, "colour: Expected `str`, got `array`"),
        ({"is_closed": 1}, "is_closed: Expected `bool`, got `int`"),
        ({"shade": 1}, "unexpected key 'shade'"),
        ({"points": [{"x": 1.0, "n": 1, "y": 2}]}, r"unexpected key 'points\[0\]\.y'"),
    ],
)
def test_a_value_of_another_type_is_refused_with_its_place(change, reason):
    assert json_codec.decode(Drawing, DRAWING).points == (Point(1.0, 1),)
    with pytest.raises(ValueError, match=reason):
        json_codec.decode(Drawing, DRAWING | change)


def test_a_whole_number_may_stand_for_a_float():
    assert json_codec.decode(Point, {"x": 3, "n": 1}) == Point(3.0, 1)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("9" * 41, "a number of 41 digits"),
        ("-" + "9" * 5_000, "digits"),
        ('"' + "x" * 65_537 + '"', "a text of 65537 characters"),
        ('{"' + "x" * 65_537 + '": 1}', "a text of 65537 characters"),
        (r'"\ud800"', "half a surrogate pair"),
        (r'{"a": [{"\udcff": 1}]}', "half a surrogate pair"),
        ("[" * 65 + "]" * 65, "nested too deeply"),
        ('{"a":' * 900 + "1" + "}" * 900, "nested too deeply"),
        (b"\xff\xfe1\x00", "codec can't decode"),
        ("1".encode("utf-16"), "codec can't decode"),
    ],
)
def test_what_no_terminal_float_or_stack_could_hold_is_refused(text, reason):
    with pytest.raises(ValueError, match=reason):
        json_codec.loads(text)


def test_the_largest_that_is_read_is_a_float_a_text_and_a_stack():
    assert float(json_codec.loads("9" * 40)) == 1e40
    assert json_codec.loads(r'"\ud83d\ude00"') == "\U0001f600"
    assert json_codec.loads("[" * 64 + "]" * 64)
    assert json_codec.loads(b'"\xc3\xa9"') == "\u00e9"


def test_the_name_of_a_file_that_is_no_utf_8_is_written_as_what_can_be_read_again():
    text = json_codec.dumps({"bars-\udcff": ["models/\udcff"]})
    assert json_codec.loads(text) == {r"bars-\udcff": [r"models/\udcff"]}
