"""Feature drift: how far the features of new bars have moved since the model was trained."""

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
        n_bars: Number of bars after the last bar that the model was trained or tested on.
        shifts: Shifts of the newest of these bars, by feature name; empty if the bars are
            too few.
        unknown: Why there are no shifts, in one phrase; empty if there are.
    """

    n_bars: int
    shifts: Mapping[str, Shift] = field(default_factory=dict)
    unknown: str = ""

    @property
    def worst(self) -> str | None:
        """The feature with the highest shift ratio; None without shifts.

        The ratio compares a shift with the largest one inside the train rows.
        """
        return max(self.shifts, key=lambda name: self.shifts[name].ratio, default=None)


def measure_drift(manifest: Manifest, bins: Mapping[str, Bins] | None, bars: Bars) -> FeatureDrift:
    """Compare the bars since a model was made with the rows it was trained on.

    Args:
        manifest: The model's manifest.
        bins: Feature histograms of its train rows; None if it was exported without them.
        bars: Bars of its market, including those since the training.
    """
    since = bars.open_time > _ms(manifest.bars.last_open_time)
    n_since = int(since.sum())
    if bins is None:
        return FeatureDrift(n_since, unknown="the model does not say where its train rows were")
    if any(each.furthest is None for each in bins.values()):
        few = f"the model learnt from less than {LEAST_STRETCHES * STRETCH_ROWS:,} rows"
        return FeatureDrift(n_since, unknown=f"{few}: nothing to compare with")
    if n_since >= STRETCH_ROWS:
        features = compute_features(bars, manifest.features.feature_set)[since]
        rows = features[np.isfinite(features).all(axis=1)][-STRETCH_ROWS:]
        if len(rows) == STRETCH_ROWS:
            scaled = manifest.scaling.fitted().transform(rows)
            return FeatureDrift(n_since, measure_shifts(bins, scaled))
        n_since = len(rows)
    return FeatureDrift(n_since, unknown=f"{n_since} bars since then, {STRETCH_ROWS} are needed")


def _ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)
