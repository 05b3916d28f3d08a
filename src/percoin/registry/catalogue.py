"""What the registry holds: markets, their versions, and which of them may be served."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from percoin.bars.schema import is_simulated
from percoin.errors import (
    ConfigError,
    InvalidArtifactError,
    ModelNotFoundError,
    UnreadableArtifactError,
)
from percoin.registry.contents import parse_metrics, read_files, read_manifest
from percoin.registry.history import Action, read_history
from percoin.registry.layout import METRICS_FILE, VERSION_ID_PATTERN, MarketFolder
from percoin.registry.manifest import Manifest, StoredVerdict
from percoin.registry.publish import served_folder, served_id, unreadable, version_folder
from percoin.types import Timeframe, is_symbol

_STAMP = "%Y%m%dT%H%M%S%fZ"


@dataclass(frozen=True)
class Version:
    """One version of a market, by its manifest alone.

    Attributes:
        version_id: Name of its folder.
        manifest: None if it cannot be trusted.
        problem: Why not; empty otherwise.
        withdrawn_by: The version that withdrew its acceptance; empty if none did.
    """

    version_id: str
    manifest: Manifest | None
    problem: str = ""
    withdrawn_by: str = ""

    @property
    def created_at(self) -> datetime:
        """Moment of the export, which its name says even if its manifest does not."""
        return _exported_at(self.version_id)

    @property
    def objection(self) -> str:
        """Why it should not be served; empty if it may."""
        if self.manifest is None:
            return self.problem
        if self.withdrawn_by:
            return f"its acceptance was withdrawn by {self.withdrawn_by}"
        gate = self.manifest.gate
        if gate.verdict is not StoredVerdict.ACCEPTED:
            return f"the gate says {gate.verdict.value}: {'; '.join(gate.reasons)}"
        return ""


def markets_in(root: Path) -> Iterator[MarketFolder]:
    """Every market with an export, by symbol and then bar length.

    Raises:
        ConfigError: The models folder is there and cannot be read.
    """
    try:
        names = sorted(_names_in(root / "per_coin"))
    except OSError as error:
        found = f"models_dir={root} cannot be read: {error.strerror}"
        raise ConfigError(f"{found}; check its permissions") from error
    for name in filter(is_symbol, names):
        for timeframe in Timeframe:
            market = MarketFolder(root, name, timeframe)
            # A link to a missing version is listed too.
            if has_shown(market) or _has_versions(market):
                yield market


def has_shown(market: MarketFolder) -> bool:
    """Whether there is anything, sound or not, in the place of the served version."""
    try:
        return market.link.is_symlink() or market.link.is_dir()
    except OSError:
        return True  # it is there, but not readable


def _has_versions(market: MarketFolder) -> bool:
    try:
        return bool(version_ids(market))
    except InvalidArtifactError:
        return True  # as above


def _names_in(folder: Path) -> list[str]:
    """What lies in a folder; nothing if there is none.

    Raises:
        OSError: It cannot be read.
    """
    try:
        return [path.name for path in folder.iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return []


def version_ids(market: MarketFolder) -> list[str]:
    """Names of all versions, oldest first.

    Raises:
        UnreadableArtifactError: Their folder is there and cannot be read.
    """
    try:
        names = _names_in(market.versions)
    except OSError as error:
        raise unreadable(market, market.versions, error) from error
    return sorted(filter(_is_version_id, names))


def _is_version_id(name: str) -> bool:
    """Whether an export could have made this name: its digits must be a valid time."""
    if not (name.isascii() and VERSION_ID_PATTERN.fullmatch(name)):
        return False
    try:
        return bool(_exported_at(name))
    except ValueError:
        return False


def _exported_at(version_id: str) -> datetime:
    return datetime.strptime(version_id.partition("-")[0], _STAMP).replace(tzinfo=UTC)


def read_versions(market: MarketFolder) -> list[Version]:
    """All versions, oldest first; a broken one comes with its problem."""
    found = [_read_version(market, version_id) for version_id in version_ids(market)]
    withdrawn = {
        version.manifest.revised_from: version.version_id
        for version in found
        if version.manifest is not None and version.manifest.revised_from is not None
    }
    if any(version.manifest is None for version in found):
        withdrawn = _withdrawn_by_broken(market, found) | withdrawn
    return [
        Version(v.version_id, v.manifest, v.problem, withdrawn.get(v.version_id, "")) for v in found
    ]


def _withdrawn_by_broken(market: MarketFolder, found: Sequence[Version]) -> dict[str, str]:
    """Versions withdrawn by one whose manifest is broken: the history still knows them."""
    broken = {version.version_id for version in found if version.manifest is None}
    try:
        events = read_history(market).events
    except OSError:
        return {}
    # The accepted version and the one that withdrew its acceptance.
    pairs = [event.versions for event in events if event.action is Action.WITHDRAW]
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2 and pair[1] in broken}


def _read_version(market: MarketFolder, version_id: str) -> Version:
    try:
        return Version(version_id, read_manifest(market, version_folder(market, version_id)))
    except InvalidArtifactError as error:
        return Version(version_id, None, error.found)


def find_version(market: MarketFolder, start: str) -> str:
    """The version whose name begins with ``start``.

    Raises:
        ModelNotFoundError: None does, or several do.
    """
    known = version_ids(market)
    found = [version_id for version_id in known if start and version_id.startswith(start)]
    if len(found) != 1:
        listed = ", ".join(found or known) or "none"
        raise ModelNotFoundError(
            market.symbol,
            market.timeframe,
            f"{len(found)} versions begin with {start!r}",
            f"name one; there are {listed}",
        )
    return found[0]


def served_version(market: MarketFolder) -> Version | None:
    """The version that the link names, sound or not; None if it names none."""
    version_id = served_id(market)
    return None if version_id is None else _read_version(market, version_id)


def objection_beside(version: Version, served: Manifest | None) -> str:
    """Why ``version`` should not take the place of ``served``; empty if it may."""
    if version.objection or version.manifest is None or served is None:
        return version.objection
    if is_simulated(version.manifest.bars.origin) and not is_simulated(served.bars.origin):
        return "it learnt from simulated bars and the served one from real ones"
    return ""


@dataclass(frozen=True)
class Check:
    """The result of checking one version, the served one, or the history.

    Attributes:
        symbol: Market.
        timeframe: Bar length.
        subject: Name of the version, ``versions``, ``served`` or ``history``.
        problem: What is wrong; empty if nothing is.
    """

    symbol: str
    timeframe: Timeframe
    subject: str
    problem: str


def check_market(market: MarketFolder) -> list[Check]:
    """Compare every file of every version with its hash, and see where the link leads.

    Returns:
        One check a version, oldest first (or one of ``versions`` if they cannot be listed),
        then ``served`` and ``history``.
    """
    try:
        problems = _version_problems(market)
    except UnreadableArtifactError as error:
        problems = {"versions": error.found}
    problems["served"] = _problem(market, partial(served_folder, market))
    problems["history"] = _history_problem(market)
    return [
        Check(market.symbol, market.timeframe, subject, problem)
        for subject, problem in problems.items()
    ]


def _version_problems(market: MarketFolder) -> dict[str, str]:
    problems = {
        version_id: _problem(market, partial(version_folder, market, version_id))
        for version_id in version_ids(market)
    }
    # A version that was pruned meanwhile is not broken.
    there = set(version_ids(market))
    return {name: problem for name, problem in problems.items() if name in there}


def _problem(market: MarketFolder, find: Callable[[], Path]) -> str:
    try:
        folder = find()
        while True:
            try:
                manifest = read_manifest(market, folder)
                parse_metrics(market, read_files(market, folder, manifest)[METRICS_FILE])
            except InvalidArtifactError:
                # Another version may have been served meanwhile, and this one removed.
                before, folder = folder, find()
                if folder == before:
                    raise
            else:
                return ""
    except (InvalidArtifactError, ModelNotFoundError) as error:
        return error.found


def _history_problem(market: MarketFolder) -> str:
    try:
        damaged = read_history(market).damaged_lines
    except OSError as error:
        return f"{market.history.name} cannot be read: {error.strerror}"
    lines = ", ".join(map(str, damaged))
    return f"{market.history.name} cannot be read in line {lines}" if damaged else ""
