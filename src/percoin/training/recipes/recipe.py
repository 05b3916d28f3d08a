"""What a recipe is: how markets are made ready to train on, and how their weights come about.

A recipe judges, publishes and prints nothing; ``percoin.training.pipeline`` does, for all of them
alike. A market that is trained alone is a set of one.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from percoin.bars.schema import Bars
from percoin.config import RecipeName, TrainConfig
from percoin.dataset import MarketDataset
from percoin.errors import MarketError
from percoin.evaluation.judgement import JudgingRules
from percoin.registry.field_checks import open_time_text
from percoin.registry.pool_record import PooledMarket
from percoin.training.fitted import Fitted
from percoin.training.folds import make_folds
from percoin.training.interruption import RunInterruption

if TYPE_CHECKING:
    import lightning.pytorch as pl
    from lightning.pytorch.loggers import Logger

log = logging.getLogger(__name__)

# The part of a market's metrics.json that says which bars shared its training in a fleet.
FLEET_SECTION = "fleet"

LoadBars = Callable[[TrainConfig], Bars]


@dataclass(frozen=True)
class Fitting:
    """What a recipe is given to fit its markets with.

    Attributes:
        settings: Of the run; ``resume`` says whether to go on with what lies in the folder.
        folder: Checkpoints and logs go below it.
        rules: What the judgement takes for granted.
        interruption: Ends the training between two batches.
        callbacks: Of Lightning, for every network that is trained.
    """

    settings: TrainConfig
    folder: Path
    rules: JudgingRules
    interruption: RunInterruption
    callbacks: Sequence[pl.Callback] = ()


@dataclass(frozen=True)
class Trained:
    """What a recipe leaves behind.

    Attributes:
        markets: In the order in which they are to be judged.
        secs: Wall time of the training.
        told: How it went, in a phrase for the screen of several markets.
        notes: Further lines for that screen.
        facts: The same for programs.
        loggers: Of Lightning, for a network that all markets share, by what they are told.
        sections: Further parts of every market's ``metrics.json``.
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
    """Markets made ready to train on, and how their weights come about.

    Attributes:
        failed: Why markets that were asked for are not among them, by symbol.
        is_set: Whether it is of several markets, which are shown beside each other.
        shares_network: Whether all of them have one network.
        can_resume: Whether an interrupted training of it can go on.
    """

    failed: Mapping[str, str] = field(default_factory=dict)
    is_set: ClassVar[bool] = False
    shares_network: ClassVar[bool] = False
    can_resume: ClassVar[bool] = True

    @property
    @abstractmethod
    def datasets(self) -> Sequence[MarketDataset]:
        """All that the weights follow from: every fold of every market."""

    @property
    @abstractmethod
    def markets(self) -> Sequence[MarketDataset]:
        """What is to be judged, one a market."""

    @property
    def begins_with(self) -> str | None:
        """The version whose weights the training begins with, if there is one."""
        return None

    def max_epochs(self, settings: TrainConfig) -> int:
        """Epochs that the training takes at most."""
        return settings.epochs

    def settings_of(self, settings: TrainConfig, symbol: str) -> TrainConfig:
        """The settings that the manifest of one market holds."""
        return settings

    @abstractmethod
    def fit(self, fitting: Fitting) -> Trained:
        """Bring about the weights of every market.

        Raises:
            DivergedError: The loss of all that is trained is no longer finite.
            InterruptedRunError: Ctrl-C or SIGTERM; the last finished epoch is kept.
            ResumeError: What lies in the folder cannot be gone on with.
        """


@dataclass(frozen=True, kw_only=True)
class OneMarket(Recipe):
    """A market alone.

    Attributes:
        folds: Of a walk-forward, in time order; one of a single split.
    """

    folds: Sequence[MarketDataset]

    @classmethod
    def prepare(cls, settings: TrainConfig, load: LoadBars) -> Self:
        """Make the market ready.

        Raises:
            DataError: There are no bars, or too few.
        """
        return cls(folds=make_folds(settings, load(settings)))

    @property
    def datasets(self) -> Sequence[MarketDataset]:
        """All folds."""
        return self.folds

    @property
    def markets(self) -> Sequence[MarketDataset]:
        """The newest fold."""
        return self.folds[-1:]


def market_settings(settings: TrainConfig, symbol: str) -> TrainConfig:
    """The settings of many markets as if they were of one of them."""
    return replace(settings, symbol=symbol, recipe=RecipeName.PER_MARKET.value)


def known_bars(dataset: MarketDataset, is_seen: bool = True) -> PooledMarket:
    """What is noted of the bars of one of several markets."""
    bars = dataset.bars
    first, last = (open_time_text(int(bars.open_time[end])) for end in (0, -1))
    return PooledMarket(bars.sha256(), first, last, is_seen)


def failure(error: MarketError) -> str:
    """Say why one of several markets has no model; the others go on."""
    log.error("%s", error)
    return f"{error.found}; {error.action}"
