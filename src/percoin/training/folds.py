"""Load the bars of a market and build the datasets for training."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from percoin.assembly import bar_source, dataset_spec
from percoin.bars.gaps import describe_gaps, find_gaps
from percoin.bars.panel import load_panel
from percoin.bars.schema import Bars, format_time
from percoin.bars.store import BarStore
from percoin.config import BinanceConfig, EvaluationMode, TrainConfig
from percoin.dataset import MarketDataset, build_dataset, build_folds

log = logging.getLogger(__name__)

LoadBars = Callable[[TrainConfig], Bars]


def make_folds(settings: TrainConfig, bars: Bars) -> list[MarketDataset]:
    """Build the datasets: one for a single split; for a walk-forward one per fold, oldest first."""
    spec = dataset_spec(settings)
    if settings.evaluation == EvaluationMode.WALK_FORWARD:
        return build_folds(bars, spec, settings.folds)
    return [build_dataset(bars, spec)]


def n_bars_to_load(settings: TrainConfig) -> int:
    """Number of newest bars that a training uses, if there are no gaps."""
    return dataset_spec(settings).bars_to_load(settings.tf.timeframe)


def load_with_references(settings: TrainConfig, load: LoadBars) -> Bars:
    """The market's bars, with those of the markets that its features compare it with.

    Args:
        settings: Settings of the market.
        load: Loads the bars of one market, given the settings of that market.

    Raises:
        DataError: The market, or one that it is compared with, has no bars.
    """
    references = settings.features.feature_set.references
    return load_panel(load(settings), references, lambda name: load(replace(settings, symbol=name)))


def load_bars(settings: TrainConfig) -> Bars:
    """Load the market's bars from its source, and store them for predictions.

    A resumed Binance run uses the stored bars, because newer bars would make it a different run.
    """
    store = BarStore(Path(settings.data_dir) / "bars")
    timeframe = settings.tf.timeframe
    source = bar_source(settings.source, store, n_bars_to_load(settings), replace=True)
    if settings.resume and isinstance(settings.source, BinanceConfig):
        source = store
    bars = source.load(settings.symbol, timeframe)
    store.write(bars)
    log.info(
        "%s %s: %s bars until %s UTC from %s",
        bars.symbol,
        bars.timeframe.value,
        f"{len(bars):,}",
        format_time(bars.close_time()),
        bars.origin,
    )
    gaps = find_gaps(bars)
    if gaps:
        log.info("%s", describe_gaps(bars, gaps))
    needed = settings.features.feature_set.history_bars(settings.lookback, timeframe)
    if 0 < len(bars) < needed:
        log.warning(
            "%s %s: %d bars are fewer than the %d that a prediction takes: until there are so "
            "many, predict with bars that begin where these begin, at %s",
            bars.symbol,
            bars.timeframe.value,
            len(bars),
            needed,
            format_time(bars.frame.index[0]),
        )
    return bars
