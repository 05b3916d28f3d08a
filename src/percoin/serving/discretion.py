"""Keeps folders, and what cannot be printed, out of what is said to others."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from percoin.printable import printable
from percoin.serving.strict_json import strict

# A part of a path up to the next slash, and the last part. Both are only matched at the begin
# of a text: a search would look at a long word once for each of its characters.
_PART = re.compile(r"[^\s'\"(=,;/]*")
_LAST_PART = re.compile(r"[^\s/'\"),;:]*")
# Reasons and origins are a line; whoever wrote a longer one did not mean to be read.
_LONGEST_TEXT = 2000


class Discretion:
    """Cuts every path in a text down to its last part.

    Args:
        folders: That may be named, for those with spaces in their names.
    """

    def __init__(self, folders: Sequence[str]) -> None:
        # The longest first: one may lie in another.
        self._folders = sorted({folder for folder in folders if "/" in folder}, key=len)[::-1]

    def text(self, text: str) -> str:
        """The same as one printable line, cut if need be, without folders that lead anywhere."""
        text = printable(text, _LONGEST_TEXT)
        for folder in self._folders:
            bare = folder.rstrip("/")
            text = text.replace(f"{bare}/", "/").replace(bare, bare.rpartition("/")[2])
        return _last_parts(text)

    def content(self, content: Any) -> Any:
        """The same for every text in a JSON value; null for what is no number."""
        if isinstance(content, str):
            return self.text(content)
        if isinstance(content, Mapping):
            return {self.text(str(key)): self.content(value) for key, value in content.items()}
        if isinstance(content, list):
            return [self.content(value) for value in content]
        return strict(content)


def _last_parts(text: str) -> str:
    """The text with every word that holds a slash cut down to what follows its last one."""
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
