"""What the track record knows of a model since it is served, and how its features have moved."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from percoin.bars.schema import Bars
from percoin.bars.store import BarStore
from percoin.errors import DataError, PercoinError
from percoin.features.feature_set import FEATURE_NAMES, compute_features
from percoin.monitoring.record import RECORD_FILE, TrackRecord, kind_of_bars, sqlite_url
from percoin.monitoring.scoreboard import Standing, make_scoreboard
from percoin.registry.manifest import Manifest
from percoin.retrain.decisions import Absent, Drift, LiveSkill
from percoin.types import FloatArray

_N_BINS = 10
# Fewer rows leave bins empty by chance, which looks like drift.
_LEAST_ROWS = 500
_EMPTY_SHARE = 1e-4


@dataclass(frozen=True)
class Watched:
    """What is known of a model since it is served.

    Attributes:
        drift: Of its features.
        live: Of its predictions.
    """

    drift: Drift | Absent
    live: LiveSkill | Absent


@dataclass(frozen=True)
class Watch:
    """Where to look.

    Attributes:
        data_dir: Holds the stored bars, and the track record unless ``record_url`` says where.
        record_url: Of the track record; None is the file in ``data_dir``.
    """

    data_dir: Path
    record_url: str | None = None

    def __call__(self, manifest: Manifest) -> Watched:
        """Look at one served model; nothing is written."""
        return Watched(self._drift(manifest), self._live(manifest))

    def _drift(self, manifest: Manifest) -> Drift | Absent:
        try:
            bars = BarStore(self.data_dir / "bars").read(manifest.symbol, manifest.timeframe)
        except DataError as error:
            return Absent(error.found)
        return measure_drift(manifest, bars)

    def _live(self, manifest: Manifest) -> LiveSkill | Absent:
        path = self.data_dir / RECORD_FILE
        if self.record_url is None and not path.is_file():
            return Absent(f"no track record in {path}")
        try:
            record = TrackRecord(self.record_url or sqlite_url(path))
            try:
                found = make_scoreboard(record, [manifest.symbol], manifest.timeframe)
            finally:
                record.close()
        except PercoinError as error:
            return Absent(str(error))
        return live_skill(manifest, found)


def live_skill(manifest: Manifest, standings: list[Standing]) -> LiveSkill | Absent:
    """The live skill of a version, from the standings of its market.

    Its labels overlap, so that as many predictions as a label reaches count as one.
    """
    bars = kind_of_bars(manifest.bars.origin)
    own = [s for s in standings if s.version_id == manifest.version_id and s.bars == bars]
    if not own:
        return Absent("no live prediction of this version is recorded")
    standing = max(own, key=lambda standing: standing.n_resolved)
    skill = standing.skill
    if skill is None:
        return Absent(standing.too_few or f"{standing.n_resolved} resolved predictions")
    rule = standing.label_rule or {}
    horizon = rule.get("horizon")
    n_independent = standing.n_resolved / (horizon if isinstance(horizon, int) else 1)
    return LiveSkill(standing.n_resolved, n_independent, skill.value, skill.lower, skill.upper)


def measure_drift(manifest: Manifest, bars: Bars) -> Drift | Absent:
    """The feature that lies furthest from where the train rows had it.

    Population stability index over the deciles of the train rows: 0 for the same
    distribution, above .25 by the usual rule of thumb for another one.

    Args:
        manifest: Of the model.
        bars: Of its market; the train rows are among them, as are those that came since.
    """
    features = compute_features(bars, manifest.features.definition)
    usable = np.isfinite(features).all(axis=1)
    train = manifest.bars.splits["train"]
    times = bars.open_time
    learnt = features[usable & (times >= _ms(train.first)) & (times <= _ms(train.last))]
    since = features[usable & (times > _ms(manifest.bars.last_open_time))]
    if len(learnt) < train.rows:
        return Absent("the bars that it learnt from are stored no more")
    if len(since) < _LEAST_ROWS:
        return Absent(f"{len(since)} stored bars since, {_LEAST_ROWS} are needed")
    indices = [_stability_index(learnt[:, i], since[:, i]) for i in range(len(FEATURE_NAMES))]
    worst = int(np.argmax(indices))
    return Drift(FEATURE_NAMES[worst], indices[worst])


def _stability_index(learnt: FloatArray, since: FloatArray) -> float:
    edges = np.unique(np.quantile(learnt, np.arange(1, _N_BINS) / _N_BINS))
    shares = [
        np.bincount(np.searchsorted(edges, rows), minlength=len(edges) + 1) / len(rows)
        for rows in (learnt, since)
    ]
    before, after = (np.maximum(share, _EMPTY_SHARE) for share in shares)
    return float(((after - before) * np.log(after / before)).sum())


def _ms(text: str) -> int:
    return int(np.datetime64(text.removesuffix("Z"), "ms").astype(np.int64))
