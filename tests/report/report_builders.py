"""A small registry of judged, unjudged and broken models for the report's tests."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import torch

from percoin.evaluation.backtest import Costs, ExitRule, Prices, backtest, buy_and_hold
from percoin.evaluation.baselines import MAJORITY, TRAIN_PRIOR, class_shares
from percoin.evaluation.daily import DailyLosses
from percoin.evaluation.evaluate import Evaluation, Forecast, evaluate
from percoin.evaluation.uncertainty import Bootstrap
from percoin.features.feature_set import FEATURE_NAMES, FeatureDefinition
from percoin.registry.artifact import export_artifact
from percoin.registry.manifest import (
    BarsInfo,
    DatasetInfo,
    Features,
    Gate,
    ManifestDraft,
    ModelSpec,
    ScalingNumbers,
    SplitSpan,
    StoredVerdict,
    TestMetrics,
)
from percoin.registry.parts import Calibration
from percoin.registry.training_record import TrainingHistory, TrainingRecord
from percoin.types import Timeframe

NOW = datetime(2030, 1, 1, 12, 30, tzinfo=UTC)
MODEL = "cnn_lstm"


def forecasts(n_rows: int, edge: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """True probabilities of a market whose moves come in runs, and labels drawn from them."""
    rng = np.random.default_rng(seed)
    level = np.repeat(rng.standard_normal(n_rows // 5 + 1), 5)[:n_rows]
    move = 1 / (1 + np.exp(-edge * level))
    probabilities = np.stack([move / 2, 1 - move, move / 2], axis=1)
    drawn = rng.random((n_rows, 1)) > probabilities.cumsum(axis=1)
    return probabilities, drawn.sum(axis=1).clip(max=2).astype(np.int64)


def judged(edge: float = 1.5, n_rows: int = 1500, constant: bool = False) -> Evaluation:
    """Accepted with an edge, rejected as a constant, untestable with a few dozen rows."""
    probabilities, labels = forecasts(n_rows, edge)
    prior = np.tile(class_shares(labels), (n_rows, 1))
    majority = np.eye(3)[np.full(n_rows, np.bincount(labels).argmax())]
    close = 100 * np.exp(np.random.default_rng(1).normal(0, 0.004, n_rows).cumsum())
    prices = Prices(close, close * 1.002, close * 0.998, close)
    signals = np.where(probabilities[:, 1] < 0.4, 2, 1)
    result = backtest(
        MODEL, prices, signals, ExitRule(3), Costs(), bars_per_year=8760.0, n_trials=7
    )
    return evaluate(
        Forecast(MODEL, prior if constant else probabilities),
        [Forecast(MAJORITY, majority), Forecast(TRAIN_PRIOR, prior)],
        labels,
        bootstrap=Bootstrap(3, repetitions=400),
        money=[result, buy_and_hold(prices, Costs(), bars_per_year=8760.0)],
    )


def losses(skill: float = 0.02, n_days: int = 40, seed: int = 0) -> DailyLosses:
    """Days of 96 rows on which a model removes about that share of the prior's loss."""
    days = tuple((date(2025, 1, 1) + timedelta(days=k)).isoformat() for k in range(n_days))
    luck = np.random.default_rng(seed).normal(0, 0.02, n_days)
    model = tuple((96 * (1 - skill - luck)).tolist())
    flat = (96.0,) * n_days
    return DailyLosses(days, (96,) * n_days, model, flat, flat)


def draft(symbol: str, timeframe: str, evaluation: Evaluation | None, **changes) -> ManifestDraft:
    matrix = ((20, 10, 5), (15, 50, 15), (5, 10, 20))
    gate = Gate(StoredVerdict.NOT_JUDGED)
    if evaluation is not None:
        matrix = evaluation.model.scores.confusion_matrix
        gate = Gate(StoredVerdict(evaluation.verdict.outcome.value), evaluation.verdict.reasons)
    made = ManifestDraft(
        symbol=symbol,
        timeframe=Timeframe(timeframe),
        lookback=60,
        dataset_info=DatasetInfo(15, 700, 150, sum(map(sum, matrix))),
        test_metrics=TestMetrics(0.6, 0.58, 0.6, 0.59, matrix),
        features=Features(FeatureDefinition.RELATIVE),
        scaling=ScalingNumbers((0.0,) * len(FEATURE_NAMES), (1.0,) * len(FEATURE_NAMES)),
        label_rule={"kind": "fixed_horizon", "horizon": 3, "threshold": 0.0025},
        calibration=Calibration("temperature", 1.25),
        gate=gate,
        bars=BarsInfo(
            origin="files: bars.csv",
            sha256="ab" * 32,
            first_open_time="2025-01-01T00:00:00Z",
            last_open_time="2025-01-31T23:45:00Z",
            n_bars=2976,
            splits={
                "train": SplitSpan("2025-01-02T00:00:00Z", "2025-01-20T00:00:00Z", 800),
                "val": SplitSpan("2025-01-20T06:00:00Z", "2025-01-25T00:00:00Z", 200),
                "test": SplitSpan("2025-01-25T06:00:00Z", "2025-01-31T23:00:00Z", 200),
            },
        ),
        model=ModelSpec({"channels": [64, 128, 256]}),
        config={"epochs": 5, "optimizer": {"weight_decay": 0.001}},
        seed=42,
        code_version="0.1.0",
        libraries={"torch": "2.13.0"},
    )
    return replace(made, **changes)


def export(
    root: Path,
    symbol: str = "BTCUSDT",
    timeframe: str = "15m",
    evaluation: Evaluation | None = None,
    sections: dict | None = None,
    daily: DailyLosses | None = None,
    val_loss: tuple[float, ...] = (1.0,),
    **changes,
) -> Path:
    """Export a made-up model; its folder."""
    if sections is None:
        sections = {}
        if evaluation is not None:
            judging = {"threshold": 0.41, "folds": 1}
            sections = {"evaluation": evaluation.to_json(), "judging": judging}
        if daily is not None:
            sections["daily_losses"] = daily
    weights = {"weight": torch.zeros(3)}
    history = TrainingHistory([1.0], [0.4], list(val_loss), [0.4])
    record = TrainingRecord({}, history, sections=sections)
    made = draft(symbol, timeframe, evaluation, **changes)
    return export_artifact(root, made, weights, weights, record).folder


def registry(root: Path) -> Path:
    """One model of every status; POLUSDT's link leads to a version that is gone."""
    export(root, "BTCUSDT", "15m", judged(edge=2.0))
    export(root, "BTCUSDT", "1h", judged(edge=1.0))
    export(root, "ETHUSDT", "15m", judged(constant=True))
    export(root, "SOLUSDT", "1d", judged(n_rows=60))
    export(root, "XRPUSDT", "15m")
    (export(root, "ADAUSDT", "15m", judged()) / "metrics.json").write_text("{}")
    (root / "per_coin" / "POLUSDT").mkdir()
    (root / "per_coin" / "POLUSDT" / "4h").symlink_to(
        ".versions/4h/20250901T000312482911Z-3fa9c14e07b2"
    )
    return root
