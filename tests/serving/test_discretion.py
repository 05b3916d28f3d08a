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


@given(st.text(alphabet="ab /=:'(.", max_size=60))
def test_nothing_with_a_slash_is_left(text):
    assert "/" not in DISCRETION.text(text)


def test_every_text_of_a_json_value_is_read():
    content = {"a": ["/x/y", {"b": "/x/z", "c": 1.5, "d": None, "e": True}]}
    assert DISCRETION.content(content) == {"a": ["y", {"b": "z", "c": 1.5, "d": None, "e": True}]}
