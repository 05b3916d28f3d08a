"""A folder for one process: made by it alone, or locked while it lives.

The kernel frees a lock when its holder dies, however it dies.
"""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from percoin.errors import InUseError

LOCK_FILE = ".lock"
# Whoever only looks whether a folder is claimed holds the lock for a moment.
_ATTEMPTS, _PAUSE_SECS = 10, 0.02


def new_folder(wanted: Path) -> Path:
    """Make a folder that no other process has made, and its parents.

    Args:
        wanted: The name that it gets if that is free; else ``-2``, ``-3`` and so on follow it.

    Raises:
        OSError: It cannot be made.
    """
    wanted.parent.mkdir(parents=True, exist_ok=True)
    for number in count(1):
        folder = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        break
    return folder


@contextmanager
def claimed(
    folder: Path, name: str = LOCK_FILE, wait: bool = False, advice: str = "wait until it has ended"
) -> Iterator[None]:
    """Have the folder to oneself.

    Args:
        folder: It exists.
        name: Of the file that is locked; another one is another claim.
        wait: Until the folder is free, instead of the error.
        advice: What the error says that the user can do.

    Raises:
        InUseError: Another process has it; names that process.
        OSError: The folder cannot be written to.
    """
    path = folder / name
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    try:
        try:
            is_ours = _lock(descriptor, wait)
            if is_ours:
                os.ftruncate(descriptor, 0)
                os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
        except OSError as error:
            # A full disk, or one that knows no locks, is reported without the name of the file.
            raise OSError(error.errno, error.strerror, str(path)) from error
        if not is_ours:
            raise InUseError(f"{folder} is in use by {_holder(descriptor)}; {advice}")
        yield
    finally:
        os.close(descriptor)


def is_claimed(folder: Path) -> bool:
    """Whether some process has the folder just now; not, if there is no such folder."""
    try:
        descriptor = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False  # on a disk that knows no locks nobody can have it
    finally:
        os.close(descriptor)
    return False


def _lock(descriptor: int, wait: bool) -> bool:
    """Lock the open file; whether that could be done."""
    if wait:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        return True
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(_PAUSE_SECS)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        return True
    return False


def _holder(descriptor: int) -> str:
    return os.read(descriptor, 200).decode(errors="replace") or "another process"
