"""Check that past values do not change when later bars are removed.

A value known at the close of a bar is the same, bit for bit, with or without later bars. So
everything is computed again on bars that end at random moments, and compared with the
computation on all bars.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from percoin.audit.findings import Finding, FindingStatus
from percoin.bars.schema import Bars, format_time
from percoin.dataset import MarketDataset
from percoin.features.feature_set import FeatureSet
from percoin.labels import LabelRule
from percoin.types import BoolArray, FloatArray, IntArray

ComputeFeatures = Callable[[Bars, FeatureSet], FloatArray]

# A history shorter than this share of the bars would be mostly warm-up.
_SHORTEST_CUT = 0.1


def choose_cuts(n_bars: int, n_cuts: int, seed: int) -> IntArray:
    """Draw lengths at which a history of ``n_bars`` is cut off, ascending and distinct.

    Args:
        n_bars: Length of the whole history.
        n_cuts: Number of cuts; fewer if the history is too short.
        seed: Seed of the draw.
    """
    lengths = np.arange(max(1, int(n_bars * _SHORTEST_CUT)), n_bars)
    rng = np.random.default_rng(seed)
    return np.sort(rng.choice(lengths, size=min(n_cuts, len(lengths)), replace=False))


def check_features(
    bars: Bars,
    feature_set: FeatureSet,
    compute: ComputeFeatures,
    n_cuts: int = 40,
    seed: int = 0,
) -> Finding:
    """Compute the features on truncated bars and compare every row that is left.

    Args:
        bars: Bars of one market.
        feature_set: Passed to ``compute``.
        compute: The feature function to check; it returns shape (n_bars, F) in the order of
            ``feature_set.names``.
        n_cuts: Number of random moments at which the bars are cut off.
        seed: Seed of these moments.
    """
    name = "features look back only"
    full, names = compute(bars, feature_set), feature_set.names(bars.timeframe)
    cuts = choose_cuts(len(bars), n_cuts, seed)
    guilty: set[str] = set()
    n_guilty_cuts, example = 0, ""
    for cut in cuts.tolist():
        differs = _differs(compute(bars.slice(0, cut), feature_set), full[:cut])
        if not differs.any():
            continue
        n_guilty_cuts += 1
        guilty |= {names[column] for column in np.flatnonzero(differs.any(axis=0))}
        row = int(np.flatnonzero(differs.any(axis=1))[-1])
        example = (
            f"the bar that closed at {format_time(bars.close_time(row))} changes when bars after "
            f"{format_time(bars.close_time(cut - 1))} are added"
        )
    if guilty:
        listed = ", ".join(sorted(guilty))
        evidence = f"{listed}: changed by later bars at {n_guilty_cuts} of {len(cuts)} cuts; "
        return Finding(name, FindingStatus.LEAK, evidence + example)
    same = f"{len(names)} features are the same, bit for bit"
    evidence = f"{same}, at {len(cuts)} random cuts"
    return Finding(name, FindingStatus.OK, evidence)


def check_labels(bars: Bars, rule: LabelRule, n_cuts: int = 40, seed: int = 0) -> Finding:
    """Check that labels look ahead no further than the horizon, which the purge relies on."""
    name = "labels reach the horizon"
    full = rule.label(bars).label
    cuts = choose_cuts(len(bars), n_cuts, seed)
    n_guilty_cuts = 0
    for cut in cuts.tolist():
        n_settled = max(0, cut - rule.horizon)
        settled = rule.label(bars.slice(0, cut)).label[:n_settled]
        n_guilty_cuts += not np.array_equal(settled, full[:n_settled])
    if n_guilty_cuts:
        evidence = (
            f"labels older than {rule.horizon} bars change with later bars at "
            f"{n_guilty_cuts} of {len(cuts)} cuts"
        )
        return Finding(name, FindingStatus.LEAK, evidence)
    evidence = f"labels are final after {rule.horizon} bars at {len(cuts)} random cuts"
    return Finding(name, FindingStatus.OK, evidence)


def check_contents(dataset: MarketDataset, compute: ComputeFeatures) -> Finding:
    """Check that the dataset holds exactly what the feature function and the label rule give."""
    name = "dataset holds its features"
    expected = dataset.scaling.transform(compute(dataset.bars, dataset.feature_set))
    wrong = _differs(dataset.features, expected).any(axis=0)
    if wrong.any():
        listed = ", ".join(dataset.feature_names[column] for column in np.flatnonzero(wrong))
        return Finding(name, FindingStatus.LEAK, f"{listed}: differs from the feature function")
    n_wrong = int((dataset.label != dataset.label_rule.label(dataset.bars).label).sum())
    if n_wrong:
        evidence = f"{n_wrong} of {len(dataset.bars)} labels differ from the label rule"
        return Finding(name, FindingStatus.LEAK, evidence)
    evidence = f"features and labels of {len(dataset.bars)} bars agree with the functions"
    return Finding(name, FindingStatus.OK, evidence)


def _differs(values: np.ndarray, expected: np.ndarray) -> BoolArray:
    differs: BoolArray = ~((values == expected) | (np.isnan(values) & np.isnan(expected)))
    return differs
