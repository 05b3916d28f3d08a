"""All markets of a registry, one line each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from percoin.errors import ModelNotFoundError, UnreadableArtifactError
from percoin.evaluation.blend import NETWORK
from percoin.evaluation.uncertainty import Estimate
from percoin.intervals import interval_text
from percoin.printable import printable
from percoin.registry.catalogue import version_ids
from percoin.registry.layout import MarketFolder
from percoin.registry.manifest import Manifest
from percoin.report.reading import SavedModel, read_model

_HEADINGS = ("market", "version", "model", "age", "data", "skill [95 %]", "verdict", "others")
_BROKEN = "broken"


@dataclass(frozen=True)
class Line:
    """One market.

    Attributes:
        model: What is served; without a manifest if that is broken or nothing is served.
        n_others: How many versions there are besides the served one.
    """

    model: SavedModel
    n_others: int

    @property
    def verdict(self) -> str:
        """The gate's word, or ``broken``."""
        manifest = self.model.manifest
        return _BROKEN if manifest is None else manifest.gate.verdict.value


def read_line(market: MarketFolder) -> Line:
    """Read what one market serves and check every file of it."""
    try:
        model = read_model(market)
    except ModelNotFoundError as error:
        model = SavedModel(market.symbol, market.timeframe, problem=error.found)
    try:
        n_versions = len(version_ids(market))
    except UnreadableArtifactError as error:
        return Line(replace(model, problem=model.problem or error.found), 0)
    return Line(model, n_versions - (model.manifest is not None and n_versions > 0))


def list_as_text(lines: Sequence[Line], now: datetime | None = None) -> str:
    """A table, and a line that counts."""
    rows = [_HEADINGS, *(_row(line, now or datetime.now(UTC)) for line in lines)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    problems = [
        printable(f"{line.model.name}: {line.model.problem}")
        for line in lines
        if line.model.problem
    ]
    verdicts = [line.verdict for line in lines]
    counts = ", ".join(f"{verdicts.count(name)} {name}" for name in dict.fromkeys(verdicts))
    n_markets = "1 market" if len(lines) == 1 else f"{len(lines)} markets"
    return "\n".join([*table, *problems, f"{n_markets}: {counts}" if lines else "no market"])


def _row(line: Line, now: datetime) -> tuple[str, ...]:
    manifest = line.model.manifest
    if manifest is None:
        return (line.model.name, "-", "-", "-", "-", "-", line.verdict, str(line.n_others))
    return (
        line.model.name,
        manifest.version_id,
        _model_text(manifest),
        age_text(manifest, now),
        f"{manifest.bars.first_open_time[:10]} to {manifest.bars.last_open_time[:10]}",
        skill_text(line.model),
        line.verdict,
        str(line.n_others),
    )


def list_as_json(lines: Sequence[Line]) -> list[dict[str, object]]:
    """The same for programs."""
    return [
        {
            "symbol": line.model.symbol,
            "tf": line.model.timeframe.value,
            **_manifest_as_json(line.model.manifest),
            "skill": skill_as_json(line.model),
            "n_others": line.n_others,
            "problem": line.model.problem or None,
        }
        for line in lines
    ]


def _manifest_as_json(manifest: Manifest | None) -> dict[str, object]:
    if manifest is None:
        names = (
            "version",
            "model_version",
            "network_weight",
            "weights",
            "created_at",
            "data",
            "verdict",
            "refit",
        )
        return dict.fromkeys((*names, "reasons"))
    bars = manifest.bars
    return {
        "version": manifest.version_id,
        "model_version": manifest.model_version,
        "network_weight": manifest.weights.get(NETWORK),
        "weights": dict(manifest.weights) or None,
        "created_at": manifest.created_at,
        "data": {"first": bars.first_open_time, "last": bars.last_open_time, "origin": bars.origin},
        "verdict": manifest.gate.verdict.value,
        "refit": manifest.refit_text,
        "reasons": list(manifest.gate.reasons),
    }


def _model_text(manifest: Manifest) -> str:
    kinds = (" blend" * bool(manifest.weights), " refit" * (manifest.refit is not None))
    return manifest.model_version + "".join(kinds)


def age_text(manifest: Manifest, now: datetime) -> str:
    """Time since the export, in the largest unit that fits twice."""
    hours = (now - datetime.fromisoformat(manifest.created_at)).total_seconds() / 3600
    return f"{hours / 24:.0f} d" if hours >= 48 else f"{max(hours, 0):.0f} h"


def skill_text(model: SavedModel) -> str:
    """Skill with its interval, or ``-`` if the model was never judged."""
    return interval_text(_skill(model), without="")


def skill_as_json(model: SavedModel) -> dict[str, float | None] | None:
    """Skill with the ends of its interval."""
    skill = _skill(model)
    return None if skill is None else skill.as_json()


def _skill(model: SavedModel) -> Estimate | None:
    return None if model.evaluation is None else model.evaluation.model.skill
