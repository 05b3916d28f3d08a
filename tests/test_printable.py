import pytest
from hypothesis import given
from hypothesis import strategies as st

from percoin.printable import printable, printable_lines


def test_text_of_any_language_stays_as_it_is():
    assert printable("модель 币安 é 🙂 100 %") == "модель 币安 é 🙂 100 %"


def test_line_breaks_and_escape_sequences_become_visible():
    hostile = "ok\nPREDICT BTCUSDT\r\x1b]0;title\x07\x9b2J\u2028\u202e"

    assert printable(hostile) == (r"ok\nPREDICT BTCUSDT\r\x1b]0;title\x07\x9b2J\u2028\u202e")


def test_half_a_surrogate_pair_becomes_visible():
    assert printable("\ud800") == r"\ud800"


@given(st.text(st.characters(exclude_categories=())))
def test_whatever_comes_is_one_printable_line_that_can_be_encoded(text):
    clean = printable(text)

    assert clean.isprintable()
    clean.encode()


def test_a_long_text_is_cut():
    assert printable("a" * 30, max_chars=10) == "aaaaaaa..."
    assert printable("\x1b" * 10**7, max_chars=20) == r"\x1b\x1b\x1b\x1b\..."


def test_lines_that_were_laid_out_stay_lines():
    assert printable_lines("one\ntwo\x1b\n") == "one\ntwo\\x1b\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a postgresql://u:p:w/1@h:5432/db b", "a postgresql://u:***@h:5432/db b"),
        ("https://:pw@h", "https://:***@h"),
        ("postgresql://h/db?user=u&password=pw&x=1", "postgresql://h/db?user=u&password=***&x=1"),
        ("'https://h/?API_KEY=pw'", "'https://h/?API_KEY=***'"),
        ("http://127.0.0.1:8000/ and a@b", "http://127.0.0.1:8000/ and a@b"),
        ("sqlite:////data/a:b@c.sqlite", "sqlite:////data/a:b@c.sqlite"),
        ("postgresql://user@host/name", "postgresql://user@host/name"),
    ],
)
def test_passwords_in_addresses_are_hidden_and_nothing_else(text, expected):
    assert printable(text) == expected
    assert printable(expected) == expected
