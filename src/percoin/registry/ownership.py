"""Who else may write to the models folder: hashes are no signature, so they can plant a model."""

from __future__ import annotations

import logging
import os
import pwd
import stat
from pathlib import Path
from threading import Lock

from percoin.printable import printable

log = logging.getLogger(__name__)

_told: set[tuple[Path, str]] = set()
_lock = Lock()


def other_writers(status: os.stat_result) -> str:
    """Who may write a file or folder besides root and this process's user; empty if nobody."""
    if status.st_mode & stat.S_IWOTH:
        return "every user of this machine"
    if status.st_uid not in {0, os.geteuid()}:
        return f"user {_name(status.st_uid)}"
    return ""


def warn_of_other_writers(root: Path, path: Path, status: os.stat_result) -> None:
    """Warn in one line, once for each models folder and each of its other writers.

    Args:
        root: The models folder.
        path: What was looked at, in it or the folder itself.
        status: Of it.
    """
    who = other_writers(status)
    if not who:
        return
    with _lock:
        is_told = (root, who) in _told
        _told.add((root, who))
    if not is_told:
        log.warning(
            "%s may be written by %s, who can put any model there: trust its answers only if you "
            "trust them; remove the permission (chmod, chown) or choose another models_dir",
            printable(str(path)),
            who,
        )


def _name(uid: int) -> str:
    try:
        return printable(pwd.getpwuid(uid).pw_name)
    except KeyError:
        return str(uid)
