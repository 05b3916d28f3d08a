"""The base class of fitted markets: forecasts, pictures and the model parts for the registry."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from percoin.dataset import MarketDataset
from percoin.evaluation.fold_forecasts import FoldForecasts, JudgingRules
from percoin.plugins import PluginSource
from percoin.registry.manifest import ModelSpec
from percoin.registry.pool_record import PoolRecord
from percoin.registry.training_record import TrainingHistory

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger
    from matplotlib.figure import Figure
    from torch import Tensor


@dataclass(frozen=True)
class ModelParts:
    """The parts of a model that the registry stores, apart from the manifest.

    Attributes:
        spec: Kind of model and arguments of its network.
        state_dict: Weights on the CPU; empty without a network.
        history: Losses and accuracies by epoch.
        onnx: The network as an ONNX file, if requested.
    """

    spec: ModelSpec
    state_dict: Mapping[str, Tensor]
    history: TrainingHistory
    onnx: bytes | None = None


@dataclass(frozen=True, kw_only=True)
class Fitted(ABC):
    """One market with a fitted model.

    Attributes:
        dataset: The training data; in a walk-forward, the newest fold.
        seed: Seed of the training.
        secs: Wall time of the training.
        epochs: Number of epochs and the best epoch; None for a model without epochs.
        pool: Record of the pool that the weights come from, if any.
        sources: Code of the user's own that the training used, by the group of its setting.
        loggers: Lightning loggers of this market alone.
    """

    dataset: MarketDataset
    seed: int
    secs: float
    epochs: tuple[int, int] | None = None
    pool: PoolRecord | None = None
    sources: Mapping[str, PluginSource] = field(default_factory=dict)
    loggers: Sequence[Logger] = ()

    @property
    def symbol(self) -> str:
        """Its market."""
        return self.dataset.bars.symbol

    @abstractmethod
    def forecast(self, rules: JudgingRules) -> tuple[FoldForecasts, ...]:
        """Forecasts of the model and the baselines on the test rows of each fold.

        Raises:
            MarketError: The market's training failed, or it cannot be tested.
        """

    @abstractmethod
    def pictures(self) -> Mapping[str, Figure]:
        """Pictures of the results of ``forecast``, by name."""

    @abstractmethod
    def parts(self, onnx: bool) -> ModelParts:
        """The parts for the registry; call ``forecast`` first.

        Raises:
            InvalidArtifactError: The ONNX network gives other outputs than the PyTorch one.
        """
