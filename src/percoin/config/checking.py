"""From a composed config to its dataclass: every key and value is checked once, here."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any, TypeVar, cast

from omegaconf import DictConfig, ListConfig, OmegaConf

from percoin.config.elsewhere import NAMES, how_here
from percoin.config.fields import check_bounds, require
from percoin.config.structure import group_in
from percoin.errors import ConfigError
from percoin.plugins import allow_plugins

Config = TypeVar("Config")


def typed(config: DictConfig, schema: type[Config]) -> Config:
    """Turn a composed config into its dataclass, checking every value.

    Raises:
        ConfigError: A key that no schema knows (``+key=1`` gets past Hydra), or
            a value out of its range.
        OmegaConfBaseException: A value that is missing or of the wrong type.
    """
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        example = _EXAMPLES.get(missing[0], f"{missing[0]}=VALUE")
        raise ConfigError(f"{missing[0]} has no value; give one, for example {example}")
    _check_settings(config)
    if "plugins" in config:
        # Further settings may name code of the user's own.
        named = config.plugins
        require(isinstance(named, ListConfig), "plugins must be a list, as in plugins=[my_code.py]")
        allow_plugins([str(entry) for entry in named])
    result = OmegaConf.to_object(config)
    require(isinstance(result, schema), f"the config is not a {schema.__name__}")
    return cast(Config, result)


_EXAMPLES = {
    "symbol": "symbol=BTCUSDT",
    "forecasts": "forecasts=FILE",
    "source.path": "source.path=FOLDER",
}


_LEAST_LIKENESS = 0.6


def name_nearest(key: str, known: Iterable[str]) -> str:
    """Say that ``key`` is no setting, and which one was probably meant."""
    names = sorted(known)
    # The name of the group would make all its settings look alike.
    group, dot, leaf = key.rpartition(".")
    beside = [name for name in names if name.rpartition(".")[0] == group]
    if NAMES.get(key) in names:
        nearest = [NAMES[key]]
    elif (sentence := how_here(key)) and ("symbol" not in names or "epochs" in names):
        # Not of a command that trains nothing.
        return f"{key} is not a setting: {sentence}"
    elif dot and beside:
        leaves = [name.rpartition(".")[2] for name in beside]
        nearest = [f"{group}.{name}" for name in _like(leaf, leaves)]
        if not nearest and leaf in names:
            nearest = [leaf]
    else:
        nearest = _like(key, names) or [name for name in names if name.endswith(f".{key}")]
    if nearest:
        return f"{key} is not a setting; did you mean {nearest[0]}?"
    return f"{key} is not a setting; known are {', '.join(beside or names)}"


def _like(word: str, words: Sequence[str]) -> list[str]:
    return difflib.get_close_matches(word, words, 1, _LEAST_LIKENESS)


def _check_settings(config: DictConfig, prefix: str = "") -> None:
    """Refuse keys that no schema knows, and values out of the bounds of their fields.

    This comes before the dataclasses are made, so that their own checks meet known keys and types.
    """
    schema = _schema_of(config)
    declared = {entry.name: entry for entry in fields(schema)}
    for key in map(str, config):
        name = f"{prefix}{key}"
        if key not in declared:
            raise ConfigError(name_nearest(name, [f"{prefix}{known}" for known in declared]))
        try:
            value = config[key]
        except OverflowError:
            raise ConfigError(f"{name} is a number of too many digits") from None
        group = group_in(schema, key)
        if group is None:
            check_bounds(name, declared[key], value)
        elif value is not None:
            # An interpolation can put anything in the place of a group.
            require(
                isinstance(value, DictConfig) and issubclass(_schema_of(value), group),
                f"{name} holds further settings, and none of them is called {name}; "
                f"set one of {', '.join(f'{name}.{entry.name}' for entry in fields(group))}",
            )
            _check_settings(value, prefix=f"{name}.")


def _schema_of(config: DictConfig) -> Any:
    """The dataclass that a part of a config was made from, or just ``dict``."""
    return OmegaConf.get_type(config)
