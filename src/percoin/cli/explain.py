"""What Hydra's errors mean, in one line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.errors import OverrideParseException
from omegaconf import OmegaConf

from percoin.cli.compose import compose_config
from percoin.cli.elsewhere import translated
from percoin.cli.folders import folders_in
from percoin.cli.mistakes import (
    MARKET,
    MOST_SHOWN,
    OPTIONAL_GROUP,
    SEVERAL,
    choices,
    no_option,
    shown_value,
)
from percoin.cli.options import joined
from percoin.config import SCHEMAS, TrainConfig, TuneConfig, name_nearest
from percoin.config.folders import option_file, options, reading_from
from percoin.errors import ConfigError
from percoin.printable import printable
from percoin.types import Timeframe

_LONGEST_LINE = 2000


def explain(error: Exception, config_name: str, overrides: Sequence[str]) -> str:
    """Say in one line what a config error means and what was probably meant."""
    try:
        words = joined(overrides)
        with reading_from(folders_in(words)):
            line = _explained(error, config_name, translated(words, SCHEMAS[config_name]))
    except ConfigError:
        # The words themselves are the error.
        line = str(error)
    for override in overrides:
        value = override.partition("=")[2]
        if len(value) > MOST_SHOWN:
            line = line.replace(value, shown_value(value))
    return printable(line, _LONGEST_LINE)


def _meant_by_word(word: str) -> str | None:
    """The setting that a word without a key looks like: a bar length or a market."""
    if word in set(Timeframe):
        return f"tf={word}"
    return f"symbol={word}" if MARKET.fullmatch(word) else None


def _explained(error: Exception, config_name: str, overrides: Sequence[str]) -> str:
    text = str(error)
    if isinstance(error, OverrideParseException):
        if meant := _meant_by_word(str(error.override)):
            return f"{error.override!r} is not KEY=VALUE; did you mean {meant}?"
        return (
            f"{error.override!r} is not KEY=VALUE; a sweep is -m KEY=A,B with nothing after B, and "
            "a value with brackets, quotes or signs in it is written KEY='VALUE'"
        )
    file = re.match(r"In '(\w+/[^']+)': ", text)
    if unknown := re.search(r"Could not override '([^']+)'", text):
        line = _explain_unknown_key(unknown[1], config_name, overrides)
        return f"{_file_of(file[1])}: {line}" if file else line
    if file and (unknown := re.search(r"Key '\w+' not in .*full_key: (\S+)", text, re.DOTALL)):
        line = name_nearest(unknown[1], _known_keys(config_name, overrides))
        return f"{_file_of(file[1])}: {line}"
    if option := re.search(r"Could not find '(hydra/\w+|\w+)/([^']*)'", text):
        # Choices on the command line have been checked; this one is a default's, or Hydra's.
        origin = " (from ML_DEFAULT_TF)" if option[1] == "tf" else ""
        return no_option(option[1], option[2], origin)
    if "Ambiguous value" in text:
        found = text.splitlines()[0]
        if SCHEMAS[config_name] is TrainConfig:
            return f"{found}; several values make a sweep: add -m, and a list has brackets: [A,B]"
        return f"{found}; give one value, and write a list with brackets: [A,B]"
    if override := re.search(r"Error merging override (([^=\s]+)=\S+)", text):
        return _explain_value(override[1], override[2], error, config_name, overrides)
    if environment := re.search(
        r"interpolation '\$\{oc\.env:(\w+),[^}]*\}': (.*?)\s+full_key: (\S+)", text, re.DOTALL
    ):
        variable, reason, key = environment.groups()
        return f"{key} (from {variable}): {reason}"
    return " ".join(line.strip() for line in text.splitlines() if line.strip())


def _file_of(config: str) -> Path:
    group, _, option = config.rpartition("/")
    return option_file(group, option)


def _explain_value(
    override: str, key: str, error: Exception, config_name: str, overrides: Sequence[str]
) -> str:
    below = [name for name in _known_keys(config_name, overrides) if name.startswith(f"{key}.")]
    if below:
        return f"{override}: {key} holds further settings; set one of {', '.join(below)}"
    return f"{override}: {str(error.__cause__).splitlines()[0]}"


def _explain_unknown_key(key: str, config_name: str, overrides: Sequence[str]) -> str:
    group, _, name = key.partition(".")
    for option in options(group):
        if name in OmegaConf.load(option_file(group, option)).keys():  # noqa: SIM118
            return f"{key} is a setting of {group}={option}; add {group}={option}"
    return name_nearest(key, _known_keys(config_name, overrides))


def _known_keys(config_name: str, overrides: Sequence[str]) -> list[str]:
    """Every key of the config that these choices make."""
    chosen = [
        f"{group}=[{','.join(values)}]".replace("null", "")
        if group == SEVERAL
        else f"{group}={values[0]}"
        for group, values in choices(overrides).items()
        # A file of the user's own may be what is wrong.
        if group != "debug" and (group != OPTIONAL_GROUP or values == [TuneConfig.option])
    ]
    config = compose_config(config_name, chosen)
    container = OmegaConf.to_container(config, resolve=False)
    return list(_flatten(container, prefix=""))


def _flatten(container: Any, prefix: str) -> list[str]:
    names: list[str] = []
    for key, value in container.items():
        names.append(f"{prefix}{key}")
        if isinstance(value, dict):
            names += _flatten(value, prefix=f"{prefix}{key}.")
    return names
