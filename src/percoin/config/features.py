"""Which features a model sees: the group ``features``."""

from __future__ import annotations

from dataclasses import dataclass

from percoin.config.fields import Effect, choice
from percoin.features.extra import GROUPS
from percoin.features.feature_set import FeatureDefinition, FeatureSet


@dataclass
class FeaturesConfig:
    """Which of the two definitions of the 15 features, and what comes beside them."""

    definition: str = choice("", FeatureDefinition, affects=Effect.MODEL)
    extra: list[str] = choice(
        "groups of columns after the 15: volatility, clock", tuple(GROUPS), affects=Effect.MODEL
    )

    def __post_init__(self) -> None:
        _ = self.feature_set

    @property
    def feature_set(self) -> FeatureSet:
        """Which features these are."""
        return FeatureSet(FeatureDefinition(self.definition), tuple(self.extra))
