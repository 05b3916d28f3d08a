"""Honest datasets, and the ways in which they can be made to know the future."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from builders import make_bars

from percoin.bars.schema import Bars
from percoin.dataset import DatasetSpec, MarketDataset, SplitSpec, build_dataset
from percoin.features.feature_set import FEATURE_NAMES, FeatureSet, compute_features
from percoin.features.scaling import Scaling
from percoin.labels import FixedHorizon
from percoin.splits import Split, chronological_split
from percoin.types import FloatArray, IntArray

HORIZON = 3
RULE = FixedHorizon(HORIZON, threshold=0.0025)
SPLIT = SplitSpec(purge_bars=HORIZON, embargo_bars=HORIZON)
RELATIVE = FeatureSet()
Compute = Callable[[Bars, FeatureSet], FloatArray]


def honest_dataset(bars: Bars | None = None, n_bars: int = 1500, seed: int = 0) -> MarketDataset:
    bars = make_bars(n_bars, seed=seed) if bars is None else bars
    return build_dataset(bars, DatasetSpec(RULE, RELATIVE, 8, SPLIT, 365))


def all_rows(dataset: MarketDataset) -> IntArray:
    return np.concatenate([dataset.rows(part) for part in ("train", "validation", "test")])


def with_features(dataset: MarketDataset, compute: Compute) -> MarketDataset:
    """As if the dataset had been built with another feature function."""
    features = compute(dataset.bars, dataset.feature_set)
    scaling = Scaling.fit(np.nan_to_num(features[dataset.rows("train")]))
    return replace(dataset, features=scaling.transform(features), scaling=scaling)


def with_scaler_of(dataset: MarketDataset, rows: IntArray) -> MarketDataset:
    features = compute_features(dataset.bars, dataset.feature_set)
    scaling = Scaling.fit(features[rows])
    return replace(dataset, features=scaling.transform(features), scaling=scaling)


def with_split(dataset: MarketDataset, split: Split) -> MarketDataset:
    """As if the rows had been shared out so, with a scaler that keeps to train."""
    return with_scaler_of(replace(dataset, split=split), split.train)


def split_with(dataset: MarketDataset, purge_bars: int, embargo_bars: int) -> Split:
    first, last = (int(all_rows(dataset)[end]) for end in (0, -1))
    rows = np.arange(first, last + 1)
    return chronological_split(rows, (0.7, 0.15, 0.15), purge_bars, embargo_bars)


def shuffled_split(dataset: MarketDataset, *, in_order: bool) -> Split:
    """Rows dealt out at random; each part may be sorted afterwards."""
    rows = np.random.default_rng(0).permutation(all_rows(dataset))
    parts = np.split(rows, [int(0.7 * len(rows)), int(0.85 * len(rows))])
    return Split(*(np.sort(part) if in_order else part for part in parts))


def leak(column: str, change: Callable[[FloatArray, Bars], FloatArray]) -> Compute:
    """The honest features, one of them changed."""

    def compute(bars: Bars, feature_set: FeatureSet) -> FloatArray:
        features = compute_features(bars, feature_set)
        k = FEATURE_NAMES.index(column)
        features[:, k] = change(features[:, k], bars)
        return features

    return compute


def next_return(values: FloatArray, bars: Bars) -> FloatArray:
    """Shifted the wrong way by one bar."""
    return np.append(values[1:], np.nan)


def faint_next_return(values: FloatArray, bars: Bars) -> FloatArray:
    """As little of the future as float64 can hold beside the value."""
    return values + 1e-9 * np.append(np.diff(values), 0.0)


def centred_mean(values: FloatArray, bars: Bars) -> FloatArray:
    mean = bars.frame["close"].rolling(21, center=True).mean()
    return (mean / bars.frame["close"]).to_numpy()


def standardised_over_all(values: FloatArray, bars: Bars) -> FloatArray:
    return (values - np.nanmean(values)) / np.nanstd(values)


def whole_day(values: FloatArray, bars: Bars) -> FloatArray:
    """The day's close, known since its first bar: a slower timeframe joined on its start."""
    close = bars.frame["close"]
    return (close.groupby(bars.frame.index.floor("D")).transform("last") / close).to_numpy()


def filled_backwards(values: FloatArray, bars: Bars) -> FloatArray:
    """Every tenth value is missing and taken from the bar after it."""
    holes = np.arange(len(values)) % 10 == 0
    return bars.frame["close"].mask(holes).bfill().ffill().to_numpy()


LEAKS: dict[str, tuple[str, Callable[[FloatArray, Bars], FloatArray]]] = {
    "next return": ("returns", next_return),
    "faint next return": ("returns", faint_next_return),
    "centred mean": ("bb_middle", centred_mean),
    "standardised over all bars": ("atr_14", standardised_over_all),
    "whole day": ("ema_50", whole_day),
    "filled backwards": ("ema_20", filled_backwards),
}


def last_return(values: FloatArray, bars: Bars) -> FloatArray:
    """Shifted the right way: late, but honest."""
    return np.append(np.nan, values[:-1])
