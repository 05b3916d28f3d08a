"""Create the Lightning loggers of the settings, and log settings, results and pictures."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from hydra.utils import instantiate
from lightning.pytorch.loggers import Logger
from matplotlib.figure import Figure

from percoin.config import TrainConfig
from percoin.config.effects import settings_with
from percoin.config.fields import Effect
from percoin.errors import ConfigError

# The only classes that a config may create.
_LOGGER_TARGET = re.compile(r"lightning\.pytorch\.loggers\.[A-Za-z]+Logger")


def make_loggers(settings: TrainConfig, folder: Path) -> list[Logger]:
    """Create the logger of the settings; it writes below the folder.

    Raises:
        ConfigError: The settings name a class that is no Lightning logger.
    """
    if settings.logger is None:
        return []
    check_targets(settings.logger)
    return [instantiate(settings.logger, save_dir=str(folder))]


def check_targets(logger: Mapping[str, Any]) -> None:
    """Check that the config creates only a logger, because Hydra calls any target it names.

    Raises:
        ConfigError: The target is no Lightning logger, or the logger's settings have a target.
    """
    target = str(logger.get("_target_"))
    if not _LOGGER_TARGET.fullmatch(target):
        raise ConfigError(
            f"logger._target_={target} is none of Lightning's loggers; name one, such as "
            "logger._target_=lightning.pytorch.loggers.CSVLogger"
        )
    within = list(logger.values())
    while within:
        value = within.pop()
        if isinstance(value, Mapping):
            if "_target_" in value:
                raise ConfigError("a setting of logger has a _target_ of its own; give it a value")
            within += value.values()
        elif isinstance(value, list | tuple):
            within += value


def log_run(
    loggers: Sequence[Logger], parameters: Mapping[str, Any], results: Mapping[str, float]
) -> None:
    """Log the main settings and the main results, for comparing runs."""
    figures = {f"result/{name}": value for name, value in results.items()}
    for logger in loggers:
        if isinstance(logger, pl.loggers.TensorBoardLogger):
            logger.log_hyperparams(dict(parameters), figures)
        else:
            logger.log_hyperparams(dict(parameters))
        logger.finalize("success")


def log_pictures(loggers: Sequence[Logger], pictures: Mapping[str, Figure], step: int) -> None:
    """Log a market's pictures to the loggers that show pictures."""
    for logger in loggers:
        if isinstance(logger, pl.loggers.TensorBoardLogger):
            for name, figure in pictures.items():
                logger.experiment.add_figure(name, figure, step)


def compared_settings(settings: TrainConfig) -> dict[str, Any]:
    """Top-level settings that change the model or the length of training, without the market."""
    found = settings_with(settings, {Effect.MODEL, Effect.LENGTH})
    return {name: value for name, value in found.items() if "." not in name and name != "symbol"}
