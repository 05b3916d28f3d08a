"""The settings of ``python -m percoin.judge``."""

from __future__ import annotations

from dataclasses import dataclass

from percoin.bars.renames import current_symbol
from percoin.config.backtest import BacktestConfig
from percoin.config.costs import CostsConfig
from percoin.config.dates import check_dates, end_date, end_ms, start_date
from percoin.config.fields import (
    MOST_BARS,
    MOST_DAYS,
    MOST_SEED,
    allowed_code,
    file_path,
    number,
    require,
    setting,
)
from percoin.config.labels import LabelsConfig
from percoin.config.output import output_format
from percoin.config.source import SourceConfig
from percoin.config.split import SplitConfig
from percoin.config.timeframe import TimeframeConfig
from percoin.printable import printable

# A name in tables.
_LONGEST_NAME = 60


@dataclass
class JudgeConfig:
    """Everything ``python -m percoin.judge`` can be told."""

    forecasts: str = file_path("file of forecasts; needed")
    symbol: str = setting("market as the exchange spells it, for example BTCUSDT; needed")
    name: str = setting("name of the forecaster in tables")
    trained_until: str | None = setting(
        "last day of the bars that it learnt from, such as 2025-05-01 (UTC), or the time at "
        "which they end; forecasts of bars up to then are refused",
        default=None,
    )
    threshold: float = number(
        "least probability of LONG or SHORT for a trade in the backtest", 0, 1
    )
    trials: int = number(
        "settings or models that were tried before this one was chosen", 1, 1_000_000
    )
    looks: int = number(
        "chosen models that were judged on these bars, this one included", 1, 1_000_000
    )
    output: str = output_format("text is tables, json is one object for programs")
    report_dir: str | None = file_path(
        "a folder for the report as a page, Markdown and JSON", default=None
    )
    repetitions: int = number("bootstrap draws behind each interval", 100, 100_000)
    seed: int = number("for the bootstrap and for boosting", 0, MOST_SEED)
    lookback: int = number("bars before a row that must have no gap", 1, MOST_BARS, why=" bar")
    history_days: int = number("days of history, back from the newest bar", 1, MOST_DAYS)
    start: str | None = start_date()
    end: str | None = end_date()
    tf: TimeframeConfig = setting()
    source: SourceConfig = setting()
    labels: LabelsConfig = setting()
    split: SplitConfig = setting(
        "shares of the rows before the forecasts: baselines learn on train and are chosen on "
        "validation"
    )
    costs: CostsConfig = setting("for each side of a trade, in basis points")
    backtest: BacktestConfig = setting()
    plugins: list[str] = allowed_code()
    data_dir: str = file_path("bars are stored here, in bars/")

    def __post_init__(self) -> None:
        current_symbol(self.symbol)
        check_dates(self.start, self.end)
        require(bool(self.name.strip()), "name= is empty; give a name for the tables")
        shown = printable(self.name, _LONGEST_NAME)
        require(
            shown == self.name,
            f"name={shown} does not fit into tables: at most {_LONGEST_NAME} characters, none of "
            "them a control character",
        )
        _ = self.trained_until_ms

    @property
    def trained_until_ms(self) -> int | None:
        """The end of the bars that it learnt from, in milliseconds since 1970-01-01 UTC.

        A date without a time is a whole day: it ends at the next midnight UTC.
        """
        return end_ms("trained_until", self.trained_until)
