"""Changes that a person asks for: promote, roll back, prune."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from percoin.commands import train_command
from percoin.errors import InvalidArtifactError, ModelNotFoundError, VersionRefusedError
from percoin.registry import publish
from percoin.registry.artifact import load_version
from percoin.registry.catalogue import (
    Version,
    objection_beside,
    read_versions,
    served_version,
    version_ids,
)
from percoin.registry.history import Action, Event, read_history
from percoin.registry.layout import MarketFolder
from percoin.registry.manifest import Manifest


def promote(market: MarketFolder, version_id: str, why: str, force: bool = False) -> Event:
    """Serve the version ``version_id`` instead of the current one.

    Args:
        market: Which one.
        version_id: One of its versions.
        why: For the history.
        force: Serve it although the gate did not accept it.

    Raises:
        ModelNotFoundError: The market has no versions.
        InvalidArtifactError: The version is missing or broken; ``force`` does not help.
        VersionRefusedError: It is served already, or not accepted.
        RegistryWriteError: The models folder refuses it.
    """
    _require_versions(market)

    def decide() -> publish.Change:
        load_version(market, version_id)
        version = next(v for v in read_versions(market) if v.version_id == version_id)
        if publish.served_id(market) == version_id:
            raise _refused(market, f"{version_id} is served already", "choose another version")
        objection = objection_beside(version, _served_manifest(market))
        if objection and not force:
            raise _refused(market, f"{version_id}: {objection}", "force=true serves it anyway")
        return publish.Change(Action.PROMOTE, (version_id,), why, version_id)

    return publish.change_served(market, decide)


def rollback(market: MarketFolder, why: str, force: bool = False) -> Event:
    """Serve again what was served before the current version.

    That is what the history says, then older versions from the newest on; the first of
    them that is whole and accepted is taken.

    Args:
        market: Which one.
        why: For the history.
        force: Also take a version that the gate did not accept.

    Raises:
        ModelNotFoundError: The market has no versions.
        VersionRefusedError: No earlier version may be served.
        RegistryWriteError: The models folder refuses it.
    """
    _require_versions(market)

    def decide() -> publish.Change:
        objections = []
        for version in _earlier_versions(market):
            objection = _rollback_objection(market, version, force)
            if not objection:
                return publish.Change(
                    Action.ROLLBACK, (version.version_id,), why, version.version_id
                )
            objections.append(f"{version.version_id}: {objection}")
        found = f"no earlier version may be served ({'; '.join(objections) or 'there is none'})"
        is_there = any(version.manifest is not None for version in _earlier_versions(market))
        action = "train a new one" + (", or add force=true" if is_there and not force else "")
        raise _refused(market, found, action)

    return publish.change_served(market, decide)


def rollback_target(market: MarketFolder) -> str | None:
    """The version that a rollback would serve now, without ``force``; None if none."""
    candidates = _earlier_versions(market)
    found = (v.version_id for v in candidates if not _rollback_objection(market, v, force=False))
    return next(found, None)


def _earlier_versions(market: MarketFolder) -> Iterator[Version]:
    served = publish.served_id(market)
    versions = {version.version_id: version for version in read_versions(market)}
    older = [name for name in reversed(versions) if served is None or name < served]
    trail = read_history(market).served_before(served)
    for name in dict.fromkeys([*trail, *older]):
        if name in versions and name != served:
            yield versions[name]


def _rollback_objection(market: MarketFolder, version: Version, force: bool) -> str:
    objection = objection_beside(version, _served_manifest(market))
    if version.manifest is None or (objection and not force):
        return objection
    try:
        load_version(market, version.version_id)
    except InvalidArtifactError as error:
        return error.found
    return ""


def _served_manifest(market: MarketFolder) -> Manifest | None:
    served = served_version(market)
    return None if served is None else served.manifest


@dataclass(frozen=True)
class Pruning:
    """Which versions a market keeps, beside those that are never removed.

    Attributes:
        keep: How many of the newest.
        older_than_days: Only versions exported longer ago are removed; None for all.
    """

    keep: int
    older_than_days: float | None = None


def prunable(market: MarketFolder, rule: Pruning, now: datetime | None = None) -> tuple[str, ...]:
    """Which versions ``rule`` would remove, oldest first.

    It never names the served version, the one that a rollback would serve, or one that
    withdrew the acceptance of a version that stays.

    Args:
        market: Which one.
        rule: What to keep.
        now: The current time; None asks the clock.
    """
    versions = read_versions(market)
    served = publish.served_id(market)
    needed = {served, rollback_target(market)} if served else set(version_ids(market))
    moment = now or datetime.now(UTC)
    # Compared in days: so long ago may be beyond any calendar, and then nothing is old enough.
    least_age = rule.older_than_days or 0.0
    newest = {version.version_id for version in versions[max(0, len(versions) - rule.keep) :]}
    gone = {
        version.version_id
        for version in versions
        if version.version_id not in needed | newest
        and (moment - version.created_at) / timedelta(days=1) >= least_age
    }
    gone -= {v.withdrawn_by for v in versions if v.version_id not in gone}
    return tuple(sorted(gone))


def prune(market: MarketFolder, rule: Pruning, why: str) -> tuple[str, ...]:
    """Remove old versions for good, each whole or not at all.

    Args:
        market: Which one.
        rule: What to keep.
        why: For the history.

    Returns:
        The versions that were removed.

    Raises:
        ModelNotFoundError: The market has no versions.
        RegistryWriteError: The models folder refuses it.
    """
    _require_versions(market)
    return publish.remove_versions(
        market, lambda: publish.Change(Action.PRUNE, prunable(market, rule), why)
    )


def _require_versions(market: MarketFolder) -> None:
    # Taking the lock would make the folders of a market that does not exist.
    if not version_ids(market):
        action = f"train one: {train_command(market.symbol, market.timeframe, market.root)}"
        found = f"no versions in {market.root}"
        raise ModelNotFoundError(market.symbol, market.timeframe, found, action)


def _refused(market: MarketFolder, found: str, action: str) -> VersionRefusedError:
    return VersionRefusedError(market.symbol, market.timeframe, found, action)
