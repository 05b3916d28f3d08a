"""A fitted model on what is known of the newest bar alone: its inputs, and its plain numbers.

``percoin.evaluation.baselines`` fits such models. Judgement and predictions compute them here,
without scikit-learn.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from percoin.bars.schema import Bars
from percoin.evaluation.regression import Regression
from percoin.evaluation.trees import Trees
from percoin.features.volatility import (
    CLOCK_NAMES,
    clock_columns,
    volatility_columns,
    volatility_memory_bars,
    volatility_spans,
)
from percoin.types import Float32Array, FloatArray, Timeframe


class InputColumns(StrEnum):
    """Which numbers of the newest bar a model takes."""

    FEATURES = "features"
    """The scaled features of the bar."""
    VOLATILITY = "volatility"
    """``features.volatility.volatility_columns``."""
    VOLATILITY_CLOCK = "volatility_clock"
    """The same, then ``features.volatility.clock_columns``."""

    def n_columns(self, timeframe: Timeframe, n_features: int) -> int:
        """How many there are, for a bar length and a number of features."""
        if self is InputColumns.FEATURES:
            return n_features
        n_volatility = len(volatility_spans(timeframe)) + 1
        return n_volatility + (len(CLOCK_NAMES) if self is InputColumns.VOLATILITY_CLOCK else 0)

    def memory_bars(self, timeframe: Timeframe) -> int:
        """How many bars before the newest they look at, beyond what the features need."""
        return 0 if self is InputColumns.FEATURES else volatility_memory_bars(timeframe)


def columns_of(bars: Bars, columns: InputColumns, features: FloatArray) -> FloatArray:
    """The inputs of a model at every bar, shape (n_bars, D); NaN where one is not known yet.

    Args:
        bars: Closed bars of one market.
        columns: Which numbers.
        features: Scaled features of these bars, shape (n_bars, F).
    """
    if columns is InputColumns.FEATURES:
        return features
    volatility = volatility_columns(bars)
    if columns is InputColumns.VOLATILITY:
        return volatility
    return np.concatenate([volatility, clock_columns(bars)], axis=1)


@dataclass(frozen=True, eq=False)
class LastRowModel:
    """A fitted model as plain numbers.

    Attributes:
        columns: What it takes.
        numbers: What it computes with.
    """

    columns: InputColumns
    numbers: Regression | Trees

    def logits(self, rows: FloatArray | Float32Array) -> FloatArray:
        """Log-odds up to a constant, shape (n, C).

        Args:
            rows: Finite, shape (n, D), in the order of ``columns``.
        """
        return self.numbers.logits(rows)
