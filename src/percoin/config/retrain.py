"""The settings of ``python -m percoin.retrain``."""

from __future__ import annotations

from dataclasses import dataclass

from percoin.bars.renames import current_symbol
from percoin.config.fields import MOST_CORES, MOST_DAYS, file_path, number, setting
from percoin.config.output import output_format
from percoin.config.source import SourceConfig
from percoin.config.timeframe import TimeframeConfig


@dataclass
class RetrainConfig:
    """Everything ``python -m percoin.retrain`` can be told."""

    symbol: str | None = setting("one market; null is all of the registry", default=None)
    tf: TimeframeConfig | None = setting(default=None)
    source: SourceConfig | None = setting(default=None)
    dry_run: bool = setting("true only explains")
    max_age_days: float = number("data that ends longer ago is too old", above=0, most=MOST_DAYS)
    max_new_bars_share: float = number(
        "so many new bars, as a share of those it was made from, are enough for a new one",
        above=0,
        most=1_000_000,
    )
    max_drift: float = number(
        "so many times further than any stretch of its train rows a feature may move (PSI)",
        above=0,
        most=1_000_000,
    )
    # Fewer blocks make no interval.
    min_resolved: int = number(
        "independent live predictions; with fewer, their skill says nothing", 50, 100_000_000
    )
    demote_error: float = number(
        "at most this share of models whose live skill is exactly none is demoted by chance, "
        "however often it is looked",
        above=0,
        most=0.25,
    )
    pool_due_share: float = number(
        "a pool is trained once that share of its markets is due; 0 is any of them", 0, 1
    )
    retry_days: float = number("a market is trained no more often", 0, MOST_DAYS)
    workers: int | None = number(
        "markets trained at a time, which share the cores; null is one per core",
        1,
        MOST_CORES,
        default=None,
    )
    record_url: str | None = setting(
        "the track record, as serve has it; null is record.sqlite in data_dir", default=None
    )
    output: str = output_format()
    data_dir: str = file_path("bars, below bars/, and the track record")
    models_dir: str = file_path("the registry of trained models")
    outputs_dir: str = file_path("logs and checkpoints, below retrain/")

    def __post_init__(self) -> None:
        if self.symbol is not None:
            current_symbol(self.symbol)
