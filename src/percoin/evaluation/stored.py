"""An evaluation read back from ``metrics.json``."""

from __future__ import annotations

import math
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from functools import cache
from types import NoneType, UnionType
from typing import Any, cast, get_args, get_origin, get_type_hints

import numpy as np

from percoin.evaluation.evaluate import Evaluation
from percoin.types import CLASS_NAMES, FloatArray

# Ten years of minutes, of which the test is a part; and more lines than there are baselines.
_MOST_BARS = 5_000_000
_MOST_CURVES = 20


def evaluation_from_json(document: object) -> Evaluation:
    """Build the evaluation that ``Evaluation.to_json`` wrote.

    Written back it gives the same document. Equity between the points that were kept
    is interpolated. Keys that this version does not know are passed over, so that a
    report can still be made of what a newer one wrote.

    Args:
        document: Plain containers, as ``json.loads`` returns them.

    Raises:
        ValueError: A key is missing or a value is of another type; the message names
            the place, as in ``model.scores.mcc``.
    """
    money = document.get("money") if isinstance(document, dict) else None
    _require(len(money) <= _MOST_CURVES if isinstance(money, list) else True, "money is too long")
    evaluation = cast(Evaluation, _read(Evaluation, document, "evaluation"))
    lines = (evaluation.model, *evaluation.baselines)
    n_classes = len(CLASS_NAMES)
    _require(len(evaluation.class_counts) == n_classes, "class_counts are not those of 3 classes")
    _require(min(evaluation.class_counts) >= 0 < evaluation.n_rows, "class_counts count no rows")
    _require(len(evaluation.verdict.reasons) > 0, "verdict has no reason")
    _require(
        evaluation.best_baseline in {line.name for line in evaluation.baselines},
        f"best_baseline {evaluation.best_baseline!r} is none of the baselines",
    )
    _require(
        evaluation.rival_name in {line.name for line in evaluation.baselines},
        f"rival {evaluation.rival!r} is none of the baselines",
    )
    for line in lines:
        _require(
            tuple(entry.name for entry in line.scores.classes) == CLASS_NAMES
            and [len(row) for row in line.scores.confusion_matrix] == [n_classes] * n_classes,
            f"the scores of {line.name!r} are not those of {', '.join(CLASS_NAMES)}",
        )
    _require(set(evaluation.reliability) == set(CLASS_NAMES), "reliability lacks a class")
    return evaluation


def _read(hint: Any, value: object, place: str) -> object:
    if is_dataclass(hint):
        return _read_dataclass(cast(type, hint), value, place)
    if hint == FloatArray:
        return _read_curve(value, place)
    if get_origin(hint) is UnionType:
        if value is None and NoneType in get_args(hint):
            return None
        return _read(get_args(hint)[0], value, place)
    if get_origin(hint) is tuple:
        entries = _expect(list, value, place)
        return tuple(
            _read(get_args(hint)[0], entry, f"{place}[{position}]")
            for position, entry in enumerate(entries)
        )
    if get_origin(hint) is dict:
        items = _expect(dict, value, place).items()
        return {key: _read(get_args(hint)[1], entry, f"{place}.{key}") for key, entry in items}
    return _read_scalar(hint, value, place)


def _read_dataclass(kind: type, value: object, place: str) -> object:
    mapping = _expect(dict, value, place)
    hints = _hints(kind)
    entries = {}
    for entry in fields(kind):
        if entry.name in mapping:
            name = f"{place}.{entry.name}"
            entries[entry.name] = _read(hints[entry.name], mapping[entry.name], name)
        elif entry.default is MISSING and entry.default_factory is MISSING:
            raise ValueError(f"{place} has no key {entry.name!r}")
    return kind(**entries)


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _read_curve(value: object, place: str) -> FloatArray:
    """The value at every bar, from ``[position, value]`` pairs in rising order."""
    points = _expect(list, value, place)
    is_curve = bool(points) and all(
        type(point) is list and len(point) == 2 and all(type(x) in (int, float) for x in point)
        for point in points
    )
    _require(is_curve, f"{place} is no curve")
    bars, values = np.array(points, dtype=np.float64).T
    _require(bool(np.isfinite(values).all()), f"{place} is not finite")
    _require(bars[0] == 0 and bool((np.diff(bars) > 0).all()), f"{place} is out of order")
    # The curve of one market; a forged position must not ask for all the memory there is.
    _require(bars[-1] < _MOST_BARS, f"{place} is too long")
    curve: FloatArray = np.interp(np.arange(int(bars[-1]) + 1), bars, values)
    return curve


def _read_scalar(hint: Any, value: object, place: str) -> object:
    if issubclass(hint, Enum):
        known = {member.value: member for member in hint}
        _require(isinstance(value, str) and value in known, f"{place} is {value!r:.40}")
        return known[cast(str, value)]
    if hint is float:
        _require(
            type(value) in (int, float) and math.isfinite(cast(float, value)),
            f"{place} is {value!r:.40} where a finite number belongs",
        )
        return float(cast(float, value))
    return _expect(hint, value, place)


def _expect(kind: Any, value: object, place: str) -> Any:
    # An exact match: True is an int to isinstance, and no count.
    _require(type(value) is kind, f"{place} is {value!r:.40} where {kind.__name__} belongs")
    return value


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)
