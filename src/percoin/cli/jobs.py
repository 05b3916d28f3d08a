"""Running ``train.py``: one run under Hydra, or a sweep of them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import run_job
from hydra.experimental.callback import Callback
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from percoin.cli.compose import (
    BUGS_OF_HYDRA,
    ConfigShown,
    as_meant,
    compose_config,
    composed,
    first_line,
    register_configs,
    shown_text,
    without_hydra,
)
from percoin.cli.elsewhere import translated
from percoin.cli.folders import is_search_path
from percoin.cli.mistakes import SET_ANY, check_overrides, check_used, choices
from percoin.cli.options import MULTIRUN, Shown, is_option, joined, shown_of
from percoin.cli.run import run_command
from percoin.config import CONF_DIR, Config, TrainConfig, typed
from percoin.config.effects import names_with
from percoin.config.fields import Effect
from percoin.errors import ConfigError, PercoinError
from percoin.run_folder import claimed_run, run_folder


def run_jobs(
    task: Callable[[Config], Any],
    schema: type[Config],
    config_name: str,
    sweep: Callable[[Sequence[str]], Any],
) -> int:
    """Run ``task`` once under Hydra, or with ``-m`` a sweep of such runs.

    A run's settings are checked before Hydra makes its folder.

    Args:
        task: Receives the typed settings of the one run.
        schema: Their dataclass.
        config_name: The config under ``conf/``.
        sweep: Receives the overrides of a sweep, each with one value or several.

    Returns:
        The exit code, as ``run_command``.
    """
    register_configs()
    failures: list[Exception] = []

    def job(config: DictConfig) -> None:
        try:
            with claimed_run(Path(HydraConfig.get().runtime.output_dir)):
                task(typed(config, schema))
        except (PercoinError, MemoryError, RuntimeError, ImportError, OSError) as error:
            # Hydra would log it with its traceback.
            failures.append(error)

    def command() -> None:
        arguments = translated(joined(sys.argv[1:]), schema)
        overrides = _overrides_of_sweep(arguments)
        if overrides is not None:
            words = [word for word in overrides if not is_option(word)]
            check_overrides(words, schema)
            check_used(words, _files_of_sweep(config_name, overrides))
            sweep(overrides)
            return
        shown, arguments = shown_of(arguments)
        _check_not_of_sweeps(arguments)
        _run_job(job, schema, config_name, arguments, shown)
        for error in failures:
            raise error

    # Hydra would print a traceback and end the process; with this it raises.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    return run_command(command, config_name)


def _run_job(
    job: Callable[[DictConfig], Any],
    schema: type[Config],
    config_name: str,
    arguments: Sequence[str],
    shown: Shown | None,
) -> None:
    """What ``hydra.main`` does for one run, without composing the config two more times."""
    overrides = as_meant(config_name, arguments)
    with initialize_config_dir(str(CONF_DIR), version_base="1.3", job_name=config_name):
        config = composed(config_name, overrides)
        check_used(arguments, [config])
        if shown is not None:
            raise ConfigShown(shown_text(config, shown))
        settings = typed(without_hydra(config), schema)
        names_its_folder = OmegaConf.is_interpolation(config.hydra.run, "dir")
        with open_dict(config):
            config.hydra.mode = RunMode.RUN
            if names_its_folder and isinstance(settings, TrainConfig):
                config.hydra.run.dir = str(run_folder(settings, Path(config.hydra.run.dir)))
        loader = GlobalHydra.instance().config_loader()
        # One that does nothing; percoin has no callbacks of Hydra's kind.
        context = HydraContext(loader, callbacks=cast(Any, Callback()))
        try:
            # What the job itself raises comes out of its return value.
            done = run_job(
                task_function=job,
                config=config,
                job_dir_key="hydra.run.dir",
                job_subdir_key=None,
                hydra_context=context,
            )
        except BUGS_OF_HYDRA as error:
            raise ConfigError(f"Hydra cannot begin the run: {first_line(error)}") from error
    # Reading it raises what the job has raised.
    _ = done.return_value


def _files_of_sweep(config_name: str, overrides: Sequence[str]) -> list[DictConfig]:
    """The configs of the files that a sweep chooses, so that each is in one of them."""
    chosen = {group: values for group, values in choices(overrides).items() if group in SET_ANY}
    folders = [word for word in overrides if is_search_path(word)]
    n_rounds = max(map(len, chosen.values()), default=0)
    rounds = (
        [f"{group}={values[min(n, len(values) - 1)]}" for group, values in chosen.items()]
        for n in range(n_rounds)
    )
    return [compose_config(config_name, [*folders, *words]) for words in rounds]


def _overrides_of_sweep(arguments: Sequence[str]) -> list[str] | None:
    """The overrides of a command line with ``-m``; None without it."""
    overrides = [argument for argument in arguments if argument not in MULTIRUN]
    return None if len(overrides) == len(arguments) else overrides


def _check_not_of_sweeps(arguments: Sequence[str]) -> None:
    for argument in arguments:
        if argument.partition("=")[0] in names_with(TrainConfig, {Effect.SWEEP}):
            raise ConfigError(f"{argument} is for sweeps: add -m, or leave it out")
