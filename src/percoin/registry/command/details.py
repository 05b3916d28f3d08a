"""One version in full: its manifest, its history, and the other versions of its market."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from percoin.errors import InvalidArtifactError
from percoin.evaluation.blend import network_text, weights_text
from percoin.intervals import Interval
from percoin.printable import printable
from percoin.registry.catalogue import Version, find_version, read_versions
from percoin.registry.command.overview import age_text, skill_as_json, skill_text
from percoin.registry.field_checks import time_text
from percoin.registry.history import Event, VersionHistory, read_history
from percoin.registry.layout import MarketFolder
from percoin.registry.manifest import SPLIT_NAMES, Manifest
from percoin.registry.publish import served_folder, served_id, version_folder
from percoin.report.reading import SavedModel, read_saved

_MARGIN = 15
# Of a line: enough for the names of 400 markets; the text may come from anybody.
_MOST_CHARS = 5_000


@dataclass(frozen=True)
class Details:
    """All that is known about one version.

    Attributes:
        version_id: Its name; empty for a folder that stands in the link's place.
        model: The version itself.
        served: Name of the served version, if the link names one.
        versions: All of the market, oldest first.
        history: Of the market.
    """

    version_id: str
    model: SavedModel
    served: str | None
    versions: tuple[Version, ...]
    history: VersionHistory


def read_details(market: MarketFolder, start: str | None = None) -> Details:
    """Read one version and check every file of it.

    Args:
        market: Which one.
        start: The beginning of the version's name; None is the served one.

    Raises:
        ModelNotFoundError: No such version, or nothing is served.
    """
    served = served_id(market)
    version_id = find_version(market, start) if start is not None else served or ""
    try:
        # Without a name: what is served, be it a plain folder.
        folder = version_folder(market, version_id) if start else served_folder(market)
        model = read_saved(market, folder)
    except InvalidArtifactError as error:
        model = SavedModel(market.symbol, market.timeframe, problem=error.found)
    return Details(version_id, model, served, tuple(read_versions(market)), read_history(market))


def show_as_text(details: Details, now: datetime | None = None) -> str:
    """Everything, a line a fact."""
    model = details.model
    place = "served" if details.version_id == (details.served or "") else "not served"
    lines = [" ".join(filter(None, (model.name, details.version_id, f"({place})")))]
    if model.problem:
        lines.append(_line("problem", model.problem))
    if model.manifest is not None:
        lines += _describe(model, model.manifest, now or datetime.now(UTC))
    lines.append("versions, oldest first")
    lines += [f"  {_version_line(version, details.served)}" for version in details.versions]
    lines.append("history, oldest first")
    lines += [f"  {_event_line(event)}" for event in details.history.events]
    if details.history.damaged_lines:
        damaged = ", ".join(map(str, details.history.damaged_lines))
        lines.append(f"  line {damaged} cannot be read")
    return "\n".join(lines)


def _describe(model: SavedModel, manifest: Manifest, now: datetime) -> Iterator[str]:
    bars, scores = manifest.bars, manifest.test_metrics
    verdict, *further = (manifest.gate.verdict.value, *manifest.gate.reasons)
    yield _line("exported", f"{manifest.created_at}, {age_text(manifest, now)} ago")
    yield _line("verdict", ": ".join(filter(None, (verdict, *further[:1]))))
    yield from (_line("", reason) for reason in further[1:])
    if manifest.revised_from is not None:
        yield _line("revised from", manifest.revised_from)
    if manifest.refit_text is not None:
        yield _line("served", manifest.refit_text)
    yield _line("skill", f"{skill_text(model)} over the train prior, log-loss")
    yield _line(
        "test scores",
        f"accuracy {scores.accuracy:.4f}, weighted precision {scores.precision:.4f}, "
        f"recall {scores.recall:.4f}, F1 {scores.f1:.4f}",
    )
    yield _line("bars", f"{bars.n_bars:,} of {bars.origin}")
    yield _line("", f"open {bars.first_open_time} to {bars.last_open_time}, sha256 {bars.sha256}")
    for name in SPLIT_NAMES:
        span = bars.splits[name]
        yield _line(f"  {name}", f"open {span.first} to {span.last}, {span.rows:,} rows")
    shape = _pairs(manifest.model.kwargs)
    yield _line("model", ", ".join(filter(None, (manifest.model.kind, shape))))
    own = {} if manifest.model.source is None else {"network": manifest.model.source}
    for name, source in {**own, **(manifest.sources or {})}.items():
        yield _line("own code", f"{name}: {source.name}, sha256 {source.sha256}")
    yield from _describe_pool(manifest)
    yield from _describe_blend(manifest, model.judging.network_adds)
    yield _line("features", f"{manifest.features.feature_set}, lookback {manifest.lookback}")
    yield _line("labels", _pairs(manifest.label_rule))
    yield _line("calibration", manifest.calibration.method)
    yield _line("seed", str(manifest.seed))
    yield _line("code", manifest.code_version)
    yield _line("libraries", _pairs(manifest.libraries))
    yield _line("machine", _pairs(manifest.machine) if manifest.machine else "not recorded")
    for name, digest in manifest.files.items():
        yield _line("file", f"{name}  sha256 {digest}")


def _describe_pool(manifest: Manifest) -> Iterator[str]:
    pool = manifest.pool
    if pool is None:
        return
    place = "among" if manifest.symbol in pool.seen else "not among"
    markets = f"{len(pool.seen)} markets, {manifest.symbol} {place} them"
    yield _line("pool", f"{markets}: {', '.join(pool.seen)}")
    yield _line("", f"validation from {pool.validation_time}, test from {pool.test_time}")
    if pool.started_from is not None:
        kept = "trained on" if pool.improved else "kept as they were"
        yield _line("", f"started from the weights of {pool.started_from}, {kept}")


def _describe_blend(manifest: Manifest, network_adds: Interval | None) -> Iterator[str]:
    if not manifest.weights:
        return
    yield _line("blend", weights_text(manifest.weights, digits=4))
    for name, skills in manifest.part_skills.items():
        yield _line(f"  {name}", f"skill {skills.validation} on validation, {skills.test} on test")
    if network_adds is not None:
        yield _line("", f"on test rows {network_text(network_adds)}")


def _line(title: str, text: str) -> str:
    return printable(f"{title:<{_MARGIN - 1}} {text}", _MOST_CHARS)


def _pairs(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _version_line(version: Version, served: str | None) -> str:
    mark = "*" if version.version_id == served else " "
    # The first reason decides; show version=ID has them all.
    objection = version.objection.partition("; ")[0]
    return printable(f"{mark} {version.version_id}  {objection or 'accepted'}", _MOST_CHARS)


def _event_line(event: Event) -> str:
    named = " ".join(event.versions)
    if event.before == event.after:
        course = f"{event.after or 'nothing'} stays served"
    else:
        course = f"served {event.after or 'nothing'}, before {event.before or 'nothing'}"
    said = (f"{event.time} {event.action.value} {named}".rstrip(), course, event.why)
    return printable("; ".join(filter(None, said)), _MOST_CHARS)


def show_as_json(details: Details) -> dict[str, object]:
    """The same for programs; the manifest as it is in ``meta.json``."""
    model = details.model
    return {
        "symbol": model.symbol,
        "tf": model.timeframe.value,
        "version": details.version_id or None,
        "served": details.served,
        "problem": model.problem or None,
        "skill": skill_as_json(model),
        "manifest": model.manifest,
        "versions": [_version_as_json(version) for version in details.versions],
        "history": events_as_json(details.history.events),
        "damaged_history_lines": details.history.damaged_lines,
    }


def _version_as_json(version: Version) -> dict[str, object]:
    manifest = version.manifest
    return {
        "version": version.version_id,
        "created_at": time_text(version.created_at),
        "verdict": None if manifest is None else manifest.gate.verdict.value,
        "withdrawn_by": version.withdrawn_by or None,
        "revised_from": None if manifest is None else manifest.revised_from,
        "objection": version.objection or None,
    }


def events_as_json(events: Sequence[Event]) -> list[dict[str, object]]:
    """Events with all their keys."""
    return [
        {
            "time": event.time,
            "action": event.action.value,
            "versions": event.versions,
            "why": event.why,
            "before": event.before,
            "after": event.after,
        }
        for event in events
    ]
