"""Every setting: its type, its range, what it affects, and its line of help.

``conf/`` holds the values, these dataclasses hold the rules. A config is checked
once, at the door (``typed``); behind it there are only these objects.
"""

from percoin.config.answer import JUDGED
from percoin.config.audit import AuditConfig
from percoin.config.checking import Config, name_nearest, typed
from percoin.config.costs import CostsConfig
from percoin.config.fetch import FetchConfig
from percoin.config.judge import JudgeConfig
from percoin.config.labels import (
    FixedHorizonConfig,
    LabelsConfig,
    OwnLabelsConfig,
    RelativeConfig,
    TripleBarrierConfig,
    VolatilityScaledConfig,
)
from percoin.config.launcher import LauncherConfig, ProcessesConfig, RayConfig, SlurmConfig
from percoin.config.model import CnnLstmConfig, ModelConfig, OwnNetworkConfig
from percoin.config.output import OutputFormat
from percoin.config.predict import PredictConfig
from percoin.config.recipes import EvaluationMode, RecipeName, usual_blend, usual_epochs
from percoin.config.registry import RegistryAction, RegistryConfig
from percoin.config.report import ReportConfig
from percoin.config.retrain import RetrainConfig
from percoin.config.schemas import CONF_DIR, OPTIONS, SCHEMAS
from percoin.config.serve import ServeConfig
from percoin.config.signals import SignalsConfig
from percoin.config.source import (
    BinanceConfig,
    FilesConfig,
    SampleConfig,
    SimulatedConfig,
    SourceConfig,
    StoreConfig,
)
from percoin.config.split import SplitConfig
from percoin.config.train import TrainConfig
from percoin.config.trainer import OptimizerConfig, TrainerConfig
from percoin.config.tune import PrunerConfig, PrunerKind, SpaceConfig, TuneConfig

__all__ = [
    "CONF_DIR",
    "JUDGED",
    "OPTIONS",
    "SCHEMAS",
    "AuditConfig",
    "BinanceConfig",
    "CnnLstmConfig",
    "Config",
    "CostsConfig",
    "EvaluationMode",
    "FetchConfig",
    "FilesConfig",
    "FixedHorizonConfig",
    "JudgeConfig",
    "LabelsConfig",
    "LauncherConfig",
    "ModelConfig",
    "OptimizerConfig",
    "OutputFormat",
    "OwnLabelsConfig",
    "OwnNetworkConfig",
    "PredictConfig",
    "ProcessesConfig",
    "PrunerConfig",
    "PrunerKind",
    "RayConfig",
    "RecipeName",
    "RegistryAction",
    "RegistryConfig",
    "RelativeConfig",
    "ReportConfig",
    "RetrainConfig",
    "SampleConfig",
    "ServeConfig",
    "SignalsConfig",
    "SimulatedConfig",
    "SlurmConfig",
    "SourceConfig",
    "SpaceConfig",
    "SplitConfig",
    "StoreConfig",
    "TrainConfig",
    "TrainerConfig",
    "TripleBarrierConfig",
    "TuneConfig",
    "VolatilityScaledConfig",
    "name_nearest",
    "typed",
    "usual_blend",
    "usual_epochs",
]
