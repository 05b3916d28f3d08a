"""Label rules as saved models and records keep them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from percoin.errors import ConfigError
from percoin.labels.own import OwnRule
from percoin.labels.rules import (
    FixedHorizon,
    LabelRule,
    Relative,
    TripleBarrier,
    VolatilityScaled,
)

_RULES: dict[str, type[LabelRule]] = {
    rule.kind: rule for rule in (FixedHorizon, VolatilityScaled, TripleBarrier, Relative)
}


def label_rule_from_json(values: Mapping[str, Any]) -> LabelRule:
    """Rebuild a rule from ``LabelRule.to_json``; code of the user's own is not imported yet.

    Raises:
        ConfigError: Unknown kind, a key missing or too many, a value out of range.
    """
    parameters = dict(values)
    kind = parameters.pop("kind", None)
    if kind == OwnRule.kind:
        return OwnRule.from_json(parameters)
    if kind not in _RULES:
        known = ", ".join((*_RULES, OwnRule.kind))
        raise ConfigError(f"label rule {kind!r} is not known; known are {known}")
    try:
        return _RULES[kind](**parameters)
    except TypeError as error:
        raise ConfigError(f"label rule {kind}: {error}") from None


def is_relative(values: Mapping[str, Any]) -> bool:
    """Whether a stored rule compares a market with others, so that it says nothing of its price."""
    return values.get("kind") == Relative.kind


def known_horizon(values: Mapping[str, Any]) -> int | None:
    """How many bars a stored rule looks ahead; None for a rule that this percoin does not know."""
    try:
        horizon: object = label_rule_from_json(values).horizon
    except ConfigError:
        return None
    # A file from outside can hold any type of number.
    return horizon if type(horizon) is int else None
