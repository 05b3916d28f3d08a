"""Removes folder names, commands with any, and unprintable characters from responses."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

from percoin.printable import printable
from percoin.serving.strict_json import strict

# A path part before a slash, and the last part. Both match only at the start of a text: a
# search would start again at every character of a long word, which is slow.
_PART = re.compile(r"[^\s'\"(=,;/]*")
_LAST_PART = re.compile(r"[^\s/'\"),;:]*")
# Normal reasons and origins fit on one line; a longer text is cut.
_LONGEST_TEXT = 2000
# The command that ends an advice.
_COMMAND = re.compile(
    r"\b(?:python (?:\w+\.py|-m percoin\.\w+)|percoin \w+)(?= '?[\w.]+=)", re.ASCII
)
_IN_THE_LOG = "the server's log has the command"
_MOST_LOGGED = 10_000

log = logging.getLogger(__name__)


class Discretion:
    """Shortens every path in a text to its last part.

    A command would do something else then: one with a path is logged once, and left out.

    Args:
        folders: Folders that texts may contain. Needed for names with spaces, where a path's
            end is unclear.
    """

    def __init__(self, folders: Sequence[str]) -> None:
        # Longest first, because one folder may lie inside another.
        self._folders = sorted({folder for folder in folders if "/" in folder}, key=len)[::-1]
        self._logged: set[str] = set()

    def text(self, text: str) -> str:
        """Make a text one printable line of limited length, with paths shortened."""
        text = self._without_command(printable(text, _LONGEST_TEXT))
        for folder in self._folders:
            bare = folder.rstrip("/")
            text = text.replace(f"{bare}/", "/").replace(bare, bare.rpartition("/")[2])
        return _last_parts(text)

    def _without_command(self, text: str) -> str:
        found = _COMMAND.search(text)
        if found is None or "/" not in text[found.start() :]:
            return text
        if text not in self._logged and len(self._logged) < _MOST_LOGGED:
            self._logged.add(text)
            log.info("%s", text)
        return text[: found.start()] + _IN_THE_LOG

    def content(self, content: Any) -> Any:
        """Apply ``text`` to every text in a JSON value; NaN and infinity become null."""
        if isinstance(content, str):
            return self.text(content)
        if isinstance(content, Mapping):
            return {self.text(str(key)): self.content(value) for key, value in content.items()}
        if isinstance(content, list):
            return [self.content(value) for value in content]
        return strict(content)


def _last_parts(text: str) -> str:
    """Shorten every word with slashes to the part after its last slash."""
    before, *parts = text.split("/")
    if not parts:
        return text
    kept = [_without_last_word(before)]
    for part in parts[:-1]:
        if not _PART.fullmatch(part):
            end = len(_start(_LAST_PART, part))
            kept += [part[:end], _without_last_word(part[end:])]
    return "".join(kept) + parts[-1]


def _without_last_word(text: str) -> str:
    return text[: len(text) - len(_start(_PART, text[::-1]))]


def _start(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.match(text)
    return found[0] if found else ""
