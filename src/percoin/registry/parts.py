"""The forecasters that a model is made of besides its network, as a manifest keeps them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields

from percoin.evaluation.baselines import BESIDE, POOLED
from percoin.evaluation.blend import NETWORK, PartSkills
from percoin.evaluation.calibration import check_calibration
from percoin.evaluation.last_row import InputColumns, LastRowModel
from percoin.evaluation.moves import N_RANGES, Moves, RangeRegression
from percoin.evaluation.regression import Regression
from percoin.evaluation.trees import Trees
from percoin.registry.field_checks import require
from percoin.registry.layout import TREE_FILES, trees_file
from percoin.types import Timeframe

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
        ridge: Of a model in two stages, ``evaluation.moves``, which has all three.
    """

    columns: InputColumns
    regression: Regression | None = None
    trees: str | None = None
    ridge: RangeRegression | None = None

    def __post_init__(self) -> None:
        n_kinds = (self.regression is not None) + (self.trees is not None)
        is_one = n_kinds == (1 if self.ridge is None else 2)
        require(is_one, "a model of the newest bar is not a regression, trees, or two stages")
        has_all = self.columns is InputColumns.VOLATILITY_CLOCK_FEATURES
        require(has_all == (self.ridge is not None), "the columns are not those of the model")
        require(self.trees in (None, *TREE_FILES), f"{self.trees!r:.60} is no file of trees")

    def check_columns(self, name: str, timeframe: Timeframe, n_features: int) -> None:
        """Refuse a regression on another number of columns than there are.

        Args:
            name: Of the part.
            timeframe: Bar length of the model.
            n_features: Number of its features.
        """

        def check(found: Regression | RangeRegression | None, *expected: int) -> None:
            wrong = found is not None and found.n_columns != sum(expected)
            n_found = 0 if found is None else found.n_columns
            require(not wrong, f"{name} takes {n_found} columns, not {sum(expected)}")

        def count(columns: InputColumns) -> int:
            return columns.n_columns(timeframe, n_features)

        if self.ridge is None:
            check(self.regression, count(self.columns))
        else:
            check(self.regression, count(InputColumns.VOLATILITY), N_RANGES)
            check(self.ridge, count(InputColumns.VOLATILITY_CLOCK))

    def model(self, trees: Mapping[str, Trees]) -> LastRowModel:
        """What it computes with.

        Args:
            trees: The boosted trees of the version, by the name of their file.
        """
        if self.regression is None or self.trees is None or self.ridge is None:
            return LastRowModel(self.columns, self.regression or trees[self.trees or ""])
        return LastRowModel(self.columns, Moves(trees[self.trees], self.ridge, self.regression))


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
        parts: By name: the network, if there is one, and baselines of the judgement.
        skills: Of the average.
    """

    parts: Mapping[str, StoredPart]
    skills: PartSkills

    def __post_init__(self) -> None:
        strange = set(self.parts) - {NETWORK, *BESIDE, *POOLED}
        require(not strange, f"{min(strange, default='')!r:.60} is no part of a combination")
        require(len(self.parts) > 1, "parts are not of a combination")
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

    @property
    def forecasts_range(self) -> bool:
        """Whether it forecasts the range of the horizon's bars too, as a model in two stages."""
        return self.numbers is not None and self.numbers.ridge is not None
