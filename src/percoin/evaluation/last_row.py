"""A fitted model on what is known of the newest bar alone: its inputs, and its plain numbers.

``percoin.evaluation.baselines`` fits such models. Judgement and predictions compute them here,
without scikit-learn.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from percoin.bars.schema import Bars
from percoin.bars.stacked import StackedBars
from percoin.evaluation.moves import Moves
from percoin.evaluation.regression import Regression
from percoin.evaluation.trees import Trees
from percoin.features.extra import GROUPS
from percoin.features.volatility import newest_clock
from percoin.types import Float32Array, FloatArray, Timeframe


class InputColumns(StrEnum):
    """Which numbers of the newest bar a model takes."""

    FEATURES = "features"
    """The scaled features of the bar."""
    VOLATILITY = "volatility"
    """``features.volatility.volatility_columns``."""
    VOLATILITY_CLOCK = "volatility_clock"
    """The same, then ``features.volatility.clock_columns``."""
    VOLATILITY_CLOCK_FEATURES = "volatility_clock_features"
    """The same, then the scaled features of the bar."""

    @property
    def has_features(self) -> bool:
        """Whether the features of the bar are among them; they come last."""
        return self in (InputColumns.FEATURES, InputColumns.VOLATILITY_CLOCK_FEATURES)

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups of ``features.extra`` that are among them; they come first."""
        return _GROUPS[self]

    def n_columns(self, timeframe: Timeframe, n_features: int) -> int:
        """How many there are, for a bar length and a number of features."""
        beside = sum(len(GROUPS[group].names(timeframe)) for group in self.groups)
        return beside + (n_features if self.has_features else 0)

    def memory_bars(self, timeframe: Timeframe) -> int:
        """How many bars before the newest they look at; 0 for the features."""
        return max((GROUPS[group].memory_bars(timeframe) for group in self.groups), default=0)


_GROUPS: Mapping[InputColumns, tuple[str, ...]] = {
    InputColumns.FEATURES: (),
    InputColumns.VOLATILITY: ("volatility",),
    InputColumns.VOLATILITY_CLOCK: ("volatility", "clock"),
    InputColumns.VOLATILITY_CLOCK_FEATURES: ("volatility", "clock"),
}


def columns_beside(bars: Bars, columns: InputColumns) -> FloatArray:
    """Inputs that are not features, at every bar; NaN where one is not known yet.

    Args:
        bars: Closed bars of one market.
        columns: Which numbers; not the features alone.

    Returns:
        Shape (n_bars, D).
    """
    return np.concatenate([GROUPS[group].columns(bars, ()) for group in columns.groups], axis=1)


def newest_beside(
    needed: Iterable[InputColumns], markets: StackedBars, volatility: FloatArray
) -> dict[InputColumns, FloatArray]:
    """The last row of ``columns_beside`` for several markets in one go, to the same bits.

    Args:
        needed: Which numbers.
        markets: All of one bar length, with at least one bar.
        volatility: Their ``newest_volatility``.

    Returns:
        Shape (n_markets, D) each.
    """
    of_group = {"volatility": volatility, "clock": newest_clock(markets)}
    return {
        columns: np.concatenate([of_group[group] for group in columns.groups], axis=1)
        for columns in needed
    }


@dataclass(frozen=True, eq=False)
class LastRowModel:
    """A fitted model as plain numbers.

    Attributes:
        columns: What it takes.
        numbers: What it computes with.
    """

    columns: InputColumns
    numbers: Regression | Trees | Moves

    @property
    def trees(self) -> Trees | None:
        """The boosted trees among the numbers."""
        numbers = self.numbers.trees if isinstance(self.numbers, Moves) else self.numbers
        return numbers if isinstance(numbers, Trees) else None

    def logits(self, rows: FloatArray | Float32Array) -> FloatArray:
        """Log-odds up to a constant, shape (n, C).

        Args:
            rows: Finite, shape (n, D), in the order of ``columns``.
        """
        return self.numbers.logits(rows)

    @property
    def forecasts_range(self) -> bool:
        """Whether it forecasts the range of the horizon's bars too, as a model in two stages."""
        return isinstance(self.numbers, Moves)

    def log_range(self, rows: FloatArray | Float32Array) -> FloatArray:
        """``Moves.log_range``, shape (n,); NaN where an input is not finite.

        Args:
            rows: Shape (n, D), in the order of ``columns``.

        Raises:
            ValueError: It forecasts no range.
        """
        if not isinstance(self.numbers, Moves):
            raise ValueError("only a model in two stages forecasts a range")
        return self.numbers.log_range(rows)
