"""A market with a fitted network: its forecasts, pictures and weights."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn

from percoin.dataset import MarketDataset
from percoin.errors import ConfigError
from percoin.evaluation.baselines import POOLED
from percoin.evaluation.fold_forecasts import (
    BaselineFitter,
    FoldForecasts,
    JudgingRules,
    PooledBaseline,
    fit_parts,
    forecast_fold,
)
from percoin.network import CnnLstm
from percoin.registry.manifest import ModelSpec
from percoin.registry.training_record import TrainingHistory
from percoin.training.datamodule import MarketDataModule
from percoin.training.figures import draw_pictures
from percoin.training.fitted import Fitted, ModelParts, Refitted
from percoin.training.lit_module import SignalClassifier, full_precision
from percoin.training.metrics import confusion_matrix
from percoin.training.onnx_export import export_onnx
from percoin.types import Float32Array, FloatArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Windows for the ONNX comparison, spread over the validation rows.
_MOST_ONNX_WINDOWS = 512


@dataclass(frozen=True)
class Fold:
    """One fold, and the module with its best weights, tested on that fold."""

    dataset: MarketDataset
    module: SignalClassifier


@dataclass(frozen=True)
class TrainedAgain:
    """A network trained again on all rows.

    Attributes:
        dataset: All rows in train.
        module: Holds the weights of the last epoch.
        pooled_baselines: As in ``FittedNetwork``, fitted on all rows of the pool.
    """

    dataset: MarketDataset
    module: SignalClassifier
    pooled_baselines: Callable[[], Sequence[PooledBaseline]] = tuple


@dataclass(frozen=True, kw_only=True)
class FittedNetwork(Fitted):
    """A market with a fitted network.

    Attributes:
        test: Tests the module with its best weights on the market and returns it.
        earlier: Walk-forward folds before the newest, in time order.
        spec: What a manifest says of the network; None for a ``CnnLstm``, which says it itself.
        pooled_baselines: Gives extra baselines, fitted on the train rows of a whole pool.
        again: Trains the network again on all rows; None if the recipe cannot.
    """

    test: Callable[[], SignalClassifier]
    earlier: Sequence[Fold] = ()
    spec: ModelSpec | None = None
    pooled_baselines: Callable[[], Sequence[PooledBaseline]] = field(default=tuple)
    again: Callable[[], TrainedAgain] | None = None

    @cached_property
    def module(self) -> SignalClassifier:
        """The tested module."""
        return self.test()

    def forecast(self, rules: JudgingRules) -> tuple[FoldForecasts, ...]:
        """Forecasts of the network and the baselines on the test rows of each fold."""
        pooled = self.pooled_baselines()
        folds = [
            forecast_test(fold.module, fold.dataset, rules, (), self.fitter)
            for fold in self.earlier
        ]
        newest = forecast_test(self.module, self.dataset, rules, pooled, self.fitter)
        return (*folds, newest)

    def pictures(self) -> Mapping[str, Figure]:
        """Pictures of the newest fold's test rows."""
        module = self.module
        return draw_pictures(
            self.dataset,
            confusion_matrix(module.test_metrics),
            module.test_probabilities.double().numpy(),
            module.test_labels.numpy(),
            "before calibration",
        )

    def refit(self, names: Collection[str], seed: int) -> Refitted:
        """Train the network again, and fit the other parts again."""
        if self.again is None:
            raise ConfigError("refit=true: this recipe cannot train its networks again")
        again = self.again()
        pooled = again.pooled_baselines() if any(name in POOLED for name in names) else ()
        return Refitted(
            dataset=again.dataset,
            numbers=fit_parts(again.dataset, names, seed, pooled, self.fitter),
            network=copy.deepcopy(again.module.network).cpu(),
            epochs=len(again.module.history["val_loss"]),
        )

    def parts(self, onnx: bool, refitted: Refitted | None = None) -> ModelParts:
        """Weights (copied to the CPU), history and, if requested, the ONNX file."""
        spec = self.spec or ModelSpec(network_of(self.module).kwargs)
        served = judged = copy.deepcopy(self.module.network).cpu()
        dataset = self.dataset
        if refitted is not None and refitted.network is not None:
            # The same windows, scaled as the refit takes them.
            served, dataset = refitted.network, replace(refitted.dataset, split=dataset.split)
        return ModelParts(
            spec,
            judged.state_dict(),
            served.state_dict(),
            TrainingHistory(**self.module.history),
            self._to_onnx(served, dataset) if onnx else None,
        )

    def _to_onnx(self, network: nn.Module, dataset: MarketDataset) -> bytes:
        market = (self.symbol, self.dataset.bars.timeframe.value)
        return export_onnx(network, spread_windows(dataset), market)


def spread_windows(dataset: MarketDataset) -> Float32Array:
    """Validation windows to compare two computations of a network on, spread over time."""
    starts = dataset.rows("validation") - dataset.lookback + 1
    return dataset.windows[starts[:: -(-len(starts) // _MOST_ONNX_WINDOWS)]]


def network_of(module: SignalClassifier) -> CnnLstm:
    """Return the network of a module.

    Raises:
        ConfigError: The registry cannot describe this network.
    """
    network = module.network
    if not isinstance(network, CnnLstm):
        raise ConfigError(
            f"the registry keeps a network of your own with the file of its code, and "
            f"{type(network).__name__} comes without: train without the export, or by train.py "
            "model._target_=MODULE:NAME, or use percoin.network.CnnLstm"
        )
    return network


def forecast_test(
    module: SignalClassifier,
    dataset: MarketDataset,
    rules: JudgingRules,
    pooled: Sequence[PooledBaseline] = (),
    fitter: BaselineFitter | None = None,
) -> FoldForecasts:
    """Forecasts of a trained module and the baselines on the test rows of a fold."""
    logits = logits_of(module, dataset, "validation"), logits_of(module, dataset, "test")
    return forecast_fold(dataset, *logits, rules, pooled, fitter)


@torch.inference_mode()
def logits_of(
    module: SignalClassifier, dataset: MarketDataset, part: Literal["validation", "test"]
) -> FloatArray:
    """Logits of the rows of a part, in 32 bits as in serving, shape (n_rows, C)."""
    data = MarketDataModule.of(dataset)
    loader = data.val_dataloader() if part == "validation" else data.test_dataloader()
    module.eval()
    with full_precision(module.device):
        batches = [module(windows.to(module.device)).double().cpu() for windows, _ in loader]
    logits: FloatArray = torch.cat(batches).numpy()
    return logits
