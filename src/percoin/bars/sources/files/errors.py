"""The one error of reading a file, before market and path are added to it."""

from __future__ import annotations

from percoin.printable import printable

_REASON_CHARS = 200
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


def reason_of(error: Exception) -> str:
    """A library's message about a file in one short line, or the error's name if it has none."""
    lines = str(error).splitlines()
    return printable(lines[0].rstrip(". "), _REASON_CHARS) if lines else type(error).__name__


def header_again(place: str) -> FileError:
    """The error for a file made of two, with the second header inside."""
    return FileError(f"the header line is there again in {place}", "leave out that line")
