"""Words that name an object of the user's own, as Hydra takes them.

``model._target_=my_models:MyNet model.width=64`` becomes ``model=own``, that ``_target_``, and
``++model.arguments.width=64``: Hydra knows no key that its schema does not have.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import fields
from functools import cache
from typing import Any, get_origin

from percoin.config.structure import group_in, leaves_of
from percoin.errors import ConfigError

_TARGET = "_target_"
_ARGUMENTS = "arguments"
_ADDED = re.compile(rf"(\w+)\.{_ARGUMENTS}\.")


def with_targets(words: Sequence[str], schema: type) -> list[str]:
    """The same words for Hydra: arguments in their place, and the option that takes them.

    Args:
        words: ``KEY=VALUE`` each.
        schema: The dataclass of the whole config.

    Raises:
        ConfigError: A group has a target and another option.
    """
    told = {key: value for key, _, value in (word.partition("=") for word in words)}
    targets = {
        group: option
        for group, option in _groups_with_targets(schema).items()
        if told.get(f"{group}.{_TARGET}", "null") != "null"
    }
    chosen = []
    for group, option in targets.items():
        own = getattr(option, "option", None)
        if own is None:
            continue
        if told.setdefault(group, own) != own:
            raise ConfigError(
                f"{group}.{_TARGET} names a {group} of your own: leave out {group}={told[group]}"
            )
        chosen += [] if f"{group}={own}" in words else [f"{group}={own}"]
    open_keys = _keys_of_any_names(schema)
    return [*chosen, *(_placed(word, targets, open_keys) for word in words)]


def as_typed(text: str) -> str:
    """A word or key, as a person would type it."""
    typed = text.removeprefix("++")
    return typed if typed == text else _ADDED.sub(r"\1.", typed, count=1)


def _placed(word: str, targets: Mapping[str, Any], open_keys: Collection[str]) -> str:
    key = word.partition("=")[0]
    group, dot, name = key.partition(".")
    if any(f"{key}.".startswith(f"{each}.") for each in open_keys):
        return f"++{word}"
    if not dot or group not in targets or name in _names(targets[group]):
        return word
    return f"++{group}.{_ARGUMENTS}.{word[len(group) + 1 :]}"


def _names(option: Any) -> set[str]:
    return {entry.name for entry in fields(option)}


@cache
def _keys_of_any_names(schema: type) -> frozenset[str]:
    """Settings that hold values by names that no schema knows."""
    leaves = leaves_of(schema)
    return frozenset(leaf.name for leaf in leaves if dict in map(get_origin, leaf.kinds))


@cache
def _groups_with_targets(schema: type) -> dict[str, Any]:
    return dict(_find_groups(schema))


def _find_groups(schema: type) -> Iterator[tuple[str, Any]]:
    for entry in fields(schema):
        group = group_in(schema, entry.name)
        for option in () if group is None else (group, *group.__subclasses__()):
            if {_TARGET, _ARGUMENTS} <= _names(option):
                yield entry.name, option
