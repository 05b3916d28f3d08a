"""What a field of a settings dataclass declares: its range, its line of help, what it affects."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import Field, dataclass, field, fields, is_dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, cast

from percoin.errors import ConfigError
from percoin.printable import printable

# NumPy takes no more.
MOST_SEED = 2**32 - 1
# Bitcoin is younger, and so is the time that computers count from.
MOST_DAYS = 20_000
MOST_BARS = 10_000
MOST_EPOCHS = 100_000
MOST_TRIALS = 100_000
MOST_LOOKS = 1_000_000
MOST_CORES = 4096

_KEY = "setting"
# What OmegaConf calls MISSING.
_NEEDED = "???"
_DIGITS = 12
_SHOWN_CHARS = 60
# Folders are made from the inside out, one call for each level, and more is made below them.
_MOST_LEVELS = 200
_MOST_PATH_BYTES = 3000


class Effect(StrEnum):
    """What another value of a setting changes."""

    MODEL = "what the model learns"
    LENGTH = "how long it learns"
    JUDGEMENT = "what is made of it afterwards: blend, verdict, export"
    BARS = "which bars there are"
    RUN = "this run alone"
    FOLDER = "where things lie"
    SWEEP = "a sweep alone"


# With another value it is another model.
OF_THE_MODEL = frozenset({Effect.MODEL, Effect.LENGTH, Effect.JUDGEMENT})
# With another value the same model comes out.
OF_THE_RUN = frozenset({Effect.RUN, Effect.FOLDER, Effect.SWEEP})


@dataclass(frozen=True)
class Range:
    """The bounds of a number; ``above`` and ``below`` are not reached themselves.

    Attributes:
        why: Why the smallest is what it is, or its unit; follows the bound in the message.
    """

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None
    why: str = ""

    def broken_by(self, value: object, or_null: str = "") -> str:
        """What ``value`` must be instead; empty if it may be what it is, or is no number."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return ""
        if isinstance(value, float) and not math.isfinite(value):
            return "must be finite"
        if self.least is not None and value < self.least:
            return f"must be at least {_shown(self.least)}{or_null}{self.why}"
        if self.above is not None and value <= self.above:
            return f"must be above {_shown(self.above)}{or_null}{self.why}"
        if self.most is not None and value > self.most:
            return f"must be at most {_shown(self.most)}{or_null}"
        if self.below is not None and value >= self.below:
            return f"must be below {_shown(self.below)}{or_null}"
        return ""


@dataclass(frozen=True)
class PathBounds:
    """What a file or folder may be called."""

    def broken_by(self, value: object, or_null: str = "") -> str:
        """What ``value`` must be instead; empty if it may be what it is, or is no text."""
        if not isinstance(value, str):
            return ""
        if not value.strip():
            # Path("") is the current folder.
            return f"names no file or folder; . is the current folder{or_null}"
        n_levels = len(Path(value).parts)
        if n_levels > _MOST_LEVELS:
            return f"has {n_levels} levels of folders; give at most {_MOST_LEVELS}"
        if len(value.encode(errors="surrogatepass")) > _MOST_PATH_BYTES:
            return f"is too long for a path; give at most {_MOST_PATH_BYTES} bytes"
        return ""


@dataclass(frozen=True)
class Choice:
    """The texts that a setting may be."""

    options: tuple[str, ...]

    def broken_by(self, value: object, or_null: str = "") -> str:
        """What ``value`` must be instead; empty if it may be what it is, or is no text."""
        if not isinstance(value, str) or value in self.options:
            return ""
        several = "one of " if len(self.options) > 1 else ""
        return f"must be {several}{', '.join(self.options)}{or_null}"


@dataclass(frozen=True)
class When:
    """With which choices on the command line a setting is used; without it, nothing reads it.

    Attributes:
        needs: Choices of which one must be made, such as ``recipe=pooled``.
        unless: Choices that leave it unused, such as ``model=logistic``, or ``start=*`` for any
            value but null.
    """

    needs: tuple[str, ...] = ()
    unless: tuple[str, ...] = ()


@dataclass(frozen=True)
class Names:
    """A text that is one word, or some of several names joined by ``+``.

    Attributes:
        alone: The word that stands for no name.
        options: The names.
    """

    alone: str
    options: tuple[str, ...]

    def split(self, value: str) -> tuple[str, ...]:
        """The names of a text; a list such as ``[a,b]`` may stand for them too."""
        names = re.split(r"[+,]", re.sub(r"[\s\[\]]", "", value))
        return () if names == [self.alone] else tuple(names)

    def broken_by(self, value: object, or_null: str = "") -> str:
        """What ``value`` must be instead; empty if it may be what it is, or is no text."""
        if not isinstance(value, str):
            return ""
        names = self.split(value)
        if set(names) <= set(self.options) and len(set(names)) == len(names):
            return ""
        return f"must be {self.alone}, or some of {', '.join(self.options)}, joined by +{or_null}"


@dataclass(frozen=True)
class Setting:
    """What a field declares.

    Attributes:
        help: Its line in ``--help`` and in the files of ``conf/``; empty if its name says it all.
        affects: What another value changes; None in commands that train nothing.
        bounds: What its value may be, beside its type.
        used: When it is used; None is always.
    """

    help: str = ""
    affects: Effect | None = None
    bounds: Range | PathBounds | Choice | Names | None = None
    used: When | None = None


def setting_of(entry: Field[Any]) -> Setting:
    """What a field declares; nothing if it was not made by the functions below."""
    declared: Setting = entry.metadata.get(_KEY, Setting())
    return declared


def setting(
    line: str = "",
    *,
    default: Any = _NEEDED,
    default_factory: Callable[[], Any] | None = None,
    affects: Effect | None = None,
    used: When | None = None,
) -> Any:
    """A field of a settings dataclass: a text, a flag, a list, or a group of further settings.

    Args:
        line: As ``Setting.help``.
        default: As of ``dataclasses.field``; without one the config files have to say it.
        default_factory: In place of ``default``, for a list.
        affects: As in ``Setting``; of a group it counts for all in it.
        used: As in ``Setting``; of a group it counts for all in it that say nothing themselves.
    """
    return _field(Setting(line, affects, used=used), default, default_factory)


def number(
    line: str,
    least: float | None = None,
    most: float | None = None,
    *,
    above: float | None = None,
    below: float | None = None,
    why: str = "",
    default: Any = _NEEDED,
    default_factory: Callable[[], Any] | None = None,
    affects: Effect | None = None,
    used: When | None = None,
) -> Any:
    """A field that holds a number, or a list of numbers.

    Args:
        line: As ``Setting.help``.
        least: Smallest value.
        most: Largest value; every number has one, so that none can hang or overflow.
        above: In place of ``least``: a bound that is not reached itself.
        below: In place of ``most``: the same.
        why: As in ``Range``.
        default: As of ``setting``.
        default_factory: As of ``setting``.
        affects: As in ``Setting``.
        used: As in ``Setting``.
    """
    if (most is None) == (below is None) or (least is None) == (above is None):
        raise TypeError("a number has one lower and one upper bound")
    bounds = Range(least, most, above, below, why)
    return _field(Setting(line, affects, bounds, used), default, default_factory)


def file_path(line: str, default: Any = _NEEDED, affects: Effect | None = None) -> Any:
    """A field that names a file or a folder; the arguments are those of ``setting``."""
    return _field(Setting(line, affects, PathBounds()), default)


def choice(
    line: str,
    options: type[StrEnum] | Sequence[str],
    *,
    default: Any = _NEEDED,
    affects: Effect | None = None,
    used: When | None = None,
) -> Any:
    """A field that holds one of some texts; the other arguments are those of ``setting``."""
    texts = tuple(str(option) for option in options)
    return _field(Setting(line, affects, Choice(texts), used), default)


def some_of(line: str, names: Names, *, affects: Effect | None = None) -> Any:
    """A field that holds some of several names; the other arguments are those of ``setting``."""
    return _field(Setting(line, affects, names), _NEEDED)


def allowed_code() -> Any:
    """A field: the user's own code that a command may import."""
    line = "your own code that may be imported: files (my_code.py) and modules; [] allows none"
    return _field(Setting(line, Effect.RUN), _NEEDED)


def _field(
    declared: Setting, default: Any, default_factory: Callable[[], Any] | None = None
) -> Any:
    metadata = {_KEY: declared}
    if default_factory is not None:
        return field(default_factory=default_factory, metadata=metadata)
    return field(default=default, metadata=metadata)


def check_bounds(name: str, entry: Field[Any], value: object) -> None:
    """Refuse a value, or a list with one, that its field does not allow.

    Args:
        name: Of the setting, with the groups that it lies in.
        entry: Its field.
        value: Of any type; only what has bounds is looked at.

    Raises:
        ConfigError: Names the setting, the value and the bound.
    """
    bounds = setting_of(entry).bounds
    if bounds is None:
        return
    is_list = isinstance(value, Sequence) and not isinstance(value, str)
    several: Sequence[object] = cast(Sequence[object], value) if is_list else [value]
    for one in several:
        if problem := bounds.broken_by(one, ", or null" if entry.default is None else ""):
            raise ConfigError(f"{name}={_shown(value)} {problem}")


def check_all(settings: Any, prefix: str = "") -> None:
    """Refuse what a dataclass of settings, or one in it, does not allow.

    Raises:
        ConfigError: As ``check_bounds``.
    """
    for entry in fields(settings):
        value, name = getattr(settings, entry.name), f"{prefix}{entry.name}"
        if is_dataclass(value):
            check_all(value, f"{name}.")
        else:
            check_bounds(name, entry, value)


def check_path(name: str, text: str) -> None:
    """Refuse what can be no path of a file or a folder.

    Raises:
        ConfigError: Names the setting, the value and what is wrong with it.
    """
    if problem := PathBounds().broken_by(text):
        raise ConfigError(f"{name}={_shown(text)} {problem}")


def require(condition: bool, message: str) -> None:
    """Refuse settings that break a rule.

    Raises:
        ConfigError: They do.
    """
    if not condition:
        raise ConfigError(message)


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.{_DIGITS}g}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{', '.join(map(_shown, value))}]"
    return printable(str(value), _SHOWN_CHARS)
