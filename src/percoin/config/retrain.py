"""The settings of ``python -m percoin.retrain``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from omegaconf import MISSING

from percoin.bars.renames import current_symbol
from percoin.config.fields import MOST_CORES, MOST_DAYS, file_path, number, require
from percoin.config.output import OutputFormat
from percoin.config.source import SourceConfig
from percoin.config.timeframe import TimeframeConfig

_TIME_OF_DAY = re.compile(r"([01]\d|2[0-3]):[0-5]\d")


class Rhythm(StrEnum):
    """How often ``python -m percoin.retrain`` looks, if it keeps running."""

    HOURLY = "hourly"
    DAILY = "daily"
    WEEKLY = "weekly"


@dataclass
class RetrainConfig:
    """Everything ``python -m percoin.retrain`` can be told."""

    symbol: str | None = None
    tf: TimeframeConfig | None = None
    source: SourceConfig | None = None
    dry_run: bool = MISSING
    schedule: str | None = None
    at: str = MISSING
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
        rhythms = [rhythm.value for rhythm in Rhythm]
        require(
            self.schedule is None or self.schedule in rhythms,
            f"schedule={self.schedule} must be one of {', '.join(rhythms)}, or null",
        )
        require(
            _TIME_OF_DAY.fullmatch(self.at) is not None,
            f"at={self.at} must be a time of day in UTC, such as 03:10",
        )
        known = [member.value for member in OutputFormat]
        require(self.output in known, f"output={self.output} must be one of {', '.join(known)}")
        require(
            self.schedule is None or not self.dry_run,
            "dry_run=true explains once: leave out schedule",
        )
