"""What a group of settings needs to name an object of the user's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from percoin.config.fields import Effect, choice, require, setting
from percoin.types import is_plain

_ARGUMENTS = "of _target_; GROUP.NAME=VALUE on a command line adds one"


def target(line: str, **default: Any) -> Any:
    """A field that names a class or function; without ``default`` it is needed."""
    return setting(line, affects=Effect.MODEL, **default)


def target_arguments() -> Any:
    """A field with the arguments of what ``_target_`` names."""
    return setting(_ARGUMENTS, default_factory=dict, affects=Effect.MODEL)


def check_target(group: str, name: str | None, arguments: Mapping[str, Any]) -> None:
    """Refuse arguments without a target, and those that no command line could say.

    Args:
        group: The group of settings, for the message.
        name: What its ``_target_`` says.
        arguments: Of the target.

    Raises:
        ConfigError: Names the argument.
    """
    require(isinstance(arguments, Mapping), f"{group}.arguments must be {{NAME: VALUE}}")
    for key, value in arguments.items():
        require(
            name is not None,
            f"{group}.{key} has no effect without {group}._target_: leave it out",
        )
        several = value if isinstance(value, list) else [value]
        require(
            key.isidentifier() and all(map(is_plain, several)),
            f"{group}.{key}={value!r:.60} is no argument that percoin can pass on: give a number, "
            "a text, true, false, null, or a list of these",
        )


@dataclass
class LossConfig:
    """What the steps of a training minimise."""

    _target_: str | None = target(
        "null is the mean log-loss; else MODULE:NAME of your own, or a class of torch.nn",
        default=None,
    )
    arguments: dict[str, Any] = target_arguments()

    def __post_init__(self) -> None:
        check_target("loss", self._target_, self.arguments)


@dataclass
class SchedulerConfig:
    """How the learning rate changes."""

    _target_: str | None = target(
        "null is the decay by optimizer.plateau_factor, or a pool's cosine; else MODULE:NAME of "
        "your own, or a class of torch.optim.lr_scheduler",
        default=None,
    )
    each: str = choice(
        "epoch or batch: after which it steps", ("epoch", "batch"), affects=Effect.MODEL
    )
    arguments: dict[str, Any] = target_arguments()

    def __post_init__(self) -> None:
        check_target("scheduler", self._target_, self.arguments)
        require(
            self.each == "epoch" or self._target_ is not None,
            f"scheduler.each={self.each} has no effect without scheduler._target_: leave it out",
        )
