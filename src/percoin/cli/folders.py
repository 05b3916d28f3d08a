"""Folders of config files that a command line names: ``--config-dir`` and ``hydra.searchpath``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin

from percoin.cli.overrides import quoted
from percoin.config.folders import config_folders
from percoin.errors import ConfigError

SEARCH_PATH = "hydra.searchpath"
_FILE = "file://"
# Text in quotes, or up to the next comma.
_ENTRY = re.compile(r"""'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)"|([^,\s][^,]*)""")


class UserFolders(SearchPathPlugin):
    """Tells Hydra of the user's folders."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Put them before percoin's own."""
        for folder in config_folders()[:-1]:
            search_path.prepend(provider="user", path=f"{_FILE}{folder}", anchor="main")


def register_folders() -> None:
    """Tell Hydra that there may be further folders."""
    Plugins.instance().register(UserFolders)


def is_search_path(word: str) -> bool:
    """Whether a word names folders of config files."""
    return word.lstrip("+").partition("=")[0] == SEARCH_PATH


def folders_in(words: Sequence[str]) -> list[str]:
    """The folders of config files that words name.

    Raises:
        ConfigError: One is a Python package, or in a place that is no folder.
    """
    return [folder for word in words if is_search_path(word) for folder in _listed(word)]


def with_search_path(words: Sequence[str], named: Sequence[str]) -> list[str]:
    """The words, with one that names all folders by absolute paths, as jobs elsewhere need them.

    Args:
        words: ``KEY=VALUE`` each.
        named: Folders of ``--config-dir``; they come first.
    """
    found = [*named, *folders_in(words)]
    others = [word for word in words if not is_search_path(word)]
    if not found:
        return others
    listed = ",".join(quoted(str(Path(folder).absolute())) for folder in found)
    return [*others, f"{SEARCH_PATH}=[{listed}]"]


def _listed(word: str) -> list[str]:
    text = word.partition("=")[2].strip()
    inner = text[1:-1] if text[:1] == "[" and text[-1:] == "]" else text
    found = [
        (single or double).replace("\\'", "'") or plain.strip()
        for single, double, plain in _ENTRY.findall(inner)
    ]
    for folder in found:
        if "://" in folder.removeprefix(_FILE):
            raise ConfigError(f"{SEARCH_PATH}: {folder} is no folder of this machine; name one")
    return [folder.removeprefix(_FILE) for folder in found if folder != "null"]
