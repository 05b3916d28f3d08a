"""Words that name an object of the user's own, as Hydra takes them.

``model._target_=my_models:MyNet model.width=64`` becomes ``model=own``, that ``_target_``, and
``++model.arguments.width=64``: Hydra knows no key that its schema does not have.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import fields
from functools import cache
from typing import Any

from percoin.config.structure import group_in
from percoin.errors import ConfigError

_TARGET = "_target_"
_ARGUMENTS = "arguments"
_ADDED = re.compile(rf"\+\+(\w+)\.{_ARGUMENTS}\.")


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
    return [*chosen, *(_placed(word, targets) for word in words)]


def as_typed(text: str) -> str:
    """A word or key, as a person would type it."""
    return _ADDED.sub(r"\1.", text)


def _placed(word: str, targets: dict[str, Any]) -> str:
    group, dot, key = word.partition("=")[0].partition(".")
    if not dot or group not in targets:
        return word
    rest = word[len(group) + 1 :].removeprefix(f"{_ARGUMENTS}.")
    is_declared = key in {entry.name for entry in fields(targets[group])}
    return word if is_declared else f"++{group}.{_ARGUMENTS}.{rest}"


@cache
def _groups_with_targets(schema: type) -> dict[str, Any]:
    return dict(_find_groups(schema))


def _find_groups(schema: type) -> Iterator[tuple[str, Any]]:
    for entry in fields(schema):
        group = group_in(schema, entry.name)
        for option in () if group is None else (group, *group.__subclasses__()):
            if {_TARGET, _ARGUMENTS} <= {each.name for each in fields(option)}:
                yield entry.name, option
