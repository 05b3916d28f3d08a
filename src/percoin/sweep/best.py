"""Serves the best of several settings of one market: accepted ones first, then by validation rows.

Each job serves what it exports, so without this step the settings that finish last are served.
Whether settings were accepted was decided on test rows. Nothing else of test rows is used: among
the accepted ones, and among the others, the skill on validation rows decides.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from percoin.bars.schema import is_simulated
from percoin.errors import PercoinError
from percoin.registry.catalogue import Version, read_versions
from percoin.registry.changes import promote
from percoin.registry.history import Action, read_history
from percoin.registry.layout import MarketFolder
from percoin.registry.manifest import StoredVerdict
from percoin.registry.publish import served_id
from percoin.sweep.results import JobResult, SweepResults, version_of
from percoin.types import Timeframe

# Name of the field in a job's result.
VALIDATION_SKILL = "validation_skill"
_WHY = "best on validation rows"


@dataclass(frozen=True)
class _Variant:
    """One combination of settings: its current version and its skill on validation rows."""

    name: str
    version: Version
    skill: float

    @property
    def is_accepted(self) -> bool:
        manifest = self.version.manifest
        return manifest is not None and manifest.gate.verdict is StoredVerdict.ACCEPTED

    @property
    def is_real(self) -> bool:
        manifest = self.version.manifest
        return manifest is not None and not is_simulated(manifest.bars.origin)


def serve_best(results: SweepResults, models_dir: Path) -> tuple[list[str], list[str]]:
    """Serve the best settings of each market for which the sweep trained several.

    Models of real bars rank before models of simulated bars, then accepted models before the
    others. A version that a user promoted or rolled back to stays served. An accepted version
    from before the sweep also stays served if the sweep has no accepted one.

    Args:
        results: Results of a finished sweep, its false discoveries withdrawn.
        models_dir: The registry that the jobs exported to.

    Returns:
        A line for each market whose served version has changed, and a line for each problem.
    """
    markets: dict[tuple[str, str], list[JobResult]] = defaultdict(list)
    for result in results.jobs:
        markets[result.job.symbol, result.job.tf].append(result)
    done, problems = [], []
    for (symbol, tf), jobs in markets.items():
        if len(jobs) < 2:
            continue
        market = MarketFolder(models_dir, symbol, Timeframe(tf))
        try:
            line = _serve_best(market, _variants(market, jobs), results.folder.name)
        except (PercoinError, OSError) as error:
            problems.append(f"the best settings of {symbol} {tf} could not be served: {error}")
        else:
            done += [line] if line else []
    return done, problems


def _variants(market: MarketFolder, jobs: Sequence[JobResult]) -> list[_Variant]:
    versions = {version.version_id: version for version in read_versions(market)}
    found = []
    for result in jobs:
        version = versions.get(version_of(result.record))
        skill = result.record.result.get(VALIDATION_SKILL)
        if version is None or not isinstance(skill, int | float):
            continue
        # Withdrawing an acceptance makes a new version that is not accepted.
        version = versions.get(version.withdrawn_by, version)
        found.append(_Variant(result.job.variant, version, float(skill)))
    return found


def _serve_best(market: MarketFolder, variants: Sequence[_Variant], sweep: str) -> str:
    served = served_id(market)
    if len(variants) < 2 or served is None or _was_chosen(market, served):
        return ""
    # A pattern built into simulated bars says nothing about a real market.
    best = max(variants, key=lambda each: (each.is_real, each.is_accepted, each.skill))
    is_ours = served in {variant.version.version_id for variant in variants}
    if served == best.version.version_id or not (is_ours or best.is_accepted):
        return ""
    why = f"{_WHY} of {len(variants)} settings (sweep {sweep})"
    promote(market, best.version.version_id, why, force=not best.is_accepted)
    return (
        f"{market.symbol} {market.timeframe} serves {best.name}: {_WHY} of {len(variants)} "
        f"settings (skill {best.skill:+.4f})"
    )


def _was_chosen(market: MarketFolder, version_id: str) -> bool:
    """Whether a user chose the version; a choice by this module does not count."""
    events = [event for event in read_history(market).events if version_id in event.versions]
    if not events or events[-1].action not in {Action.PROMOTE, Action.ROLLBACK}:
        return False
    return not events[-1].why.startswith(_WHY)
