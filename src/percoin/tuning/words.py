"""What an experiment file says, as words of a command line without the experiment."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from percoin.cli import Composed, compose_config
from percoin.cli.overrides import literal
from percoin.commands import flat
from percoin.config import TrainConfig, typed
from percoin.errors import ConfigError

log = logging.getLogger(__name__)

_CONFIG = "train"
# A search is over by then; the options of a group of loggers say all of them.
_SAID_OTHERWISE = ("experiment", "logger")
# A text that a person can type without quotes.
_PLAIN = re.compile(r"(?!null$|true$|false$)[A-Za-z_./][\w./+-]*", re.IGNORECASE | re.ASCII)
# A value may depend on another one.
_MOST_ROUNDS = 3


def words_for(settings: TrainConfig, told: Sequence[str], options: Mapping[str, Any]) -> list[str]:
    """The words, and before them those that they lack to make the settings.

    Args:
        settings: What the words shall make.
        told: ``KEY=VALUE`` words that may leave out what an experiment file says.
        options: The chosen option of each config group.
    """
    words = [*_choices(settings, told, options), *told]
    wanted = dict(_said(settings))
    lacking: list[str] = []
    for n_round in range(_MOST_ROUNDS):
        try:
            found = dict(_said(typed(compose_config(_CONFIG, words), TrainConfig)))
        except (ConfigError, HydraException, OmegaConfBaseException, ValueError, TypeError) as e:
            lacking = [str(e).strip().partition("\n")[0]]
            break
        lacking = [name for name, value in wanted.items() if found.get(name) != value]
        if not lacking:
            return words
        keys = {_typed_key(name): wanted[name] for name in lacking}
        others = [word for word in words if word.partition("=")[0] not in keys]
        words = [f"{key}={_text(value, n_round)}" for key, value in keys.items()] + others
    log.warning(
        "the command that trains these settings again does not say all of them (%s); "
        "the manifest of the model holds them all",
        ", ".join(lacking),
    )
    return words


def _choices(
    settings: TrainConfig, told: Sequence[str], options: Mapping[str, Any]
) -> Iterator[str]:
    """The words that decide which other settings there are: own code, and options of groups."""
    keys = {word.partition("=")[0] for word in told}
    if settings.plugins and "plugins" not in keys:
        yield f"plugins={literal(settings.plugins)}"
    own = {name: target for name, (target, _) in settings.targets.items()}
    if target := getattr(settings.labels, "_target_", None):
        own["labels"] = target
    for group, target in own.items():
        if f"{group}._target_" not in keys:
            yield f"{group}._target_={target}"
    chosen = {
        group: option
        for group, option in options.items()
        if not ({group, f"{group}._target_"} & keys or group in own or _is_of_hydra(group))
    }
    usual = Composed.of(_CONFIG, []).choices if chosen else {}
    for group, option in chosen.items():
        if option != usual.get(group):
            yield f"{group}={_option(option)}"


def _is_of_hydra(group: str) -> bool:
    return group == "experiment" or group.startswith("hydra/")


def _said(settings: TrainConfig) -> Iterator[tuple[str, object]]:
    """Every setting that a word can say, by its dotted name."""
    for name, value in flat(asdict(settings)):
        if name.partition(".")[0] not in _SAID_OTHERWISE:
            yield name, value


def _typed_key(name: str) -> str:
    """``model.width`` for ``model.arguments.width``."""
    return name.replace(".arguments.", ".")


def _text(value: object, n_round: int) -> str:
    """A value as a person types it; if that means something else, in quotes of the grammar."""
    if isinstance(value, str) and n_round == 0 and _PLAIN.fullmatch(value):
        return value
    return literal(value)


def _option(option: Any) -> str:
    if option is None:
        return "null"
    return str(option) if isinstance(option, str) else f"[{','.join(map(str, option))}]"
