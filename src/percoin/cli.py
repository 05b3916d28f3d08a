"""What every command shares: composing its config and ending with one clear line."""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

import hydra
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from percoin.config import CONF_DIR, Config, register_configs, typed
from percoin.errors import ConfigError, PercoinError

EXIT_USAGE = 2


def compose_config(name: str, overrides: Sequence[str]) -> DictConfig:
    """Compose ``conf/<name>.yaml`` with ``key=value`` overrides, without a run folder."""
    register_configs()
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        try:
            return compose(name, overrides=list(overrides))
        except ValueError as error:
            # Hydra's own words for `tf=4`, the only ValueError it lets out.
            if "Config group override" not in str(error):
                raise
            raise ConfigError(
                f"{' '.join(overrides)}: a choice is a number; write it as text"
            ) from error


def run_command(command: Callable[[], Any], config_name: str) -> int:
    """Call ``command`` and turn what goes wrong into one line and an exit code.

    Args:
        command: The command itself.
        config_name: Its config, to name the nearest key to a misspelt one.

    Returns:
        0, or the code of the error: 2 for a mistake on the command line, the
        error's own where it has one (128 + signal for an interruption), else 1.
    """
    try:
        command()
    except (ConfigError, HydraException, OmegaConfBaseException) as error:
        print(f"error: {explain(error, config_name)}", file=sys.stderr)
        return EXIT_USAGE
    except PercoinError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def run_jobs(task: Callable[[Config], Any], schema: type[Config], config_name: str) -> int:
    """Run ``task`` under Hydra: once, or once per job of a multirun.

    A single run's settings are checked before Hydra makes its folder. A job that
    fails does not stop the others; every failure is named at the end.

    Args:
        task: Receives the typed settings of one job.
        schema: Their dataclass.
        config_name: The config under ``conf/``.

    Returns:
        The exit code, as ``run_command``.
    """
    register_configs()
    failures: list[PercoinError] = []

    def job(config: DictConfig) -> None:
        try:
            task(typed(config, schema))
        except PercoinError as error:
            failures.append(error)

    def command() -> None:
        if not _asks_hydra_itself(sys.argv[1:]):
            typed(compose_config(config_name, sys.argv[1:]), schema)
        hydra.main(version_base="1.3", config_path=str(CONF_DIR), config_name=config_name)(job)()

    # Hydra would print a traceback and end the process; with this it raises.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    code = run_command(command, config_name)
    for failure in failures:
        print(f"error: {failure}", file=sys.stderr)
        code = failure.exit_code
    return code


def _asks_hydra_itself(arguments: Sequence[str]) -> bool:
    """Whether there is an option (--help, --multirun, --cfg ...) beside key=value."""
    return any(argument.startswith("-") for argument in arguments)


def explain(error: Exception, config_name: str) -> str:
    """Say in one line what a config error means and what was probably meant."""
    text = str(error)
    unknown = re.search(r"Could not override '([^']+)'", text)
    if unknown:
        return _explain_unknown_key(unknown.group(1), config_name)
    option = re.search(
        r"Could not find '([^']+)/([^']+)'.*options in '[^']+':(.*?)Config", text, re.S
    )
    if option:
        group, value, listed = option.groups()
        known = [word for word in listed.split() if not word.endswith("_schema")]
        return f"{group}={value} is not an option; {group} is one of {', '.join(known)}"
    if "Ambiguous value" in text:
        return f"{text.splitlines()[0]}; several values make a sweep: add -m"
    override = re.search(r"Error merging override (\S+)", text)
    if override:
        return f"{override.group(1)}: {str(error.__cause__).splitlines()[0]}"
    return " ".join(line.strip() for line in text.splitlines() if line.strip())


def _explain_unknown_key(key: str, config_name: str) -> str:
    known = _known_keys(config_name)
    nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]}?" if nearest else f"known are {', '.join(sorted(known))}"
    return f"{key} is not a setting; {hint}"


def _known_keys(config_name: str) -> list[str]:
    config = compose_config(config_name, [])
    container = OmegaConf.to_container(config, resolve=False)
    return list(_flatten(container, prefix=""))


def _flatten(container: Any, prefix: str) -> list[str]:
    names: list[str] = []
    for key, value in container.items():
        names.append(f"{prefix}{key}")
        if isinstance(value, dict):
            names += _flatten(value, prefix=f"{prefix}{key}.")
    return names
