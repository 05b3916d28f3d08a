"""From settings to the objects that they describe: the source, the label rule, the split, costs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from omegaconf import OmegaConf

from percoin.bars.sources.base import BarSource
from percoin.bars.sources.binance.source import ExchangeSource
from percoin.bars.sources.binance.transfer import Patience
from percoin.bars.sources.files import FilesSource
from percoin.bars.sources.playing import PlayingSource
from percoin.bars.sources.sample import SampleSource
from percoin.bars.sources.simulated import SimulatedSource
from percoin.bars.store import BarStore
from percoin.config import (
    CONF_DIR,
    JUDGED,
    AuditConfig,
    BinanceConfig,
    CostsConfig,
    FilesConfig,
    FixedHorizonConfig,
    JudgeConfig,
    LabelsConfig,
    SampleConfig,
    SignalsConfig,
    SimulatedConfig,
    SourceConfig,
    SplitConfig,
    StoreConfig,
    TrainConfig,
    TripleBarrierConfig,
    VolatilityScaledConfig,
)
from percoin.dataset import DatasetSpec, SplitSpec
from percoin.evaluation.backtest import Costs
from percoin.features.feature_set import FeatureDefinition, history_bars
from percoin.labels import FixedHorizon, LabelRule, TripleBarrier, VolatilityScaled
from percoin.registry.judged import judged_threshold
from percoin.registry.manifest import Manifest
from percoin.types import Timeframe

# One page of an exchange's API; a prediction with a lookback of 60 takes 961.
NEWEST_BARS = 1000


def bar_source(
    settings: SourceConfig, store: BarStore, n_bars: int = NEWEST_BARS, replace: bool = False
) -> BarSource:
    """The source of bars that the settings describe.

    Args:
        settings: Of the group ``source``.
        store: What ``data/bars`` holds.
        n_bars: How many of the newest bars a source that fetches brings there.
        replace: Whether such a source may replace stored bars of another one;
            if not, they are what it gives.
    """
    match settings:
        case StoreConfig():
            return store
        case FilesConfig():
            return FilesSource(Path(settings.path))
        case SampleConfig():
            return SampleSource()
        case SimulatedConfig():
            return SimulatedSource(settings.seed, settings.n_bars, settings.edge)
        case BinanceConfig():
            return ExchangeSource(
                store,
                n_bars,
                exchange=settings.exchange,
                market=settings.market,
                archive_url=settings.archive_url,
                api_url=settings.api_url,
                replace=replace,
                n_parallel=settings.parallel,
                patience=Patience(timeout_secs=settings.timeout_secs, attempts=settings.attempts),
            )
    raise _unknown(settings)


def stored_bars(settings: SourceConfig, store: BarStore) -> BarSource:
    """All bars of a source that are on this machine: none is fetched.

    Args:
        settings: Of the group ``source``.
        store: What ``data/bars`` holds.
    """
    return store if isinstance(settings, BinanceConfig) else bar_source(settings, store)


def live_bar_source(settings: SourceConfig, store: BarStore) -> Callable[[int], BarSource]:
    """The source for a server that asks for the newest bars again and again.

    A simulated market then has bars that close as time goes by.

    Returns:
        What gives the source that brings so many of the newest bars.
    """
    if isinstance(settings, SimulatedConfig):
        playing = PlayingSource(SimulatedSource(settings.seed, settings.n_bars, settings.edge))
        return lambda n_bars: playing
    return lambda n_bars: bar_source(settings, store, n_bars)


def label_rule(settings: LabelsConfig) -> LabelRule:
    """The label rule that the settings describe, not yet fitted on train rows."""
    match settings:
        case FixedHorizonConfig():
            return FixedHorizon(settings.horizon, settings.threshold)
        case TripleBarrierConfig():
            return TripleBarrier(settings.horizon, settings.barrier_width, settings.volatility_bars)
        case VolatilityScaledConfig():
            return VolatilityScaled(
                settings.horizon,
                settings.no_trade_share,
                settings.volatility_bars,
                settings.width,
            )
    raise _unknown(settings)


def split_spec(settings: SplitConfig) -> SplitSpec:
    """How rows are shared out, as the settings say."""
    return SplitSpec(
        fractions=(settings.train, settings.validation, settings.test),
        purge_bars=settings.purge_bars,
        embargo_bars=settings.embargo_bars,
    )


def dataset_spec(
    settings: TrainConfig | AuditConfig | JudgeConfig | SignalsConfig,
) -> DatasetSpec:
    """The rules by which bars become a dataset; features are relative where nothing is said."""
    definition = FeatureDefinition.RELATIVE
    if isinstance(settings, TrainConfig | AuditConfig):
        definition = FeatureDefinition(settings.features.definition)
    return DatasetSpec(
        label_rule(settings.labels),
        definition,
        settings.lookback,
        split_spec(settings.split),
        settings.history_days,
    )


def trading_costs(settings: CostsConfig) -> Costs:
    """What a trade costs, as the settings say."""
    return Costs(settings.fee_bps, settings.slippage_bps)


def find_min_confidence(
    setting: float | str, models_dir: Path
) -> float | Callable[[Manifest], float]:
    """What ``min_confidence`` means: a number, or how to find that of a model.

    Args:
        setting: A number or ``JUDGED``.
        models_dir: The registry.
    """
    return partial(judged_threshold, models_dir) if setting == JUDGED else float(setting)


def newest_bars(lookback: int) -> int:
    """How many of the newest bars are loaded for a model, if its source fetches them."""
    return max(NEWEST_BARS, history_bars(lookback))


def _unknown(settings: object) -> TypeError:
    return TypeError(f"{type(settings).__name__} is no option of its group")


def default_label_rules() -> dict[Timeframe, LabelRule]:
    """By timeframe, the rule of a training that asks for no other: labels=fixed_horizon."""
    horizon = int(OmegaConf.load(CONF_DIR / "labels" / "fixed_horizon.yaml").horizon)
    settings = [OmegaConf.load(path) for path in sorted((CONF_DIR / "tf").glob("*.yaml"))]
    return {
        Timeframe(entry.name): FixedHorizon(horizon, float(entry.threshold)) for entry in settings
    }
