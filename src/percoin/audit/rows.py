"""Check that scaling and splits use only the rows they may use."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from percoin.audit.findings import Finding, FindingStatus
from percoin.dataset import MarketDataset, Part
from percoin.features.scaling import Scaling
from percoin.splits import Split
from percoin.types import FloatArray, IntArray

PARTS: tuple[Part, ...] = ("train", "validation", "test")

# Another library version may round the last bits of a mean differently.
_ROUNDING = 1e-9


def check_scaling(scaling: Scaling, features: FloatArray, split: Split) -> Finding:
    """Fit the scaling again on the train rows alone and compare.

    Args:
        scaling: The scaling in use.
        features: Features before scaling, shape (n_bars, F).
        split: Its train rows are the right fit rows.
    """
    name = "scaler knows train only"
    if same_scaling(scaling, Scaling.fit(features[split.train])):
        evidence = f"refitted on {len(split.train)} train rows: the same"
        return Finding(name, FindingStatus.OK, evidence)
    distance = np.abs(scaling.mean_ - features[split.train].mean(axis=0)) / scaling.scale_
    evidence = f"means are up to {distance.max():.2g} deviations off those of the train rows"
    for described, rows in _larger_sets(features, split).items():
        if same_scaling(scaling, Scaling.fit(features[rows])):
            evidence = f"fitted on {described}"
    return Finding(name, FindingStatus.LEAK, evidence)


def check_order(split: Split) -> Finding:
    """Check that rows ascend within each part, and that each part is later than the one before."""
    name = "split in time order"
    for part in PARTS:
        rows = _rows(split, part)
        n_wrong = int((np.diff(rows) <= 0).sum())
        if n_wrong:
            evidence = f"{n_wrong} {part} rows are not later than the {part} row before them"
            return Finding(name, FindingStatus.LEAK, evidence)
    for earlier, later in combinations(PARTS, 2):
        first = int(_rows(split, later).min())
        n_wrong = int((_rows(split, earlier) >= first).sum())
        if n_wrong:
            evidence = f"{n_wrong} {earlier} rows are not earlier than the first {later} row"
            return Finding(name, FindingStatus.LEAK, evidence)
    counts = ", ".join(f"{len(_rows(split, part))} {part}" for part in PARTS)
    return Finding(
        name,
        FindingStatus.OK,
        f"{counts} rows; no row is in two parts, and each part follows the one before",
    )


def check_purge(split: Split, horizon: int) -> Finding:
    """Check that no label of one part overlaps rows of another part or their labels.

    Args:
        split: Positions among the bars.
        horizon: Number of bars a label looks ahead.
    """
    name = "labels end before the cut"
    overlaps = {
        f"{n_close} {one} rows reach into {other}"
        for one, other in combinations(PARTS, 2)
        if (n_close := _count_close(_rows(split, one), _rows(split, other), horizon))
    }
    if overlaps:
        evidence = f"labels look {horizon} bars ahead: " + ", ".join(sorted(overlaps))
        return Finding(name, FindingStatus.LEAK, evidence)
    rooms = [
        int(_distances(_rows(split, one), _rows(split, other)).min()) - 1
        for one, other in (PARTS[:2], PARTS[1:])
    ]
    evidence = f"{rooms[0]} and {rooms[1]} bars lie between the parts, labels look {horizon} ahead"
    return Finding(name, FindingStatus.OK, evidence)


def check_dataset_rows(dataset: MarketDataset, features: FloatArray) -> list[Finding]:
    """Check scaling and split of a dataset; ``features`` are its features before scaling."""
    return [
        check_scaling(dataset.scaling, features, dataset.split),
        check_order(dataset.split),
        check_purge(dataset.split, dataset.label_rule.horizon),
    ]


def _rows(split: Split, part: Part) -> IntArray:
    rows: IntArray = getattr(split, part)
    return rows


def same_scaling(one: Scaling, other: Scaling) -> bool:
    """Whether two scalings are equal, apart from rounding by another library version."""
    return np.allclose(one.mean_, other.mean_, rtol=_ROUNDING, atol=0) and np.allclose(
        one.scale_, other.scale_, rtol=_ROUNDING, atol=0
    )


def _larger_sets(features: FloatArray, split: Split) -> dict[str, IntArray]:
    """Rows that a scaler is often fitted on by mistake, by name."""
    parts = [_rows(split, part) for part in PARTS]
    first, last = min(rows.min() for rows in parts), max(rows.max() for rows in parts)
    defined = np.flatnonzero(np.isfinite(features).all(axis=1))
    return {
        "train and validation rows": np.sort(np.concatenate(parts[:2])),
        "train and test rows": np.sort(np.concatenate([parts[0], parts[2]])),
        "the rows of all three parts": np.sort(np.concatenate(parts)),
        "all bars of the history": defined[(defined >= first) & (defined <= last)],
        "all bars": defined,
    }


def _count_close(rows: IntArray, others: IntArray, horizon: int) -> int:
    return int((_distances(rows, others) <= horizon).sum())


def _distances(rows: IntArray, others: IntArray) -> IntArray:
    """Distance in bars from each row to the nearest other row, before or after it."""
    ascending = np.sort(others)
    after = np.searchsorted(ascending, rows).clip(max=len(ascending) - 1)
    before = (after - 1).clip(min=0)
    nearest: IntArray = np.minimum(
        np.abs(ascending[after] - rows), np.abs(rows - ascending[before])
    )
    return nearest
