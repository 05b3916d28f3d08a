"""The settings of ``python -m percoin.retrain``."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING

from percoin.bars.renames import current_symbol
from percoin.config.fields import MOST_CORES, MOST_DAYS, file_path, number, require
from percoin.config.output import OutputFormat
from percoin.config.source import SourceConfig
from percoin.config.timeframe import TimeframeConfig


@dataclass
class RetrainConfig:
    """Everything ``python -m percoin.retrain`` can be told."""

    symbol: str | None = None
    tf: TimeframeConfig | None = None
    source: SourceConfig | None = None
    dry_run: bool = MISSING
    max_age_days: float = number(above=0, most=MOST_DAYS)
    max_new_bars_share: float = number(above=0, most=1_000_000)
    max_drift: float = number(above=0, most=1_000_000)
    # Fewer blocks make no interval.
    min_resolved: int = number(50, 100_000_000)
    demote_error: float = number(above=0, most=0.25)
    pool_due_share: float = number(0, 1)
    retry_days: float = number(0, MOST_DAYS)
    workers: int | None = number(1, MOST_CORES, default=None)
    record_url: str | None = None
    output: str = MISSING
    data_dir: str = file_path()
    models_dir: str = file_path()
    outputs_dir: str = file_path()

    def __post_init__(self) -> None:
        if self.symbol is not None:
            current_symbol(self.symbol)
        known = [member.value for member in OutputFormat]
        require(self.output in known, f"output={self.output} must be one of {', '.join(known)}")
