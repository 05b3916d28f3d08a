"""How far the features of the bars that a model serves on have moved since it was trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np

from percoin.bars.schema import Bars
from percoin.features.drift import LEAST_STRETCHES, STRETCH_ROWS, Bins, Shift, measure_shifts
from percoin.features.feature_set import compute_features
from percoin.registry.manifest import Manifest


@dataclass(frozen=True)
class FeatureDrift:
    """How far each feature of one model has moved.

    Attributes:
        n_bars: Bars since the last that the model was trained or judged on.
        shifts: Of the newest of these, by the feature's name; empty if they are too few.
        unknown: Why there are none, in one phrase; empty if there are.
    """

    n_bars: int
    shifts: Mapping[str, Shift] = field(default_factory=dict)
    unknown: str = ""

    @property
    def worst(self) -> str | None:
        """The feature that has moved furthest beyond what it did before."""
        return max(self.shifts, key=lambda name: self.shifts[name].ratio, default=None)


def measure_drift(manifest: Manifest, bins: Mapping[str, Bins] | None, bars: Bars) -> FeatureDrift:
    """Compare the bars since a model was made with those that it was trained on.

    Args:
        manifest: Of the model.
        bins: Of its train rows; None if it was exported without them.
        bars: Of its market, those since the training among them.
    """
    since = bars.open_time > _ms(manifest.bars.last_open_time)
    n_since = int(since.sum())
    if bins is None:
        return FeatureDrift(n_since, unknown="the model does not say where its train rows were")
    if any(each.furthest is None for each in bins.values()):
        few = f"the model learnt from less than {LEAST_STRETCHES * STRETCH_ROWS:,} rows"
        return FeatureDrift(n_since, unknown=f"{few}: nothing to compare with")
    if n_since >= STRETCH_ROWS:
        features = compute_features(bars, manifest.features.definition)[since]
        rows = features[np.isfinite(features).all(axis=1)][-STRETCH_ROWS:]
        if len(rows) == STRETCH_ROWS:
            scaled = manifest.scaling.fitted().transform(rows)
            return FeatureDrift(n_since, measure_shifts(bins, scaled))
        n_since = len(rows)
    return FeatureDrift(n_since, unknown=f"{n_since} bars at hand since, {STRETCH_ROWS} are needed")


def _ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)
