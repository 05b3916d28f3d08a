"""The one way to write a file: readers find the old one or the new one, even after a kill."""

from __future__ import annotations

import errno
import os
import re
import stat
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

Content = str | bytes | memoryview | Callable[[BinaryIO], object]

# Some network file systems sync no folders.
_NO_FOLDER_SYNC = {errno.EINVAL, errno.ENOTSUP}


def write_whole(path: Path, content: Content, is_synced: bool = True) -> None:
    """Write a file beside its place, sync it, and put it in place in one step.

    A link is followed and stays; a file that was there keeps its permissions. After an error
    the old file is there and nothing else; only where the folder itself, synced last, fails to
    sync, it is the new one.

    Args:
        path: Its folder exists.
        content: Text is written as UTF-8. For large content, a function that is given the open
            file and writes to it.
        is_synced: Have it on the disk before this returns. Not worth its time for what only
            shows progress: after a power cut the file may be an older one or empty.

    Raises:
        OSError: The system refuses it; names the file.
    """
    place = Path(os.path.realpath(path))
    aside = place.with_name(f".{place.name}.{uuid.uuid4().hex}.tmp")
    try:
        write_new(aside, content, is_synced, _permissions(place))
        aside.replace(place)
        if is_synced:
            sync_folder(place.parent)
    except OSError as error:
        if error.errno is None:
            raise
        # Of a full disk the system names no file, and this one has another name meanwhile.
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)


def write_new(
    path: Path, content: Content, is_synced: bool = True, permissions: int | None = None
) -> None:
    """Write a new file that nobody reads yet, such as one in a folder that is swapped in later.

    Args:
        path: Nothing lies there.
        content: As for ``write_whole``, like ``is_synced``; its folder is not synced.
        is_synced: See above.
        permissions: Those of any new file, if None.

    Raises:
        OSError: The system refuses it, or something lies there.
    """
    with path.open("xb") as file:
        if permissions is not None:
            os.fchmod(file.fileno(), permissions)
        if callable(content):
            content(file)
        else:
            file.write(content.encode() if isinstance(content, str) else content)
        if is_synced:
            file.flush()
            os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk.

    Raises:
        OSError: The system refuses it.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(descriptor)


def remove_leftovers(path: Path) -> None:
    """Take away what killed writers of a file have left beside it.

    Only for whoever keeps other writers away by a lock: none of these belongs to one that lives.

    Raises:
        OSError: The system refuses it.
    """
    place = Path(os.path.realpath(path))
    leftover = re.compile(rf"\.{re.escape(place.name)}\.[0-9a-f]{{32}}\.tmp")
    for beside in place.parent.glob(".*.tmp"):
        if leftover.fullmatch(beside.name):
            beside.unlink(missing_ok=True)


def _permissions(place: Path) -> int | None:
    try:
        return stat.S_IMODE(place.stat().st_mode)
    except FileNotFoundError:
        return None
