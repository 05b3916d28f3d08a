"""Simulated markets judged from bars to verdict, by the code that judges a network.

The stand-in for the network is a small model on the last row: quick to train, and as
able as the network to learn what is there and what is not. ``stress/gate_power.py`` does
the same at full size.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from percoin.bars.schema import Bars
from percoin.dataset import DatasetSpec, MarketDataset, SplitSpec, build_dataset
from percoin.evaluation.evaluate import Evaluation
from percoin.evaluation.fold_forecasts import JudgingRules, baseline_inputs, forecast_fold
from percoin.evaluation.judgement import judge_folds
from percoin.features.feature_set import FeatureSet
from percoin.labels import FixedHorizon, LabelRule
from percoin.types import FloatArray

RULE = FixedHorizon(horizon=3, threshold=0.0025)
# Smallest probability that a model may pass on: log(0) is no logit.
_FLOOR = 1e-6


def dataset_of(bars: Bars, rule: LabelRule = RULE) -> MarketDataset:
    spec = SplitSpec(purge_bars=rule.horizon, embargo_bars=rule.horizon)
    return build_dataset(bars, DatasetSpec(rule, FeatureSet(), 8, spec, 10_000))


def shuffled_labels(dataset: MarketDataset, seed: int) -> MarketDataset:
    """The labels of all three parts, dealt out again."""
    rows = np.concatenate([dataset.rows(part) for part in ("train", "validation", "test")])
    label = dataset.label.copy()
    label[rows] = np.random.default_rng(seed).permutation(label[rows])
    return replace(dataset, label=label)


def logistic(seed: int) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(max_iter=1000)


def boosting(seed: int) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(max_iter=60, max_leaf_nodes=8, random_state=seed)


def network(seed: int) -> Any:
    """A small network, stopped early as the large one is."""
    from sklearn.neural_network import MLPClassifier

    return MLPClassifier((32,), early_stopping=True, n_iter_no_change=3, random_state=seed)


def judge_market(
    dataset: MarketDataset,
    make_model: Callable[[int], Any] = logistic,
    *,
    repetitions: int = 100,
    seed: int = 0,
    extra: FloatArray | None = None,
) -> Evaluation:
    """Train the stand-in, calibrate it on validation rows, judge it on test rows.

    Args:
        dataset: The market.
        make_model: From a seed to a scikit-learn classifier.
        repetitions: Bootstrap draws.
        seed: Of the model and of the draws.
        extra: Further inputs of the model alone, shape (n_bars, n).
    """
    inputs = baseline_inputs(dataset).features
    if extra is not None:
        inputs = np.concatenate([inputs, extra], axis=1)
    train = dataset.rows("train")
    with warnings.catch_warnings():
        # That a model on noise has not converged is as it should be.
        warnings.simplefilter("ignore")
        model = make_model(seed).fit(inputs[train], dataset.label[train])
    logits = (
        np.log(np.maximum(model.predict_proba(inputs[dataset.rows(part)]), _FLOOR))
        for part in ("validation", "test")
    )
    rules = JudgingRules(repetitions=repetitions, seed=seed, model_name="stand-in")
    return judge_folds([forecast_fold(dataset, *logits, rules)], rules).evaluation
