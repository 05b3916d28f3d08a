"""The settings of ``python -m percoin.signals``."""

from __future__ import annotations

from dataclasses import dataclass

from percoin.bars.renames import current_symbol
from percoin.config.answer import check_chain
from percoin.config.costs import CostsConfig
from percoin.config.dates import check_dates, end_date, start_date
from percoin.config.fields import (
    MOST_BARS,
    MOST_DAYS,
    MOST_SEED,
    allowed_code,
    file_path,
    number,
    setting,
)
from percoin.config.labels import LabelsConfig
from percoin.config.output import output_format
from percoin.config.source import SourceConfig
from percoin.config.split import SplitConfig
from percoin.config.timeframe import TimeframeConfig


@dataclass
class SignalsConfig:
    """Everything ``python -m percoin.signals`` can be told."""

    symbol: str = setting("market as the exchange spells it, for example BTCUSDT; needed")
    tf: TimeframeConfig = setting()
    source: SourceConfig = setting()
    labels: LabelsConfig = setting()
    chain: list[str] = setting("sources to score, in the order in which they are asked")
    output: str = output_format("text is tables, json is one object for programs")
    repetitions: int = number("bootstrap draws behind each interval", 100, 100_000)
    seed: int = number("for the bootstrap", 0, MOST_SEED)
    lookback: int = number("bars in a window", 1, MOST_BARS, why=" bar")
    history_days: int = number("days of history, back from the newest bar", 1, MOST_DAYS)
    start: str | None = start_date()
    end: str | None = end_date()
    split: SplitConfig = setting("shares of the rows, oldest first")
    costs: CostsConfig = setting("for each side of a trade, in basis points")
    plugins: list[str] = allowed_code()
    data_dir: str = file_path("bars are stored here, in bars/")
    models_dir: str = file_path("the registry of trained models")

    def __post_init__(self) -> None:
        current_symbol(self.symbol)
        check_dates(self.start, self.end)
        check_chain(self.chain)
