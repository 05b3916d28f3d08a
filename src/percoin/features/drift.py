"""How far features have moved from their distribution in the train rows.

The index alone says little about a market. Volatility comes in spells, so any few days differ
from the whole. What counts is whether they differ more than any stretch of as many train rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from percoin.types import Float32Array, FloatArray

_TENTHS = np.arange(1, 10) / 10
# Share of a bin without a row, which would have no logarithm.
_EMPTY_SHARE = 1e-4
# Rows that are compared at a time; with fewer, bins are empty by chance.
STRETCH_ROWS = 500
# With fewer stretches each is too large a part of the whole to differ much from it.
LEAST_STRETCHES = 8
# A lower index means no change (Siddiqi, 2006), for a steady feature too.
_NO_CHANGE = 0.1


@dataclass(frozen=True)
class Bins:
    """The distribution of one feature in the train rows.

    Attributes:
        edges: Between the bins, ascending: the deciles of the train rows, fewer where many
            rows have the same value. A bin includes its upper edge, not its lower one.
        shares: Of the train rows in each bin, one more than there are edges.
        furthest: The highest index of a stretch of train rows against all of them; None if
            there are fewer stretches than ``LEAST_STRETCHES``.
    """

    edges: tuple[float, ...]
    shares: tuple[float, ...]
    furthest: float | None = None

    def __post_init__(self) -> None:
        if len(self.shares) != len(self.edges) + 1:
            raise ValueError(f"{len(self.edges)} edges and {len(self.shares)} shares")
        if any(low >= high for low, high in zip(self.edges, self.edges[1:], strict=False)):
            raise ValueError("the edges do not ascend")
        if min(self.shares) < 0 or not math.isclose(sum(self.shares), 1.0, abs_tol=1e-6):
            raise ValueError("the shares are negative or do not sum to 1")

    @classmethod
    def of(cls, values: FloatArray) -> Bins:
        """Bin the values of train rows, oldest first, shape (n,), all finite."""
        edges = np.unique(np.quantile(values, _TENTHS, method="inverted_cdf"))
        bins = cls(tuple(edges.tolist()), tuple(_shares(edges, values).tolist()))
        n_stretches = len(values) // STRETCH_ROWS
        if n_stretches < LEAST_STRETCHES:
            return bins
        stretches = np.split(values[-n_stretches * STRETCH_ROWS :], n_stretches)
        return replace(bins, furthest=max(map(bins.stability_index, stretches)))

    def stability_index(self, values: FloatArray) -> float:
        """Population stability index of later rows, shape (n,).

        The sum over bins of (after - before) x ln(after / before): 0 for the same
        distribution, above 0.25 by the usual rule of thumb for another one (Siddiqi,
        Credit Risk Scorecards, 2006). That rule is made for independent rows.
        """
        after = np.maximum(_shares(np.array(self.edges), values), _EMPTY_SHARE)
        before = np.maximum(self.shares, _EMPTY_SHARE)
        return float(((after - before) * np.log(after / before)).sum())


def bin_features(names: Sequence[str], features: Float32Array) -> dict[str, Bins]:
    """Bins of each feature by its name.

    Args:
        names: Of the features in their order; F of them.
        features: Scaled train rows, shape (n, F), all finite.
    """
    columns = features.astype(np.float64).T
    return {name: Bins.of(values) for name, values in zip(names, columns, strict=True)}


@dataclass(frozen=True)
class Shift:
    """How far a stretch of later rows has moved in one feature.

    Attributes:
        psi: Population stability index against the train rows.
        ratio: The same over the highest index of a stretch of train rows, or over an index
            that means no change if that is higher.
    """

    psi: float
    ratio: float


def measure_shifts(bins: Mapping[str, Bins], features: Float32Array) -> dict[str, Shift]:
    """Shift of each feature by its name.

    Args:
        bins: Of train rows, enough for stretches, in the order of the features.
        features: Later rows, scaled as these were, shape (STRETCH_ROWS, F), all finite.

    Raises:
        ValueError: The train rows were too few for stretches.
    """
    columns = features.astype(np.float64).T
    return {
        name: _shift(known, values)
        for (name, known), values in zip(bins.items(), columns, strict=True)
    }


def _shift(bins: Bins, values: FloatArray) -> Shift:
    if bins.furthest is None:
        raise ValueError("too few train rows to measure how far a stretch of them drifts")
    psi = bins.stability_index(values)
    return Shift(psi, psi / max(bins.furthest, _NO_CHANGE))


def _shares(edges: FloatArray, values: FloatArray) -> FloatArray:
    counts = np.bincount(np.searchsorted(edges, values), minlength=len(edges) + 1)
    shares: FloatArray = counts / len(values)
    return shares
