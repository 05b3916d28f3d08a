"""The rules that make labels: which answer later bars show to have been right."""

from percoin.labels.own import OwnRule
from percoin.labels.rules import (
    FixedHorizon,
    LabelRule,
    Labels,
    Relative,
    TripleBarrier,
    VolatilityScaled,
    return_ahead,
)
from percoin.labels.stored import is_relative, known_horizon, label_rule_from_json

__all__ = [
    "FixedHorizon",
    "LabelRule",
    "Labels",
    "OwnRule",
    "Relative",
    "TripleBarrier",
    "VolatilityScaled",
    "is_relative",
    "known_horizon",
    "label_rule_from_json",
    "return_ahead",
]
