"""A verdict revised after the export: the acceptance of a model is withdrawn."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from percoin.errors import InvalidArtifactError, VersionRefusedError
from percoin.registry import publish
from percoin.registry.artifact import Exported, load_version
from percoin.registry.catalogue import objection_beside, read_versions
from percoin.registry.contents import read_files
from percoin.registry.history import Action, read_history
from percoin.registry.layout import MANIFEST_FILE, MarketFolder
from percoin.registry.manifest import Gate, Manifest, StoredVerdict
from percoin.types import Timeframe


class _AlreadyWithdrawnError(Exception):
    """Another process has written the revised version meanwhile."""


@dataclass(frozen=True)
class _Withdrawal:
    """The reason, and whether an earlier version may be served instead."""

    reason: str
    but: str
    falls_back: bool = True


def withdraw_acceptance(
    root: Path, symbol: str, timeframe: Timeframe, version_id: str, reason: str
) -> Exported:
    """Give an accepted version the verdict "rejected", as a new version with the same files.

    If the accepted version is served, what was served before it is served again, also if it was
    promoted with force, else the newest earlier accepted one. If there is none, the link leads to
    the revised one. The accepted version stays on disk, but is not served again without force. A
    second call finishes what a killed call left undone; a promotion since then stands.

    Args:
        root: The models folder.
        symbol: Market.
        timeframe: Bar length.
        version_id: The accepted version.
        reason: Why it is not accepted any more, a phrase for people.

    Returns:
        The revised version, and whether it is the one that is shown.

    Raises:
        InvalidArtifactError: There is no such version, or it is broken.
        VersionRefusedError: It was not accepted.
        RegistryWriteError: The models folder refuses it; nothing has changed.
    """
    market = MarketFolder(root, symbol, timeframe)
    return _withdraw(market, version_id, _Withdrawal(reason, "judged alone it was accepted"))


def demote(root: Path, symbol: str, timeframe: Timeframe, version_id: str, reason: str) -> Exported:
    """As ``withdraw_acceptance``, but no earlier version takes its place.

    For a model whose skill did not last: an older one learnt from still older bars and
    deserves no more trust. If the version is served, the link leads to its revised one, and
    the next sources of the chain answer. Promoting the version again undoes it.

    Args:
        root: The models folder.
        symbol: Market.
        timeframe: Bar length.
        version_id: The accepted version.
        reason: Why it is not accepted any more, a phrase for people.

    Raises:
        RegistryError: As ``withdraw_acceptance``.
    """
    market = MarketFolder(root, symbol, timeframe)
    withdrawal = _Withdrawal(reason, "on its test rows it was accepted", falls_back=False)
    return _withdraw(market, version_id, withdrawal)


def _withdraw(market: MarketFolder, version_id: str, withdrawal: _Withdrawal) -> Exported:
    accepted = load_version(market, version_id).manifest
    if accepted.gate.verdict is not StoredVerdict.ACCEPTED:
        found = f"{version_id} has no acceptance to withdraw: {accepted.gate.verdict.value}"
        raise VersionRefusedError(
            market.symbol, market.timeframe, found, "name an accepted version"
        )
    revised_id = _revised_id(market, version_id)
    was_revised = bool(revised_id)
    if not was_revised or not _is_sound(market, revised_id):
        try:
            revised_id = _publish_revised(market, accepted, withdrawal)
        except _AlreadyWithdrawnError:
            revised_id = _revised_id(market, version_id)
    is_undone = publish.served_id(market) == version_id
    if is_undone and not (was_revised and was_promoted_since(market, version_id)):
        publish.change_served(market, lambda: _change(market, accepted, revised_id, withdrawal))
    is_served = publish.served_id(market) == revised_id
    return Exported(publish.version_folder(market, revised_id), is_served)


def was_promoted_since(market: MarketFolder, version_id: str) -> bool:
    """Whether somebody chose the version after its acceptance had been withdrawn."""
    actions = [
        event.action for event in read_history(market).events if version_id in event.versions
    ]
    return bool(actions) and actions[-1] in {Action.PROMOTE, Action.ROLLBACK}


def _publish_revised(market: MarketFolder, accepted: Manifest, withdrawal: _Withdrawal) -> str:
    before = "; ".join(accepted.gate.reasons)
    gate = Gate(StoredVerdict.REJECTED, (withdrawal.reason, f"{withdrawal.but}: {before}"))
    revised = accepted.revised(gate, datetime.now(UTC))
    folder = publish.version_folder(market, accepted.version_id)
    files = read_files(market, folder, accepted) | {MANIFEST_FILE: revised.to_json().encode()}

    def decide() -> publish.Change:
        revised_id = _revised_id(market, accepted.version_id)
        if revised_id and _is_sound(market, revised_id):
            raise _AlreadyWithdrawnError
        return _change(market, accepted, revised.version_id, withdrawal)

    return publish.publish_version(market, revised.version_id, files, decide).name


def _change(
    market: MarketFolder, accepted: Manifest, revised_id: str, withdrawal: _Withdrawal
) -> publish.Change:
    versions = (accepted.version_id, revised_id)
    serve = None
    if publish.served_id(market) == accepted.version_id:
        earlier = _served_instead(market, accepted) if withdrawal.falls_back else None
        serve = earlier or revised_id
    return publish.Change(Action.WITHDRAW, versions, withdrawal.reason, serve)


def _served_instead(market: MarketFolder, accepted: Manifest) -> str | None:
    """What was served before the version, else the newest earlier accepted one; None if neither.

    What a person promoted comes back whatever its verdict; one that a person left for an earlier
    one does not. A newer version never takes the place of an older one.
    """
    earlier = {v.version_id: v for v in read_versions(market) if v.version_id < accepted.version_id}
    trail = read_history(market).served_before(accepted.version_id)
    for name in dict.fromkeys([*trail, *reversed(earlier)]):
        if name not in earlier:
            continue
        is_chosen = name in trail and was_promoted_since(market, name)
        if is_chosen or not objection_beside(earlier[name], accepted):
            try:
                return load_version(market, name).folder.name
            except InvalidArtifactError:
                continue
    return None


def _revised_id(market: MarketFolder, version_id: str) -> str:
    versions = read_versions(market)
    return next((v.withdrawn_by for v in versions if v.version_id == version_id), "")


def _is_sound(market: MarketFolder, version_id: str) -> bool:
    versions = read_versions(market)
    return any(v.version_id == version_id and v.manifest is not None for v in versions)
