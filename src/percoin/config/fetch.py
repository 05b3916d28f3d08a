"""The settings of ``python -m percoin.fetch``."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING

from percoin.bars.renames import current_symbol
from percoin.config.fields import MOST_BARS, MOST_DAYS, file_path, number, require
from percoin.config.output import OutputFormat
from percoin.config.source import SourceConfig
from percoin.config.timeframe import TimeframeConfig


@dataclass
class FetchConfig:
    """Everything ``python -m percoin.fetch`` can be told."""

    symbol: list[str] = MISSING
    tf: TimeframeConfig = MISSING
    source: SourceConfig = MISSING
    history_days: int = number(1, MOST_DAYS)
    lookback: int = number(1, MOST_BARS, note=" bar")
    report: bool = MISSING
    output: str = MISSING
    data_dir: str = file_path()

    def __post_init__(self) -> None:
        for symbol in self.symbol:
            current_symbol(symbol)
        known = [member.value for member in OutputFormat]
        require(self.output in known, f"output={self.output} must be one of {', '.join(known)}")
