"""The settings of ``python -m percoin.audit``."""

from __future__ import annotations

from dataclasses import dataclass

from percoin.bars.renames import current_symbol
from percoin.config.dates import check_dates, end_date, start_date
from percoin.config.features import FeaturesConfig
from percoin.config.fields import (
    MOST_BARS,
    MOST_DAYS,
    MOST_SEED,
    allowed_code,
    choice,
    file_path,
    number,
    setting,
)
from percoin.config.labels import LabelsConfig
from percoin.config.output import output_format
from percoin.config.source import SourceConfig
from percoin.config.split import SplitConfig
from percoin.config.timeframe import TimeframeConfig
from percoin.inference import Backend


@dataclass
class AuditConfig:
    """Everything ``python -m percoin.audit`` can be told; None is not looked at."""

    symbol: str | None = setting(
        "market as the exchange spells it, for example BTCUSDT", default=None
    )
    metrics: str | None = file_path(
        "a metrics.json or meta.json with test_metrics, from any system", default=None
    )
    tf: TimeframeConfig = setting()
    source: SourceConfig = setting()
    features: FeaturesConfig = setting()
    labels: LabelsConfig = setting()
    output: str = output_format("text is one line per check, json is one object for programs")
    replay: bool = setting(
        "true feeds stored bars one by one to the served model, and checks nothing else"
    )
    replay_bars: int | None = number(
        "how many of the newest bars from start to end are replayed; null is all",
        1,
        100_000_000,
        default=None,
    )
    predictor: str = choice(
        "torch or onnx: the live side of a replay; the batch side always uses torch", Backend
    )
    cuts: int = number("random moments at which the bars are cut off", 1, 1000)
    seed: int = number("for cut points, shuffles and bootstrap intervals", 0, MOST_SEED)
    lookback: int = number("bars in a window", 1, MOST_BARS, why=" bar")
    history_days: int = number("days of history, back from the newest bar", 1, MOST_DAYS)
    start: str | None = start_date()
    end: str | None = end_date()
    split: SplitConfig = setting("shares of the rows, oldest first")
    plugins: list[str] = allowed_code()
    data_dir: str = file_path("bars are stored here, in bars/")
    models_dir: str = file_path("the registry of trained models")

    def __post_init__(self) -> None:
        check_dates(self.start, self.end)
        if self.symbol is not None:
            current_symbol(self.symbol)
