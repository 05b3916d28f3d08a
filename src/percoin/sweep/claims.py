"""One process at a time in a folder; the kernel frees it when its holder dies, however it dies."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from percoin.errors import SweepError

LOCK_FILE = ".lock"


@contextmanager
def claimed(
    folder: Path, name: str = LOCK_FILE, wait: bool = False, advice: str = "end that first"
) -> Iterator[None]:
    """Have the folder to oneself.

    Args:
        folder: It exists.
        name: Of the file that is locked; another one is another claim.
        wait: Until the folder is free, instead of the error.
        advice: What the error says that the user can do.

    Raises:
        SweepError: Another process has it; names that process.
        OSError: The folder cannot be written to.
    """
    descriptor = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            holder = os.read(descriptor, 200).decode(errors="replace") or "another process"
            raise SweepError(f"{folder} is in use by {holder}; {advice}") from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield
    finally:
        os.close(descriptor)


def is_claimed(folder: Path) -> bool:
    """Whether some process has the folder just now; not, if there is no such folder."""
    try:
        with claimed(folder):
            return False
    except SweepError:
        return True
    except OSError:
        return False
