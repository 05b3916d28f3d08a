"""JSON to dataclasses and back: no NaN, no unknown key, every value of its type.

``msgspec`` checks the types. Its encoder is not used: the hash in a version's name covers the
text of its manifest, and msgspec writes some floats in other letters than Python does.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from typing import Any, NoReturn, TypeVar

import msgspec
import numpy as np

Value = TypeVar("Value")

# Far beyond what percoin writes, and little enough for a float, a terminal and the stack.
_MOST_DIGITS = 40
_MOST_LEVELS = 64
_MOST_CHARS = 65_536
# Of a reason: it may repeat a value.
_MOST_CHARS_SHOWN = 300


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


@cache
def _optional(kind: type) -> set[str]:
    return {entry.name for entry in fields(kind) if entry.default is None}


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


def decode(
    kind: type[Value],
    value: object,
    *,
    is_exact: bool = True,
    hook: Callable[[type, Any], object] | None = None,
) -> Value:
    """Build the dataclass ``kind`` from what ``loads`` returned.

    A field ``X | None = None`` may be absent, so that a format can grow. A whole number may stand
    for a float; every other value has exactly the type of its field.

    Args:
        kind: A dataclass, checked field by field and by its own ``__post_init__``.
        value: Plain containers.
        is_exact: The keys must be those that ``dumps`` would write: none that ``kind`` does not
            know, none left out although its default is not None, no null for what may be absent.
        hook: Makes a value of a type that JSON does not know, such as an array.

    Raises:
        ValueError: The message starts with the place, as in ``scaling.mean[3]``.
    """
    try:
        decoded = msgspec.convert(value, kind, dec_hook=hook)
    except msgspec.ValidationError as error:
        reason, _, place = str(error).rpartition(" - at `$")
        # At the top level the library names no place.
        text = f"{place[:-1].lstrip('.')}: {reason}" if reason else str(error)
        raise ValueError(text[:_MOST_CHARS_SHOWN]) from None
    difference = is_exact and _first_difference(value, _plain(decoded, nan_as_null=False))
    if difference:
        raise ValueError(difference)
    return decoded


def _first_difference(read: object, written: object, place: str = "") -> str:
    """Names the first key that only one of the two has; empty if there is none."""
    pairs: Iterable[tuple[str, object, object]] = ()
    if isinstance(read, dict) and isinstance(written, dict):
        for key in read | written:
            if key not in read or key not in written:
                kind = "unexpected" if key in read else "missing"
                return f"{kind} key {f'{place}.{key}'.lstrip('.')!r}"
        pairs = ((f"{place}.{key}", read[key], written[key]) for key in read)
    elif isinstance(read, list) and isinstance(written, list):
        both = enumerate(zip(read, written, strict=True))
        pairs = ((f"{place}[{position}]", *pair) for position, pair in both)
    return next(filter(None, (_first_difference(r, w, where) for where, r, w in pairs)), "")
