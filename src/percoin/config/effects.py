"""Lists of settings, derived from what each declares that it affects."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict
from functools import cache
from typing import Any

from percoin.commands import flat
from percoin.config.fields import OF_THE_RUN, Effect
from percoin.config.structure import leaves_of


def settings_with(settings: Any, effects: Collection[Effect]) -> dict[str, object]:
    """Values of the settings that have one of these effects, by their dotted names.

    Args:
        settings: A dataclass of settings.
        effects: The wanted ones.
    """
    schema: type = type(settings)
    wanted = frozenset(effects)
    found = flat(asdict(settings))
    return {name: value for name, value in found if effects_of(schema, name) & wanted}


def names_with(schema: type, effects: Collection[Effect]) -> tuple[str, ...]:
    """The dotted names of all settings that have one of these effects, in their order."""
    return tuple(name for name, effect in _declared(schema).items() if effect in effects)


@cache
def effects_of(schema: type, key: str) -> frozenset[Effect]:
    """What a setting changes, or what the settings of a group change; empty of an unknown one.

    Args:
        schema: Of the whole config.
        key: A dotted name.
    """
    declared = _declared(schema)
    below = frozenset(effect for name, effect in declared.items() if name.startswith(f"{key}."))
    # A setting such as logger holds further names.
    while key and key not in declared:
        key = key.rpartition(".")[0]
    return below | {declared[key]} if key else below


def is_of_the_run(schema: type, key: str) -> bool:
    """Whether a setting, or all in a group, changes nothing about the model or its bars."""
    effects = effects_of(schema, key)
    return bool(effects) and effects <= OF_THE_RUN


@cache
def _declared(schema: type) -> dict[str, Effect]:
    return {leaf.name: leaf.affects for leaf in leaves_of(schema) if leaf.affects is not None}
