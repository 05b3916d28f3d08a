"""Create the Lightning loggers of the settings, and log settings, results and pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from matplotlib.figure import Figure

from percoin.config import TrainConfig
from percoin.config.effects import settings_with
from percoin.config.fields import Effect
from percoin.config.loggers import class_of, loggers_of
from percoin.errors import ConfigError
from percoin.file_lock import file_lock

# Loggers of a server or a store for all runs: how each calls the name of a run.
_RUN_NAME = {"MLFlowLogger": "run_name", "WandbLogger": "name"}
_SQLITE = "sqlite:///"


def make_loggers(settings: TrainConfig, folder: Path) -> list[Logger]:
    """Create the loggers of the settings; they write below the folder, or to their server.

    Raises:
        ConfigError: The settings name a class that is no Lightning logger, or a logger
            cannot begin: its package, server or login is missing.
    """
    return [
        _make_logger(name, arguments, settings, folder)
        for name, arguments in loggers_of(settings.logger).items()
    ]


def _make_logger(
    name: str, arguments: Mapping[str, Any], settings: TrainConfig, folder: Path
) -> Logger:
    further: dict[str, Any] = {"save_dir": str(folder)}
    key = _RUN_NAME.get(class_of(arguments))
    if key is None:
        made: Logger = instantiate(arguments, **further)
        return made
    if settings.tags:
        told = list(settings.tags)
        further["tags"] = told if key == "name" else {"tags": ", ".join(told)}
    further |= {key: arguments.get(key) or _name_of_run(settings, folder)}
    folder.mkdir(parents=True, exist_ok=True)
    uri = str(arguments.get("tracking_uri") or "")
    try:
        if not uri.startswith(_SQLITE):
            return _begun(instantiate(arguments, **further))
        place = Path(uri.removeprefix(_SQLITE)).absolute()
        further.setdefault("tracking_uri", f"{_SQLITE}{place}")
        if not arguments.get("artifact_location"):
            further["artifact_location"] = str(place.with_suffix(""))
        # Two jobs of a sweep must not both make the tables.
        with file_lock(place.with_name(f".{place.name}.lock"), math.inf):
            return _begun(instantiate(arguments, **further))
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"logger={name} cannot begin a run: {reason}") from error


def _begun(logger: Logger) -> Logger:
    """The logger after it has reached its store, so that it fails before the training."""
    _ = logger.version, getattr(logger, "experiment", None)
    return logger


def _name_of_run(settings: TrainConfig, folder: Path) -> str:
    outputs = Path(settings.outputs_dir).absolute()
    place = folder.absolute()
    return str(place.relative_to(outputs) if place.is_relative_to(outputs) else place)


def log_run(
    loggers: Sequence[Logger],
    parameters: Mapping[str, Any],
    results: Mapping[str, float],
    step: int,
) -> None:
    """Log the main settings and the main results, for comparing runs, and end the logging.

    Args:
        loggers: All of one market, or of all markets together.
        parameters: Settings, and the verdict.
        results: Figures by name.
        step: Epochs trained.
    """
    figures = {f"result/{name}": value for name, value in results.items()}
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.log_hyperparams(dict(parameters), figures)
        else:
            logger.log_hyperparams(dict(parameters))
            logger.log_metrics(figures, step)
        logger.finalize("success")
        if isinstance(logger, WandbLogger):
            logger.experiment.finish()


def log_pictures(loggers: Sequence[Logger], pictures: Mapping[str, Figure], step: int) -> None:
    """Log a market's pictures to the loggers that show pictures."""
    for logger in loggers:
        if log_picture := _picture_log(logger, step):
            for name, figure in pictures.items():
                log_picture(name, figure)


def _picture_log(logger: Logger, step: int) -> Callable[[str, Figure], object] | None:
    if isinstance(logger, TensorBoardLogger):
        return lambda name, figure: logger.experiment.add_figure(name, figure, step)
    if isinstance(logger, MLFlowLogger):
        return lambda name, figure: logger.experiment.log_figure(
            logger.run_id, figure, f"figures/{name}.png"
        )
    if isinstance(logger, WandbLogger):
        return lambda name, figure: logger.log_image(name, [figure])
    return None


def compared_settings(settings: TrainConfig) -> dict[str, Any]:
    """Top-level settings that change the model or the length of training, without the market."""
    found = settings_with(settings, {Effect.MODEL, Effect.LENGTH})
    return {name: value for name, value in found.items() if "." not in name and name != "symbol"}
