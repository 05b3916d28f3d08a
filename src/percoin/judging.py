"""From a trained model to its judgement: calibration, baselines on the same rows, money, verdict.

This is where a market (``dataset``) meets the arithmetic (``evaluation``). A judgement
is made of one fold, the usual split, or of several folds of a walk-forward.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from percoin.dataset import MarketDataset
from percoin.evaluation.backtest import (
    BacktestResult,
    Costs,
    ExitRule,
    Prices,
    backtest,
    buy_and_hold,
)
from percoin.evaluation.baselines import (
    TRAIN_PRIOR,
    BaselineInputs,
    default_baselines,
    last_known_labels,
)
from percoin.evaluation.calibration import apply_calibration, fit_calibration
from percoin.evaluation.daily import DailyLosses, sum_by_day
from percoin.evaluation.evaluate import Evaluation, Forecast, evaluate, pool
from percoin.evaluation.gate import Search
from percoin.evaluation.metrics import row_log_loss
from percoin.evaluation.threshold import choose_threshold, decide, spread_signals
from percoin.evaluation.uncertainty import Bootstrap
from percoin.rules import read_momentum, read_rsi_ma
from percoin.types import FloatArray, IntArray, Timeframe

_DAYS_PER_YEAR = 365.0


@dataclass(frozen=True)
class JudgingRules:
    """What a judgement takes for granted.

    Attributes:
        costs: Of each side of a trade.
        n_trials: Models and settings tried, for the deflated Sharpe ratio and the gate.
        n_looks: Chosen models that these test rows have judged, this one among them.
        repetitions: Bootstrap draws behind each interval.
        seed: Of the bootstrap and of the boosting baseline.
        model_name: Of the model's line in tables.
    """

    costs: Costs = field(default_factory=Costs)
    n_trials: int = 1
    n_looks: int = 1
    repetitions: int = 2000
    seed: int = 0
    model_name: str = "cnn_lstm"


@dataclass(frozen=True, eq=False)
class FoldForecasts:
    """What the model and every baseline said on the test rows of one fold.

    Attributes:
        dataset: The fold.
        calibration: Fitted on its validation rows.
        model: Calibrated.
        baselines: Fitted on its train rows.
        threshold: Least confidence for a trade, chosen on its validation rows.
    """

    dataset: MarketDataset
    calibration: Mapping[str, Any]
    model: Forecast
    baselines: tuple[Forecast, ...]
    threshold: float


@dataclass(frozen=True, eq=False)
class Judgement:
    """What is known about a model, from its test rows, and how it is calibrated.

    Attributes:
        calibration: For the manifest; of the newest fold.
        threshold: Least confidence for a trade; of the newest fold.
        evaluation: Scores, skills, intervals, money, verdict.
        daily: Losses by day, to hold the model beside others.
    """

    calibration: Mapping[str, Any]
    threshold: float
    evaluation: Evaluation
    daily: DailyLosses


def forecast_fold(
    dataset: MarketDataset,
    validation_logits: FloatArray,
    test_logits: FloatArray,
    rules: JudgingRules,
) -> FoldForecasts:
    """Calibrate the model and fit the baselines of one fold.

    Args:
        dataset: The fold.
        validation_logits: Of the validation rows in order, shape (n_rows, C).
        test_logits: Of the test rows in order, shape (n_rows, C).
        rules: What is taken for granted.
    """
    validation = dataset.rows("validation")
    calibration = fit_calibration(validation_logits, dataset.label[validation])
    forecast = Forecast(rules.model_name, apply_calibration(test_logits, calibration))
    calibrated = apply_calibration(validation_logits, calibration)
    first, last = int(validation[0]), int(validation[-1]) + dataset.label_rule.horizon + 1
    choice = choose_threshold(
        calibrated,
        validation - first,
        prices_of(dataset, first, last),
        exit_rule_of(dataset, first, last),
        rules.costs,
    )
    return FoldForecasts(
        dataset, calibration, forecast, _baseline_forecasts(dataset, rules.seed), choice.threshold
    )


def judge_folds(folds: Sequence[FoldForecasts], rules: JudgingRules) -> Judgement:
    """Pool the folds' test rows and judge them as one.

    Args:
        folds: In time order, of one market; their test rows do not overlap.
        rules: What is taken for granted.

    Raises:
        ValueError: Test rows that overlap or are not in time order, or that lie
            before the newest fold's first bar.
    """
    _check_order(folds)
    newest = folds[-1]
    labels = np.concatenate([fold.dataset.label[fold.dataset.rows("test")] for fold in folds])
    baselines = [
        pool(forecasts[0].name, forecasts)
        for forecasts in zip(*(fold.baselines for fold in folds), strict=True)
    ]
    model = pool(rules.model_name, [fold.model for fold in folds])
    evaluation = evaluate(
        model,
        baselines,
        labels,
        bootstrap=Bootstrap(newest.dataset.label_rule.horizon, rules.seed, rules.repetitions),
        money=_money(folds, rules),
        search=Search(rules.n_trials, rules.n_looks),
    )
    by_name = {forecast.name: forecast for forecast in baselines}
    compared = (model, by_name[TRAIN_PRIOR], by_name[evaluation.best_baseline])
    losses = [row_log_loss(forecast.probabilities, labels) for forecast in compared]
    daily = sum_by_day(_test_times(folds), losses)
    return Judgement(newest.calibration, newest.threshold, evaluation, daily)


def baseline_inputs(dataset: MarketDataset) -> BaselineInputs:
    """What the baselines may know at each bar, shape (n_bars, ...); NaN while warming up."""
    return BaselineInputs(
        features=dataset.features.astype(np.float64),
        last_known_label=last_known_labels(dataset.label, dataset.label_rule.horizon),
        rsi_ma=read_rsi_ma(dataset.bars).signal,
        momentum=read_momentum(dataset.bars).signal,
    )


def bars_per_year(timeframe: Timeframe) -> float:
    """Bars in a year; crypto markets do not close."""
    return timeframe.bars_per_day * _DAYS_PER_YEAR


def _baseline_forecasts(dataset: MarketDataset, seed: int) -> tuple[Forecast, ...]:
    inputs = baseline_inputs(dataset)
    train, test = dataset.rows("train"), dataset.rows("test")
    known, asked = inputs.take(train), inputs.take(test)
    forecasts = []
    for baseline in default_baselines(seed):
        baseline.fit(known, dataset.label[train])
        forecasts.append(
            Forecast(baseline.name, baseline.predict_proba(asked), baseline.predict(asked))
        )
    return tuple(forecasts)


def _check_order(folds: Sequence[FoldForecasts]) -> None:
    times = _test_times(folds)
    if (np.diff(times) <= 0).any():
        raise ValueError("the test rows of the folds overlap or are not in time order")
    if not np.isin(times, folds[-1].dataset.bars.open_time).all():
        raise ValueError("the newest fold's bars do not hold every test row")


def _test_times(folds: Sequence[FoldForecasts]) -> IntArray:
    """Open times of the bars on which the test windows end, fold after fold."""
    return np.concatenate([f.dataset.bars.open_time[f.dataset.rows("test")] for f in folds])


def _money(folds: Sequence[FoldForecasts], rules: JudgingRules) -> tuple[BacktestResult, ...]:
    """The model and each baseline that trades, then buying and holding, over all test bars.

    Bars may be missing among these, but never while a position is open: a row has a
    known label, so that all bars of its horizon are there.
    """
    dataset = folds[-1].dataset
    first, last = _test_span(folds)
    prices, exit_rule = prices_of(dataset, first, last), exit_rule_of(dataset, first, last)
    yearly = bars_per_year(dataset.bars.timeframe)
    decided = [
        (rules.model_name, [decide(f.model.probabilities, f.threshold) for f in folds]),
        *(
            (forecasts[0].name, [_decisions(forecast) for forecast in forecasts])
            for forecasts in zip(*(fold.baselines for fold in folds), strict=True)
        ),
    ]
    results = [
        backtest(
            name,
            prices,
            _per_bar(folds, signals, first, len(prices)),
            exit_rule,
            rules.costs,
            bars_per_year=yearly,
            n_trials=rules.n_trials if name == rules.model_name else 1,
        )
        for name, signals in decided
    ]
    traded = [result for k, result in enumerate(results) if k == 0 or result.n_trades]
    return (*traded, buy_and_hold(prices, rules.costs, bars_per_year=yearly))


def _test_span(folds: Sequence[FoldForecasts]) -> tuple[int, int]:
    """Positions in the newest fold's bars from the first test row to the last label's end."""
    dataset = folds[-1].dataset
    first = int(np.searchsorted(dataset.bars.open_time, _test_times(folds)[0]))
    return first, int(dataset.rows("test")[-1]) + dataset.label_rule.horizon + 1


def _per_bar(
    folds: Sequence[FoldForecasts], signals: Sequence[IntArray], first: int, n_bars: int
) -> IntArray:
    rows = np.searchsorted(folds[-1].dataset.bars.open_time, _test_times(folds)) - first
    return spread_signals(np.concatenate(signals), rows, n_bars)


def _decisions(forecast: Forecast) -> IntArray:
    if forecast.decisions is not None:
        return forecast.decisions
    return decide(forecast.probabilities)


def prices_of(dataset: MarketDataset, first: int, last: int) -> Prices:
    """The bars at positions ``first`` to ``last``, as with a list, to trade on."""
    columns = (dataset.bars.column(name)[first:last] for name in ("open", "high", "low", "close"))
    return Prices(*columns)


def exit_rule_of(dataset: MarketDataset, first: int, last: int) -> ExitRule:
    """How the dataset's label rule would close positions on the same bars."""
    distance = dataset.label_rule.barrier_distance(dataset.bars)
    width = None if distance is None else distance[first:last]
    return ExitRule(dataset.label_rule.horizon, width)
