"""Which bars are missing before, between and after the stored ones, and how new ones are joined."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from percoin.bars.schema import Bars
from percoin.types import BoolArray, IntArray

Span = tuple[int, int]


@dataclass(frozen=True)
class Segment:
    """A stretch of time that a source has answered for: bars missing in it do not exist.

    Attributes:
        start: First open time, milliseconds since 1970-01-01 UTC.
        end: Where the stretch ends, itself not part of it.
        via: Which source answered, in one phrase, for example ``archive BTCUSDT``.
    """

    start: int
    end: int
    via: str


@dataclass(frozen=True)
class Stretch:
    """What was fetched in one piece.

    Attributes:
        segment: The time it answers for.
        frame: Its bars as in ``Bars.frame``; none at all is an answer too.
    """

    segment: Segment
    frame: pd.DataFrame


def outside(spans: Iterable[Span], start: int, end: int) -> list[Span]:
    """The parts of ``start`` to ``end`` that lie in none of the spans, oldest first.

    Args:
        spans: In any order, overlapping or not.
        start: Milliseconds since 1970-01-01 UTC.
        end: Milliseconds, not included.
    """
    left: list[Span] = []
    reached = start
    for first, stop in sorted(spans):
        if first >= end:
            break
        if first > reached:
            left.append((reached, first))
        reached = max(reached, stop)
    if reached < end:
        left.append((reached, end))
    return left


def missing_spans(segments: Iterable[Segment], start: int, end: int) -> list[Span]:
    """The parts of ``start`` to ``end`` that no segment answers for, as ``outside``."""
    return outside(((segment.start, segment.end) for segment in segments), start, end)


def overlaps(spans: Iterable[Span], others: Sequence[Span]) -> list[Span]:
    """The parts that the two have in common."""
    pairs = [(max(a[0], b[0]), min(a[1], b[1])) for a in spans for b in others]
    return [(start, end) for start, end in pairs if start < end]


def holes(open_time: IntArray, start: int, end: int, step: int) -> list[Span]:
    """The parts of ``start`` to ``end`` without a bar, oldest first.

    Args:
        open_time: Milliseconds since 1970-01-01 UTC, rising, on the grid.
        start: Milliseconds.
        end: Milliseconds, not included.
        step: Length of a bar.
    """
    inside = open_time[(open_time >= start) & (open_time < end)]
    before = np.concatenate([[start], inside + step])
    after = np.concatenate([inside, [end]])
    return list(zip(before[before < after].tolist(), after[before < after].tolist(), strict=True))


def without(segments: Iterable[Segment], spans: Sequence[Span]) -> tuple[Segment, ...]:
    """The segments, less the time in the spans."""
    return tuple(
        replace(segment, start=start, end=end)
        for segment in segments
        for start, end in outside(spans, segment.start, segment.end)
    )


def with_bars(stretch: Stretch, step: int) -> list[Stretch]:
    """The parts of a stretch that have bars; it answers for nothing else then."""
    segment = stretch.segment
    empty = holes(open_times(stretch.frame), segment.start, segment.end, step)
    return [replace(stretch, segment=part) for part in without([segment], empty)]


def in_pages(spans: Sequence[Span], length: int) -> list[Span]:
    """The spans in order, joined where that makes one of at most ``length`` milliseconds."""
    pages: list[Span] = []
    for start, end in sorted(spans):
        if pages and end - pages[-1][0] <= length:
            pages[-1] = (pages[-1][0], max(end, pages[-1][1]))
        else:
            pages.append((start, end))
    return pages


def open_times(frame: pd.DataFrame) -> IntArray:
    """The index of a frame of bars in milliseconds since 1970-01-01 UTC, shape (n_bars,)."""
    return frame.index.to_numpy(dtype="datetime64[ms]").astype(np.int64)


def add_segments(stored: Sequence[Segment], new: Iterable[Segment]) -> tuple[Segment, ...]:
    """Old and new segments without overlap: stored ones stay, neighbours of one kind merge."""
    kept = list(stored)
    for segment in new:
        kept += [
            replace(segment, start=start, end=end)
            for start, end in missing_spans(kept, segment.start, segment.end)
        ]
    merged: list[Segment] = []
    for segment in sorted(kept, key=lambda segment: segment.start):
        if merged and (merged[-1].end, merged[-1].via) == (segment.start, segment.via):
            merged[-1] = replace(merged[-1], end=segment.end)
        else:
            merged.append(segment)
    return tuple(merged)


def join(
    stored: Bars | None, segments: Sequence[Segment], stretches: Sequence[Stretch]
) -> pd.DataFrame:
    """Stored bars and what the stretches add where no segment answers yet, in order of time.

    Args:
        stored: The bars that ``segments`` speak of; None where there are none.
        segments: Of the stored bars.
        stretches: Fetched later; where two overlap the first counts.

    Returns:
        As ``Bars.frame``, every open time once; the values are not checked.
    """
    frames = [] if stored is None else [stored.frame]
    covered = list(segments)
    for stretch in stretches:
        open_time = open_times(stretch.frame)
        inside = _within(open_time, [stretch.segment]) & ~_within(open_time, covered)
        frames.append(stretch.frame[inside])
        covered.append(stretch.segment)
    filled = [frame for frame in frames if len(frame)]
    return pd.concat(filled).sort_index() if filled else frames[0]


def _within(open_time: IntArray, segments: Iterable[Segment]) -> BoolArray:
    """Which open times lie in one of the segments, shape (n_bars,)."""
    inside = np.zeros(len(open_time), dtype=np.bool_)
    for segment in segments:
        inside |= (open_time >= segment.start) & (open_time < segment.end)
    return inside
