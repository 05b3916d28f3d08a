"""The base class of recipes: a recipe prepares markets for training and fits their weights.

``percoin.training.pipeline`` judges, publishes and prints, in the same way for every recipe.
A single market is treated as a set of one.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from percoin.config import RecipeName, TrainConfig
from percoin.config.recipes import usual_blend
from percoin.dataset import MarketDataset
from percoin.errors import MarketError
from percoin.evaluation.baselines import NO_BLEND, POOLED
from percoin.evaluation.fold_forecasts import BaselineFitter, JudgingRules
from percoin.registry.field_checks import open_time_text
from percoin.registry.pool_record import PooledMarket
from percoin.training.fitted import Fitted
from percoin.training.folds import LoadBars, load_with_references, make_folds
from percoin.training.interruption import RunInterruption

if TYPE_CHECKING:
    import lightning.pytorch as pl
    from lightning.pytorch.loggers import Logger

log = logging.getLogger(__name__)

# Section of metrics.json: which markets trained in the same process (a fleet), on which bars.
FLEET_SECTION = "fleet"


@dataclass(frozen=True)
class Fitting:
    """The inputs of a recipe's ``fit``.

    Attributes:
        settings: Settings of the run; with ``resume`` it continues from the folder's checkpoints.
        folder: Checkpoints and logs go below it.
        rules: Assumptions of the judgement, such as trading costs.
        interruption: Ends the training between two batches after a signal.
        callbacks: Lightning callbacks for every network.
        fitter: Fits the baselines of each market alone.
    """

    settings: TrainConfig
    folder: Path
    rules: JudgingRules
    interruption: RunInterruption
    callbacks: Sequence[pl.Callback] = ()
    fitter: BaselineFitter = field(default_factory=BaselineFitter)


@dataclass(frozen=True)
class Trained:
    """The result of a recipe's ``fit``.

    Attributes:
        markets: Fitted markets, in the order of judging.
        secs: Wall time of the training.
        told: One phrase on the training, for the summary of several markets.
        notes: Extra lines for that summary, such as refused markets and time cuts.
        facts: Extra entries of the run's ``result.json``, which say the same to programs.
        loggers: Lightning loggers of a network that all markets share.
        sections: Extra sections of every market's ``metrics.json``.
    """

    markets: Sequence[Fitted]
    secs: float
    told: str = ""
    notes: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    loggers: Sequence[Logger] = ()
    sections: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Recipe(ABC):
    """Markets ready for training, and the way to fit them.

    Attributes:
        failed: Requested markets that could not be prepared: symbol to reason.
        is_set: Whether it trains several markets, shown in one table.
        is_pool: Whether the markets learn from each other.
        can_resume: Whether an interrupted training can resume.
    """

    failed: Mapping[str, str] = field(default_factory=dict)
    is_set: ClassVar[bool] = False
    is_pool: ClassVar[bool] = False
    can_resume: ClassVar[bool] = True

    @property
    @abstractmethod
    def datasets(self) -> Sequence[MarketDataset]:
        """Every dataset that the models or their judgement depend on: each fold of each market."""

    @property
    def markets(self) -> Sequence[MarketDataset]:
        """The datasets to judge, one per market."""
        return self.datasets

    @property
    def begins_with(self) -> str | None:
        """The model version that provides the initial weights, if any."""
        return None

    def max_epochs(self, settings: TrainConfig) -> int:
        """Largest number of epochs that the training can take."""
        return settings.epochs

    def settings_of(self, settings: TrainConfig, symbol: str) -> TrainConfig:
        """The settings to store in the manifest of one market."""
        return settings

    @abstractmethod
    def fit(self, fitting: Fitting) -> Trained:
        """Fit the weights of every market.

        Raises:
            DivergedError: The loss of everything in training is no longer finite.
            InterruptedRunError: Ctrl-C or SIGTERM; the last finished epoch is kept.
            ResumeError: The folder's checkpoints cannot be resumed.
        """


@dataclass(frozen=True, kw_only=True)
class OneMarket(Recipe):
    """A single market.

    Attributes:
        folds: Walk-forward folds in time order, or one dataset for a single split.
    """

    folds: Sequence[MarketDataset]

    @classmethod
    def prepare(cls, settings: TrainConfig, load: LoadBars) -> Self:
        """Build the datasets of the market.

        Raises:
            DataError: There are no bars, or too few.
        """
        return cls(folds=make_folds(settings, load_with_references(settings, load)))

    @property
    def datasets(self) -> Sequence[MarketDataset]:
        """All folds."""
        return self.folds

    @property
    def markets(self) -> Sequence[MarketDataset]:
        """The newest fold."""
        return self.folds[-1:]


def market_settings(settings: TrainConfig, symbol: str) -> TrainConfig:
    """Turn the settings of several markets into those of one of them."""
    own = [name for name in settings.blended if name not in POOLED]
    # A market alone has no part that learns from all of a pool.
    blend = settings.blend if len(own) == len(settings.blended) else "+".join(own) or NO_BLEND
    if len(own) < 2 and not settings.model.has_network:
        # An average of one model is none.
        blend = usual_blend(RecipeName.PER_MARKET, settings.model.is_blended)
    return replace(
        settings,
        symbol=symbol,
        recipe=RecipeName.PER_MARKET.value,
        blend=blend,
        labels=settings.labels.alone(),
    )


def known_bars(dataset: MarketDataset, is_seen: bool = True) -> PooledMarket:
    """Record of one market's bars: hash, first and last open time, whether it was trained on."""
    bars = dataset.bars
    first, last = (open_time_text(int(bars.open_time[end])) for end in (0, -1))
    return PooledMarket(bars.sha256(), first, last, is_seen)


def failure(error: MarketError) -> str:
    """Log and return why one of several markets has no model; the others continue."""
    log.error("%s", error)
    return error.without_market
