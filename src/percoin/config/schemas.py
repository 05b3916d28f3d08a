"""The settings of each command, by the name of its file in ``conf/``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from percoin.config.audit import AuditConfig
from percoin.config.fetch import FetchConfig
from percoin.config.judge import JudgeConfig
from percoin.config.labels import LabelsConfig
from percoin.config.launcher import LauncherConfig
from percoin.config.model import ModelConfig
from percoin.config.predict import PredictConfig
from percoin.config.registry import RegistryConfig
from percoin.config.report import ReportConfig
from percoin.config.retrain import RetrainConfig
from percoin.config.serve import ServeConfig
from percoin.config.signals import SignalsConfig
from percoin.config.source import SourceConfig
from percoin.config.train import TrainConfig
from percoin.config.tune import TuneConfig

# In a checkout a link to the folder at its top; in an installed package the files themselves.
CONF_DIR = Path(__file__).parents[1] / "conf"


# By the name of its file in conf/.
SCHEMAS: Mapping[str, type] = {
    "train": TrainConfig,
    "predict": PredictConfig,
    "serve": ServeConfig,
    "audit": AuditConfig,
    "signals": SignalsConfig,
    "judge": JudgeConfig,
    "fetch": FetchConfig,
    "report": ReportConfig,
    "registry": RegistryConfig,
    "retrain": RetrainConfig,
}

# The schemas of each group's options, each with the name of its option.
OPTIONS: Mapping[str, Sequence[Any]] = {
    "source": SourceConfig.__subclasses__(),
    "labels": LabelsConfig.__subclasses__(),
    "model": ModelConfig.__subclasses__(),
    "experiment": [TuneConfig],
    "hydra/launcher": LauncherConfig.__subclasses__(),
}
