"""The settings of ``predict.py``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING

from percoin.bars.renames import current_symbol
from percoin.config.answer import (
    AGE_OF_NEWEST,
    check_chain,
    check_device,
    check_predictor,
    read_confidence,
)
from percoin.config.fields import file_path, number, require
from percoin.config.output import OutputFormat
from percoin.config.source import SourceConfig
from percoin.config.timeframe import TimeframeConfig


@dataclass
class PredictConfig:
    """Everything ``predict.py`` can be told."""

    symbol: str = MISSING
    tf: TimeframeConfig = MISSING
    source: SourceConfig = MISSING
    output: str = MISSING
    predictor: str = MISSING
    device: str = MISSING
    chain: list[str] = MISSING
    use_ml: bool = MISSING
    use_pro: bool = MISSING
    min_confidence: Any = MISSING
    require_accepted: bool = MISSING
    max_age_bars: float | None = number(1, 1_000_000_000, note=AGE_OF_NEWEST, default=None)
    data_dir: str = file_path()
    models_dir: str = file_path()

    def __post_init__(self) -> None:
        current_symbol(self.symbol)
        known = [member.value for member in OutputFormat]
        require(self.output in known, f"output={self.output} must be one of {', '.join(known)}")
        check_predictor(self.predictor)
        check_device(self.device)
        check_chain(self.chain)
        self.min_confidence = read_confidence(self.min_confidence)
