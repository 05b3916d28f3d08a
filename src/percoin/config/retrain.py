"""The settings of ``python -m percoin.retrain``."""

from __future__ import annotations

from dataclasses import dataclass

from percoin.bars.renames import current_symbol
from percoin.config.fields import MOST_CORES, MOST_DAYS, allowed_code, file_path, number, setting
from percoin.config.output import output_format
from percoin.config.source import SourceConfig
from percoin.config.timeframe import TimeframeConfig


@dataclass
class RetrainConfig:
    """Everything ``python -m percoin.retrain`` can be told."""

    symbol: str | None = setting("one market; null is every market of the registry", default=None)
    tf: TimeframeConfig | None = setting(default=None)
    source: SourceConfig | None = setting(default=None)
    dry_run: bool = setting("true only explains and trains nothing")
    max_age_days: float = number(
        "a model is due when its data ended longer ago", above=0, most=MOST_DAYS
    )
    max_new_bars_share: float = number(
        "a model is due when this share of new bars has come, of the bars it was made from",
        above=0,
        most=1_000_000,
    )
    max_drift: float = number(
        "a model is due when a feature drifts (PSI) more than this many times as far as within "
        "its train rows",
        above=0,
        most=1_000_000,
    )
    # Fewer blocks make no interval.
    min_resolved: int = number(
        "independent live predictions that are needed before their skill counts", 50, 100_000_000
    )
    demote_error: float = number(
        "largest share of models with a live skill of exactly 0 that is demoted by chance, over "
        "all checks",
        above=0,
        most=0.25,
    )
    pool_due_share: float = number(
        "a pool is trained when this share of its markets is due; 0 is any market", 0, 1
    )
    retry_days: float = number("least days between two trainings of a market", 0, MOST_DAYS)
    workers: int | None = number(
        "markets trained at a time; they share the cores; null is one per core",
        1,
        MOST_CORES,
        default=None,
    )
    record_url: str | None = setting(
        "the track record, as in percoin.serve; null is record.sqlite in data_dir", default=None
    )
    output: str = output_format()
    plugins: list[str] = allowed_code()
    data_dir: str = file_path("bars (in bars/) and the track record are stored here")
    models_dir: str = file_path("the registry of trained models")
    outputs_dir: str = file_path("logs and checkpoints, in retrain/")

    def __post_init__(self) -> None:
        if self.symbol is not None:
            current_symbol(self.symbol)
