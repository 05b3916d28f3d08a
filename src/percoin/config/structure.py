"""What a schema is made of: its settings, its groups and the options of these."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from percoin.config.fields import Effect, Setting, When, setting_of


@dataclass(frozen=True)
class Leaf:
    """A setting that holds a value.

    Attributes:
        name: With the groups that it lies in: ``split.train``.
        kinds: The types that its value may have, without None.
        setting: What its field declares.
        affects: What it changes: as its group says, or else its field.
        used: When it is used: as its field says, or else its group.
    """

    name: str
    kinds: frozenset[type]
    setting: Setting
    affects: Effect | None
    used: When | None


@cache
def leaves_of(schema: Any) -> tuple[Leaf, ...]:
    """Every setting of a schema and of every option that its groups may have."""
    return tuple(_leaves_of(schema, "", Setting()))


def _leaves_of(schema: type, prefix: str, around: Setting) -> Iterator[Leaf]:
    for entry in fields(schema):
        name, setting = f"{prefix}{entry.name}", setting_of(entry)
        affects, used = around.affects or setting.affects, setting.used or around.used
        group = group_in(schema, entry.name)
        if group is None:
            yield Leaf(name, _kinds(schema, entry.name), setting, affects, used)
        else:
            for option in (group, *group.__subclasses__()):
                yield from _leaves_of(option, f"{name}.", Setting(affects=affects, used=used))


@cache
def help_lines(schema: Any) -> Mapping[str, str]:
    """The line of help of every setting and group of a schema, by its dotted name."""
    return dict(_help_lines(schema, ""))


def _help_lines(schema: type, prefix: str) -> Iterator[tuple[str, str]]:
    for entry in fields(schema):
        name = f"{prefix}{entry.name}"
        yield name, setting_of(entry).help
        if group := group_in(schema, entry.name):
            for option in (group, *group.__subclasses__()):
                yield from _help_lines(option, f"{name}.")


def group_in(schema: type, key: str) -> Any:
    """The dataclass that a field of a schema holds; None if it holds a plain value."""
    return next((kind for kind in _kinds(schema, key) if is_dataclass(kind)), None)


def _kinds(schema: type, key: str) -> frozenset[type]:
    hint = _hints(schema)[key]
    kinds = get_args(hint) if get_origin(hint) is UnionType else (hint,)
    return frozenset(kinds) - {NoneType}


@cache
def _hints(schema: type) -> dict[str, Any]:
    return get_type_hints(schema)
