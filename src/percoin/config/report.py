"""The settings of ``python -m percoin.report``."""

from __future__ import annotations

from dataclasses import dataclass

from percoin.config.fields import file_path, setting
from percoin.config.timeframe import TimeframeConfig
from percoin.types import check_symbol


@dataclass
class ReportConfig:
    """Everything ``python -m percoin.report`` can be told; None stands for all."""

    symbol: str | None = setting("one market; null is all of them", default=None)
    tf: TimeframeConfig | None = setting(default=None)
    models_dir: str = file_path("the registry of trained models")
    output_dir: str = file_path("where the page, Markdown and JSON go")

    def __post_init__(self) -> None:
        if self.symbol is not None:
            check_symbol(self.symbol)
