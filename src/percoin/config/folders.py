"""Where config files lie: percoin's own, and before them those of the user.

The user's are the folders that a command line names (``--config-dir``) and the folder ``conf`` of
the working folder. A file of theirs takes the place of percoin's of the same name.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from percoin.config.schemas import CONF_DIR, SCHEMAS
from percoin.errors import ConfigError
from percoin.types import Timeframe

_HERE = Path("conf")
_named: ContextVar[tuple[Path, ...]] = ContextVar("named", default=())


def named_folders() -> tuple[Path, ...]:
    """The folders that the command line names; a job elsewhere is given them."""
    return _named.get()


def config_folders() -> list[Path]:
    """Every folder of config files; where two have a file of one name, the first counts."""
    own = [_HERE.absolute()] if _HERE.is_dir() and not _HERE.samefile(CONF_DIR) else []
    return [*_named.get(), *own, CONF_DIR]


def options(group: str) -> list[str]:
    """The options of a group, the files in its folder, by name; bar lengths by their length."""
    found = {path.stem for place in config_folders() for path in (place / group).glob("*.yaml")}
    lengths = [timeframe.value for timeframe in Timeframe]
    return sorted(
        found, key=lambda name: (lengths.index(name) if name in lengths else len(lengths), name)
    )


def option_file(group: str, option: str) -> Path:
    """The file of an option.

    Raises:
        ConfigError: There is none.
    """
    for place in config_folders():
        if (path := place / group / f"{option}.yaml").is_file():
            return path
    raise ConfigError(f"{group}={option} is not an option; {group} is one of {options(group)}")


@contextmanager
def reading_from(folders: Sequence[str]) -> Iterator[None]:
    """Read config files also from these folders, the first one first.

    Raises:
        ConfigError: A folder does not exist, or has a file that could not be meant.
    """
    token = _named.set(tuple(dict.fromkeys((*map(_checked, folders), *_named.get()))))
    try:
        _check_commands()
        yield
    finally:
        _named.reset(token)


def _checked(folder: str) -> Path:
    path = Path(folder).absolute()
    if not path.is_dir():
        raise ConfigError(
            f"{folder} is no folder of config files; name one that exists and has files such as "
            "experiment/NAME.yaml"
        )
    return path


def _check_commands() -> None:
    """Refuse files that bear the name of a command and belong to another program."""
    for place in config_folders()[:-1]:
        for name in SCHEMAS:
            file = place / f"{name}.yaml"
            if file.is_file() and f"{name}_schema" not in file.read_text(encoding="utf-8"):
                raise ConfigError(
                    f"{file} would take the place of percoin's own {name}.yaml and is no copy of "
                    f"it ({name}_schema is not among its defaults); rename it, or write the "
                    "settings into experiment/NAME.yaml"
                )
