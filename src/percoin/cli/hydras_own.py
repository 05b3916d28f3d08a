"""What Hydra itself answers: ``--hydra-help``, ``--info`` and ``--shell-completion``."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import hydra
from omegaconf import DictConfig

from percoin.cli.compose import as_meant, register_configs
from percoin.cli.folders import folders_in
from percoin.cli.options import MULTIRUN, is_option, joined
from percoin.config import CONF_DIR
from percoin.config.folders import reading_from

_HELP = "--hydra-help"


def ask_hydra(config_name: str, arguments: Sequence[str]) -> None:
    """Let Hydra answer in place of the command.

    Args:
        config_name: The command.
        arguments: Its command line.

    Raises:
        ConfigError: A mistake among its ``KEY=VALUE`` words.
    """
    words = [word for word in joined(arguments) if word not in MULTIRUN and not is_option(word)]
    asked = [word for word in words if "=" not in word or word.startswith("-")]
    others = [word for word in words if word not in asked]
    register_configs()
    with reading_from(folders_in(words)):
        # Its help is about Hydra alone, and has no settings of percoin.
        settings = [] if _HELP in asked else as_meant(config_name, others)
        sys.argv[1:] = [_HELP] if _HELP in asked else [*asked, *settings]
        os.environ["HYDRA_FULL_ERROR"] = "1"
        try:
            hydra.main(config_path=str(CONF_DIR), config_name=config_name, version_base="1.3")(
                _nothing
            )()
        except SystemExit as end:
            if end.code:
                raise


def _nothing(_: DictConfig) -> None:
    """In place of the command, which does not run."""
