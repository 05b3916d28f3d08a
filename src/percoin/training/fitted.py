"""A market whose weights are there, and what the registry keeps of it, however it was trained."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from percoin.dataset import MarketDataset
from percoin.evaluation.judgement import FoldForecasts, JudgingRules
from percoin.registry.manifest import ModelSpec
from percoin.registry.pool_record import PoolRecord
from percoin.registry.training_record import TrainingHistory

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger
    from matplotlib.figure import Figure
    from torch import Tensor


@dataclass(frozen=True)
class ModelParts:
    """What the registry keeps of a model beside its description.

    Attributes:
        spec: Kind of the model and what builds its network.
        state_dict: Weights, on the CPU; empty without a network.
        history: Losses and accuracies by epoch.
        onnx: The network once more for ONNX Runtime, if that was asked for.
    """

    spec: ModelSpec
    state_dict: Mapping[str, Tensor]
    history: TrainingHistory
    onnx: bytes | None = None


@dataclass(frozen=True, kw_only=True)
class Fitted(ABC):
    """One market whose weights are there.

    Attributes:
        dataset: What they were trained on; the newest fold of a walk-forward.
        seed: Of the training.
        secs: Wall time of the training.
        epochs: How many there were, and which was kept; None where there are none.
        pool: The pool of markets behind the weights, if there is one.
        loggers: Of Lightning, for this market alone.
    """

    dataset: MarketDataset
    seed: int
    secs: float
    epochs: tuple[int, int] | None = None
    pool: PoolRecord | None = None
    loggers: Sequence[Logger] = ()

    @property
    def symbol(self) -> str:
        """Its market."""
        return self.dataset.bars.symbol

    @abstractmethod
    def forecast(self, rules: JudgingRules) -> tuple[FoldForecasts, ...]:
        """What the model and the baselines say on the test rows of each fold.

        Raises:
            MarketError: The market has no weights after all, or cannot be tested.
        """

    @abstractmethod
    def pictures(self) -> Mapping[str, Figure]:
        """Drawings of what ``forecast`` found, by name."""

    @abstractmethod
    def parts(self, onnx: bool) -> ModelParts:
        """What the registry keeps; ``forecast`` has been asked before.

        Raises:
            InvalidArtifactError: As ONNX the network does not answer as it does here.
        """
