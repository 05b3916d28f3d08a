"""The settings of ``python -m percoin.audit``."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING

from percoin.bars.renames import current_symbol
from percoin.config.answer import check_predictor
from percoin.config.features import FeaturesConfig
from percoin.config.fields import MOST_BARS, MOST_DAYS, MOST_SEED, file_path, number, require
from percoin.config.labels import LabelsConfig
from percoin.config.output import OutputFormat
from percoin.config.source import SourceConfig
from percoin.config.split import SplitConfig
from percoin.config.timeframe import TimeframeConfig


@dataclass
class AuditConfig:
    """Everything ``python -m percoin.audit`` can be told; None is not looked at."""

    symbol: str | None = None
    metrics: str | None = file_path(default=None)
    tf: TimeframeConfig = MISSING
    source: SourceConfig = MISSING
    features: FeaturesConfig = MISSING
    labels: LabelsConfig = MISSING
    output: str = MISSING
    replay: bool = MISSING
    replay_bars: int | None = number(1, 100_000_000, default=None)
    predictor: str = MISSING
    cuts: int = number(1, 1000)
    seed: int = number(0, MOST_SEED)
    lookback: int = number(1, MOST_BARS, note=" bar")
    history_days: int = number(1, MOST_DAYS)
    split: SplitConfig = MISSING
    data_dir: str = file_path()
    models_dir: str = file_path()

    def __post_init__(self) -> None:
        if self.symbol is not None:
            current_symbol(self.symbol)
        known = [member.value for member in OutputFormat]
        require(self.output in known, f"output={self.output} must be one of {', '.join(known)}")
        check_predictor(self.predictor)
