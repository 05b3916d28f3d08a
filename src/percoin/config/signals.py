"""The settings of ``python -m percoin.signals``."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING

from percoin.bars.renames import current_symbol
from percoin.config.answer import check_chain
from percoin.config.costs import CostsConfig
from percoin.config.fields import MOST_BARS, MOST_DAYS, MOST_SEED, file_path, number, require
from percoin.config.labels import LabelsConfig
from percoin.config.output import OutputFormat
from percoin.config.source import SourceConfig
from percoin.config.split import SplitConfig
from percoin.config.timeframe import TimeframeConfig


@dataclass
class SignalsConfig:
    """Everything ``python -m percoin.signals`` can be told."""

    symbol: str = MISSING
    tf: TimeframeConfig = MISSING
    source: SourceConfig = MISSING
    labels: LabelsConfig = MISSING
    chain: list[str] = MISSING
    output: str = MISSING
    repetitions: int = number(100, 100_000)
    seed: int = number(0, MOST_SEED)
    lookback: int = number(1, MOST_BARS, note=" bar")
    history_days: int = number(1, MOST_DAYS)
    split: SplitConfig = MISSING
    costs: CostsConfig = MISSING
    data_dir: str = file_path()
    models_dir: str = file_path()

    def __post_init__(self) -> None:
        current_symbol(self.symbol)
        check_chain(self.chain)
        known = [member.value for member in OutputFormat]
        require(self.output in known, f"output={self.output} must be one of {', '.join(known)}")
