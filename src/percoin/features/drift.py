"""How far features have moved from where the train rows had them.

An index alone says little of a market: volatility comes in spells, so that a few days lie
elsewhere than the whole, whichever days. What counts is whether they lie further off than
any stretch of as many train rows did.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from percoin.features.feature_set import FEATURE_NAMES
from percoin.types import Float32Array, FloatArray

_TENTHS = np.arange(1, 10) / 10
# A bin without a row: its logarithm has to be something.
_EMPTY_SHARE = 1e-4
# Rows that are compared at a time; fewer leave bins empty by chance.
STRETCH_ROWS = 500
# With fewer of them each is too much of the whole, and the furthest of them not far.
LEAST_STRETCHES = 8
# An index below this means no change at all (Siddiqi, 2006), of a steady feature too.
_NO_CHANGE = 0.1


@dataclass(frozen=True)
class Bins:
    """Where the train rows had one feature.

    Attributes:
        edges: Between the bins, ascending: the deciles of the train rows, fewer where many
            rows have the same value. A bin holds what is above its lower edge, up to the
            upper one.
        shares: Of the train rows in each bin, one more than there are edges.
        furthest: The highest index that a stretch of the train rows has against all of
            them; None if they are less than ``LEAST_STRETCHES``.
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
            raise ValueError("the shares are none")

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
        Credit Risk Scorecards, 2006). The rule is one for independent rows.
        """
        after = np.maximum(_shares(np.array(self.edges), values), _EMPTY_SHARE)
        before = np.maximum(self.shares, _EMPTY_SHARE)
        return float(((after - before) * np.log(after / before)).sum())


def bin_features(features: Float32Array) -> dict[str, Bins]:
    """Bins of each feature by its name, of scaled train rows, shape (n, F), all finite."""
    columns = features.astype(np.float64).T
    return {name: Bins.of(values) for name, values in zip(FEATURE_NAMES, columns, strict=True)}


@dataclass(frozen=True)
class Shift:
    """Where a stretch of later rows has one feature.

    Attributes:
        psi: Population stability index against the train rows.
        ratio: The same in units of the highest that a stretch of the train rows has; of
            what means no change, if that is higher.
    """

    psi: float
    ratio: float


def measure_shifts(bins: Mapping[str, Bins], features: Float32Array) -> dict[str, Shift]:
    """Shift of each feature by its name.

    Args:
        bins: Of train rows, enough for stretches.
        features: Later rows, scaled as these were, shape (STRETCH_ROWS, F), all finite.
    """
    columns = features.astype(np.float64).T
    return {
        name: _shift(bins[name], values)
        for name, values in zip(FEATURE_NAMES, columns, strict=True)
    }


def _shift(bins: Bins, values: FloatArray) -> Shift:
    assert bins.furthest is not None
    psi = bins.stability_index(values)
    return Shift(psi, psi / max(bins.furthest, _NO_CHANGE))


def _shares(edges: FloatArray, values: FloatArray) -> FloatArray:
    counts = np.bincount(np.searchsorted(edges, values), minlength=len(edges) + 1)
    shares: FloatArray = counts / len(values)
    return shares
