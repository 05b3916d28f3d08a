"""The one file lock: the kernel frees it when its holder dies, however it dies."""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from percoin.errors import InUseError

LOCK_FILE = ".lock"
_POLL_SECS = 0.02
# ``is_claimed`` holds the lock for a moment while it looks.
_MOMENT_SECS = 0.2
_ADVICE = "wait until it has ended"


@contextmanager
def file_lock(
    path: Path,
    wait_secs: float = _MOMENT_SECS,
    on_wait: Callable[[], object] | None = None,
    advice: str = _ADVICE,
) -> Iterator[None]:
    """Hold the lock of a file, which is made if it is missing; its text says who holds it.

    Args:
        path: Of the file; its folder exists.
        wait_secs: For another holder; ``math.inf`` waits until the lock is free.
        on_wait: Called once, if another process holds the lock.
        advice: What the error says that the user can do.

    Raises:
        InUseError: Another process kept the lock; names that process.
        OSError: The file cannot be written, or its disk knows no locks.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    try:
        try:
            is_ours = _lock(descriptor, fcntl.LOCK_EX, wait_secs, on_wait)
            if is_ours:
                os.ftruncate(descriptor, 0)
                os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
        except OSError as error:
            # The system does not name the file.
            raise OSError(error.errno, error.strerror, str(path)) from error
        if not is_ours:
            holder = os.read(descriptor, 200).decode(errors="replace") or "another process"
            raise InUseError(path, holder, advice)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def claimed(
    folder: Path,
    name: str = LOCK_FILE,
    wait_secs: float = _MOMENT_SECS,
    advice: str = _ADVICE,
) -> Iterator[None]:
    """Keep other processes out of a folder.

    Args:
        folder: It exists.
        name: Of the file that is locked; two names are two locks.
        wait_secs: As for ``file_lock``, like ``advice``.
        advice: What the error says that the user can do.

    Raises:
        InUseError: Another process has the folder; names both.
        OSError: The folder cannot be written to.
    """
    with ExitStack() as held:
        try:
            held.enter_context(file_lock(folder / name, wait_secs))
        except InUseError as error:
            raise InUseError(folder, error.holder, advice) from None
        yield


def is_claimed(folder: Path) -> bool:
    """Whether a process has claimed the folder; no if there is no such folder."""
    try:
        descriptor = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        return not _lock(descriptor, fcntl.LOCK_EX, 0.0)
    except OSError:
        return False  # no locks on this disk, so nobody holds one
    finally:
        os.close(descriptor)


@contextmanager
def folder_lock(folder: Path, wait_secs: float = 0.0, is_shared: bool = False) -> Iterator[bool]:
    """Lock a folder itself, without a file in it.

    Args:
        folder: It exists.
        wait_secs: For another holder.
        is_shared: With all others who share it.

    Yields:
        Whether it could be locked; some file systems lock no folders.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            kind = fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX
            is_locked = _lock(descriptor, kind, wait_secs)
        except OSError:
            is_locked = False
        yield is_locked
    finally:
        os.close(descriptor)


def _lock(
    descriptor: int,
    kind: int,
    wait_secs: float,
    on_wait: Callable[[], object] | None = None,
) -> bool:
    """Lock an open file or folder; whether that could be done in time."""
    deadline = time.monotonic() + wait_secs
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            if on_wait is not None:
                on_wait()
                on_wait = None
            time.sleep(_POLL_SECS)
        else:
            return True
