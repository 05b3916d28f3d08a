"""Which features a model sees: the group ``features``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from percoin.bars.renames import current_symbol
from percoin.config.fields import Effect, When, choice, require, setting
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
    references: list[str] = setting(
        "the markets whose state features.extra=[market] adds; a prediction needs their bars",
        affects=Effect.MODEL,
        used=When(needs=("features.extra=market",)),
    )

    def __post_init__(self) -> None:
        # An interpolation can put anything in the place of a list.
        require(isinstance(self.extra, list), "features.extra must be a list, such as [clock]")
        _ = self.feature_set

    @property
    def feature_set(self) -> FeatureSet:
        """Which features these are."""
        extra = extra_of(self.extra)
        compares = any(
            GROUPS[name].compares for name in extra if isinstance(name, str) and name in GROUPS
        )
        references = tuple(map(current_symbol, self.references)) if compares else ()
        return FeatureSet(FeatureDefinition(self.definition), extra, references)
