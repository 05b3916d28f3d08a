"""The settings of ``python -m percoin.fetch``."""

from __future__ import annotations

from dataclasses import dataclass

from percoin.bars.renames import current_symbol
from percoin.config.dates import check_dates
from percoin.config.fields import MOST_BARS, MOST_DAYS, file_path, number, setting
from percoin.config.output import output_format
from percoin.config.source import SourceConfig
from percoin.config.timeframe import TimeframeConfig


@dataclass
class FetchConfig:
    """Everything ``python -m percoin.fetch`` can be told."""

    symbol: list[str] = setting("one or several, with commas between them")
    tf: TimeframeConfig = setting()
    source: SourceConfig = setting()
    history_days: int = number(
        "days of history, back from now; older stored bars are kept", 1, MOST_DAYS
    )
    start: str | None = setting(
        "first day of the bars to fetch (UTC), such as 2024-01-01; in place of history_days",
        default=None,
    )
    lookback: int = number(
        "lookback of the models to train; the bars before their first window are fetched too",
        1,
        MOST_BARS,
        why=" bar",
    )
    report: bool = setting("true fetches nothing and reports what is stored")
    output: str = output_format()
    data_dir: str = file_path("bars are stored in bars/")

    def __post_init__(self) -> None:
        check_dates(self.start, None)
        for symbol in self.symbol:
            current_symbol(symbol)
