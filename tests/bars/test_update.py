from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
from builders import make_bars
from hypothesis import given
from hypothesis import strategies as st

from percoin.bars.update import (
    Segment,
    Stretch,
    add_segments,
    holes,
    in_pages,
    join,
    missing_spans,
    overlaps,
    with_bars,
    without,
)

spans = st.tuples(st.integers(0, 40), st.integers(1, 15)).map(lambda span: (span[0], sum(span)))
segments = st.lists(
    st.builds(lambda span, via: Segment(*span, via), spans, st.sampled_from("ab")), max_size=6
)


def covered(parts: list[Segment] | tuple[Segment, ...]) -> set[int]:
    return {moment for part in parts for moment in range(part.start, part.end)}


def test_before_between_and_after_are_missing():
    stored = [Segment(10, 20, "a"), Segment(30, 40, "a")]

    assert missing_spans(stored, 0, 50) == [(0, 10), (20, 30), (40, 50)]
    assert missing_spans(stored, 12, 35) == [(20, 30)]
    assert missing_spans(stored, 10, 20) == []
    assert missing_spans([], 3, 7) == [(3, 7)]
    assert missing_spans(stored, 25, 25) == []


@given(segments, spans)
def test_missing_is_what_no_segment_covers(parts, span):
    missing = missing_spans(parts, *span)

    moments = [moment for start, end in missing for moment in range(start, end)]
    assert moments == sorted(set(range(*span)) - covered(parts))
    assert all(start < end for start, end in missing)


@given(segments, segments)
def test_added_segments_cover_both_without_overlap_and_keep_who_answered_first(old, new):
    stored = add_segments([], old)
    joined = add_segments(stored, new)

    assert covered(joined) == covered(old) | covered(new)
    assert sum(part.end - part.start for part in joined) == len(covered(joined))
    assert list(joined) == sorted(joined, key=lambda part: part.start)
    first_via = {moment: part.via for part in stored for moment in range(part.start, part.end)}
    for part in joined:
        for moment in range(part.start, part.end):
            assert first_via.get(moment, part.via) == part.via
    for one, next_one in itertools.pairwise(joined):
        assert (one.end, one.via) != (next_one.start, next_one.via)


BARS = make_bars(60)
STEP = BARS.timeframe.milliseconds


def stretch(first: int, stop: int, frame: pd.DataFrame) -> Stretch:
    start = int(BARS.open_time[0])
    return Stretch(Segment(start + first * STEP, start + stop * STEP, "a"), frame)


@given(st.lists(spans, max_size=6))
def test_stretches_of_one_market_join_to_that_market(parts):
    stretches = [stretch(first, stop, BARS.frame) for first, stop in parts]
    wanted = sorted({bar for first, stop in parts for bar in range(first, stop)})
    joined = join(BARS.slice(0, 0), [], stretches)

    pd.testing.assert_frame_equal(joined, BARS.frame.iloc[wanted])


def test_what_is_stored_stays_where_a_stretch_says_otherwise():
    other = BARS.frame * 2
    stored = BARS.slice(10, 20)
    kept = [stretch(10, 20, BARS.frame).segment]
    joined = join(stored, kept, [stretch(0, 30, other), stretch(25, 40, BARS.frame)])

    assert joined.index.is_unique
    factor = (joined["close"] / BARS.frame["close"].loc[joined.index]).to_numpy()
    assert np.array_equal(factor, [2.0] * 10 + [1.0] * 10 + [2.0] * 10 + [1.0] * 10)


def test_bars_outside_the_stretch_that_answers_for_them_are_left_out():
    joined = join(None, [], [stretch(5, 10, BARS.frame)])

    assert list(joined.index) == list(BARS.frame.index[5:10])


def test_a_stretch_without_bars_is_an_answer_too():
    empty = stretch(10, 20, BARS.frame.iloc[:0])
    joined = join(BARS.slice(0, 10), [stretch(0, 10, BARS.frame).segment], [empty])

    pd.testing.assert_frame_equal(joined, BARS.frame.iloc[:10])
    assert join(None, [], [empty]).empty
    assert add_segments([], [empty.segment, replace(empty.segment, via="b")]) == (empty.segment,)


def moments(parts: list[tuple[int, int]]) -> set[int]:
    return {moment for start, end in parts for moment in range(start, end)}


@given(segments, st.lists(spans, max_size=4))
def test_segments_without_spans_cover_the_rest_and_keep_who_answered(parts, taken):
    left = without(parts, taken)

    assert covered(left) == covered(parts) - moments(taken)
    vias = [dict.fromkeys(range(part.start, part.end), part.via) for part in parts]
    assert all(
        any(via.get(moment) == part.via for via in vias)
        for part in left
        for moment in range(part.start, part.end)
    )


@given(st.lists(spans, max_size=4), st.lists(spans, max_size=4))
def test_overlaps_are_what_both_have(some, others):
    assert moments(overlaps(some, others)) == moments(some) & moments(others)


@given(st.sets(st.integers(0, 30)), spans)
def test_holes_are_the_moments_without_a_bar(bars, span):
    open_time = 5 * np.array(sorted(bars), dtype=np.int64)
    start, end = 5 * span[0], 5 * span[1]
    found = holes(open_time, start, end, 5)

    inside = {moment for bar in bars for moment in range(5 * bar, 5 * bar + 5)}
    assert moments(found) == set(range(start, end)) - inside
    assert found == sorted(found)


@given(st.lists(spans, max_size=6), st.integers(1, 30))
def test_pages_hold_all_spans_and_are_no_longer_than_they_may_be(parts, length):
    pages = in_pages(parts, length)

    assert moments(parts) <= moments(pages)
    assert all(end - start <= length or (start, end) in parts for start, end in pages)


def test_a_stretch_answers_for_its_bars_alone():
    frame = BARS.frame.drop(BARS.frame.index[[3, 4, 9]])
    parts = with_bars(stretch(0, 10, frame), STEP)

    start = int(BARS.open_time[0])
    spans = [
        ((part.segment.start - start) // STEP, (part.segment.end - start) // STEP) for part in parts
    ]
    assert spans == [(0, 3), (5, 9)]
    pd.testing.assert_frame_equal(join(None, [], parts), frame.loc[: BARS.frame.index[8]])
