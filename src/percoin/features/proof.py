"""Proofs on the user's bars: what code of the user's own may see, and how far it looks back.

The code is called again on bars that end earlier, that change from some moment on, and that begin
later; each value is compared with the one from all bars.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from percoin.bars.schema import COLUMNS, Bars, format_time
from percoin.errors import OwnCodeError
from percoin.features.own import OwnFeature
from percoin.types import BoolArray, FloatArray, IntArray

Compute = Callable[[Bars], FloatArray]

# Histories that begin later: at which bars, their values, and where these are other ones.
Shortened = tuple[list[int], list[FloatArray], list[BoolArray]]

# With fewer bars most values would still be warming up.
LEAST_BARS = 200
# Slow indicators loop over all bars; the newest are enough to show what they see.
_MOST_BARS = 10_000
_MOST_MEMORY_BARS = 5_000
_CUTS = 6
_STARTS = 4
# The bars after a start of which the longest memory may take this share.
_MOST_OF_THE_REST = 0.75
# Shares of a column's deviation and of the value itself: sums of floats depend on their order.
_SAME_PAST = 1e-9
_SAME_START = 1e-7
# A memory that differs from start to start fades or hangs on the data; others may take longer.
_MARGIN = 1.5
# So many rows of one constant are no coincidence.
_HEAD_BARS = 5
_MOST_STARTS_OF_HEADS = 6
_HEAD_CONTEXT_BARS = 1000


@dataclass
class Proof:
    """What was found out about the columns of a function.

    Attributes:
        values: Of every bar, shape (n_bars, n_columns).
        memory_bars: By column: how many bars before a row its value looks at.
        faults: By the position of a column: why it cannot be used. The first found stays.
    """

    values: FloatArray
    memory_bars: IntArray
    faults: dict[int, str] = field(default_factory=dict)

    def blame(self, guilty: BoolArray, say: Callable[[int], str]) -> None:
        """Note a fault of each column that is marked, on any row, and has none yet."""
        for column in np.flatnonzero(np.atleast_2d(guilty).any(axis=0)).tolist():
            if column not in self.faults:
                self.faults[column] = say(column)


def prove_causal(
    compute: Compute, bars: Bars, values: FloatArray, reach: int = 0, seed: int = 0
) -> Proof:
    """Find columns that see later bars, or hang on where the history begins; measure the memory.

    Args:
        compute: From bars to columns, shape (n_bars, n_columns), NaN where undefined.
        bars: Of one market, at least ``LEAST_BARS``.
        values: ``compute`` of these bars.
        reach: Bars after a row that its value may look at; 0 of a feature.
        seed: Of the moments at which bars are cut off.
    """
    first = max(0, len(bars) - _MOST_BARS)
    proof = Proof(values, np.zeros(values.shape[1], dtype=np.int64))
    bars = bars.slice(first)
    full = compute(bars) if first else values
    scale = _scale(full)
    _check_repeated(compute, bars, full, proof)
    for cut, what, changed in _futures(bars, np.random.default_rng(seed)):
        seen = slice(0, max(0, cut - reach))
        differs = _differs(compute(changed)[seen], full[seen], _SAME_PAST, scale)

        def say(column: int, cut: int = cut, what: str = what, found: BoolArray = differs) -> str:
            row = int(np.flatnonzero(found[:, column])[0])
            further = f" further than {reach} bars" if reach else ""
            return (
                f"looks ahead{further}: its value at the bar that closed "
                f"{format_time(bars.close_time(row))} changes when the bars after "
                f"{format_time(bars.close_time(cut - 1))} are {what}"
            )

        proof.blame(differs, say)
    shortened = _measure_memory(compute, bars, full, reach, proof)
    if reach == 0:
        _check_heads(compute, bars, full, shortened, proof)
    return proof


def prove_feature(
    feature: OwnFeature, bars: Bars, others: Mapping[str, FloatArray]
) -> tuple[OwnFeature, Mapping[str, FloatArray]]:
    """Put a feature to the proof.

    Args:
        feature: Before its proof.
        bars: Bars of the market.
        others: The columns beside it by name, each of shape (n_bars,).

    Returns:
        The feature with its columns and its measured memory, and these columns.

    Raises:
        OwnCodeError: It cannot be used; the message names each column and why.
    """
    if len(bars) < LEAST_BARS:
        raise feature.error(
            bars,
            f"cannot be put to the proof on {len(bars)} bars",
            f"load {LEAST_BARS} bars or more",
        )
    columns, values = feature.compute(bars)
    found = replace(feature, columns=columns)
    proof = find_faults(found, bars, values, others)
    if proof.faults:
        (guilty, why), *others_guilty = sorted(proof.faults.items())
        more = ", ".join(found.names[column] for column, _ in others_guilty)
        raise OwnCodeError(
            bars.symbol,
            bars.timeframe.value,
            f"{found.names[guilty]} {why}" + (f"; refused too: {more}" if more else ""),
            "correct the function, or leave it out of features.extra",
        )
    memory_bars = int(proof.memory_bars.max())
    values[:memory_bars] = np.nan
    return replace(found, memory_bars=memory_bars), dict(zip(found.names, values.T, strict=True))


def find_faults(
    feature: OwnFeature, bars: Bars, values: FloatArray, others: Mapping[str, FloatArray]
) -> Proof:
    """As ``prove_feature``, for a feature whose columns are known; nothing is raised."""

    def compute(some: Bars) -> FloatArray:
        columns, found = feature.compute(some)
        if columns != feature.columns:
            raise feature.error(some, f"gives other columns on {len(some)} bars: {columns}")
        return found

    proof = prove_causal(compute, bars, values)
    infinite = np.isinf(values)

    def where(marked: BoolArray) -> str:
        return f"at the bar that closed {format_time(bars.close_time(int(marked.argmax())))}"

    proof.blame(infinite, lambda c: f"is infinite {where(infinite[:, c])}")
    known = ~np.isnan(values)
    for column, memory_bars in enumerate(proof.memory_bars):
        known[:memory_bars, column] = False
    proof.blame(known.sum(axis=0) == 0, lambda c: "is unknown on every bar")
    kept = np.where(known, values, np.nan)
    constant = [known[:, c].any() and np.ptp(v[~np.isnan(v)]) == 0 for c, v in enumerate(kept.T)]
    proof.blame(
        np.array(constant),
        lambda c: f"is {kept[known[:, c], c][0]:g} on every bar, the first {where(known[:, c])}",
    )
    for column, copied in _copies(feature.names, kept, others):
        said = f"copies {copied}, to be seen {where(known[:, column])}"
        proof.faults.setdefault(column, said)
    return proof


def _scale(values: FloatArray) -> FloatArray:
    """The deviation of each column over its finite values, shape (n_columns,)."""
    finite = np.where(np.isfinite(values), values, np.nan)
    scale = [np.nanstd(one) if np.isfinite(one).any() else 0.0 for one in finite.T]
    return np.array(scale, dtype=np.float64)


def _differs(
    values: FloatArray, expected: FloatArray, tolerance: float, scale: FloatArray
) -> BoolArray:
    with np.errstate(invalid="ignore"):
        near = np.abs(values - expected) <= tolerance * (np.abs(expected) + scale)
    same: BoolArray = near | (values == expected) | (np.isnan(values) & np.isnan(expected))
    return ~same


def _check_repeated(compute: Compute, bars: Bars, full: FloatArray, proof: Proof) -> None:
    differs = _differs(compute(bars), full, 0.0, np.zeros(full.shape[1]))
    row = differs.argmax(axis=0)
    proof.blame(
        differs,
        lambda c: (
            "gives another value when it is computed again on the same bars, first at the bar that "
            f"closed {format_time(bars.close_time(int(row[c])))}"
        ),
    )


def _futures(bars: Bars, rng: np.random.Generator) -> Iterator[tuple[int, str, Bars]]:
    """Bars that are other from a moment on: where, how, and they."""
    cuts = np.sort(rng.choice(np.arange(len(bars) // 4, len(bars)), _CUTS, replace=False))
    for number, cut in enumerate(cuts.tolist()):
        yield cut, "cut off", bars.slice(0, cut)
        later = bars.values[cut:]
        if number % 2:
            yield cut, "scaled", _with_later(bars, cut, later * [3.0, 3.0, 3.0, 3.0, 7.0])
        else:
            yield cut, "changed", _with_later(bars, cut, later[::-1] * 0.9)


def _with_later(bars: Bars, cut: int, later: FloatArray) -> Bars:
    values = np.concatenate([bars.values[:cut], later])
    frame = pd.DataFrame(values, index=bars.frame.index, columns=list(COLUMNS))
    return replace(bars, frame=frame)


def _measure_memory(
    compute: Compute, bars: Bars, full: FloatArray, reach: int, proof: Proof
) -> Shortened:
    """Compare with histories that begin later; note columns that never forget it."""
    starts = np.linspace(len(bars) // 16, len(bars) // 4, _STARTS).astype(int).tolist()
    parts = [compute(bars.slice(start)) for start in starts]
    scale = _scale(full)
    differs = [
        _differs(part, full[start:], _SAME_START, scale)
        for start, part in zip(starts, parts, strict=True)
    ]
    memories = np.array(
        [one.any(axis=0) * (len(one) - one[::-1].argmax(axis=0)) for one in differs]
    )
    rest = np.array([len(bars) - reach - start for start in starts])
    longest = np.minimum(_MOST_MEMORY_BARS, (rest * _MOST_OF_THE_REST).astype(int))
    hangs = memories > longest[:, np.newaxis]

    def say(column: int) -> str:
        which = int(hangs[:, column].argmax())
        row = starts[which] + int(memories[which, column]) - 1
        return (
            f"depends on where the history begins: its value at the bar that closed "
            f"{format_time(bars.close_time(row))} differs if the bars begin "
            f"{memories[which, column] - 1} bars before it, and no prediction loads more than "
            f"{longest[which]}"
        )

    proof.blame(hangs, say)
    most, least = memories.max(axis=0), memories.min(axis=0)
    proof.memory_bars = np.where(most == least, most, np.ceil(most * _MARGIN)).astype(np.int64)
    return starts, parts, differs


def _check_heads(
    compute: Compute,
    bars: Bars,
    full: FloatArray,
    shortened: Shortened,
    proof: Proof,
) -> None:
    """Find columns that begin with values that nobody computed: zeros, or the first known one.

    An average that begins with one bar of its own is none of these; its memory is measured.
    """
    starts, parts, differs = shortened
    heads = np.array([part[0] for part in parts])  # (n_starts, n_columns)
    runs = np.array([_constant_run(part) for part in parts]).min(axis=0)
    is_wrong = np.array([one[0] for one in differs]).all(axis=0) & np.isfinite(heads).all(axis=0)
    is_one_value = (heads == heads[0]).all(axis=0)
    least = np.where(is_one_value, np.minimum(2, proof.memory_bars), 3)
    invented = is_wrong & (runs >= least)
    for column in np.flatnonzero(is_one_value & ~invented & (runs >= _HEAD_BARS)):
        is_other = (full[:, column] != heads[0, column]) & ~np.isnan(full[:, column])
        invented[column] = _is_constant_head(compute, bars, is_other, int(column))

    def say(column: int) -> str:
        value = heads[0, column]
        return (
            f"begins with {value:g} where it cannot know its value yet: if the bars begin at "
            f"{format_time(bars.close_time(starts[0] - 1))}, so does the bar that closed "
            f"{format_time(bars.close_time(starts[0]))}; give NaN there"
        )

    proof.blame(invented, say)


def _constant_run(part: FloatArray) -> IntArray:
    """How many leading rows of each column have the value of its first, shape (n_columns,)."""
    is_other = part != part[0]
    run: IntArray = np.where(is_other.any(axis=0), is_other.argmax(axis=0), len(part))
    return run


def _is_constant_head(compute: Compute, bars: Bars, is_other: BoolArray, column: int) -> bool:
    """Whether the first rows are one value even where the truth is known to be another.

    Rare flags are 0 on most bars anyway. So the bars begin just before bars with another value.

    Args:
        compute: As in ``prove_causal``.
        bars: All bars.
        is_other: On which the column has another value than at the beginning of histories.
        column: Its position.
    """
    rows = np.flatnonzero(is_other)
    rows = rows[(rows >= _HEAD_BARS) & (rows < len(bars) - LEAST_BARS // 2)]
    if len(rows) == 0:
        return False
    chosen = rows[np.linspace(0, len(rows) - 1, _MOST_STARTS_OF_HEADS).astype(int)]
    for start in (np.unique(chosen) - _HEAD_BARS + 1).tolist():
        head = compute(bars.slice(start, start + _HEAD_CONTEXT_BARS))[:_HEAD_BARS, column]
        if _constant_run(head[:, np.newaxis])[0] < _HEAD_BARS:
            return False
    return True


def _copies(
    names: tuple[str, ...], values: FloatArray, others: Mapping[str, FloatArray]
) -> Iterator[tuple[int, str]]:
    """Columns that are equal to one of the others or to one before them, where both are known."""
    earlier = dict(others)
    scale = _scale(values)
    for column, name in enumerate(names):
        own = values[:, column]
        n_known = np.isfinite(own).sum()
        for other, its in earlier.items():
            both = np.isfinite(own) & np.isfinite(its)
            if not both.any() or both.sum() < n_known / 2:
                continue
            pair = own[both, np.newaxis], its[both, np.newaxis]
            if not _differs(*pair, _SAME_PAST, scale[[column]]).any():
                yield column, other
                break
        earlier[name] = own
