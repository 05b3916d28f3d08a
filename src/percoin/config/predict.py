"""The settings of ``predict.py``."""

from __future__ import annotations

from dataclasses import dataclass

from percoin.bars.renames import current_symbol
from percoin.config.answer import AnswerConfig
from percoin.config.fields import allowed_code, file_path, setting
from percoin.config.output import output_format
from percoin.config.source import SourceConfig
from percoin.config.timeframe import TimeframeConfig


@dataclass
class PredictConfig(AnswerConfig):
    """Everything ``predict.py`` can be told."""

    symbol: str = setting("market as the exchange spells it, for example ETHUSDT; needed")
    tf: TimeframeConfig = setting()
    source: SourceConfig = setting()
    output: str = output_format("text is one line for people, json is one object for programs")
    plugins: list[str] = allowed_code()
    data_dir: str = file_path("bars are stored here, in bars/")
    models_dir: str = file_path("the registry of trained models")

    def __post_init__(self) -> None:
        current_symbol(self.symbol)
        super().__post_init__()
