"""The settings of ``python -m percoin.judge``."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from omegaconf import MISSING

from percoin.bars.renames import current_symbol
from percoin.config.costs import CostsConfig
from percoin.config.fields import MOST_BARS, MOST_DAYS, MOST_SEED, file_path, number, require
from percoin.config.labels import LabelsConfig
from percoin.config.output import OutputFormat
from percoin.config.source import SourceConfig
from percoin.config.split import SplitConfig
from percoin.config.timeframe import TimeframeConfig
from percoin.errors import ConfigError
from percoin.printable import printable

# A name in tables.
_LONGEST_NAME = 60


@dataclass
class JudgeConfig:
    """Everything ``python -m percoin.judge`` can be told."""

    forecasts: str = file_path()
    symbol: str = MISSING
    name: str = MISSING
    trained_until: str | None = None
    threshold: float = number(0, 1)
    trials: int = number(1, 1_000_000)
    looks: int = number(1, 1_000_000)
    output: str = MISSING
    report_dir: str | None = file_path(None)
    repetitions: int = number(100, 100_000)
    seed: int = number(0, MOST_SEED)
    lookback: int = number(1, MOST_BARS, note=" bar")
    history_days: int = number(1, MOST_DAYS)
    tf: TimeframeConfig = MISSING
    source: SourceConfig = MISSING
    labels: LabelsConfig = MISSING
    split: SplitConfig = MISSING
    costs: CostsConfig = MISSING
    data_dir: str = file_path()

    def __post_init__(self) -> None:
        current_symbol(self.symbol)
        known = [member.value for member in OutputFormat]
        require(self.output in known, f"output={self.output} must be one of {', '.join(known)}")
        require(bool(self.name.strip()), "name= is empty; it stands in tables")
        shown = printable(self.name, _LONGEST_NAME)
        require(
            shown == self.name,
            f"name={shown} does not fit into tables: at most {_LONGEST_NAME} characters, none of "
            "them a control character",
        )
        _ = self.trained_until_ms

    @property
    def trained_until_ms(self) -> int | None:
        """The moment in milliseconds since 1970-01-01 UTC; a day begins at midnight UTC."""
        if self.trained_until is None:
            return None
        try:
            moment = datetime.fromisoformat(self.trained_until)
            moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
            return round(moment.timestamp() * 1000)
        except (ValueError, OverflowError):
            raise ConfigError(
                f"trained_until={self.trained_until} is no day: write it as in 2025-05-01"
            ) from None
