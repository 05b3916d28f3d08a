"""Which loggers a training has: a config may create nothing but Lightning's."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any

from percoin.errors import ConfigError
from percoin.printable import without_passwords

# The only classes that a config may create.
_TARGET = re.compile(r"lightning\.pytorch\.loggers\.[A-Za-z]+Logger")
_TARGET_KEY = "_target_"
_SECRET_KEY = re.compile(r"(?i)password|secret|token|api_?key")
# Optional packages by logger; each is an extra of percoin by the same name.
_PACKAGES = {"MLFlowLogger": "mlflow", "WandbLogger": "wandb"}
# They draw the curves of one run, epoch by epoch.
_OF_CURVES = {"TensorBoardLogger", "CSVLogger"}


def loggers_of(logger: Mapping[str, Any] | None) -> dict[str, Mapping[str, Any]]:
    """The loggers of a config by name, each with its ``_target_`` and its arguments.

    Args:
        logger: What ``logger`` holds: one entry for each logger, or a single logger.

    Raises:
        ConfigError: An entry is no Lightning logger, or needs a package that is not installed.
    """
    if not logger:
        return {}
    several = [value for value in logger.values() if isinstance(value, Mapping)]
    is_single = _TARGET_KEY in logger or not several
    found = {"logger": logger} if is_single else dict(logger)
    for name, arguments in found.items():
        if not isinstance(arguments, Mapping):
            known = ", ".join(key for key, value in found.items() if isinstance(value, Mapping))
            raise ConfigError(
                f"logger.{name} is no logger; name one of {known}: logger.NAME.{name}"
            )
        _check_target(arguments)
        _check_no_secret(name, arguments)
        package = _PACKAGES.get(class_of(arguments))
        if package and find_spec(package) is None:
            raise ConfigError(
                f"logger={name} needs {package}: pip install 'percoin[{package}]', or use another "
                "logger"
            )
    return found


def without_curves(logger: Mapping[str, Any] | None) -> dict[str, Mapping[str, Any]]:
    """The loggers that also serve a model without epochs: those with a store of many runs."""
    return {
        name: arguments
        for name, arguments in loggers_of(logger).items()
        if class_of(arguments) not in _OF_CURVES
    }


def class_of(arguments: Mapping[str, Any]) -> str:
    """The class of a logger, such as ``CSVLogger``."""
    return str(arguments.get(_TARGET_KEY)).rpartition(".")[2]


def _check_target(arguments: Mapping[str, Any]) -> None:
    """Check that only a logger is created, because Hydra calls any target it is given."""
    target = str(arguments.get(_TARGET_KEY))
    if not _TARGET.fullmatch(target):
        raise ConfigError(
            f"logger._target_={target} is none of Lightning's loggers; name one, such as "
            "logger._target_=lightning.pytorch.loggers.CSVLogger"
        )
    if any(_TARGET_KEY in inner for inner in _mappings_in(list(arguments.values()))):
        raise ConfigError("a setting of logger has a _target_ of its own; give it a value")


def _check_no_secret(name: str, arguments: Mapping[str, Any]) -> None:
    """Refuse what every run and model would keep in its files."""
    for inner in _mappings_in(arguments):
        for key, value in inner.items():
            is_secret = value is not None and _SECRET_KEY.search(str(key))
            if is_secret or (isinstance(value, str) and without_passwords(value) != value):
                raise ConfigError(
                    f"logger.{name}.{key} holds a secret, which every run and model would keep: "
                    "leave it out, and give it by the variable of the logger's own, such as "
                    "MLFLOW_TRACKING_PASSWORD or WANDB_API_KEY"
                )


def _mappings_in(value: object) -> Iterator[Mapping[str, object]]:
    if isinstance(value, Mapping):
        yield value
        value = list(value.values())
    if isinstance(value, list | tuple):
        for inner in value:
            yield from _mappings_in(inner)
