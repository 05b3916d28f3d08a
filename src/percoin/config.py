"""Every setting: its type, its range, and how Hydra learns of it.

``conf/`` holds the values, these dataclasses hold the rules. A config is checked
once, at the door (``typed``); behind it there are only these objects.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, ClassVar, TypeVar, cast, get_args, get_origin, get_type_hints

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from percoin.bars.renames import current_symbol
from percoin.bars.sources.base import BarSource
from percoin.bars.sources.binance.source import MARKETS, ExchangeSource
from percoin.bars.sources.binance.transfer import Patience, is_address
from percoin.bars.sources.files import FilesSource
from percoin.bars.sources.playing import PlayingSource
from percoin.bars.sources.sample import SampleSource
from percoin.bars.sources.simulated import SimulatedSource
from percoin.bars.store import BarStore
from percoin.bounds import check_all, check_bounds, file_path, number
from percoin.dataset import SplitSpec, check_purge
from percoin.errors import ConfigError
from percoin.features.feature_set import FEATURE_NAMES, FeatureDefinition
from percoin.file_lock import is_claimed
from percoin.inference import Backend
from percoin.labels import FixedHorizon, LabelRule, TripleBarrier, VolatilityScaled
from percoin.printable import printable
from percoin.registry.bounds import check_network
from percoin.types import Source, Timeframe, check_symbol, check_timeframe

CONF_DIR = Path(__file__).parents[2] / "conf"

_RUN_NAME = "%Y%m%d-%H%M%S"
FINISHED_MARK = "result.json"
# A run whose loss left the numbers has nothing to go on with.
DIVERGED_MARK = "diverged.txt"
# NumPy takes no more.
MOST_SEED = 2**32 - 1
# Bitcoin is younger, and so is the time that computers count from.
MOST_DAYS = 20_000
MOST_BARS = 10_000
MOST_EPOCHS = 100_000
MOST_TRIALS = 100_000
MOST_LOOKS = 1_000_000
_WIDEST = 8192
_MOST_CORES = 4096
_A_FRACTION = ", and is a fraction of the price: 0.0025 for 0.25 %"
_FOR_SIGMA = " bars: a standard deviation takes two"
_AGE_OF_NEWEST = ": the newest bar is one bar old before the next one has closed"
_TIME_OF_DAY = re.compile(r"([01]\d|2[0-3]):[0-5]\d")
# A name in tables.
_LONGEST_NAME = 60
_SWEEP_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,99}")
CHECKPOINT_FOLDER = "checkpoints"
# In place of a market's name, where runs of recipe=pooled lie.
POOL_FOLDER = "pooled"
# The same of fleet=true.
FLEET_FOLDER = "fleet"
# Below a run's folder; the earlier folds of a walk-forward have their own.
CHECKPOINTS = f"**/{CHECKPOINT_FOLDER}/last.ckpt"

# In place of a number: the confidence that the model's own backtest traded with.
JUDGED = "judged"

# One page of an exchange's API; a prediction with a lookback of 60 takes 961.
NEWEST_BARS = 1000

Config = TypeVar("Config")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


@dataclass
class TimeframeConfig:
    """One bar length with the settings that depend on it."""

    name: str = MISSING
    history_days: int = number(1, MOST_DAYS)
    threshold: float = number(above=0, below=1)

    def __post_init__(self) -> None:
        check_timeframe(self.name)

    @property
    def timeframe(self) -> Timeframe:
        """The bar length itself."""
        return Timeframe(self.name)


@dataclass
class SourceConfig:
    """Where bars come from; one subclass per origin."""

    # Of the group source.
    option: ClassVar[str]

    def build(self, store: BarStore, n_bars: int = NEWEST_BARS, replace: bool = False) -> BarSource:
        """The source itself.

        Args:
            store: What ``data/bars`` holds.
            n_bars: How many of the newest bars a source that fetches brings there.
            replace: Whether such a source may replace stored bars of another one;
                if not, they are what it gives.
        """
        raise TypeError(f"{type(self).__name__} only gathers what its subclasses share")

    def build_live(self, store: BarStore) -> Callable[[int], BarSource]:
        """The source for a server that asks for the newest bars again and again.

        Args:
            store: As for ``build``.

        Returns:
            The source that brings so many of the newest bars.
        """
        return lambda n_bars: self.build(store, n_bars)


@dataclass
class StoreConfig(SourceConfig):
    """Bars that ``data/bars`` already holds."""

    option: ClassVar[str] = "store"

    def build(self, store: BarStore, n_bars: int = NEWEST_BARS, replace: bool = False) -> BarSource:
        """The store."""
        return store


@dataclass
class FilesConfig(SourceConfig):
    """A folder of Parquet, Feather, CSV or JSON files."""

    option: ClassVar[str] = "files"

    path: str = file_path()

    def build(self, store: BarStore, n_bars: int = NEWEST_BARS, replace: bool = False) -> BarSource:
        """The folder or file at ``path``."""
        return FilesSource(Path(self.path))


@dataclass
class SampleConfig(SourceConfig):
    """The real bars of 2017-2019 that an installed package ships."""

    option: ClassVar[str] = "sample"

    def build(self, store: BarStore, n_bars: int = NEWEST_BARS, replace: bool = False) -> BarSource:
        """The installed package."""
        return SampleSource()


@dataclass
class SimulatedConfig(SourceConfig):
    """Bars made from a seed."""

    option: ClassVar[str] = "simulated"

    seed: int = number(0, MOST_SEED)
    n_bars: int = number(1, 10_000_000)
    edge: float = number(0, 1)

    def build(self, store: BarStore, n_bars: int = NEWEST_BARS, replace: bool = False) -> BarSource:
        """The generator."""
        return SimulatedSource(seed=self.seed, n_bars=self.n_bars, edge=self.edge)

    def build_live(self, store: BarStore) -> Callable[[int], BarSource]:
        """A market of the same kind whose bars close as time goes by."""
        playing = PlayingSource(SimulatedSource(self.seed, self.n_bars, self.edge))
        return lambda n_bars: playing


@dataclass
class BinanceConfig(SourceConfig):
    """An exchange: history from Binance's archive, the newest bars from the API."""

    option: ClassVar[str] = "binance"

    market: str = MISSING
    exchange: str = MISSING
    archive_url: str | None = None
    api_url: str | None = None
    parallel: int = number(1, 64)
    attempts: int = number(1, 100)
    timeout_secs: float = number(above=0, most=3600)

    def __post_init__(self) -> None:
        _require(
            self.market in MARKETS,
            f"source.market={self.market} must be one of {', '.join(MARKETS)}",
        )
        _require(
            re.fullmatch(r"[a-z0-9]+", self.exchange) is not None,
            f"source.exchange={self.exchange} is not a name as ccxt spells it, such as binance",
        )
        for name in ("archive_url", "api_url"):
            url = getattr(self, name)
            _require(
                url is None or (re.match(r"https?://\S+$", url) is not None and is_address(url)),
                f"source.{name}={url} must begin with http:// or https:// and name a host",
            )

    def build(self, store: BarStore, n_bars: int = NEWEST_BARS, replace: bool = False) -> BarSource:
        """The exchange, with the store that it keeps up to date."""
        return ExchangeSource(
            store,
            n_bars,
            exchange=self.exchange,
            market=self.market,
            archive_url=self.archive_url,
            api_url=self.api_url,
            replace=replace,
            n_parallel=self.parallel,
            patience=Patience(timeout_secs=self.timeout_secs, attempts=self.attempts),
        )


@dataclass
class FeaturesConfig:
    """Which of the two definitions of the 15 features."""

    definition: str = MISSING

    def __post_init__(self) -> None:
        known = [definition.value for definition in FeatureDefinition]
        _require(
            self.definition in known,
            f"features.definition={self.definition} must be one of {', '.join(known)}",
        )


@dataclass
class LabelsConfig:
    """How a bar's future becomes its label; one subclass per rule."""

    horizon: int = number(1, MOST_BARS)

    def __post_init__(self) -> None:
        # The rule knows what its numbers may be.
        self.build()

    def build(self) -> LabelRule:
        """The rule itself."""
        raise TypeError(f"{type(self).__name__} only gathers what its subclasses share")


@dataclass
class FixedHorizonConfig(LabelsConfig):
    """The return after ``horizon`` bars against a fixed threshold."""

    threshold: float = number(above=0, below=1, note=_A_FRACTION)

    def build(self) -> LabelRule:
        """The rule itself."""
        return FixedHorizon(self.horizon, self.threshold)


@dataclass
class TripleBarrierConfig(LabelsConfig):
    """The first of two volatility-scaled barriers within ``horizon`` bars."""

    barrier_width: float = number(above=0, most=1000)
    volatility_bars: int = number(2, MOST_BARS, note=_FOR_SIGMA)

    def build(self) -> LabelRule:
        """The rule itself."""
        return TripleBarrier(self.horizon, self.barrier_width, self.volatility_bars)


@dataclass
class VolatilityScaledConfig(LabelsConfig):
    """The return after ``horizon`` bars against a threshold in units of volatility."""

    no_trade_share: float = number(above=0, below=1)
    volatility_bars: int = number(2, MOST_BARS, note=_FOR_SIGMA)
    width: float | None = number(above=0, most=1000, default=None)

    def build(self) -> LabelRule:
        """The rule itself; without a width it is fitted on the train rows."""
        return VolatilityScaled(self.horizon, self.no_trade_share, self.volatility_bars, self.width)


@dataclass
class ModelConfig:
    """What is trained; one subclass per kind of model."""


@dataclass
class LogisticConfig(ModelConfig):
    """A logistic regression on the newest bar's features; it has nothing to set."""


@dataclass
class CnnLstmConfig(ModelConfig):
    """Widths of the network; see ``percoin.network.CnnLstm``."""

    channels: list[int] = number(1, _WIDEST)
    hidden_size: int = number(1, _WIDEST)
    n_layers: int = number(1, 64)
    n_heads: int = number(1, 2 * _WIDEST)
    head_sizes: list[int] = number(1, _WIDEST)
    dropout: float = number(0, below=1)

    def __post_init__(self) -> None:
        _require(len(self.channels) == 3, f"model.channels={self.channels} must have three widths")
        _require(
            len(self.head_sizes) == 2, f"model.head_sizes={self.head_sizes} must have two widths"
        )
        _require(
            (2 * self.hidden_size) % self.n_heads == 0,
            f"model.n_heads={self.n_heads} must divide 2 * model.hidden_size"
            f"={2 * self.hidden_size}",
        )
        try:
            check_network(asdict(self), len(FEATURE_NAMES))
        except ValueError as error:
            raise ConfigError(f"model: {error}") from None


@dataclass
class TrainerConfig:
    """What the training runs on, in Lightning's words."""

    accelerator: str = MISSING
    precision: str = MISSING
    record_steps: bool = MISSING

    def __post_init__(self) -> None:
        for name, known in (
            ("accelerator", ("cpu", "gpu")),
            ("precision", ("32-true", "bf16-mixed")),
        ):
            value = getattr(self, name)
            _require(value in known, f"trainer.{name}={value} must be one of {', '.join(known)}")
        _require(
            self.accelerator == "gpu" or not self.record_steps,
            "trainer.record_steps=true is for trainer=gpu alone",
        )


@dataclass
class LauncherConfig:
    """Where the jobs of a sweep run; one subclass per engine."""

    # Module of percoin.sweep.engines.
    engine: ClassVar[str]


@dataclass
class ProcessesConfig(LauncherConfig):
    """Processes of this machine."""

    engine: ClassVar[str] = "processes"


@dataclass
class RayConfig(LauncherConfig):
    """Tasks of a Ray cluster."""

    engine: ClassVar[str] = "ray_cluster"

    address: str | None = None
    cpus_per_job: int = number(1, _MOST_CORES)
    gpus_per_job: float | None = number(0, _MOST_CORES, default=None)

    def __post_init__(self) -> None:
        _require(
            self.address is None
            or re.fullmatch(r"auto|(ray://)?[^\s/:]+:\d+", self.address) is not None,
            f"hydra.launcher.address={self.address} must be auto, HOST:PORT, ray://HOST:PORT or "
            "null",
        )
        gpus = self.gpus_per_job or 0
        _require(
            gpus <= 1 or gpus == int(gpus),
            f"hydra.launcher.gpus_per_job={gpus:g} must be a share of one GPU or a whole number",
        )


@dataclass
class SlurmConfig(LauncherConfig):
    """Jobs of a Slurm cluster."""

    engine: ClassVar[str] = "slurm"

    cluster: str = MISSING
    partition: str | None = None
    time_limit_min: int = number(1, 525_600)
    timeouts: int = number(0, 1000)
    cpus_per_job: int = number(1, _MOST_CORES)
    gpus_per_job: int | None = number(0, _MOST_CORES, default=None)
    memory_gb: float | None = number(above=0, most=100_000, default=None)
    sbatch: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _require(
            self.cluster in ("slurm", "local"),
            f"hydra.launcher.cluster={self.cluster} must be slurm or local",
        )


@dataclass
class SplitConfig:
    """Shares of the history, oldest first, and the rows dropped between them."""

    train: float = number(above=0, below=1)
    validation: float = number(above=0, below=1)
    test: float = number(above=0, below=1)
    purge_bars: int = number(0, MOST_BARS)
    embargo_bars: int = number(0, MOST_BARS)

    def __post_init__(self) -> None:
        # It knows what its numbers may be.
        self.build()

    def build(self) -> SplitSpec:
        """The same for ``build_dataset``."""
        return SplitSpec(
            fractions=(self.train, self.validation, self.test),
            purge_bars=self.purge_bars,
            embargo_bars=self.embargo_bars,
        )


@dataclass
class OptimizerConfig:
    """AdamW, the learning rate's decay, and when to stop."""

    weight_decay: float = number(0, 100)
    plateau_factor: float = number(above=0, below=1)
    plateau_patience: int = number(0, MOST_EPOCHS)
    gradient_clip_norm: float = number(above=0, most=1_000_000)
    early_stopping_patience: int = number(0, MOST_EPOCHS)


@dataclass
class CostsConfig:
    """What each side of a trade costs in the backtest, in basis points of its value."""

    fee_bps: float = number(0, 10_000)
    slippage_bps: float = number(0, 10_000)


@dataclass
class ExportConfig:
    """What a trained model is written as, beside its usual files."""

    onnx: bool = MISSING


class EvaluationMode(StrEnum):
    """On which rows a model is judged."""

    SINGLE_SPLIT = "single_split"
    WALK_FORWARD = "walk_forward"


class BlendKind(StrEnum):
    """What a network's probabilities are averaged with."""

    NONE = "none"
    LOGISTIC = "logistic"


class Recipe(StrEnum):
    """On what a network is trained."""

    PER_MARKET = "per_market"
    POOLED = "pooled"


# In place of nothing: a training that begins with the weights of a pooled model.
INIT_POOLED = "pooled"


@dataclass
class PooledConfig:
    """One network for many markets, and what a market makes of it afterwards."""

    # Batch normalisation needs two windows to know a variance.
    windows_per_epoch: int = number(2, 100_000_000)
    validation_windows: int = number(1, 100_000_000)
    warmup_epochs: float = number(0, MOST_EPOCHS)
    seeds: int = number(1, 100)
    leave_out: list[str] = MISSING
    without: list[str] = field(default_factory=list)
    looks: list[int] = number(1, MOST_LOOKS, default_factory=list)
    init_model: str | None = None
    init_lr: float = number(above=0, below=1)

    def __post_init__(self) -> None:
        for symbol in (*self.leave_out, *self.without):
            current_symbol(symbol)


class PrunerKind(StrEnum):
    """By what a trial is ended early."""

    MEDIAN = "median"
    HALVING = "halving"
    NONE = "none"


@dataclass
class PrunerConfig:
    """Which trials of a search end early, by the validation skill of their epochs."""

    kind: str = MISSING
    startup_trials: int = number(1, MOST_TRIALS)
    warmup_epochs: int = number(1, MOST_EPOCHS)
    reduction_factor: int = number(2, 1000)

    def __post_init__(self) -> None:
        known = [kind.value for kind in PrunerKind]
        _require(
            self.kind in known,
            f"experiment.pruner.kind={self.kind} must be one of {', '.join(known)}",
        )


@dataclass
class FixedHorizonRangeConfig:
    """Which labels of a fixed horizon a search may try."""

    horizon: list[int] = MISSING
    threshold: list[float] = MISSING

    def __post_init__(self) -> None:
        _check_range("space.fixed_horizon.horizon", self.horizon, 1, 1000)
        _check_range("space.fixed_horizon.threshold", self.threshold, 0.01, 100)


@dataclass
class TripleBarrierRangeConfig:
    """Which triple-barrier labels a search may try."""

    horizon: list[int] = MISSING
    barrier_width: list[float] = MISSING
    volatility_bars: int = number(2, MOST_BARS, note=_FOR_SIGMA)

    def __post_init__(self) -> None:
        _check_range("space.triple_barrier.horizon", self.horizon, 1, 1000)
        _check_range("space.triple_barrier.barrier_width", self.barrier_width, 0.01, 100)


@dataclass
class SpaceConfig:
    """What a search may try; a range is ``[smallest, largest]``."""

    lr: list[float] = MISSING
    dropout: list[float] = MISSING
    width: list[float] = MISSING
    lookback: list[int] = MISSING
    labels: list[str] = MISSING
    fixed_horizon: FixedHorizonRangeConfig = MISSING
    triple_barrier: TripleBarrierRangeConfig = MISSING

    def __post_init__(self) -> None:
        _check_range("space.lr", self.lr, 1e-8, 0.99)
        _check_range("space.dropout", self.dropout, 0, 0.95)
        _check_range("space.lookback", self.lookback, 4, 10_000)
        _require(
            bool(self.width) and min(self.width) > 0 and max(self.width) <= 16,
            f"experiment.space.width={self.width} must be factors above 0 and at most 16",
        )
        known = (FixedHorizon.kind, TripleBarrier.kind)
        _require(
            set(self.labels) <= set(known),
            f"experiment.space.labels={self.labels} must be some of {', '.join(known)}, or []",
        )


def _check_range(name: str, values: Sequence[float], least: float, most: float) -> None:
    _require(
        len(values) == 2 and least <= values[0] <= values[1] <= most,
        f"experiment.{name}={list(values)} must be [smallest, largest] "
        f"between {least:g} and {most:g}",
    )


@dataclass
class TuneConfig:
    """A search among settings on validation rows."""

    trials: int = number(1, MOST_TRIALS)
    epochs: int = number(1, MOST_EPOCHS)
    max_minutes: float | None = number(above=0, most=525_600, default=None)
    restart: bool = MISSING
    seed: int = number(0, MOST_SEED)
    startup_trials: int = number(1, MOST_TRIALS)
    min_class_share: float = number(0, below=1 / 3)
    pruner: PrunerConfig = MISSING
    space: SpaceConfig = MISSING


@dataclass
class TrainConfig:
    """Everything ``train.py`` can be told."""

    symbol: str = MISSING
    recipe: str = MISSING
    init: str | None = None
    fleet: bool = False
    pooled: PooledConfig = MISSING
    tf: TimeframeConfig = MISSING
    source: SourceConfig = MISSING
    features: FeaturesConfig = MISSING
    labels: LabelsConfig = MISSING
    model: ModelConfig = MISSING
    blend: str = MISSING
    trainer: TrainerConfig = MISSING
    logger: Any = None
    experiment: TuneConfig | None = None
    epochs: int = number(1, MOST_EPOCHS)
    # Batch normalisation needs two windows to know a variance.
    batch_size: int = number(2, 1_000_000)
    lr: float = number(above=0, below=1)
    seed: int = number(0, MOST_SEED)
    workers: int | None = number(1, _MOST_CORES, default=None)
    resume: bool = False
    sweep: str | None = None
    force: bool = False
    reuse_bars_secs: float = number(0, 1_000_000_000)
    # Two poolings by 2 leave nothing of a window shorter than 4 bars.
    lookback: int = number(4, MOST_BARS, note=" bars")
    history_days: int = number(1, MOST_DAYS)
    split: SplitConfig = MISSING
    optimizer: OptimizerConfig = MISSING
    evaluation: str = MISSING
    folds: int = number(2, 1000)
    costs: CostsConfig = MISSING
    export: ExportConfig = MISSING
    trials: int = number(1, 1_000_000_000)
    looks: int = number(1, MOST_LOOKS)
    data_dir: str = file_path()
    models_dir: str = file_path()
    outputs_dir: str = file_path()

    def __post_init__(self) -> None:
        # A search makes settings without a config to look at.
        check_all(self)
        self._check_recipe()
        _require(
            self.sweep is None or _SWEEP_NAME.fullmatch(self.sweep) is not None,
            f"sweep={self.sweep!r} cannot name a folder: use letters, digits and _ . -",
        )
        _require(
            # The runs of a market lie in a folder of its name.
            self.sweep is None or self.sweep != self.sweep.upper(),
            f"sweep={self.sweep} could be a market; use lower-case letters too",
        )
        _require(
            self.experiment is None or not self.resume,
            "experiment=tune goes on with its study by itself: leave out resume=true",
        )
        modes = [mode.value for mode in EvaluationMode]
        _require(
            self.evaluation in modes,
            f"evaluation={self.evaluation} must be one of {', '.join(modes)}",
        )
        check_purge(self.split.build(), self.labels.build())
        blends = [kind.value for kind in BlendKind]
        _require(self.blend in blends, f"blend={self.blend} must be one of {', '.join(blends)}")
        if isinstance(self.model, LogisticConfig):
            self._check_logistic()

    def _check_logistic(self) -> None:
        """Refuse what only a network can be told."""
        _require(
            self.blend == BlendKind.NONE,
            f"blend={self.blend} averages a network with a regression, and model=logistic trains "
            "none: leave out one of the two",
        )
        _require(
            self.experiment is None,
            "experiment=tune searches settings of a network, and model=logistic has none of them",
        )
        _require(
            not self.resume,
            "model=logistic trains in seconds and leaves nothing to go on with: "
            "leave out resume=true",
        )

    @property
    def symbols(self) -> tuple[str, ...]:
        """The markets, of which only ``recipe=pooled`` and ``fleet=true`` have several."""
        return tuple(word.strip() for word in self.symbol.split(","))

    @property
    def pooled_symbols(self) -> tuple[str, ...]:
        """Those of them that take part in a pool."""
        return tuple(name for name in self.symbols if name not in self.pooled.without)

    def looks_of(self, symbol: str) -> int:
        """Chosen models that the test rows of one market have judged, the next one included."""
        each = self.pooled.looks
        return each[self.symbols.index(symbol)] if each else self.looks

    @property
    def title(self) -> str:
        """What messages call the market, or all of them."""
        if len(self.symbols) == 1:
            return self.symbol
        return f"{'fleet' if self.fleet else 'pool'} of {len(self.symbols)} markets"

    def _check_recipe(self) -> None:
        recipes = [recipe.value for recipe in Recipe]
        _require(
            self.recipe in recipes, f"recipe={self.recipe} must be one of {', '.join(recipes)}"
        )
        _require(
            self.init in (None, INIT_POOLED), f"init={self.init} must be {INIT_POOLED}, or null"
        )
        if self.fleet:
            self._check_fleet()
        elif self.recipe == Recipe.POOLED:
            self._check_pool()
            self._check_single_split("recipe=pooled")
        elif len(self.symbols) > 1:
            raise ConfigError(
                f"symbol names {len(self.symbols)} markets; several values make a sweep: add -m "
                "to train one model for each, fleet=true to do the same at once on a GPU, or "
                "recipe=pooled to train one network on all of them"
            )
        else:
            current_symbol(self.symbol)
        if self.init == INIT_POOLED:
            self._check_single_split("init=pooled")

    def _check_fleet(self) -> None:
        """Refuse what a fleet does not know how to do."""
        self._check_symbols()
        others = {
            "recipe=pooled": self.recipe == Recipe.POOLED,
            "init=pooled": self.init == INIT_POOLED,
            "model=logistic": isinstance(self.model, LogisticConfig),
            "experiment=tune": self.experiment is not None,
            f"evaluation={self.evaluation}": self.evaluation == EvaluationMode.WALK_FORWARD,
            "resume=true": self.resume,
        }
        for option, is_asked in others.items():
            _require(
                not is_asked,
                f"fleet=true trains a network from scratch for each market, in one go on one "
                f"split, and does not go with {option}: leave out one of the two",
            )

    def _check_symbols(self) -> None:
        for symbol in self.symbols:
            current_symbol(symbol)
            _require(self.symbols.count(symbol) == 1, f"symbol names {symbol} twice")

    def _check_pool(self) -> None:
        self._check_symbols()
        _require(
            len(self.symbols) > 1,
            "recipe=pooled trains one network on several markets; give symbol=A,B,C or "
            "symbol=$(cat symbols)",
        )
        for key in ("leave_out", "without"):
            named = getattr(self.pooled, key)
            strange = [name for name in named if name not in self.symbols]
            _require(
                not strange,
                f"pooled.{key} names {', '.join(strange)}, which symbol does not: it chooses "
                "among the markets of symbol",
            )
        _require(
            len(self.pooled_symbols) > 1,
            f"pooled.without={self.pooled.without} leaves fewer than two markets of symbol",
        )
        _require(
            self.seed + self.pooled.seeds - 1 <= MOST_SEED,
            f"the last of the pool's seeds would be {self.seed + self.pooled.seeds - 1}; use a "
            "smaller seed",
        )
        _require(
            len(self.pooled.looks) in (0, len(self.symbols)),
            f"pooled.looks={self.pooled.looks} must have a number for each market of symbol, "
            "in their order, or none",
        )
        _require(
            self.init is None,
            "init=pooled is for one market after its pool was trained; leave out recipe=pooled",
        )

    def _check_single_split(self, option: str) -> None:
        _require(
            self.evaluation == EvaluationMode.SINGLE_SPLIT,
            f"{option} has the cuts of the pool; leave out evaluation={self.evaluation}",
        )
        _require(
            not isinstance(self.model, LogisticConfig),
            f"{option} trains a network, and model=logistic is none: leave out one of the two",
        )
        _require(
            self.experiment is None,
            f"{option} and experiment=tune do not go together: a search is for one market alone",
        )


class OutputFormat(StrEnum):
    """Whom ``predict.py`` answers."""

    TEXT = "text"
    JSON = "json"


@dataclass
class PredictConfig:
    """Everything ``predict.py`` can be told."""

    symbol: str = MISSING
    tf: TimeframeConfig = MISSING
    source: SourceConfig = MISSING
    output: str = MISSING
    predictor: str = MISSING
    device: str = MISSING
    chain: list[str] = MISSING
    use_ml: bool = MISSING
    use_pro: bool = MISSING
    min_confidence: Any = MISSING
    require_accepted: bool = MISSING
    max_age_bars: float | None = number(1, 1_000_000_000, note=_AGE_OF_NEWEST, default=None)
    data_dir: str = file_path()
    models_dir: str = file_path()

    def __post_init__(self) -> None:
        current_symbol(self.symbol)
        known = [member.value for member in OutputFormat]
        _require(self.output in known, f"output={self.output} must be one of {', '.join(known)}")
        _check_predictor(self.predictor)
        _check_device(self.device)
        check_chain(self.chain)
        self.min_confidence = _read_confidence(self.min_confidence)


@dataclass
class RefreshConfig:
    """When a server asks for bars."""

    delay_secs: float = number(0, 60)
    jitter_secs: float = number(0, 60)
    retry_secs: float = number(0.1, 86_400)
    max_retry_secs: float = number(0.1, 86_400)
    workers: int = number(1, 64)


@dataclass
class LimitsConfig:
    """How much one client of a server may ask."""

    requests_per_sec: float = number(above=0, most=1_000_000)
    connections: int = number(1, 100_000)
    query_chars: int = number(1, 1_000_000)
    symbols: int = number(1, 100_000)


@dataclass
class ServeConfig:
    """Everything ``python -m percoin.serve`` can be told."""

    host: str = MISSING
    port: int = number(0, 65535)
    symbol: list[str] = MISSING
    symbols_file: str | None = file_path(default=None)
    timeframes: list[str] = MISSING
    default_tf: str = MISSING
    source: SourceConfig = MISSING
    predictor: str = MISSING
    device: str = MISSING
    chain: list[str] = MISSING
    use_ml: bool = MISSING
    use_pro: bool = MISSING
    min_confidence: Any = MISSING
    require_accepted: bool = MISSING
    max_age_bars: float | None = number(1, 1_000_000_000, note=_AGE_OF_NEWEST, default=None)
    refresh: RefreshConfig = MISSING
    check_secs: float = number(0.1, 60)
    limits: LimitsConfig = MISSING
    stop_secs: float = number(1, 3600)
    record: bool = MISSING
    record_url: str | None = None
    data_dir: str = file_path()
    models_dir: str = file_path()

    def __post_init__(self) -> None:
        for symbol in self.symbol:
            current_symbol(symbol)
        _require(bool(self.timeframes), "timeframes=[] names none; give one, for example tf=15m")
        for name in self.timeframes:
            check_timeframe(name)
        check_timeframe(self.default_tf)
        _check_predictor(self.predictor)
        _check_device(self.device)
        check_chain(self.chain)
        self.min_confidence = _read_confidence(self.min_confidence)


def _check_device(value: str) -> None:
    _require(
        re.fullmatch(r"cpu|cuda(:\d{1,2})?", value) is not None,
        f"device={value} (or ML_DEVICE) must be cpu, cuda or cuda:N",
    )


def _check_predictor(value: str) -> None:
    _require(value in list(Backend), f"predictor={value} must be one of {', '.join(Backend)}")


def check_chain(names: Sequence[str]) -> None:
    """Refuse sources that are none, twice the same one, and a chain that may end without answer.

    Raises:
        ConfigError: The chain cannot be meant.
    """
    shown = f"chain=[{','.join(names)}]"
    known = [source.option for source in Source]
    for name in names:
        _require(name in known, f"{shown}: {name!r} is none of {', '.join(known)}")
        _require(names.count(name) == 1, f"{shown}: {name} is there twice")
    _require(
        len(names) > 0 and names[-1] == Source.HOLD.option,
        f"{shown} must end with hold, which alone always has an answer",
    )


def _read_confidence(value: Any) -> float | str:
    """A number, also where the environment gives it as text, or ``JUDGED``."""
    if value == JUDGED:
        return JUDGED
    try:
        share = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        share = math.nan
    _require(
        0 <= share <= 1,
        f"min_confidence={printable(str(value), 60)} (or MIN_CONFIDENCE) must be a number "
        f"between 0 and 1, or {JUDGED}",
    )
    return share


@dataclass
class AuditConfig:
    """Everything ``python -m percoin.audit`` can be told; None is not looked at."""

    symbol: str | None = None
    metrics: str | None = file_path(default=None)
    tf: TimeframeConfig = MISSING
    source: SourceConfig = MISSING
    features: FeaturesConfig = MISSING
    labels: LabelsConfig = MISSING
    output: str = MISSING
    replay: bool = MISSING
    replay_bars: int | None = number(1, 100_000_000, default=None)
    predictor: str = MISSING
    cuts: int = number(1, 1000)
    seed: int = number(0, MOST_SEED)
    lookback: int = number(1, MOST_BARS, note=" bar")
    history_days: int = number(1, MOST_DAYS)
    split: SplitConfig = MISSING
    data_dir: str = file_path()
    models_dir: str = file_path()

    def __post_init__(self) -> None:
        if self.symbol is not None:
            current_symbol(self.symbol)
        known = [member.value for member in OutputFormat]
        _require(self.output in known, f"output={self.output} must be one of {', '.join(known)}")
        _check_predictor(self.predictor)


@dataclass
class SignalsConfig:
    """Everything ``python -m percoin.signals`` can be told."""

    symbol: str = MISSING
    tf: TimeframeConfig = MISSING
    source: SourceConfig = MISSING
    labels: LabelsConfig = MISSING
    chain: list[str] = MISSING
    output: str = MISSING
    repetitions: int = number(100, 100_000)
    seed: int = number(0, MOST_SEED)
    lookback: int = number(1, MOST_BARS, note=" bar")
    history_days: int = number(1, MOST_DAYS)
    split: SplitConfig = MISSING
    costs: CostsConfig = MISSING
    data_dir: str = file_path()
    models_dir: str = file_path()

    def __post_init__(self) -> None:
        current_symbol(self.symbol)
        check_chain(self.chain)
        known = [member.value for member in OutputFormat]
        _require(self.output in known, f"output={self.output} must be one of {', '.join(known)}")


@dataclass
class JudgeConfig:
    """Everything ``python -m percoin.judge`` can be told."""

    forecasts: str = file_path()
    symbol: str = MISSING
    name: str = MISSING
    trained_until: str | None = None
    threshold: float = number(0, 1)
    trials: int = number(1, 1_000_000)
    looks: int = number(1, 1_000_000)
    output: str = MISSING
    report_dir: str | None = file_path(None)
    repetitions: int = number(100, 100_000)
    seed: int = number(0, MOST_SEED)
    lookback: int = number(1, MOST_BARS, note=" bar")
    history_days: int = number(1, MOST_DAYS)
    tf: TimeframeConfig = MISSING
    source: SourceConfig = MISSING
    labels: LabelsConfig = MISSING
    split: SplitConfig = MISSING
    costs: CostsConfig = MISSING
    data_dir: str = file_path()

    def __post_init__(self) -> None:
        current_symbol(self.symbol)
        known = [member.value for member in OutputFormat]
        _require(self.output in known, f"output={self.output} must be one of {', '.join(known)}")
        _require(bool(self.name.strip()), "name= is empty; it stands in tables")
        shown = printable(self.name, _LONGEST_NAME)
        _require(
            shown == self.name,
            f"name={shown} does not fit into tables: at most {_LONGEST_NAME} characters, none of "
            "them a control character",
        )
        _ = self.trained_until_ms

    @property
    def trained_until_ms(self) -> int | None:
        """The moment in milliseconds since 1970-01-01 UTC; a day begins at midnight UTC."""
        if self.trained_until is None:
            return None
        try:
            moment = datetime.fromisoformat(self.trained_until)
            moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
            return round(moment.timestamp() * 1000)
        except (ValueError, OverflowError):
            raise ConfigError(
                f"trained_until={self.trained_until} is no day: write it as in 2025-05-01"
            ) from None


@dataclass
class FetchConfig:
    """Everything ``python -m percoin.fetch`` can be told."""

    symbol: list[str] = MISSING
    tf: TimeframeConfig = MISSING
    source: SourceConfig = MISSING
    history_days: int = number(1, MOST_DAYS)
    lookback: int = number(1, MOST_BARS, note=" bar")
    report: bool = MISSING
    output: str = MISSING
    data_dir: str = file_path()

    def __post_init__(self) -> None:
        for symbol in self.symbol:
            current_symbol(symbol)
        known = [member.value for member in OutputFormat]
        _require(self.output in known, f"output={self.output} must be one of {', '.join(known)}")


@dataclass
class ReportConfig:
    """Everything ``python -m percoin.report`` can be told; None stands for all."""

    symbol: str | None = None
    tf: TimeframeConfig | None = None
    models_dir: str = file_path()
    output_dir: str = file_path()

    def __post_init__(self) -> None:
        if self.symbol is not None:
            check_symbol(self.symbol)


class Rhythm(StrEnum):
    """How often ``python -m percoin.retrain`` looks, if it keeps running."""

    HOURLY = "hourly"
    DAILY = "daily"
    WEEKLY = "weekly"


class RegistryAction(StrEnum):
    """What ``python -m percoin.registry`` does."""

    LIST = "list"
    SHOW = "show"
    VERIFY = "verify"
    PROMOTE = "promote"
    ROLLBACK = "rollback"
    PRUNE = "prune"
    REPRODUCE = "reproduce"


@dataclass
class RegistryConfig:
    """Everything ``python -m percoin.registry`` can be told."""

    action: str = MISSING
    symbol: str | None = None
    tf: TimeframeConfig | None = None
    source: SourceConfig = MISSING
    version: str | None = None
    why: str = MISSING
    force: bool = MISSING
    keep: int = number(0, 1_000_000)
    older_than_days: float | None = number(0, MOST_DAYS, default=None)
    dry_run: bool = MISSING
    output: str = MISSING
    data_dir: str = file_path()
    models_dir: str = file_path()

    def __post_init__(self) -> None:
        actions = [action.value for action in RegistryAction]
        _require(
            self.action in actions, f"action={self.action} must be one of {', '.join(actions)}"
        )
        if self.symbol is not None:
            check_symbol(self.symbol)
        known = [member.value for member in OutputFormat]
        _require(self.output in known, f"output={self.output} must be one of {', '.join(known)}")


@dataclass
class RetrainConfig:
    """Everything ``python -m percoin.retrain`` can be told."""

    symbol: str | None = None
    tf: TimeframeConfig | None = None
    source: SourceConfig | None = None
    dry_run: bool = MISSING
    schedule: str | None = None
    at: str = MISSING
    max_age_days: float = number(above=0, most=MOST_DAYS)
    max_new_bars_share: float = number(above=0, most=1_000_000)
    max_drift: float = number(above=0, most=1_000_000)
    # Fewer blocks make no interval.
    min_resolved: int = number(50, 100_000_000)
    demote_error: float = number(above=0, most=0.25)
    pool_due_share: float = number(0, 1)
    retry_days: float = number(0, MOST_DAYS)
    workers: int | None = number(1, _MOST_CORES, default=None)
    record_url: str | None = None
    output: str = MISSING
    data_dir: str = file_path()
    models_dir: str = file_path()
    outputs_dir: str = file_path()

    def __post_init__(self) -> None:
        if self.symbol is not None:
            current_symbol(self.symbol)
        rhythms = [rhythm.value for rhythm in Rhythm]
        _require(
            self.schedule is None or self.schedule in rhythms,
            f"schedule={self.schedule} must be one of {', '.join(rhythms)}, or null",
        )
        _require(
            _TIME_OF_DAY.fullmatch(self.at) is not None,
            f"at={self.at} must be a time of day in UTC, such as 03:10",
        )
        known = [member.value for member in OutputFormat]
        _require(self.output in known, f"output={self.output} must be one of {', '.join(known)}")
        _require(
            self.schedule is None or not self.dry_run,
            "dry_run=true explains once: leave out schedule",
        )


# By the name of its file in conf/.
SCHEMAS: Mapping[str, type] = {
    "train": TrainConfig,
    "predict": PredictConfig,
    "serve": ServeConfig,
    "audit": AuditConfig,
    "signals": SignalsConfig,
    "judge": JudgeConfig,
    "fetch": FetchConfig,
    "report": ReportConfig,
    "registry": RegistryConfig,
    "retrain": RetrainConfig,
}


@cache
def register_configs() -> None:
    """Tell Hydra, once, the schemas and the resolver that names a run's folder."""
    store = ConfigStore.instance()
    for name, schema in SCHEMAS.items():
        store.store(name=f"{name}_schema", node=schema)
    for source in SourceConfig.__subclasses__():
        store.store(group="source", name=f"{source.option}_schema", node=source)
    store.store(group="labels", name="fixed_horizon_schema", node=FixedHorizonConfig)
    store.store(group="labels", name="triple_barrier_schema", node=TripleBarrierConfig)
    store.store(group="labels", name="volatility_scaled_schema", node=VolatilityScaledConfig)
    store.store(group="model", name="cnn_lstm_schema", node=CnnLstmConfig)
    store.store(group="model", name="logistic_schema", node=LogisticConfig)
    store.store(group="experiment", name="tune_schema", node=TuneConfig)
    store.store(group="hydra/launcher", name="processes_schema", node=ProcessesConfig)
    store.store(group="hydra/launcher", name="ray_schema", node=RayConfig)
    store.store(group="hydra/launcher", name="slurm_schema", node=SlurmConfig)
    # Cached: Hydra asks several times and must hear one answer.
    OmegaConf.register_new_resolver("percoin.run_dir", run_dir, replace=True, use_cache=True)
    OmegaConf.register_new_resolver("percoin.usual_blend", usual_blend, replace=True)
    OmegaConf.register_new_resolver("percoin.usual_epochs", usual_epochs, replace=True)


def usual_blend(recipe: str) -> str:
    """What a recipe is blended with by itself; docs/RECIPES.md has the evidence."""
    return (BlendKind.LOGISTIC if recipe == Recipe.POOLED else BlendKind.NONE).value


def usual_epochs(recipe: str) -> int:
    """How long a recipe trains by itself, at most; docs/RECIPES.md has the evidence."""
    return 15 if recipe == Recipe.POOLED else 50


def run_dir(outputs_dir: str, symbol: str, tf: str, resume: bool, fleet: bool = False) -> str:
    """Folder of a run: a new one named by the time, or the one to go on with.

    A run that never wrote its result was interrupted, unless it says that it diverged or
    its process still lives; the newest such run that got as far as a checkpoint is the one
    that ``resume=true`` means.
    """
    # A path of thirty names would be too long for a folder.
    several = FLEET_FOLDER if fleet else POOL_FOLDER
    parent = Path(outputs_dir) / (several if fleet or "," in symbol else symbol) / tf
    if resume:
        for folder in sorted(parent.glob("*"), reverse=True):
            has_checkpoint = any(folder.glob(CHECKPOINTS))
            ended = any((folder / mark).exists() for mark in (FINISHED_MARK, DIVERGED_MARK))
            if has_checkpoint and not ended and not is_claimed(folder):
                return str(folder)
    return str(parent / _new_run_name(parent))


def _new_run_name(parent: Path) -> str:
    from datetime import datetime

    name = datetime.now().strftime(_RUN_NAME)
    taken = {folder.name for folder in parent.glob(f"{name}*")}
    suffixes = (name if number == 1 else f"{name}-{number}" for number in range(1, 1000))
    return next(candidate for candidate in suffixes if candidate not in taken)


def typed(config: DictConfig, schema: type[Config]) -> Config:
    """Turn a composed config into its dataclass, checking every value.

    Raises:
        ConfigError: A key that no schema knows (``+key=1`` gets past Hydra), or
            a value out of its range.
        OmegaConfBaseException: A value that is missing or of the wrong type.
    """
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        example = _EXAMPLES.get(missing[0], f"{missing[0]}=VALUE")
        raise ConfigError(f"{missing[0]} has no value; give one, for example {example}")
    _check_settings(config)
    result = OmegaConf.to_object(config)
    _require(isinstance(result, schema), f"the config is not a {schema.__name__}")
    return cast(Config, result)


_EXAMPLES = {
    "symbol": "symbol=BTCUSDT",
    "forecasts": "forecasts=FILE",
    "source.path": "source.path=FOLDER",
}


# What other programs call it.
_ELSEWHERE = {
    "checkpoint": "resume",
    "ckpt_path": "resume",
    "coin": "symbol",
    "interval": "tf",
    "learning_rate": "lr",
    "market": "symbol",
    "max_epochs": "epochs",
    "pair": "symbol",
    "patience": "optimizer.early_stopping_patience",
    "resume_from_checkpoint": "resume",
    "seq_len": "lookback",
    "ticker": "symbol",
    "timeframe": "tf",
    "window_size": "lookback",
}
_LEAST_LIKENESS = 0.6


def name_nearest(key: str, known: Iterable[str]) -> str:
    """Say that ``key`` is no setting, and which one was probably meant."""
    names = sorted(known)
    # Among settings of one group the group's name would make all of them look alike.
    group, dot, leaf = key.rpartition(".")
    beside = [name for name in names if name.rpartition(".")[0] == group]
    if _ELSEWHERE.get(key) in names:
        nearest = [_ELSEWHERE[key]]
    elif dot and beside:
        leaves = [name.rpartition(".")[2] for name in beside]
        nearest = [f"{group}.{name}" for name in _like(leaf, leaves)]
    else:
        nearest = _like(key, names) or [name for name in names if name.endswith(f".{key}")]
    if nearest:
        return f"{key} is not a setting; did you mean {nearest[0]}?"
    return f"{key} is not a setting; known are {', '.join(beside or names)}"


def _like(word: str, words: Sequence[str]) -> list[str]:
    return difflib.get_close_matches(word, words, 1, _LEAST_LIKENESS)


def _check_settings(config: DictConfig, prefix: str = "") -> None:
    """Refuse keys that no schema knows, and values out of the bounds of their fields.

    Before the dataclasses are made, whose own checks then meet nothing strange.
    """
    schema = _schema_of(config)
    declared = {entry.name: entry for entry in fields(schema)}
    for key in map(str, config):
        name = f"{prefix}{key}"
        _require(key in declared, name_nearest(name, [f"{prefix}{known}" for known in declared]))
        try:
            value = config[key]
        except OverflowError:
            raise ConfigError(f"{name} is a number of too many digits") from None
        group = _group_in(schema, key)
        if group is None:
            check_bounds(name, declared[key], value)
        elif value is not None:
            # An interpolation can put anything in the place of a group.
            _require(
                isinstance(value, DictConfig) and issubclass(_schema_of(value), group),
                f"{name} holds further settings, and none of them is called {name}; "
                f"set one of {', '.join(f'{name}.{entry.name}' for entry in fields(group))}",
            )
            _check_settings(value, prefix=f"{name}.")


def _group_in(schema: type, key: str) -> type | None:
    """The dataclass that a field of a schema holds; None if it holds a plain value."""
    hint = _hints(schema)[key]
    kinds: tuple[type, ...] = get_args(hint) if get_origin(hint) is UnionType else (hint,)
    return next((kind for kind in kinds if is_dataclass(kind)), None)


def _schema_of(config: DictConfig) -> Any:
    """The dataclass that a part of a config was made from, or just ``dict``."""
    return OmegaConf.get_type(config)


@cache
def _hints(schema: type) -> dict[str, Any]:
    return get_type_hints(schema)
