"""What the scoreboard keeps of each forecaster's rows: a few numbers a row, in columns."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from percoin.monitoring.kept_scores import NumberColumn
from percoin.monitoring.record import Kept
from percoin.types import UNKNOWN_LABEL, FloatArray, IntArray, Timeframe

# Of columns: numbers in full, times and row numbers, and small whole numbers.
_REAL, _LONG, _SMALL = "d", "q", "b"
# Rounding of float32, as in ``check_probabilities``; such a row is counted and not scored.
_MOST_OFF = 1e-4
# Attributes of ``ForecasterRows``.
_OF_COLUMNS = ("_scored", "_moves")
_ABSENT: Mapping[str, float | int] = {_REAL: math.nan, _LONG: 0, _SMALL: UNKNOWN_LABEL}


@dataclass
class _Columns:
    """Rows in columns of numbers; a row may lack any column but its time and number."""

    n_rows: int = 0
    data: dict[str, NumberColumn] = field(default_factory=dict)

    def add(self, row: Mapping[str, tuple[str, float | int]]) -> None:
        """Append a row: each value with the kind of its column."""
        for name, (kind, value) in row.items():
            if name not in self.data:
                self.data[name] = array(kind, [_ABSENT[kind]]) * self.n_rows
            self.data[name].append(value)  # type: ignore[arg-type]
        for name, column in self.data.items():
            if name not in row:
                column.append(_ABSENT[column.typecode])  # type: ignore[arg-type]
        self.n_rows += 1

    def read(self, name: str) -> FloatArray:
        """A column in order of time; copied, because a view would keep the column from growing."""
        return np.array(self.data[name])[self._order()]

    def state(self, columns: list[NumberColumn]) -> dict[str, Any]:
        """What can be written as JSON; the numbers are appended to ``columns``."""
        columns += self.data.values()
        return {"n_rows": self.n_rows, "names": list(self.data)}

    @classmethod
    def of_state(cls, state: Mapping[str, Any], columns: Iterator[NumberColumn]) -> _Columns:
        """The same again, with the columns that ``state`` appended."""
        return cls(state["n_rows"], {name: next(columns) for name in state["names"]})

    def _order(self) -> IntArray | slice:
        times = np.array(self.data["ts"])
        if (np.diff(times) > 0).all():
            return slice(None)
        return np.lexsort((np.array(self.data["id"]), times))


class ForecasterRows:
    """The rows of one forecaster, added as they are written and resolved.

    Of a scored row only what its scores need is kept, some 100 bytes: its label, the signals,
    and the probability that each forecast gave to the label. The scores are the same as from
    all rows at once, in whatever order they were added.

    Args:
        first: Any of its rows, which says who the forecaster is.
    """

    def __init__(self, first: Kept) -> None:
        self.symbol, self.tf, self.source, self.bars = (
            *(first.symbol, first.tf),
            *(first.source, first.bars),
        )
        self.model_version, self.version_id = first.model_version, first.version_id
        self.label_rule = first.label_rule
        self.first = (first.ts, first.id)
        self.n_rows = self.n_live = self.n_void = self.n_resolved = 0
        self._n_given = 0
        self._names: dict[str, int] = {}
        self._oldest: tuple[int, int, tuple[str, ...]] | None = None
        self._scored = _Columns()
        self._moves = _Columns()
        self._levels: list[str] = []

    def state(self, columns: list[NumberColumn]) -> dict[str, Any]:
        """What can be written as JSON; the numbers are appended to ``columns``."""
        plain = {name: value for name, value in vars(self).items() if name not in _OF_COLUMNS}
        return plain | {name: getattr(self, name).state(columns) for name in _OF_COLUMNS}

    @classmethod
    def of_state(cls, state: Mapping[str, Any], columns: Iterator[NumberColumn]) -> ForecasterRows:
        """The same again, with the columns that ``state`` appended."""
        rows = cls.__new__(cls)
        vars(rows).update(state)
        rows.tf, rows.first = Timeframe(state["tf"]), tuple(state["first"])
        if state["_oldest"] is not None:
            ts, row_id, names = state["_oldest"]
            rows._oldest = (ts, row_id, tuple(names))
        for name in _OF_COLUMNS:
            setattr(rows, name, _Columns.of_state(state[name], columns))
        return rows

    def add(self, kept: Kept) -> None:
        """Count a row that is new, and score it if it has an outcome."""
        self.first = min(self.first, (kept.ts, kept.id))
        self.n_rows += 1
        self.n_live += kept.is_live
        if kept.resolved_at is not None:
            self.resolve(kept)

    def resolve(self, kept: Kept) -> None:
        """Score a row that was counted before and has an outcome now."""
        self.n_resolved += 1
        if not kept.is_live:
            return
        self.n_void += bool(kept.void)
        if kept.label is None:
            return
        shares = {
            name: _share(line.probabilities, kept.label) for name, line in kept.baselines.items()
        }
        own = None if kept.probabilities is None else _share(kept.probabilities, kept.label)
        if None in shares.values() or (own is None and kept.probabilities is not None):
            return
        place: dict[str, tuple[str, float | int]] = {"ts": (_LONG, kept.ts), "id": (_LONG, kept.id)}
        row: dict[str, tuple[str, float | int]] = {
            **place,
            "label": (_SMALL, kept.label),
            "signal": (_SMALL, kept.signal),
        }
        if own is not None:
            self._n_given += 1
            row["own"] = (_REAL, own)
        for name, share in shares.items():
            self._names[name] = self._names.get(name, 0) + 1
            row[f"said {name}"] = (_REAL, share or 0.0)
            row[f"signal {name}"] = (_SMALL, kept.baselines[name].signal)
        self._scored.add(row)
        oldest = (kept.ts, kept.id, tuple(kept.baselines))
        self._oldest = oldest if self._oldest is None else min(self._oldest, oldest)
        self._add_move(kept, place)

    def _add_move(self, kept: Kept, place: Mapping[str, tuple[str, float | int]]) -> None:
        move, realized = kept.expected_move, kept.realized_variance
        if move is None or realized is None:
            return
        price = kept.close * (1 + (kept.forward_return or 0.0))
        within = {str(band.level): band.lower <= price <= band.upper for band in move.bands}
        self._levels += [level for level in within if level not in self._levels]
        self._moves.add(
            {
                **place,
                "realized": (_REAL, realized),
                "forecast": (_REAL, (move.percent / 100) ** 2),
                **{f"within {level}": (_SMALL, int(held)) for level, held in within.items()},
            }
        )

    @property
    def n_scored(self) -> int:
        """Number of live rows with a label."""
        return self._scored.n_rows

    @property
    def names(self) -> list[str]:
        """The baselines that all scored rows have, in the order of the oldest row."""
        known = self._oldest[2] if self._oldest else ()
        return [name for name in known if self._names[name] == self.n_scored]

    @property
    def is_given(self) -> bool:
        """Whether all scored rows have probabilities of their own."""
        return self._n_given == self.n_scored

    def labels(self) -> IntArray:
        """The right answers, shape (n_scored,), like all below but the moves."""
        return self._scored.read("label").astype(np.int64)

    def times(self) -> IntArray:
        """Close times in milliseconds, in order."""
        return self._scored.read("ts").astype(np.int64)

    def said(self, name: str) -> tuple[FloatArray, IntArray]:
        """The probability that a baseline gave to each label, and its signals."""
        signals = self._scored.read(f"signal {name}").astype(np.int64)
        return self._scored.read(f"said {name}"), signals

    def own(self) -> tuple[FloatArray | None, IntArray]:
        """The same of the forecaster itself; None without probabilities in every row."""
        signals = self._scored.read("signal").astype(np.int64)
        return (self._scored.read("own") if self.is_given else None), signals

    def moves(self) -> tuple[FloatArray, FloatArray, dict[str, FloatArray]] | None:
        """Realized variances, forecasts, and for each level whether prices were within."""
        if self._moves.n_rows == 0:
            return None
        within = {level: self._moves.read(f"within {level}") for level in self._levels}
        held = {
            level: found[found != UNKNOWN_LABEL].astype(np.float64)
            for level, found in within.items()
        }
        return self._moves.read("realized"), self._moves.read("forecast"), held


def _share(probabilities: tuple[float, ...], label: int) -> float | None:
    """The label's share of the probabilities; None if they do not sum to one."""
    total = sum(probabilities)
    return probabilities[label] / total if abs(total - 1) <= _MOST_OFF else None
