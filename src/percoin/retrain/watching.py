"""Live skill of a served model, from the track record, and the drift of its features."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from percoin.bars.store import BarStore
from percoin.errors import MarketError, PercoinError
from percoin.evaluation.block_length import MIN_BLOCKS
from percoin.monitoring.drift import measure_drift
from percoin.monitoring.record import RECORD_FILE, TrackRecord, kind_of_bars, sqlite_url
from percoin.monitoring.scoreboard import Standing, day_rows, make_scoreboard
from percoin.registry.judged import train_rows
from percoin.registry.manifest import Manifest
from percoin.retrain.decisions import Absent, FurthestDrift, LiveSkill
from percoin.signals.market import SourcedBars

_ASKED_AGAIN_SECS = 60.0


@dataclass(frozen=True)
class Watched:
    """Measurements of a model since it is served.

    Attributes:
        drift: Drift of its features.
        live: Skill of its predictions.
    """

    drift: FurthestDrift | Absent
    live: LiveSkill | Absent


@dataclass(frozen=True)
class Watch:
    """Measures drift and live skill of served models.

    Attributes:
        models_dir: The registry.
        data_dir: Holds the stored bars, and the track record if ``record_url`` is None.
        record_url: Database of the track record; None means the file in ``data_dir``.

    Raises:
        ConfigError: ``record_url`` is invalid.
    """

    models_dir: Path
    data_dir: Path
    record_url: str | None = None

    # When (monotonic clock) and why the record could not be used. Without this, each of a hundred
    # markets would wait for an unreachable database.
    _away: list[tuple[float, str]] = field(default_factory=list, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._record()

    def __call__(self, manifest: Manifest) -> Watched:
        """Measure one served model, without writing anything."""
        return Watched(self._drift(manifest), self._live(manifest))

    def _record(self) -> TrackRecord:
        """Return the record, without opening it."""
        return TrackRecord(self.record_url or sqlite_url(self.data_dir / RECORD_FILE))

    def _drift(self, manifest: Manifest) -> FurthestDrift | Absent:
        try:
            store, references = BarStore(self.data_dir / "bars"), manifest.references
            stored = store.read(manifest.symbol, manifest.timeframe)
            bars = SourcedBars(stored, store).beside(references)
            learnt = train_rows(self.models_dir, manifest)
        except MarketError as error:
            return Absent(error.found)
        drift = measure_drift(manifest, None if learnt is None else learnt.feature_bins, bars)
        if drift.worst is None:
            return Absent(drift.unknown)
        shift = drift.shifts[drift.worst]
        return FurthestDrift(drift.worst, shift.psi, shift.ratio)

    def _live(self, manifest: Manifest) -> LiveSkill | Absent:
        if self._away and time.monotonic() - self._away[-1][0] < _ASKED_AGAIN_SECS:
            return Absent(self._away[-1][1])
        try:
            record = self._record()
            if not record.exists():
                # Opening it would create it, and a check must write nothing.
                return Absent(f"no track record in {record.place}")
            try:
                found = make_scoreboard(record, [manifest.symbol], manifest.timeframe)
            finally:
                record.close()
        except PercoinError as error:
            self._away[:] = [(time.monotonic(), str(error))]
            return Absent(str(error))
        return live_skill(manifest, found)


def live_skill(manifest: Manifest, standings: list[Standing]) -> LiveSkill | Absent:
    """Return the live skill of a version, from the scoreboard rows of its market.

    Labels overlap, so as many predictions as the label horizon has bars count as one.
    """
    bars = kind_of_bars(manifest.bars.origin)
    own = [s for s in standings if s.version_id == manifest.version_id and s.bars == bars]
    if not own:
        return Absent("no live prediction of this version is recorded")
    standing = max(own, key=lambda standing: standing.n_resolved)
    skill = standing.skill
    if skill is None:
        return Absent(
            standing.too_few or f"{standing.n_resolved} resolved predictions without probabilities"
        )
    n_days = standing.n_resolved / day_rows(standing.tf)
    if n_days < MIN_BLOCKS:
        # Blocks shorter than a day give too narrow intervals to demote a model.
        return Absent(f"{n_days:.1f} days of predictions; {MIN_BLOCKS} are needed")
    rule = standing.label_rule or {}
    horizon = rule.get("horizon")
    n_independent = standing.n_resolved / (horizon if isinstance(horizon, int) else 1)
    return LiveSkill(
        skill.value, skill.lower, skill.upper, standing.n_resolved, n_independent, n_days
    )
