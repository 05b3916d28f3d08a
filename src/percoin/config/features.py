"""Which features a model sees: the group ``features``."""

from __future__ import annotations

from dataclasses import dataclass

from percoin.config.fields import Effect, choice
from percoin.features.feature_set import FeatureDefinition


@dataclass
class FeaturesConfig:
    """Which of the two definitions of the 15 features."""

    definition: str = choice("", FeatureDefinition, affects=Effect.MODEL)
