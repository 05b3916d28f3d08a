"""Keeps the folders of the machine out of what is said to others."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

# Words with a slash: a path, or the address of another machine.
_PATH = re.compile(r"(?:[^\s'\"(=,;/]*/)+([^\s/'\"),;:]*)")


class Discretion:
    """Cuts every path in a text down to its last part.

    Args:
        folders: That may be named, for those with spaces in their names.
    """

    def __init__(self, folders: Sequence[str]) -> None:
        # The longest first: one may lie in another.
        self._folders = sorted({folder for folder in folders if "/" in folder}, key=len)[::-1]

    def text(self, text: str) -> str:
        """The same without the folders that lead anywhere."""
        for folder in self._folders:
            bare = folder.rstrip("/")
            text = text.replace(f"{bare}/", "/").replace(bare, bare.rpartition("/")[2])
        return _PATH.sub(r"\1", text) if "/" in text else text

    def content(self, content: Any) -> Any:
        """The same for every text in a JSON value."""
        if isinstance(content, str):
            return self.text(content)
        if isinstance(content, Mapping):
            return {key: self.content(value) for key, value in content.items()}
        if isinstance(content, list):
            return [self.content(value) for value in content]
        return content
