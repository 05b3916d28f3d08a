"""A market that is small and easy to learn, a network that is small, and short plans."""

from dataclasses import replace

import numpy as np
import torch
from builders import make_bars

from percoin.dataset import DatasetSpec, MarketDataset, SplitSpec, build_dataset
from percoin.features.feature_set import FEATURE_NAMES, FeatureSet
from percoin.labels import FixedHorizon
from percoin.network import CnnLstm
from percoin.training.lit_module import OptimizerSpec
from percoin.training.run import TrainingPlan
from percoin.types import UNKNOWN_LABEL, IntArray

LOOKBACK = 8
TINY = {"channels": (4, 4, 4), "hidden_size": 4, "n_heads": 2, "head_sizes": (4, 4)}
OPTIMIZER = OptimizerSpec()
THE_15 = FeatureSet()


def tiny_network(seed: int = 0, n_features: int = len(FEATURE_NAMES), **kwargs) -> CnnLstm:
    torch.manual_seed(seed)
    return CnnLstm(n_features, **{**TINY, **kwargs})


def make_plan(**changes) -> TrainingPlan:
    plan = TrainingPlan(epochs=2, batch_size=64, lr=0.01, seed=3, optimizer=OPTIMIZER)
    return replace(plan, **changes)


def make_dataset(n_bars: int = 700, seed: int = 0, features: FeatureSet = THE_15) -> MarketDataset:
    return build_dataset(
        make_bars(n_bars, seed=seed),
        DatasetSpec(
            FixedHorizon(horizon=3, threshold=0.0025),
            features,
            LOOKBACK,
            SplitSpec(purge_bars=3, embargo_bars=3),
            365,
        ),
    )


def learnable_dataset(n_bars: int = 700) -> MarketDataset:
    """Each bar's label is told by its own RSI, which every window ends with."""
    dataset = make_dataset(n_bars)
    rsi = dataset.features[:, FEATURE_NAMES.index("rsi_14")]
    label: IntArray = np.digitize(rsi, [-0.5, 0.5]).astype(np.int64)
    return replace(dataset, label=np.where(np.isnan(rsi), UNKNOWN_LABEL, label))
