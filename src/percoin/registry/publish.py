"""Writing, serving and removing versions whole or not at all, and finding the served one."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from percoin.commands import train_command
from percoin.errors import (
    InUseError,
    InvalidArtifactError,
    ModelNotFoundError,
    RegistryWriteError,
    UnreadableArtifactError,
)
from percoin.file_lock import file_lock, folder_lock
from percoin.registry.bounds import most_bytes
from percoin.registry.history import Action, Event, append, now_text, read_history
from percoin.registry.layout import (
    BEST_WEIGHTS_FILE,
    PROBE_PREFIX,
    TEMPORARY_PREFIX,
    VERSION_ID_PATTERN,
    MarketFolder,
)
from percoin.registry.ownership import warn_of_other_writers
from percoin.whole_file import sync_folder, write_new

# About one and a half times an export of the default network.
_PROBE_BYTES = 8 * 1024 * 1024
_LOCK_TIMEOUT_SECS = 60.0
# Removing what a killed probe left takes a moment.
_PROBE_LOCK_SECS = 2.0
_FULL_DISK = {errno.ENOSPC, errno.EDQUOT}
_TRAIN_AGAIN = "train the model again"
_PROBE_NAMES = ("link", "served")


@dataclass(frozen=True)
class Change:
    """A change to a market's versions.

    Attributes:
        action: Its name in the history.
        versions: The versions it is done to.
        why: A phrase for the history.
        serve: The version to serve from now on; None leaves the one that is.
    """

    action: Action
    versions: tuple[str, ...]
    why: str
    serve: str | None = None


def publish_version(
    market: MarketFolder,
    version_id: str,
    files: Mapping[str, bytes],
    decide: Callable[[], Change],
) -> Path:
    """Write a version aside, sync it, note it in the history, and serve what is decided.

    Readers see the old version or the new one, each complete, also after a crash or a
    kill at any point in here.

    Args:
        market: Where the version belongs.
        version_id: Name of the new version's folder.
        files: Content by file name.
        decide: Called under the market's lock. It says what to serve: the new version,
            the one that is served already, or a third one.

    Returns:
        Folder of the new version.

    Raises:
        RegistryWriteError: The version could not be written; the old one is served.
    """
    with _write_errors(market), _locked(market):
        _remove_leftovers(market)
        serve: str | None = None
        try:
            aside = _write_aside(market, version_id, files)
            change = decide()
            serve = change.serve
            _note(market, change)
            folder = _put_in_place(market, version_id, aside)
            if serve is not None:
                _serve(market, serve)
        except BaseException:
            if serve is None or served_id(market) != serve:
                shutil.rmtree(market.version(version_id), ignore_errors=True)
            _remove_leftovers(market)
            raise
    return folder


def change_served(market: MarketFolder, decide: Callable[[], Change]) -> Event:
    """Note a change in the history and serve the version it names.

    Args:
        market: Which one; it has versions.
        decide: Called under the market's lock.

    Raises:
        RegistryWriteError: The models folder refuses it; the old version is served.
    """
    with _write_errors(market), _locked(market):
        _remove_leftovers(market)
        change = decide()
        event = _note(market, change)
        try:
            if change.serve is not None:
                _serve(market, change.serve)
        except BaseException:
            _remove_leftovers(market)
            raise
    return event


def remove_versions(market: MarketFolder, decide: Callable[[], Change]) -> tuple[str, ...]:
    """Note a change in the history and remove the versions it names.

    Each is removed whole or not at all; after a kill, another call removes the rest.

    Args:
        market: Which one; it has versions.
        decide: Called under the market's lock; never names the served version.

    Returns:
        The versions that are gone.

    Raises:
        RegistryWriteError: The models folder refuses it.
    """
    with _write_errors(market), _locked(market):
        _remove_leftovers(market)
        change = decide()
        if change.versions:
            _note(market, change)
        for version_id in change.versions:
            market.version(version_id).rename(market.temporary(version_id))
        sync_folder(market.versions)
        _remove_leftovers(market)
    return change.versions


def _note(market: MarketFolder, change: Change) -> Event:
    served = served_id(market)
    event = Event(
        time=now_text(),
        action=change.action,
        versions=change.versions,
        why=change.why,
        before=served,
        after=change.serve or served,
    )
    append(market, event)
    sync_folder(market.versions)
    return event


def _write_aside(market: MarketFolder, version_id: str, files: Mapping[str, bytes]) -> Path:
    aside = market.temporary(version_id)
    aside.mkdir()
    for name, content in files.items():
        write_new(aside / name, content)
    sync_folder(aside)
    return aside


def _put_in_place(market: MarketFolder, version_id: str, aside: Path) -> Path:
    folder = market.version(version_id)
    aside.rename(folder)
    # The parents may be new too, and the link must never outlive its target.
    for parent in (market.versions, market.versions.parent, market.folder):
        sync_folder(parent)
    return folder


def _serve(market: MarketFolder, version_id: str) -> None:
    # Renaming a link over a link is atomic; pointing an existing link elsewhere is not.
    link_aside = market.temporary(f"link-{version_id}")
    link_aside.symlink_to(market.link_target(version_id))
    link_aside.replace(market.link)
    for folder in (market.folder, market.folder.parent, market.root):
        sync_folder(folder)


def _remove_leftovers(market: MarketFolder) -> None:
    # Only called under the lock: whoever wrote these is gone.
    for folder in (market.root, market.folder.parent, market.folder, market.versions):
        _remove_stale_probes(folder)
    for leftover in market.versions.glob(f"{TEMPORARY_PREFIX}*"):
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()


@contextmanager
def _locked(market: MarketFolder) -> Iterator[None]:
    """Hold the market's lock; the kernel releases it when its holder dies."""
    _refuse_other_places(market)
    market.versions.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        try:
            held.enter_context(file_lock(market.lock, _LOCK_TIMEOUT_SECS))
        except InUseError as error:
            found = f"{error.holder} has held {market.lock} for {_LOCK_TIMEOUT_SECS:.0f} s"
            raise _write_error(market, found, "try again when it is done") from None
        yield


def _refuse_other_places(market: MarketFolder) -> None:
    """Refuse links that lead the market's folders elsewhere, and a folder in the link's place."""
    if _leads_out(market, market.versions):
        found = f"{market.versions} leads out of the models folder"
        raise _write_error(market, found, "remove the link in its path")
    if market.link.exists() and not market.link.is_symlink():
        found = f"{market.link} is not a link to a version, as percoin makes it"
        raise _write_error(market, found, "move it away")


def _leads_out(market: MarketFolder, path: Path) -> bool:
    """Whether a link below the models folder leads ``path`` to another place than its own."""
    try:
        return path.resolve() != market.root.resolve() / path.relative_to(market.root)
    except RuntimeError:  # a loop of links
        return True


def check_writable(market: MarketFolder) -> None:
    """Check before a training whether its model can be exported afterwards.

    Tries what an export does (a file of an export's size, a link, a rename) in
    the market's folder or its nearest existing parent, and leaves nothing behind.

    Raises:
        RegistryWriteError: The models folder would refuse the export.
    """
    with _write_errors(market):
        _refuse_other_places(market)
        _stat_or_none(market.temporary("link-" + "0" * 64) / BEST_WEIGHTS_FILE)
        for folder in {_nearest_existing(market.folder), _nearest_existing(market.versions)}:
            _remove_stale_probes(folder)
            _probe(folder)
        read_history(market)


def _nearest_existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.absolute().parents) if _stat_or_none(path))


def _stat_or_none(path: Path) -> os.stat_result | None:
    # Path.exists would hide a file in a folder's place.
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _probe(folder: Path) -> None:
    # The file has no name and is gone with its process, even if that is killed.
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(bytes(_PROBE_BYTES))
        file.flush()
        os.fsync(file.fileno())
    # A shared lock: nobody removes what another probe still uses.
    with (
        folder_lock(folder, _PROBE_LOCK_SECS, is_shared=True),
        tempfile.TemporaryDirectory(dir=folder, prefix=PROBE_PREFIX) as aside,
    ):
        link = Path(aside) / _PROBE_NAMES[0]
        link.symlink_to("nowhere")
        link.replace(Path(aside) / _PROBE_NAMES[1])


def _remove_stale_probes(folder: Path) -> None:
    """Remove what killed probes left, unless a probe is running here."""
    if not any(folder.glob(f"{PROBE_PREFIX}*")):
        return
    with folder_lock(folder) as is_ours:
        for probe in folder.glob(f"{PROBE_PREFIX}*") if is_ours else ():
            # A folder of somebody else with such a name is not empty, and stays.
            with suppress(OSError):
                for name in _PROBE_NAMES:
                    (probe / name).unlink(missing_ok=True)
                probe.rmdir()


def served_id(market: MarketFolder) -> str | None:
    """The version that the link names, whole or not; None if it names none of the market's.

    Raises:
        UnreadableArtifactError: The system refuses to read the link now.
    """
    try:
        return _named_version(market, _link_target(market) or "")
    except OSError as error:
        raise unreadable(market, market.link, error) from error


def _named_version(market: MarketFolder, target: str) -> str | None:
    version_id = target.rpartition("/")[2]
    is_ours = VERSION_ID_PATTERN.fullmatch(version_id) is not None
    return version_id if is_ours and target == market.link_target(version_id) else None


def served_folder(market: MarketFolder) -> Path:
    """The folder that is served, resolved once: read all files of the version from it.

    A plain folder in the link's place (a models folder copied with its links
    followed) is taken as it is.

    Raises:
        ModelNotFoundError: No model has been exported for the market.
        InvalidArtifactError: The link leads elsewhere or to a version that is gone.
    """
    try:
        target = _link_target(market)
        while True:
            if target is None and not market.link.is_dir():
                action = f"train one: {train_command(market.symbol, market.timeframe, market.root)}"
                raise ModelNotFoundError(
                    market.symbol, market.timeframe, f"no model exported in {market.root}", action
                )
            try:
                return _checked_folder(market, target)
            except InvalidArtifactError:
                # Another version may have been served meanwhile, and this one removed.
                before, target = target, _link_target(market)
                if target == before:
                    raise
    except OSError as error:
        raise unreadable(market, market.link, error) from error


def _checked_folder(market: MarketFolder, target: str | None) -> Path:
    folder = market.link
    if target is not None:
        version_id = _named_version(market, target)
        if version_id is None:
            found = f"{market.link} leads to {target!r}, which is no version of it"
            raise _invalid(market, found, "remove the link and train again")
        folder = market.version(version_id)
    if not folder.is_dir():
        found = f"the served version {folder.name} is gone"
        raise _invalid(market, found, "serve another one (rollback) or train the model again")
    return _inside_models_folder(market, folder)


def version_folder(market: MarketFolder, version_id: str) -> Path:
    """The folder of one version, served or not.

    Raises:
        InvalidArtifactError: There is no such version, or a link leads it elsewhere.
    """
    folder = market.version(version_id)
    try:
        if not VERSION_ID_PATTERN.fullmatch(version_id) or not folder.is_dir():
            raise _invalid(market, f"there is no version {version_id}", "list the versions (show)")
        return _inside_models_folder(market, folder)
    except OSError as error:
        raise unreadable(market, folder, error) from error


def _inside_models_folder(market: MarketFolder, folder: Path) -> Path:
    if _leads_out(market, folder):
        found = f"{folder} leads out of the models folder"
        raise _invalid(market, found, "remove the link in its path")
    above = folder.relative_to(market.root).parents
    try:
        for path in (folder, *(market.root / parent for parent in above)):
            warn_of_other_writers(market.root, path, path.stat())
    except FileNotFoundError:
        raise _invalid(market, f"{folder.name} is gone", "list the versions (show)") from None
    return folder.resolve()


def _link_target(market: MarketFolder) -> str | None:
    try:
        return os.readlink(market.link)  # noqa: PTH115 - a Path would tidy away what is odd
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in {errno.EINVAL, errno.ENOTDIR}:
            return None  # not a link
        raise


def read_file(market: MarketFolder, folder: Path, name: str) -> bytes:
    """Read one file of a version; only a regular file that lies there itself will do.

    Raises:
        UnreadableArtifactError: It is missing, or the system refuses to read it now.
        InvalidArtifactError: It is a link, no file, or too large.
    """
    path = folder / name
    try:
        # Without blocking: opening a pipe would wait for its writer forever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            _check_kind_and_size(market, name, status, most_bytes(name))
            warn_of_other_writers(market.root, path, status)
            # Not more than its size: a file that grows meanwhile would not match its hash.
            return file.read(status.st_size)
    except OSError as error:
        raise _file_error(market, folder, name, error) from error


def check_size(market: MarketFolder, folder: Path, name: str, most: int) -> None:
    """Refuse a file that is none or too large, without opening it.

    Raises:
        InvalidArtifactError: As ``read_file``.
    """
    try:
        status = (folder / name).lstat()
    except OSError as error:
        raise _file_error(market, folder, name, error) from error
    _check_kind_and_size(market, name, status, most)


def _check_kind_and_size(
    market: MarketFolder, name: str, status: os.stat_result, most: int
) -> None:
    if stat.S_ISLNK(status.st_mode):
        raise _invalid(market, f"{name} is a link", _TRAIN_AGAIN)
    if not stat.S_ISREG(status.st_mode):
        raise _invalid(market, f"{name} is not a regular file", _TRAIN_AGAIN)
    if status.st_size > most:
        found = f"{name} has {status.st_size} bytes, more than the {most} that it may have"
        raise _invalid(market, found, _TRAIN_AGAIN)


def _file_error(
    market: MarketFolder, folder: Path, name: str, error: OSError
) -> InvalidArtifactError:
    """The error of a file that cannot be read; only a link is wrong for good."""
    if error.errno == errno.ELOOP:
        return _invalid(market, f"{name} is a link", _TRAIN_AGAIN)
    if isinstance(error, FileNotFoundError):
        found, action = f"{name} is missing from {folder}", "copy it again or train the model again"
        return UnreadableArtifactError(market.symbol, market.timeframe, found, action)
    return unreadable(market, name, error)


def unreadable(market: MarketFolder, what: Path | str, error: OSError) -> UnreadableArtifactError:
    """The error of a file or folder that the system refuses to read now."""
    found = f"{what} cannot be read: {error.strerror}"
    return UnreadableArtifactError(market.symbol, market.timeframe, found, _advice(error))


def _advice(error: OSError) -> str:
    if error.errno in {errno.EMFILE, errno.ENFILE}:
        return "it is read again when files can be opened; raise the limit with ulimit -n"
    if isinstance(error, PermissionError):
        return "make it readable for the user of this process"
    return "it is read again at the next request; check the disk that it lies on"


@contextmanager
def _write_errors(market: MarketFolder) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        found = f"cannot write to {error.filename or market.root}: {error.strerror or error}"
        action = "make it writable or choose another folder with models_dir=FOLDER"
        if error.errno in _FULL_DISK:
            action = "free some space and try again"
        raise _write_error(market, found, action) from error


def _write_error(market: MarketFolder, found: str, action: str) -> RegistryWriteError:
    return RegistryWriteError(market.symbol, market.timeframe, found, action)


def _invalid(market: MarketFolder, found: str, action: str) -> InvalidArtifactError:
    return InvalidArtifactError(market.symbol, market.timeframe, found, action)
