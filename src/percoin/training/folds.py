"""Load the bars of a market and build the datasets for training."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from percoin.assembly import bar_source, dataset_spec
from percoin.bars.gaps import describe_gaps, find_gaps
from percoin.bars.panel import load_panel
from percoin.bars.schema import Bars, format_time
from percoin.bars.sources.binance.source import ExchangeSource
from percoin.bars.store import BarStore
from percoin.config import BinanceConfig, EvaluationMode, TrainConfig
from percoin.config.dates import moment_ms
from percoin.dataset import MarketDataset, build_dataset, build_folds, tested_from

log = logging.getLogger(__name__)

LoadBars = Callable[[TrainConfig], Bars]


def make_folds(settings: TrainConfig, bars: Bars) -> list[MarketDataset]:
    """Build the datasets: one for a single split; for a walk-forward one per fold, oldest first.

    Raises:
        NotEnoughBarsError: A part would have no rows, also because of ``test_from``.
        MissingClassError: The train rows lack one of the three classes.
    """
    spec = dataset_spec(settings)
    if settings.evaluation == EvaluationMode.WALK_FORWARD:
        folds = build_folds(bars, spec, settings.folds)
    else:
        folds = [build_dataset(bars, spec)]
    return tested_from(folds, moment_ms("test_from", settings.test_from))


def n_bars_to_load(settings: TrainConfig, at: float | None = None) -> int:
    """Number of newest bars that a training uses, if there are no gaps.

    Args:
        settings: Settings of the market.
        at: The moment they are the newest at, in seconds since 1970-01-01 UTC; None is now.
    """
    return dataset_spec(settings).bars_to_load(settings.tf.timeframe, at)


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
    """Load the market's bars up to the last date in use, as ``load_newest``.

    Raises:
        NotEnoughBarsError: There are none between the dates.
        DataError: The source fails.
    """
    return bars_in_dates(settings, load_newest(settings))


def load_until(last: Mapping[str, int]) -> LoadBars:
    """Load as ``load_bars``, but without what has come since an interrupted run had its bars.

    Args:
        last: Open time of the last bar that the run had of each market, in milliseconds since
            1970-01-01 UTC. Other markets end with the latest of them.
    """

    def load(settings: TrainConfig) -> Bars:
        bars = load_newest(settings)
        end = last.get(settings.symbol, max(last.values()))
        n_known = int(bars.open_time.searchsorted(end, side="right"))
        return bars_in_dates(settings, bars.slice(0, n_known))

    return load if last else load_bars


def bars_in_dates(settings: TrainConfig, bars: Bars) -> Bars:
    """The bars up to the last date in use; warns if they do not reach from date to date.

    Raises:
        NotEnoughBarsError: There are none between the dates.
    """
    spec = dataset_spec(settings)
    bars = spec.in_dates(bars)
    ends = bars.open_time[[0, -1]] + (0, bars.timeframe.milliseconds) if len(bars) else (0, 0)
    begins_late = spec.start is not None and ends[0] > spec.start
    ends_early = spec.end is not None and ends[1] < spec.end
    if begins_late or ends_early:
        log.warning(
            "%s %s: the bars reach from %s to %s UTC, less far than start=%s and end=%s ask for",
            bars.symbol,
            bars.timeframe.value,
            format_time(bars.frame.index[0]),
            format_time(bars.close_time()),
            settings.start or "null",
            settings.end or "null",
        )
    return bars


def load_newest(settings: TrainConfig) -> Bars:
    """Load the market's bars from its source, and store them for predictions.

    A resumed run of an exchange reads the stored bars, which hold those it began with.
    """
    store = BarStore(Path(settings.data_dir) / "bars")
    timeframe = settings.tf.timeframe
    source = bar_source(settings.source, store, n_bars_to_load(settings), replace=True)
    if settings.resume and isinstance(settings.source, BinanceConfig):
        source = store
    bars = source.load(settings.symbol, timeframe)
    if not isinstance(source, BarStore | ExchangeSource):
        # They are stored already, those of an exchange with who answered for them.
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
