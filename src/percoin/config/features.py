"""Which features a model sees: the group ``features``."""

from __future__ import annotations

from dataclasses import dataclass

from percoin.bars.renames import current_symbol
from percoin.config.fields import Effect, When, choice, setting
from percoin.features.extra import GROUPS
from percoin.features.feature_set import FeatureDefinition, FeatureSet


@dataclass
class FeaturesConfig:
    """Which of the two definitions of the 15 features, and what comes beside them."""

    definition: str = choice("", FeatureDefinition, affects=Effect.MODEL)
    extra: list[str] = choice(
        "groups of columns after the 15: volatility, clock, market",
        tuple(GROUPS),
        affects=Effect.MODEL,
    )
    references: list[str] = setting(
        "the markets whose state features.extra=[market] adds; a prediction needs their bars",
        affects=Effect.MODEL,
        used=When(needs=("features.extra=market",)),
    )

    def __post_init__(self) -> None:
        _ = self.feature_set

    @property
    def feature_set(self) -> FeatureSet:
        """Which features these are."""
        extra = tuple(self.extra)
        compares = any(GROUPS[name].compares for name in extra if name in GROUPS)
        references = tuple(map(current_symbol, self.references)) if compares else ()
        return FeatureSet(FeatureDefinition(self.definition), extra, references)
