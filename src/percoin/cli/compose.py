"""From the words of a command line to a composed config."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from percoin.cli.elsewhere import translated
from percoin.cli.folders import folders_in, is_search_path, register_folders
from percoin.cli.mistakes import as_loggers, check_overrides
from percoin.cli.options import Shown, joined, shown_of
from percoin.cli.overrides import quote_texts
from percoin.cli.targets import with_targets
from percoin.config import CONF_DIR, OPTIONS, SCHEMAS, usual_blend, usual_epochs
from percoin.config.folders import reading_from
from percoin.errors import ConfigError
from percoin.printable import without_passwords
from percoin.run_folder import run_dir

# What Hydra raises where it has a bug.
BUGS_OF_HYDRA = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError, RecursionError),
    *(TypeError, ValueError),
)


@cache
def register_configs() -> None:
    """Tell Hydra, once, the schemas, the user's folders and the resolvers of ``conf/``."""
    register_folders()
    store = ConfigStore.instance()
    for name, schema in SCHEMAS.items():
        store.store(name=f"{name}_schema", node=schema)
    for group, options in OPTIONS.items():
        for option in options:
            store.store(group=group, name=f"{option.option}_schema", node=option)
    # Cached: Hydra asks several times and must hear one answer.
    OmegaConf.register_new_resolver("percoin.run_dir", run_dir, replace=True, use_cache=True)
    OmegaConf.register_new_resolver("percoin.usual_blend", _usual_blend, replace=True)
    OmegaConf.register_new_resolver("percoin.usual_epochs", usual_epochs, replace=True)


def _usual_blend(recipe: str, model: DictConfig) -> str:
    kind: Any = OmegaConf.get_type(model)
    return usual_blend(recipe, is_blended=kind.is_blended)


def compose_config(name: str, overrides: Sequence[str]) -> DictConfig:
    """Compose ``conf/<name>.yaml`` with ``key=value`` overrides, without a run folder.

    Raises:
        ConfigError: A choice that is no option of its group, or a key taken away.
        HydraException: A key that the config does not have, or a value of the
            wrong type; ``explain`` says it in one line.
    """
    return Composed.of(name, overrides).config


@dataclass(frozen=True)
class Composed:
    """A config, and how it came about.

    Attributes:
        config: As the command line and the files under ``conf/`` say.
        choices: The option chosen of each group.
        hydra: Hydra's own settings.
    """

    config: DictConfig
    choices: Mapping[str, str]
    hydra: DictConfig

    @classmethod
    def of(cls, name: str, overrides: Sequence[str]) -> Composed:
        """As ``compose_config``, which says what it raises."""
        shown, words = shown_of(joined(overrides))
        register_configs()
        with reading_from(folders_in(words)):
            words = as_meant(name, words)
            with _hydra_of_conf():
                config = composed(name, words)
        if shown is not None:
            raise ConfigShown(shown_text(config, shown))
        own = config.hydra
        return cls(without_hydra(config), dict(own.runtime.choices), own)


class ConfigShown(Exception):  # noqa: N818 - it is what was asked for
    """The config that ``--cfg`` asks to see; nothing else is done."""


def shown_text(config: DictConfig, shown: Shown) -> str:
    """A config, or a part of it, as YAML, without the passwords in its addresses.

    Args:
        config: With Hydra's own settings.
        shown: What of it.

    Raises:
        ConfigError: There is no such part.
    """
    whole = without_hydra(config) if shown.kind == "job" else config
    if shown.kind == "hydra":
        whole = OmegaConf.masked_copy(config, ["hydra"])
    if not shown.package:
        return without_passwords(OmegaConf.to_yaml(whole, resolve=shown.resolve))
    part = OmegaConf.select(whole, shown.package)
    if not OmegaConf.is_config(part):
        raise ConfigError(f"--package {shown.package}: the config has no part of that name")
    text = without_passwords(OmegaConf.to_yaml(part, resolve=shown.resolve))
    return f"# @package {shown.package}\n{text}"


def as_meant(config_name: str, overrides: Sequence[str]) -> list[str]:
    """Refuse mistakes that Hydra would not explain, and write the words as Hydra needs them.

    Args:
        config_name: The command.
        overrides: ``KEY=VALUE`` each; folders of config files are left out.

    Raises:
        ConfigError: A mistake among the words.
    """
    schema = SCHEMAS[config_name]
    words = translated([word for word in overrides if not is_search_path(word)], schema)
    check_overrides(words, schema)
    return quote_texts(as_loggers(with_targets(words, schema)), schema)


def composed(config_name: str, words: Sequence[str]) -> DictConfig:
    """Compose with Hydra's own settings; if Hydra itself breaks, name the word that did it.

    Raises:
        ConfigError: A word that Hydra has a bug with.
        HydraException: As ``compose_config``.
    """
    try:
        return compose(config_name, overrides=list(words), return_hydra_config=True)
    except (HydraException, OmegaConfBaseException):
        raise
    except BUGS_OF_HYDRA as error:
        word = _culprit(config_name, words)
        raise ConfigError(f"{word} cannot be read: {first_line(error)}") from error


def first_line(error: Exception) -> str:
    """The first line of an error's text, or its kind."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def _culprit(config_name: str, words: Sequence[str]) -> str:
    """The first word that breaks Hydra alone."""
    for word in words:
        try:
            compose(config_name, overrides=[word], return_hydra_config=True)
        except (HydraException, OmegaConfBaseException):
            continue  # wrong without the others, which is no bug
        except BUGS_OF_HYDRA:
            return word
    return "this command line"


@contextmanager
def config_loader(words: Sequence[str]) -> Iterator[ConfigLoader]:
    """Hydra's loader of config files, to read overrides without composing a config.

    Args:
        words: May name further folders.
    """
    register_configs()
    with reading_from(folders_in(words)), _hydra_of_conf():
        yield GlobalHydra.instance().config_loader()


@contextmanager
def _hydra_of_conf() -> Iterator[None]:
    """Hydra over the config files; within a run of Hydra, which has one of its own, too."""
    outer, GlobalHydra.instance().hydra = GlobalHydra.instance().hydra, None
    try:
        with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
            yield
    finally:
        GlobalHydra.instance().hydra = outer


def without_hydra(config: DictConfig) -> DictConfig:
    """The config without Hydra's own settings."""
    own = copy.copy(config)
    with open_dict(own):
        del own["hydra"]
    return own
