"""Which features a model sees: the group ``features``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from percoin.config.fields import Effect, choice, require, setting
from percoin.features.extra import GROUPS
from percoin.features.feature_set import FeatureDefinition, FeatureSet
from percoin.features.own import extra_of


@dataclass
class FeaturesConfig:
    """Which of the two definitions of the 15 features, and what comes beside them."""

    definition: str = choice("", FeatureDefinition, affects=Effect.MODEL)
    extra: list[Any] = setting(
        f"columns after the 15: {', '.join(GROUPS)}, MODULE:FUNCTION of your own, "
        "ta:MODULE.CLASS.METHOD",
        affects=Effect.MODEL,
    )

    def __post_init__(self) -> None:
        # An interpolation can put anything in the place of a list.
        require(isinstance(self.extra, list), "features.extra must be a list, such as [clock]")
        _ = self.feature_set

    @property
    def feature_set(self) -> FeatureSet:
        """Which features these are."""
        return FeatureSet(FeatureDefinition(self.definition), extra_of(self.extra))
