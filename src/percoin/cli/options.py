"""Options of a command line that begin with a dash: Hydra's own, and those of other programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from percoin.cli.folders import with_search_path
from percoin.errors import ConfigError

MULTIRUN = frozenset({"-m", "--multirun"})
HELP = frozenset({"-h", "--help"})
VERSION = frozenset({"-V", "--version"})
# Answered by Hydra, with what may follow them.
OF_HYDRA = frozenset({"--hydra-help", "--info", "-i", "--shell-completion", "-sc"})
_CONFIG_DIR = frozenset({"--config-dir", "-cd"})
_USUAL = frozenset({"--run", "-r"})
# Options with a value, by the name under which they go on.
_SHOW = {"--cfg": "--cfg", "-c": "--cfg", "--package": "--package", "-p": "--package"}
_RESOLVE = "--resolve"
_SHOWN = ("job", "hydra", "all")
_FILES = dict.fromkeys(
    ("--config-name", "-cn", "--config-path", "-cp", "--config"),
    "percoin has one config a command; write settings into experiment/NAME.yaml of a folder, "
    "and name it with --config-dir FOLDER experiment=NAME",
)


@dataclass(frozen=True)
class Shown:
    """What ``--cfg`` asks to see of the config, in place of running the command.

    Attributes:
        kind: ``job``, ``hydra`` or ``all``.
        package: A part of it, by its dotted name; empty for all.
        resolve: Whether interpolations are replaced by their values.
    """

    kind: str
    package: str = ""
    resolve: bool = False


def joined(arguments: Sequence[str]) -> list[str]:
    """The same command line, with the value of each of Hydra's options in one word with it.

    Folders of config files become ``hydra.searchpath=[...]``; the result is joined already.

    Raises:
        ConfigError: An option lacks its value.
    """
    folders: list[str] = []
    words: list[str] = []
    left = list(arguments)
    while left:
        word = left.pop(0)
        name, has_value, value = word.partition("=")
        if name in _FILES:
            raise ConfigError(f"{word}: {_FILES[name]}")
        if name not in {*_CONFIG_DIR, *_SHOW}:
            words += [] if word in _USUAL else [word]
            continue
        if not has_value and not left:
            raise ConfigError(f"{name} takes a value: {name} {_example(name)}")
        value = value if has_value else left.pop(0)
        if name in _CONFIG_DIR:
            folders.append(value)
        else:
            words.append(f"{_SHOW[name]}={value}")
    return with_search_path(words, folders)


def _example(name: str) -> str:
    if name in _CONFIG_DIR:
        return "FOLDER"
    return "job" if _SHOW[name] == "--cfg" else "trainer"


def is_option(word: str) -> bool:
    """Whether a word is one of ``--cfg``, ``--package`` and ``--resolve``."""
    return word.partition("=")[0] in _SHOW.values() or word == _RESOLVE


def shown_of(words: Sequence[str]) -> tuple[Shown | None, list[str]]:
    """What ``--cfg`` asks for, or None, and all other words.

    Args:
        words: As ``joined`` returns them.

    Raises:
        ConfigError: ``--cfg`` asks for something else, or is missing.
    """
    told = {name: value for name, _, value in (word.partition("=") for word in words)}
    others = [word for word in words if not is_option(word)]
    if "--cfg" not in told:
        if len(others) < len(words):
            raise ConfigError("--package and --resolve go with --cfg job, which prints the config")
        return None, others
    if told["--cfg"] not in _SHOWN:
        raise ConfigError(f"--cfg {told['--cfg']} must be one of {', '.join(_SHOWN)}")
    return Shown(told["--cfg"], told.get("--package", ""), _RESOLVE in told), others
