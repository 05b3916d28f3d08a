"""Which features a model sees: the group ``features``."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING

from percoin.config.fields import require
from percoin.features.feature_set import FeatureDefinition


@dataclass
class FeaturesConfig:
    """Which of the two definitions of the 15 features."""

    definition: str = MISSING

    def __post_init__(self) -> None:
        known = [definition.value for definition in FeatureDefinition]
        require(
            self.definition in known,
            f"features.definition={self.definition} must be one of {', '.join(known)}",
        )
