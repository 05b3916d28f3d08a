"""The settings of each command, by the name of its file in ``conf/``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from percoin.config.audit import AuditConfig
from percoin.config.fetch import FetchConfig
from percoin.config.judge import JudgeConfig
from percoin.config.predict import PredictConfig
from percoin.config.registry import RegistryConfig
from percoin.config.report import ReportConfig
from percoin.config.retrain import RetrainConfig
from percoin.config.rungs import RungsConfig
from percoin.config.serve import ServeConfig
from percoin.config.train import TrainConfig

CONF_DIR = Path(__file__).parents[3] / "conf"


# By the name of its file in conf/.
SCHEMAS: Mapping[str, type] = {
    "train": TrainConfig,
    "predict": PredictConfig,
    "serve": ServeConfig,
    "audit": AuditConfig,
    "rungs": RungsConfig,
    "judge": JudgeConfig,
    "fetch": FetchConfig,
    "report": ReportConfig,
    "registry": RegistryConfig,
    "retrain": RetrainConfig,
}
