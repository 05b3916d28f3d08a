"""Mistakes on a command line that Hydra would not explain, or would not notice."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from functools import cache
from itertools import product
from typing import get_origin

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from percoin.cli.folders import is_search_path
from percoin.cli.options import MULTIRUN
from percoin.cli.overrides import text_keys
from percoin.config import SCHEMAS, TrainConfig, TuneConfig
from percoin.config.elsewhere import NAMES, how_here
from percoin.config.fields import When, check_path
from percoin.config.folders import options
from percoin.config.structure import leaves_of
from percoin.errors import ConfigError
from percoin.printable import printable

MARKET = re.compile(r"[A-Z0-9]{2,20}(,[A-Z0-9]{2,20})*")


_GROUP_CHOICE = re.compile(r"(?P<group>hydra/launcher|\w+)=(?P<values>.*)", re.DOTALL)


_OF_HYDRA = re.compile(
    r"hydra\.(run\.dir|verbose|(job_logging|launcher)(\..+)?)|hydra/(job_logging|launcher)"
)


_LOGGERS = re.compile(r"\[?[A-Za-z_][\w.]*(,[A-Za-z_][\w.]*)*\]?")


MOST_SHOWN = 60


# The only group without a default; Hydra would fail on a key of it by an assertion.
OPTIONAL_GROUP = "experiment"


# Groups whose options may set anything, and those that decide whether a setting is used.
SET_ALL = (OPTIONAL_GROUP, "debug")
SET_ANY = frozenset({*SET_ALL, "features"})


# The only group of which one training may have several options, or none.
SEVERAL = "logger"
_USUAL_LOGGER = "tensorboard"


def _check_markets(overrides: Sequence[str], schema: type) -> None:
    """Refuse broken lists of markets; each mistake, and a missing ``-m``, has its own message."""
    alone = [word.strip() for word in overrides if MARKET.fullmatch(word.strip(", \r\n"))]
    for value in [word.removeprefix("symbol=") for word in overrides if word.startswith("symbol=")]:
        if not value.strip(" ,\r\n"):
            raise ConfigError("symbol= names no market; is the file of markets empty or missing?")
        if re.search(r"""[\[\]"]""", value) and "symbol" in text_keys(schema):
            raise ConfigError(
                f"symbol={shown_value(value)} has brackets or quotes: name the markets with commas "
                "alone, as in symbol=BTCUSDT,ETHUSDT"
            )
        if "\r" in value:
            raise ConfigError(
                "symbol= holds a carriage return: the file of markets has the line ends of "
                "Windows; remove them with tr -d '\\r'"
            )
        if alone:
            raise ConfigError(
                f"{alone[0]!r} stands alone: name all markets in one word, separated by commas, "
                "without spaces or line breaks; for a file with one market a line: "
                "symbol=$(paste -sd, FILE)"
            )
        if "\n" in value.strip():
            raise ConfigError(
                "symbol= holds several lines; name all markets in one, separated by commas: "
                "symbol=$(paste -sd, FILE)"
            )
        if value.rstrip().endswith(","):
            raise ConfigError(f"symbol= ends with a comma after {value.split(',')[-2].strip()}")


def _check_dashes(overrides: Sequence[str], schema: type) -> None:
    """Refuse settings that are written like the options of other programs."""
    known = {leaf.name for leaf in leaves_of(schema)} | {entry.name for entry in fields(schema)}
    for override in overrides:
        name, _, value = override.lstrip("-").partition("=")
        key = name.replace("-", "_")
        if not override.startswith("-") or override in MULTIRUN:
            continue
        key = key if key in known else NAMES.get(key, "")
        if key in known:
            raise ConfigError(f"{override} is not KEY=VALUE; write {key}={value or 'VALUE'}")
        how = how_here(name.replace("-", "_")) or "settings are KEY=VALUE, and --help lists them"
        raise ConfigError(f"{override} is not an option: {how}")


def choices(overrides: Sequence[str]) -> dict[str, list[str]]:
    """The overrides that choose options, with the options that they name."""
    found = (_GROUP_CHOICE.fullmatch(override) for override in overrides)
    return {
        match["group"]: [value.strip() for value in _listed(match).split(",")]
        for match in found
        # Quotes, functions and interpolations are left for Hydra to read.
        if match and options(match["group"]) and not re.search(r"""["'($]""", match["values"])
    }


def _listed(match: re.Match[str]) -> str:
    """The options that a word names; one group takes several at once, in brackets."""
    values = match["values"].strip()
    is_list = match["group"] == SEVERAL and values.startswith("[") and values.endswith("]")
    return (values[1:-1] or "null") if is_list else values


def check_overrides(overrides: Sequence[str], schema: type) -> None:
    """Refuse what Hydra would not explain, or would not notice."""
    _check_dashes(overrides, schema)
    _check_markets(overrides, schema)
    for override in overrides:
        if override.startswith("~"):
            raise ConfigError(f"{override}: a setting cannot be removed; give it another value")
        if override in MULTIRUN and schema is not TrainConfig:
            how = "name one market at a time"
            if "symbol" not in text_keys(schema):
                how = f"leave {override} out, symbol=A,B names several markets"
            raise ConfigError(f"{override} is for sweeps of train.py; {how}")
        if re.match(r"\+*hydra\b", override) and not is_search_path(override):
            _check_of_hydra(override, schema)
    _check_group(overrides, schema)
    chosen = choices(overrides)
    for group, values in chosen.items():
        for value in values:
            is_none = group == SEVERAL and value == "null"
            if value not in options(group) and not is_none:
                raise ConfigError(no_option(group, value))
    stray = [text for text in overrides if text.startswith(f"{OPTIONAL_GROUP}.")]
    if stray and OPTIONAL_GROUP not in chosen:
        key, choice = stray[0].partition("=")[0], f"{OPTIONAL_GROUP}={TuneConfig.option}"
        raise ConfigError(f"{key} is a setting of {choice}; add {choice}")


def _check_group(overrides: Sequence[str], schema: type) -> None:
    """Refuse settings and choices that only other commands have."""
    own = {entry.name for entry in fields(schema)}
    for override in overrides:
        key = override.partition("=")[0].lstrip("+")
        top = key.partition(".")[0]
        if top in own or "=" not in override:
            continue
        others = [
            name
            for name, other in SCHEMAS.items()
            if other is not schema and top in {entry.name for entry in fields(other)}
        ]
        if top == "debug" and schema is not TrainConfig:
            # Its files set what lies elsewhere in the config.
            others = ["train"]
        if others:
            command = next(name for name, other in SCHEMAS.items() if other is schema)
            raise ConfigError(
                f"{key} is a setting of {', '.join(others)}, and {command} has none of that name: "
                "leave it out"
            )


def as_loggers(overrides: Sequence[str]) -> list[str]:
    """The words, with ``logger=null`` and ``logger.KEY`` of the only logger as Hydra takes them."""
    named = choices(overrides).get(SEVERAL, [_USUAL_LOGGER])
    short = re.compile(rf"\A(\+*{SEVERAL}\.)(?!({'|'.join(options(SEVERAL))})\b)")
    words = [f"{SEVERAL}=[]" if word == f"{SEVERAL}=null" else word for word in overrides]
    return [short.sub(rf"\g<1>{named[0]}.", word) for word in words] if len(named) == 1 else words


def _check_of_hydra(override: str, schema: type) -> None:
    """Refuse settings of Hydra that would do nothing or break it."""
    key, _, value = override.lstrip("+").partition("=")
    if schema is not TrainConfig:
        raise ConfigError(f"{key} is a setting of train.py; leave it out")
    if _OF_HYDRA.fullmatch(key) is None:
        if how := how_here(key):
            raise ConfigError(f"{key} is not a setting of percoin: {how}")
        raise ConfigError(
            f"{key} is not a setting of percoin; of Hydra's own there are hydra.run.dir, "
            "hydra.verbose, hydra.job_logging, hydra/launcher and hydra.launcher"
        )
    if key == "hydra.run.dir":
        check_path(key, value)
    if key == "hydra.verbose" and _LOGGERS.fullmatch(value) is None:
        raise ConfigError(
            f"hydra.verbose={shown_value(value)} must be true, false, or the name of a logger"
        )


def check_used(overrides: Sequence[str], configs: Sequence[DictConfig] = ()) -> None:
    """Refuse settings of a training that its other settings leave unused.

    For words that a person typed: stored settings may name what is not used.

    Args:
        overrides: The words.
        configs: What the words or their files make, for settings that no word says.

    Raises:
        ConfigError: Names the setting, and the choice that it needs or does not go with.
    """
    told = {
        key.lstrip("+"): [one.strip(" '\"") for one in value.strip("[]").split(",")]
        for key, _, value in (word.partition("=") for word in overrides)
    }
    leaves = {leaf.name: leaf.used for leaf in leaves_of(TrainConfig)}
    meant = {**_said_by(configs, _asked_for(leaves.values())), **told}

    def refuse_idle(key: str, idle: str) -> None:
        if idle:
            name = idle.partition("=")[0]
            how = "leave it out" if name in told else f"leave it out, or give another {name}"
            raise ConfigError(f"{key} has no effect with {idle}: {how}")

    for key in told:
        when = leaves.get(key)
        if when is None:
            refuse_idle(key, _idle_group(key, leaves, meant))
            continue
        refuse_idle(key, _all_among(when.unless, meant))
        if when.needs and not any(_is_told(choice, meant) for choice in when.needs):
            needed = " or ".join(_as_word(choice, meant) for choice in when.needs)
            raise ConfigError(
                f"{key} has no effect without {needed}: add {needed}, or leave {key} out"
            )


def _asked_for(whens: Iterable[When | None]) -> set[str]:
    """The settings that decide whether others are used."""
    found = (choice for when in whens if when for choice in (*when.needs, *when.unless))
    return {choice.partition("=")[0] for choice in found}


def _said_by(configs: Sequence[DictConfig], names: Iterable[str]) -> dict[str, list[str]]:
    """The values of settings in any of the configs, as words write them."""
    found: dict[str, list[str]] = {}
    for config, name in product(configs, sorted(names)):
        try:
            value = OmegaConf.select(config, name)
        except OmegaConfBaseException:
            continue  # an interpolation that fails, which the config's own check says
        if isinstance(value, DictConfig):
            value = getattr(OmegaConf.get_type(value), "option", None)
        several = list(value) if isinstance(value, ListConfig) else [value]
        found.setdefault(name, []).extend(map(_as_text, several))
    return found


def _as_text(value: object) -> str:
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _as_word(choice: str, meant: Mapping[str, Sequence[str]]) -> str:
    """A choice as it is typed: one of a list in brackets, with what the list holds already."""
    name, _, option = choice.partition("=")
    if name not in _lists():
        return choice
    return f"{name}=[{','.join([*filter(None, meant.get(name, ())), option])}]"


@cache
def _lists() -> frozenset[str]:
    return frozenset(
        leaf.name
        for leaf in leaves_of(TrainConfig)
        if any(get_origin(kind) is list for kind in leaf.kinds)
    )


def _idle_group(
    group: str, leaves: Mapping[str, When | None], told: Mapping[str, Sequence[str]]
) -> str:
    """The choice that leaves every setting of a group unused, such as ``trainer=gpu``."""
    below = [when or When() for name, when in leaves.items() if name.startswith(f"{group}.")]
    idle = {
        _all_among(when.unless, told)
        for when in below
        if not when.needs or any(_is_told(choice, told) for choice in when.needs)
    }
    choice = idle.pop() if len(idle) == 1 else ""
    return "" if choice.startswith(f"{group}=") else choice


def _is_told(choice: str, told: Mapping[str, Sequence[str]]) -> bool:
    name, _, option = choice.partition("=")
    return option in told.get(name, ())


def _all_among(choices: Sequence[str], told: Mapping[str, Sequence[str]]) -> str:
    """The choice whose every value is among these; a sweep may have others too."""
    for name in dict.fromkeys(choice.partition("=")[0] for choice in choices):
        values = told.get(name, ())
        is_any = f"{name}=*" in choices
        if values and all(
            f"{name}={value}" in choices or (is_any and value != "null") for value in values
        ):
            return f"{name}={','.join(values)}"
    return ""


def refuse_bar_length_settings(overrides: Sequence[str]) -> None:
    """Refuse ``tf.KEY`` in commands that take no more of a bar length than its name.

    Call it before the config is composed, which would end in a traceback.

    Raises:
        ConfigError: A setting of a bar length, such as ``tf.threshold``.
    """
    for key in (override.partition("=")[0].lstrip("+") for override in overrides):
        if key.startswith("tf."):
            raise ConfigError(f"{key} is a setting of trainings; leave it out")


def no_option(group: str, value: str, origin: str = "") -> str:
    """What to say of an option that a group does not have."""
    known = ", ".join(options(group))
    return f"{group}={value}{origin} is not an option; {group} is one of {known}"


def shown_value(value: str) -> str:
    """A value as a message shows it, where a long one would fill the screen."""
    return printable(value, MOST_SHOWN)
