import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from percoin.serving.discretion import Discretion

DISCRETION = Discretion(["/srv/my bars/klines", "models", "/srv/my bars"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no model exported in /var/lib/percoin/models", "no model exported in models"),
        ("files: klines/BTCUSDT/15m.parquet", "files: 15m.parquet"),
        ("no file in /srv/my bars/klines holds A", "no file in klines holds A"),
        ("/srv/my bars/archive/x.zip is broken", "x.zip is broken"),
        ("(source.path=/a/b/c), 'x/y'", "(source.path=c), 'y'"),
        ("https://data.example.org/a/b.zip: 404", "b.zip: 404"),
        ("../../etc/passwd", "passwd"),
        ("score +0.52 (15m +0.4; 0.40 are needed)", "score +0.52 (15m +0.4; 0.40 are needed)"),
    ],
)
def test_a_path_is_cut_down_to_its_last_part(text, expected):
    assert DISCRETION.text(text) == expected


@pytest.mark.parametrize(
    "command",
    [
        "python train.py symbol=A tf=15m models_dir=/tmp/x/m4 source=files",
        "percoin train symbol=A tf=15m models_dir=/tmp/x/m4",
        "python -m percoin.signals 'data_dir=/my bars' symbol=A",
    ],
)
def test_a_command_with_a_path_is_in_the_log_once_and_not_in_the_response(command, caplog):
    """Cut short, it would train on other bars, into another folder."""
    caplog.set_level("INFO")
    discretion = Discretion(["/tmp/x/m4"])
    for _ in range(2):
        said = discretion.text(f"A 15m: no model in /tmp/x/m4; train one: {command}")
        assert said == "A 15m: no model in m4; train one: the server's log has the command"
    assert caplog.text.count(command) == 1
    whole = "A 15m: no model in m4; train one: python train.py symbol=A tf=15m"
    assert discretion.text(whole) == whole
    assert discretion.text("percoin in a/b") == "percoin in b"


# What is cut, as one expression: a search for it looks at a word once for each character.
SLOW = re.compile(r"(?:[^\s'\"(=,;/]*/)+([^\s/'\"),;:]*)")


@given(st.text(alphabet="ab /=:'\"(),;.", max_size=60))
def test_a_path_is_what_the_slow_expression_says(text):
    assert Discretion([]).text(text) == SLOW.sub(r"\1", text)


@pytest.mark.parametrize("word", ["x", "/", "x/", "(", " /", "a/(", "=/:"])
def test_a_long_text_takes_no_longer_than_a_short_one_and_is_cut(word):
    discretion = Discretion(["/srv/my bars", "x/x/x"])
    began = time.process_time()
    found = discretion.text(word * 300_000)
    assert time.process_time() - began < 0.5
    assert len(found) <= 2000


def test_a_text_is_one_printable_line_and_a_number_is_finite():
    content = {"a\n": "b\x1b[2J\ud800\u202e", "c": [float("nan"), float("-inf"), 1.5]}
    assert DISCRETION.content(content) == {
        "a\\n": "b\\x1b[2J\\ud800\\u202e",
        "c": [None, None, 1.5],
    }


@given(st.text(alphabet="ab /=:'(.", max_size=60))
def test_nothing_with_a_slash_is_left(text):
    assert "/" not in DISCRETION.text(text)


def test_every_text_of_a_json_value_is_read():
    content = {"a": ["/x/y", {"b": "/x/z", "c": 1.5, "d": None, "e": True}]}
    assert DISCRETION.content(content) == {"a": ["y", {"b": "z", "c": 1.5, "d": None, "e": True}]}
