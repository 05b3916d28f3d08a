"""The one error of reading a file, before market and path are added to it."""

from __future__ import annotations

REWRITE = "correct the file; bars are never repaired silently"


class FileError(Exception):
    """A file that cannot be read as bars.

    Args:
        found: What it holds, without a full stop.
        action: What would put it right.
    """

    def __init__(self, found: str, action: str = REWRITE) -> None:
        super().__init__(found, action)
        self.found = found
        self.action = action


def header_again(place: str) -> FileError:
    """The error for a file that two were joined to, header and all."""
    return FileError(f"the header line is there again in {place}", "leave out that line")
