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
