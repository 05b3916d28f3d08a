"""Mistakes on a command line that Hydra would not explain, or would not notice."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields

from percoin.cli.overrides import text_keys
from percoin.config import CONF_DIR, TrainConfig
from percoin.config.fields import check_path
from percoin.config.structure import leaves_of
from percoin.errors import ConfigError
from percoin.printable import printable

MULTIRUN = {"-m", "--multirun"}


MARKET = re.compile(r"[A-Z0-9]{2,20}(,[A-Z0-9]{2,20})*")


_GROUP_CHOICE = re.compile(r"(?P<group>hydra/launcher|\w+)=(?P<values>.*)", re.DOTALL)


_OF_HYDRA = re.compile(r"hydra\.(run\.dir|verbose|(job_logging|launcher)(\..+)?)|hydra/\w+")


_LOGGERS = re.compile(r"\[?[A-Za-z_][\w.]*(,[A-Za-z_][\w.]*)*\]?")


MOST_SHOWN = 60


# The only group without a default; Hydra would fail on a key of it by an assertion.
_OPTIONAL_GROUP = "experiment"


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
        name, _, value = override.removeprefix("--").partition("=")
        key = name.replace("-", "_")
        if override.startswith("--") and key in known:
            raise ConfigError(f"{override} is not KEY=VALUE; write {key}={value or 'VALUE'}")


def options(group: str) -> list[str]:
    """The options of a group: the files in its folder of ``conf/``."""
    return sorted(path.stem for path in (CONF_DIR / group).glob("*.yaml"))


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
            raise ConfigError(f"{override} is for sweeps of train.py; name one market at a time")
        if re.match(r"\+*hydra\b", override):
            _check_of_hydra(override, schema)
    chosen = choices(overrides)
    for group, values in chosen.items():
        for value in values:
            is_none = group == SEVERAL and value == "null"
            if value not in options(group) and not is_none:
                raise ConfigError(no_option(group, value))
    stray = [text for text in overrides if text.startswith(f"{_OPTIONAL_GROUP}.")]
    if stray and _OPTIONAL_GROUP not in chosen:
        key, option = stray[0].partition("=")[0], options(_OPTIONAL_GROUP)[0]
        choice = f"{_OPTIONAL_GROUP}={option}"
        raise ConfigError(f"{key} is a setting of {choice}; add {choice}")


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


def check_used(overrides: Sequence[str]) -> None:
    """Refuse settings of a training that the other words of the command line leave unused.

    For words that a person typed: stored settings may name what is not used.

    Raises:
        ConfigError: Names the setting, and the choice that it needs or does not go with.
    """
    told = {
        key.lstrip("+"): [one.strip(" '\"") for one in value.strip("[]").split(",")]
        for key, _, value in (word.partition("=") for word in overrides)
    }
    leaves = {leaf.name: leaf.used for leaf in leaves_of(TrainConfig)}

    for key in told:
        when = leaves.get(key)
        if when is None:
            continue
        if idle := _all_among(when.unless, told):
            raise ConfigError(f"{key} has no effect with {idle}: leave it out")
        if when.needs and not any(_is_told(choice, told) for choice in when.needs):
            needed = " or ".join(when.needs)
            raise ConfigError(
                f"{key} has no effect without {needed}: add {needed}, or leave {key} out"
            )


def _is_told(choice: str, told: Mapping[str, Sequence[str]]) -> bool:
    name, _, option = choice.partition("=")
    return option in told.get(name, ())


def _all_among(choices: Sequence[str], told: Mapping[str, Sequence[str]]) -> str:
    """The choice whose every value is among these; a sweep may have others too."""
    for name in dict.fromkeys(choice.partition("=")[0] for choice in choices):
        values = told.get(name, ())
        if values and all(f"{name}={value}" in choices for value in values):
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
