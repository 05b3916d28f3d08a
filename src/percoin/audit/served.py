"""Check a model in the registry: does its manifest agree with its own bars?"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import pandas as pd

from percoin.audit.findings import Finding, FindingStatus
from percoin.audit.pooled import (
    LoadBars,
    check_pooled_scaling,
    rebuild_pooled,
    with_compared,
)
from percoin.audit.published import audit_scores, is_known_to_inform
from percoin.audit.rows import check_dataset_rows, check_scaling, same_scaling
from percoin.bars.schema import Bars
from percoin.config.dates import moment_ms
from percoin.dataset import (
    MarketDataset,
    PreparedMarket,
    build_dataset,
    build_folds,
    tested_from,
    with_newest_test_rows,
)
from percoin.errors import InvalidArtifactError, ModelNotFoundError
from percoin.features.feature_set import compute_features
from percoin.features.scaling import Scaling
from percoin.registry.artifact import load_artifact
from percoin.registry.contents import read_metrics
from percoin.registry.field_checks import open_time_text
from percoin.registry.layout import MarketFolder
from percoin.registry.manifest import SPLIT_NAMES, Manifest
from percoin.training.recipes.pool import UNUSABLE, spec_of
from percoin.types import FloatArray

_PREFIX = "model: "
_PARTS = {"train": "train", "val": "validation", "test": "test"}


def audit_served(models_dir: Path, bars: Bars, load: LoadBars | None = None) -> list[Finding]:
    """Check the served model of the market of ``bars``.

    Args:
        models_dir: The registry.
        bars: All stored bars of the market; the model may know only some of them.
        load: Loads bars by symbol, for a model that was trained on many markets.

    Returns:
        The findings; empty if no model is served.
    """
    try:
        artifact = load_artifact(models_dir, bars.symbol, bars.timeframe)
        manifest = artifact.manifest
        market = MarketFolder(models_dir, bars.symbol, bars.timeframe)
        informs = is_known_to_inform(read_metrics(market, artifact.folder, manifest))
    except ModelNotFoundError:
        return []
    except InvalidArtifactError as error:
        return [Finding(_PREFIX + "can be loaded", FindingStatus.CANNOT_TELL, str(error))]
    n_rows = manifest.dataset_info.test_samples
    findings = [
        audit_scores(asdict(manifest.test_metrics), n_rows, informs),
        check_spans(manifest),
        *check_manifest(manifest, bars, load),
    ]
    return [
        Finding(_PREFIX + finding.check, finding.status, finding.evidence) for finding in findings
    ]


def check_spans(manifest: Manifest) -> Finding:
    """Check from the dates of the splits that a label fits between two parts."""
    name = "dates leave room for labels"
    horizon = manifest.label_rule.get("horizon")
    if not isinstance(horizon, int):
        return Finding(name, FindingStatus.CANNOT_TELL, "the manifest names no label horizon")
    spans = [manifest.bars.splits[split] for split in SPLIT_NAMES]
    milliseconds = manifest.timeframe.milliseconds
    rooms = [
        round((_moment(later.first) - _moment(earlier.last)).total_seconds() * 1000 / milliseconds)
        - 1
        for earlier, later in pairwise(spans)
    ]
    evidence = (
        f"{' and '.join(map(str, rooms))} bars lie between the parts, labels look {horizon} ahead"
    )
    return Finding(
        name, FindingStatus.OK if min(rooms) >= horizon else FindingStatus.LEAK, evidence
    )


def check_manifest(manifest: Manifest, bars: Bars, load: LoadBars | None = None) -> list[Finding]:
    """Build the dataset again from the same bars and compare scaler and splits."""
    findings, rebuilt = _rebuild_checked(manifest, bars, load)
    if rebuilt is None:
        return findings
    dataset = rebuilt.dataset
    features = compute_features(dataset.bars, dataset.feature_set)
    return [
        *findings,
        _check_scaling(manifest, dataset, features, load),
        _check_same_split(manifest, rebuilt),
        *check_dataset_rows(dataset, features)[1:],
        *_check_refit(manifest, dataset),
    ]


def check_served_scaling(models_dir: Path, bars: Bars, load: LoadBars | None = None) -> Finding:
    """Check that serving uses the scaler that training fitted on its own bars.

    Args:
        models_dir: The registry.
        bars: All stored bars of the market.
        load: As in ``audit_served``.

    Raises:
        RegistryError: There is no model, or it cannot be trusted.
    """
    manifest = load_artifact(models_dir, bars.symbol, bars.timeframe).manifest
    findings, rebuilt = _rebuild_checked(manifest, bars, load)
    if rebuilt is None:
        finding = findings[-1]
    else:
        dataset = rebuilt.dataset
        features = compute_features(dataset.bars, dataset.feature_set)
        finding = _check_scaling(manifest, dataset, features, load)
    return Finding(_PREFIX + finding.check, finding.status, finding.evidence)


def _check_scaling(
    manifest: Manifest, dataset: MarketDataset, features: FloatArray, load: LoadBars | None
) -> Finding:
    if manifest.pool is not None:
        return check_pooled_scaling(manifest, manifest.pool, load)
    return check_scaling(manifest.judged_scaling.fitted(), features, dataset.split)


def _check_refit(manifest: Manifest, dataset: MarketDataset) -> list[Finding]:
    """Check the rows of a refit and its scaling; no row of it counts as held out.

    The figures are of the twin, which the other findings are about.
    """
    refit, name = manifest.refit, "refit knows all rows"
    if refit is None:
        return []
    market = PreparedMarket.again(dataset)
    rows = market.rows
    first, last = (open_time_text(int(market.bars.open_time[rows[end]])) for end in (0, -1))
    given = (refit.rows, refit.first_open_time, refit.last_open_time)
    if given != (len(rows), first, last):
        evidence = "the manifest gives {} rows from {} to {}, ".format(*given)
        evidence += f"the settings give {len(rows)} from {first} to {last}"
        return [Finding(name, FindingStatus.LEAK, evidence)]
    if manifest.pool is None:
        scaling = Scaling.fit(market.features[rows])
        if not same_scaling(manifest.scaling.fitted(), scaling):
            evidence = "its scaler was not fitted on the rows that it names"
            return [Finding(name, FindingStatus.LEAK, evidence)]
    evidence = (
        f"served after a fit on {len(rows)} rows until {last}: none of them is evidence for it; "
        "the figures are of its twin"
    )
    return [Finding(name, FindingStatus.OK, evidence)]


@dataclass(frozen=True)
class _Rebuilt:
    """The dataset that a model was trained on, and how many test rows a search took from it."""

    dataset: MarketDataset
    n_seen: int


def _rebuild_checked(
    manifest: Manifest, bars: Bars, load: LoadBars | None
) -> tuple[list[Finding], _Rebuilt | None]:
    """Return the findings, and the dataset that the model was trained on or None."""
    same_bars = bars_of(manifest, bars)
    if same_bars.sha256() != manifest.bars.sha256:
        evidence = (
            f"the {manifest.bars.n_bars} bars from {manifest.bars.first_open_time} to "
            f"{manifest.bars.last_open_time} have changed or are missing "
            f"({len(same_bars)} found): scaler and splits cannot be computed again"
        )
        return [Finding("bars are those it knew", FindingStatus.CANNOT_TELL, evidence)], None
    evidence = f"sha256 of {len(same_bars)} bars agrees"
    known = Finding("bars are those it knew", FindingStatus.OK, evidence)
    try:
        folds = _folds_by_settings(manifest, with_compared(manifest, same_bars, load))
        judged = _as_judged(manifest, folds)
    except UNUSABLE as error:
        evidence = f"the dataset cannot be built again from the manifest: {error!r}"
        return [known, Finding("dataset can be rebuilt", FindingStatus.CANNOT_TELL, evidence)], None
    n_seen = len(folds[0].rows("test")) - len(judged[0].rows("test"))
    return [known], _Rebuilt(judged[-1], n_seen)


def rebuild(manifest: Manifest, bars: Bars) -> MarketDataset:
    """Build the dataset that a model was trained on; for a walk-forward, its newest fold.

    For a pool it is the part of this market. After a search for the settings it is without the
    test rows that the search saw.

    Args:
        manifest: Manifest of the model.
        bars: Exactly the bars that the manifest names.

    Raises:
        Exception: One of ``UNUSABLE``. The manifest's config lacks a setting (for example, it
            is from another version of percoin), or a setting has a wrong range or type.
    """
    return _as_judged(manifest, _folds_by_settings(manifest, bars))[-1]


def _folds_by_settings(manifest: Manifest, bars: Bars) -> list[MarketDataset]:
    """As ``rebuild``, all folds, and without regard to a search."""
    if manifest.pool is not None:
        return [rebuild_pooled(manifest, manifest.pool, bars)]
    spec, config = spec_of(manifest), manifest.config
    if config.get("evaluation") == "walk_forward":
        n_folds = int(config["folds"])  # type: ignore[call-overload]
        if n_folds > len(bars):
            raise ValueError(f"{n_folds} folds of {len(bars)} bars")
        return build_folds(bars, spec, n_folds)
    return [build_dataset(bars, spec)]


def _as_judged(manifest: Manifest, folds: list[MarketDataset]) -> list[MarketDataset]:
    """The folds with the test rows that the model was judged on; a pool has no search."""
    if manifest.pool is not None:
        return folds
    if (test_from := manifest.config.get("test_from")) is not None:
        return tested_from(folds, moment_ms("test_from", str(test_from)))
    return with_newest_test_rows(folds, manifest.dataset_info.test_samples)


def bars_of(manifest: Manifest, bars: Bars) -> Bars:
    """Return the part of ``bars`` within the time span that the model knew."""
    index = bars.frame.index
    first = int(index.searchsorted(pd.Timestamp(manifest.bars.first_open_time)))
    last = int(index.searchsorted(pd.Timestamp(manifest.bars.last_open_time), side="right"))
    return bars.slice(first, last)


def _check_same_split(manifest: Manifest, rebuilt: _Rebuilt) -> Finding:
    name, dataset = "splits are as described", rebuilt.dataset
    for split, part in _PARTS.items():
        rows = dataset.rows(part)  # type: ignore[arg-type]
        first, last = (open_time_text(int(dataset.bars.open_time[rows[end]])) for end in (0, -1))
        span = manifest.bars.splits[split]
        if (span.first, span.last, span.rows) != (first, last, len(rows)):
            evidence = (
                f"the manifest gives {split} {span.rows} rows from {span.first} to {span.last}, "
                "the "
                f"settings give {len(rows)} from {first} to {last}"
            )
            return Finding(name, FindingStatus.LEAK, evidence)
    evidence = "rows and dates of all three parts agree with the settings"
    if rebuilt.n_seen:
        evidence += f", without the oldest {rebuilt.n_seen} test rows, as after a search for them"
    return Finding(name, FindingStatus.OK, evidence)


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)
