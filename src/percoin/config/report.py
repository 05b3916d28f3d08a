"""The settings of ``python -m percoin.report``."""

from __future__ import annotations

from dataclasses import dataclass

from percoin.config.fields import file_path
from percoin.config.timeframe import TimeframeConfig
from percoin.types import check_symbol


@dataclass
class ReportConfig:
    """Everything ``python -m percoin.report`` can be told; None stands for all."""

    symbol: str | None = None
    tf: TimeframeConfig | None = None
    models_dir: str = file_path()
    output_dir: str = file_path()

    def __post_init__(self) -> None:
        if self.symbol is not None:
            check_symbol(self.symbol)
