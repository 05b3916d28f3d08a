"""JSON without its looseness: no NaN, no unknown key, every value of its type."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from types import NoneType, UnionType
from typing import Any, NoReturn, TypeVar, cast, get_args, get_origin, get_type_hints

import numpy as np

Value = TypeVar("Value")

# Far beyond what percoin writes, and little enough for a float, a terminal and the stack.
_MOST_DIGITS = 40
_MOST_LEVELS = 64
_MOST_CHARS = 65_536


def dumps(value: object, nan_as_null: bool = False, indent: int | None = 2) -> str:
    """Write dataclasses, containers and NumPy values as JSON.

    A field that is None and is so by default is left out. Half a surrogate pair, as in the
    path of a file whose name is no UTF-8, is written as the six letters that name it.

    Args:
        value: What to write.
        nan_as_null: Write a number that is not finite as null, not refuse it.
        indent: Spaces a level; None writes one line.

    Raises:
        ValueError: A number that is not finite.
        TypeError: A value JSON has no form for.
    """
    return json.dumps(_plain(value, nan_as_null), allow_nan=False, indent=indent) + "\n"


def one_line(value: object) -> str:
    """What a command prints for programs: JSON that any of them reads, in one line.

    A number that is not finite is null, as JSON has no other word for it.
    """
    return dumps(value, nan_as_null=True, indent=None).rstrip()


def _plain(value: object, nan_as_null: bool) -> object:
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if is_dataclass(value) and not isinstance(value, type):
        entries = {entry.name: getattr(value, entry.name) for entry in fields(value)}
        optional = _optional(type(value))
        value = {
            name: entry
            for name, entry in entries.items()
            if not (entry is None and name in optional)
        }
    if isinstance(value, Mapping):
        return {_whole(str(key)): _plain(entry, nan_as_null) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry, nan_as_null) for entry in value]
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, str):
        return _whole(value)
    if nan_as_null and isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _whole(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def loads(text: str | bytes) -> object:
    """Read JSON text.

    Raises:
        ValueError: Not JSON in UTF-8, nested beyond reason, or it holds a number that is not
            finite or no float could be, or a text that is too long or cannot be printed.
    """
    # An exact codec: json would guess at UTF-16 and let half a surrogate pair through.
    decoded = text.decode() if isinstance(text, bytes) else text
    try:
        content = json.loads(
            decoded, parse_constant=_refuse_constant, parse_float=_finite, parse_int=_whole_number
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None
    _check_texts_and_levels(content)
    return content


def _check_texts_and_levels(content: object) -> None:
    level: list[object] = [content]
    for _ in range(_MOST_LEVELS):
        within: list[object] = []
        for value in level:
            if type(value) is str:
                _check_text(value)
            elif type(value) is list:
                within += value
            elif type(value) is dict:
                within += value
                within += value.values()
        if not within:
            return
        level = within
    raise ValueError("nested too deeply")


def _check_text(text: str) -> None:
    if len(text) > _MOST_CHARS:
        raise ValueError(f"it holds a text of {len(text)} characters")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError("it holds half a surrogate pair") from None


def _whole_number(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise ValueError(f"it holds a number of {len(text)} digits")
    return int(text)


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not a finite number")
    return number


def decode(kind: type[Value], value: object) -> Value:
    """Build the dataclass ``kind`` from what ``loads`` returned.

    Fields may be ``str``, ``int``, ``float``, ``bool``, enums, dataclasses,
    ``tuple[X, ...]``, ``Mapping[str, X]`` and ``object`` (any JSON). A field
    ``X | None = None`` may be absent, so that a format can grow.

    Raises:
        ValueError: A key missing or unknown, a value of another type, or one the
            dataclass refuses; the message names the place, as in ``scaling.mean[3]``.
    """
    return cast(Value, _decode(kind, value, ""))


def _decode(hint: Any, value: object, place: str) -> object:
    if hint in (object, Any):
        return value
    if is_dataclass(hint):
        return _decode_dataclass(cast(type, hint), value, place)
    if get_origin(hint) is UnionType:
        (hint,) = (choice for choice in get_args(hint) if choice is not NoneType)
        return _decode(hint, value, place)
    if get_origin(hint) is tuple:
        entries = _expect(list, value, place)
        return tuple(
            _decode(get_args(hint)[0], entry, f"{place}[{position}]")
            for position, entry in enumerate(entries)
        )
    if get_origin(hint) is Mapping:
        entry_hint = get_args(hint)[1]
        items = _expect(dict, value, place).items()
        return {key: _decode(entry_hint, entry, _join(place, key)) for key, entry in items}
    return _decode_scalar(hint, value, place)


def _decode_dataclass(kind: type, value: object, place: str) -> object:
    mapping = _expect(dict, value, place)
    hints = _hints(kind)
    names = [entry.name for entry in fields(kind)]
    absent = [name for name in names if name not in mapping]
    missing = [name for name in absent if name not in _optional(kind)]
    unknown = [str(key) for key in mapping if key not in names]
    if missing or unknown:
        problem = "has no" if missing else "has an unknown"
        raise ValueError(f"{place or 'the object'} {problem} key {(missing or unknown)[0]!r}")
    entries = {
        name: _decode(hints[name], mapping[name], _join(place, name))
        for name in names
        if name not in absent
    }
    try:
        return kind(**entries)
    except ValueError as error:
        raise ValueError(f"{place}: {error}" if place else str(error)) from None


@cache
def _hints(kind: type) -> dict[str, Any]:
    # Half the time of reading a manifest, if every object of it asked anew.
    return get_type_hints(kind)


@cache
def _optional(kind: type) -> set[str]:
    return {entry.name for entry in fields(kind) if entry.default is None}


def _decode_scalar(hint: type, value: object, place: str) -> object:
    if issubclass(hint, Enum):
        known = {member.value: member for member in hint}
        if not isinstance(value, str | int) or value not in known:
            raise ValueError(f"{place} is {_shown(value)}, not one of {', '.join(map(str, known))}")
        return known[value]
    if hint is float and type(value) is int:
        return _finite(str(value))
    return _expect(hint, value, place)


def _expect(kind: type[Value], value: object, place: str) -> Value:
    # An exact match: True is an int to isinstance, and no count.
    if type(value) is not kind:
        where = place or "the top level"
        raise ValueError(f"{where} is {_shown(value)} where {kind.__name__} belongs")
    return value


def _join(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
