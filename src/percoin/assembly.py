"""Build objects from settings: the source of bars, the label rule, the split, the costs."""

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
    JUDGED,
    AuditConfig,
    BinanceConfig,
    CostsConfig,
    FilesConfig,
    FixedHorizonConfig,
    JudgeConfig,
    LabelsConfig,
    OwnLabelsConfig,
    RelativeConfig,
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
from percoin.config.dates import moment_ms
from percoin.config.folders import option_file, options
from percoin.dataset import DatasetSpec, SplitSpec
from percoin.errors import ConfigError
from percoin.evaluation.backtest import Costs
from percoin.features.feature_set import FeatureSet
from percoin.labels import FixedHorizon, LabelRule, Relative, TripleBarrier, VolatilityScaled
from percoin.registry.judged import judged_threshold
from percoin.registry.manifest import Manifest
from percoin.types import Timeframe

# One page of an exchange's API; a prediction with a lookback of 60 needs 961.
NEWEST_BARS = 1000


def bar_source(
    settings: SourceConfig, store: BarStore, n_bars: int = NEWEST_BARS, replace: bool = False
) -> BarSource:
    """The source of bars that the settings describe.

    Args:
        settings: Settings of the group ``source``.
        store: The bars in ``data/bars``.
        n_bars: Number of newest bars that a downloading source adds to the store.
        replace: Whether a downloading source may replace stored bars of another source. If
            not, it returns the stored bars.
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
    """The source of bars without downloads: only bars on this machine.

    Args:
        settings: Settings of the group ``source``.
        store: The bars in ``data/bars``.
    """
    return store if isinstance(settings, BinanceConfig) else bar_source(settings, store)


def live_bar_source(settings: SourceConfig, store: BarStore) -> Callable[[int], BarSource]:
    """The source for a server, which asks for the newest bars again and again.

    The bars of a simulated market then close as time passes.

    Returns:
        A function from the number of newest bars to the source that provides them.
    """
    if isinstance(settings, SimulatedConfig):
        playing = PlayingSource(SimulatedSource(settings.seed, settings.n_bars, settings.edge))
        return lambda n_bars: playing
    return lambda n_bars: bar_source(settings, store, n_bars)


def label_rule(settings: LabelsConfig) -> LabelRule:
    """The label rule that the settings describe, before the fit on train rows."""
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
        case OwnLabelsConfig():
            return settings.rule
        case RelativeConfig():
            return Relative(
                settings.horizon,
                settings.no_trade_share,
                settings.volatility_bars,
                settings.width,
                settings.min_share,
            )
    raise _unknown(settings)


def split_spec(settings: SplitConfig) -> SplitSpec:
    """How rows are split into train, validation and test, from the settings."""
    return SplitSpec(
        fractions=(settings.train, settings.validation, settings.test),
        purge_bars=settings.purge_bars,
        embargo_bars=settings.embargo_bars,
    )


def dataset_spec(
    settings: TrainConfig | AuditConfig | JudgeConfig | SignalsConfig,
) -> DatasetSpec:
    """The rules that turn bars into a dataset; without a setting, the 15 relative features.

    Raises:
        ConfigError: The labels compare a market with its pool, and the command looks at one alone.
    """
    if isinstance(settings.labels, RelativeConfig) and not isinstance(settings, TrainConfig):
        raise ConfigError(
            "labels=relative compares a market with the others of a pool, and this command looks "
            "at one market alone: leave it out"
        )
    features = FeatureSet()
    if isinstance(settings, TrainConfig | AuditConfig):
        features = settings.features.feature_set
    return DatasetSpec(
        label_rule(settings.labels),
        features,
        settings.lookback,
        split_spec(settings.split),
        settings.history_days,
        start=moment_ms("start", settings.start),
        end=moment_ms("end", settings.end),
    )


def trading_costs(settings: CostsConfig) -> Costs:
    """Costs of a trade, from the settings."""
    return Costs(settings.fee_bps, settings.slippage_bps)


def find_min_confidence(
    setting: float | str, models_dir: Path
) -> float | Callable[[Manifest], float]:
    """The value of ``min_confidence``: a number, or a function that finds it for a model.

    Args:
        setting: A number, or ``JUDGED`` for the threshold chosen when the model was judged.
        models_dir: The folder of saved models.
    """
    return partial(judged_threshold, models_dir) if setting == JUDGED else float(setting)


def newest_bars(n_bars: int) -> int:
    """Number of newest bars to load for a model, if its source downloads bars.

    Args:
        n_bars: How many are to be loaded for the model.
    """
    return max(NEWEST_BARS, n_bars)


def _unknown(settings: object) -> TypeError:
    return TypeError(f"{type(settings).__name__} is no option of its group")


def default_label_rules() -> dict[Timeframe, LabelRule]:
    """The default label rule of each timeframe: labels=fixed_horizon."""
    horizon = int(OmegaConf.load(option_file("labels", FixedHorizonConfig.option)).horizon)
    settings = [OmegaConf.load(option_file("tf", name)) for name in options("tf")]
    return {
        Timeframe(entry.name): FixedHorizon(horizon, float(entry.threshold)) for entry in settings
    }
