"""Train, validation and test in time order, with room between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from percoin.types import IntArray


@dataclass(frozen=True, eq=False)
class Split:
    """Bar positions of each part, ascending."""

    train: IntArray
    validation: IntArray
    test: IntArray


def chronological_split(
    rows: IntArray, fractions: Sequence[float], purge_bars: int, embargo_bars: int
) -> Split:
    """Cut rows at two moments in time and drop those too close to a cut.

    A row's label looks ahead, so the last ``purge_bars`` bars before a cut are
    dropped: with ``purge_bars`` at least the label's horizon, no label uses a bar
    at or after the cut. Distances are counted in bars, not in rows, since rows can
    be missing (Lopez de Prado, 2018, chapter 7).

    Args:
        rows: Positions of the bars to share out, ascending.
        fractions: Shares of train, validation and test before dropping; positive, sum 1.
        purge_bars: Bars dropped before each cut, from the earlier part.
        embargo_bars: Further bars dropped after each cut, from the later part.

    Raises:
        ValueError: A part would be empty, or an argument is out of its range.
    """
    _check_arguments(fractions, purge_bars, embargo_bars)
    first_validation, first_test = cut_rows(len(rows), fractions)
    return _cut(rows, first_validation, first_test, purge_bars, embargo_bars)


def walk_forward_splits(
    rows: IntArray, n_folds: int, fractions: Sequence[float], purge_bars: int, embargo_bars: int
) -> list[Split]:
    """Splits whose test parts follow one another, each trained on all that came before.

    The rows are cut into ``n_folds + 1`` stretches of equal length. Each but the first is
    the test part of one fold. The rows before it are shared out between train and
    validation in the ratio of their ``fractions``.

    Args:
        rows: Positions of the bars to share out, ascending.
        n_folds: How many test parts.
        fractions: Only the ratio of train and validation counts.
        purge_bars: Bars dropped before each cut, from the earlier part.
        embargo_bars: Further bars dropped after each cut, from the later part.

    Raises:
        ValueError: A part would be empty, or the arguments make no split.
    """
    _check_arguments(fractions, purge_bars, embargo_bars)
    if n_folds < 1:
        raise ValueError(f"n_folds={n_folds}: at least 1")
    ends = [round(len(rows) * (k + 1) / (n_folds + 1)) for k in range(n_folds + 1)]
    train_share = fractions[0] / (fractions[0] + fractions[1])
    return [
        _cut(rows[:end], round(first_test * train_share), first_test, purge_bars, embargo_bars)
        for first_test, end in pairwise(ends)
    ]


def split_before_test(
    rows: IntArray, validation_cut: int, purge_bars: int, embargo_bars: int
) -> Split:
    """Train and validation alone, cut at a given bar; without test rows.

    Args:
        rows: Positions of the bars to share out, ascending.
        validation_cut: Position of the bar at which validation begins.
        purge_bars: Bars dropped before the cut, from train.
        embargo_bars: Further bars dropped after the cut, from validation.

    Raises:
        ValueError: One of the two would be empty.
    """
    train = rows[rows < validation_cut - purge_bars]
    validation = rows[rows >= validation_cut + embargo_bars]
    _check_filled({"train": train, "validation": validation}, len(rows), purge_bars, embargo_bars)
    return Split(train, validation, rows[:0])


def _cut(
    rows: IntArray, first_validation: int, first_test: int, purge_bars: int, embargo_bars: int
) -> Split:
    if not 0 < first_validation < first_test < len(rows):
        raise ValueError(f"{len(rows)} rows cannot be cut into three parts")
    cuts = int(rows[first_validation]), int(rows[first_test])
    return split_at(rows, *cuts, purge_bars, embargo_bars)


def split_at(
    rows: IntArray, validation_cut: int, test_cut: int, purge_bars: int, embargo_bars: int
) -> Split:
    """Cut rows at two given bars, for markets that share their cuts in time.

    Args:
        rows: Positions of the bars to share out, ascending.
        validation_cut: Position of the bar at which validation begins; it need not be a row.
        test_cut: Position of the bar at which test begins.
        purge_bars: Bars dropped before each cut, from the earlier part.
        embargo_bars: Further bars dropped after each cut, from the later part.

    Raises:
        ValueError: A part would be empty.
    """
    train = rows[rows < validation_cut - purge_bars]
    is_validation = (rows >= validation_cut + embargo_bars) & (rows < test_cut - purge_bars)
    split = Split(train, rows[is_validation], rows[rows >= test_cut + embargo_bars])

    _check_filled(vars(split), len(rows), purge_bars, embargo_bars)
    return split


def _check_filled(
    parts: Mapping[str, IntArray], n_rows: int, purge_bars: int, embargo_bars: int
) -> None:
    for name, part in parts.items():
        if len(part) == 0:
            raise ValueError(
                f"no {name} rows are left of {n_rows} with purge_bars={purge_bars} "
                f"and embargo_bars={embargo_bars}"
            )


def cut_rows(n_rows: int, fractions: Sequence[float]) -> tuple[int, int]:
    """Index of the first validation row and of the first test row."""
    return round(n_rows * fractions[0]), round(n_rows * (fractions[0] + fractions[1]))


def are_shares(fractions: Sequence[float]) -> bool:
    """Whether these are three positive numbers that sum to 1."""
    return len(fractions) == 3 and min(fractions) > 0 and abs(sum(fractions) - 1) < 1e-9


def _check_arguments(fractions: Sequence[float], purge_bars: int, embargo_bars: int) -> None:
    if not are_shares(fractions):
        raise ValueError(f"fractions={tuple(fractions)}: give three positive shares that sum to 1")
    if purge_bars < 0 or embargo_bars < 0:
        raise ValueError(f"purge_bars={purge_bars}, embargo_bars={embargo_bars}: not below 0")
