"""The forecasters that a model is made of besides its network, as a manifest keeps them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields

from percoin.evaluation.baselines import BESIDE, POOLED
from percoin.evaluation.blend import NETWORK, PartSkills
from percoin.evaluation.calibration import check_calibration
from percoin.evaluation.last_row import InputColumns
from percoin.evaluation.regression import Regression
from percoin.registry.field_checks import require
from percoin.registry.layout import TREE_FILES, trees_file

# Rounding of a sum of weights.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Calibration:
    """How logits become probabilities; ``evaluation.calibration`` fits and applies it.

    Attributes:
        method: ``none``, ``temperature`` or ``vector``; it decides which of the others are set.
    """

    method: str = "none"
    temperature: float | None = None
    weights: tuple[float, ...] | None = None
    bias: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        check_calibration(self.to_json())

    def to_json(self) -> dict[str, object]:
        """As ``fit_calibration`` returned it."""
        entries = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        return {name: value for name, value in entries.items() if value is not None}


@dataclass(frozen=True)
class StoredNumbers:
    """What a model on the newest bar alone computes with.

    Attributes:
        columns: What it takes.
        regression: A regression lies in the manifest itself.
        trees: Boosted trees lie in the file of this name.
    """

    columns: InputColumns
    regression: Regression | None = None
    trees: str | None = None

    def __post_init__(self) -> None:
        is_one = (self.regression is None) != (self.trees is None)
        require(is_one, "a model of the newest bar is not a regression or trees")
        require(self.trees in (None, *TREE_FILES), f"{self.trees!r:.60} is no file of trees")


@dataclass(frozen=True)
class StoredPart:
    """One part of a combination.

    Attributes:
        weight: Its share of the probabilities.
        calibration: Its own.
        skills: Of the part alone, calibrated.
        numbers: None for the network, and for a part without weight.
    """

    weight: float
    calibration: Calibration
    skills: PartSkills
    numbers: StoredNumbers | None = None

    def __post_init__(self) -> None:
        require(0 <= self.weight <= 1, "the weight of a part is not between 0 and 1")


@dataclass(frozen=True)
class Combination:
    """How the probabilities of several forecasters are averaged.

    Attributes:
        parts: By name: the network, and baselines of the judgement.
        skills: Of the average.
    """

    parts: Mapping[str, StoredPart]
    skills: PartSkills

    def __post_init__(self) -> None:
        strange = set(self.parts) - {NETWORK, *BESIDE, *POOLED}
        require(not strange, f"{min(strange, default='')!r:.60} is no part of a combination")
        require(NETWORK in self.parts and len(self.parts) > 1, "parts are not of a combination")
        total = math.fsum(part.weight for part in self.parts.values())
        require(abs(total - 1) < _ROUNDING, f"the weights of the parts sum to {total}")
        for name, part in self.parts.items():
            is_needed = name != NETWORK and part.weight > 0
            require(is_needed == (part.numbers is not None), f"numbers and weight of {name}")
            trees = None if part.numbers is None else part.numbers.trees
            require(trees in (None, trees_file(name)), f"the trees of {name} lie in {trees!r:.60}")


@dataclass(frozen=True)
class ModelPart:
    """A forecaster that a model asks, whatever the format of its manifest.

    Attributes:
        weight: Its share of the probabilities.
        calibration: Its own.
        numbers: None for the network.
    """

    weight: float
    calibration: Calibration
    numbers: StoredNumbers | None = None
