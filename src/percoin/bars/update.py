"""What is missing before, between and after the stored bars, and how it is joined to them."""

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
    """A stretch of time that somebody has answered for: bars not there do not exist.

    Attributes:
        start: First open time, milliseconds since 1970-01-01 UTC.
        end: Where the stretch ends, itself not part of it.
        via: Who answered for it, in one phrase, for example ``archive BTCUSDT``.
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


def missing_spans(segments: Iterable[Segment], start: int, end: int) -> list[Span]:
    """The parts of ``start`` to ``end`` that no segment answers for, oldest first.

    Args:
        segments: In any order, overlapping or not.
        start: Milliseconds since 1970-01-01 UTC.
        end: Milliseconds, not included.
    """
    missing: list[Span] = []
    reached = start
    for segment in sorted(segments, key=lambda segment: segment.start):
        if segment.start >= end:
            break
        if segment.start > reached:
            missing.append((reached, segment.start))
        reached = max(reached, segment.end)
    if reached < end:
        missing.append((reached, end))
    return missing


def add_segments(stored: Sequence[Segment], new: Iterable[Segment]) -> tuple[Segment, ...]:
    """Both together, without overlap: what is stored stays, neighbours of one kind merge."""
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
        open_time = stretch.frame.index.to_numpy(dtype="datetime64[ms]").astype(np.int64)
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
