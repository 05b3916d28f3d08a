"""Judge a trained model: calibrate it, run the baselines on the same rows, backtest, decide.

This module connects a market (``dataset``) with the calculations (``evaluation``). It judges
one fold (the usual split) or several folds of a walk-forward test.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from percoin.bars.schema import Bars
from percoin.dataset import MarketDataset
from percoin.dataset import Part as DatasetPart
from percoin.errors import NotEnoughBarsError
from percoin.evaluation.backtest import (
    BacktestResult,
    Brackets,
    Costs,
    Exit,
    ExitRule,
    Prices,
    backtest,
    buy_and_hold,
)
from percoin.evaluation.baselines import (
    ALONE,
    ROLLING_PRIOR,
    TRAIN_PRIOR,
    UNCALIBRATED,
    Baseline,
    BaselineInputs,
    LastRowClassifier,
    class_shares,
    default_baselines,
    last_known_labels,
    pooled_baselines,
    rolling_prior_bars,
    settled_class_counts,
)
from percoin.evaluation.blend import (
    NETWORK,
    PartSkill,
    PartSkills,
    blend_probabilities,
    choose_weights,
)
from percoin.evaluation.calibration import apply_calibration, fit_calibration
from percoin.evaluation.daily import DailyLosses, sum_by_day
from percoin.evaluation.evaluate import Evaluation, Forecast, evaluate, pool
from percoin.evaluation.gate import Search
from percoin.evaluation.hit_rate import HitRate, hit_rate, moves_after
from percoin.evaluation.last_row import LastRowModel
from percoin.evaluation.level_reach import levels_reached
from percoin.evaluation.metrics import N_CLASSES, PROBABILITY_FLOOR, row_log_loss
from percoin.evaluation.threshold import choose_threshold, decide, spread_signals
from percoin.evaluation.uncertainty import Bootstrap, skill_rows
from percoin.features.levels import FIRST_TARGET, STOP, levels_along
from percoin.features.rules import read_momentum, read_rsi_ma
from percoin.features.volatility import clock_columns, volatility_columns
from percoin.types import NO_TRADES, FloatArray, IntArray, LevelsReached, Signal, Timeframe

log = logging.getLogger(__name__)

_DAYS_PER_YEAR = 365.0


@dataclass(frozen=True)
class JudgingRules:
    """Settings of a judgement.

    Attributes:
        costs: Costs of each side of a trade.
        n_trials: Number of models and settings tried, for the deflated Sharpe ratio and the
            gate.
        n_looks: Number of chosen models that these test rows have judged, including this one.
        n_shown: Number of models shown together, such as those of one model trained on many
            markets (a pool). The deflated Sharpe ratio uses it.
        repetitions: Bootstrap draws for each interval.
        seed: For the bootstrap and the boosting baseline.
        model_name: Name of the model in tables.
        blend: Baselines to average the network with, by name.
        exit: Where positions of the backtests close.
    """

    costs: Costs = field(default_factory=Costs)
    n_trials: int = 1
    n_looks: int = 1
    n_shown: int = 1
    repetitions: int = 2000
    seed: int = 0
    model_name: str = "cnn_lstm"
    blend: tuple[str, ...] = ()
    exit: Exit = Exit.HORIZON


@dataclass(frozen=True, eq=False)
class Part:
    """Calibrated probabilities of one forecaster of a fold; it can be served alone.

    Attributes:
        validation: Probabilities on the validation rows, shape (n_rows, C).
        test: Probabilities on the test rows, shape (n_rows, C).
        calibration: Fitted on the validation rows.
        numbers: What it computes with; None for the network.
    """

    validation: FloatArray
    test: FloatArray
    calibration: Mapping[str, Any]
    numbers: LastRowModel | None = None


@dataclass(frozen=True, eq=False)
class FoldForecasts:
    """Forecasts of the model and of every baseline on the test rows of one fold.

    Attributes:
        dataset: The fold.
        model: The model's forecast: of its one part, or the weighted mean of its parts.
        validation: The model's probabilities on the validation rows, shape (n_rows, C); empty
            for forecasts of others.
        baselines: Fitted on the fold's train rows. Calibrated on its validation rows, like the
            model.
        validation_losses: Mean log-loss of each baseline on the validation rows, by name.
        threshold: Minimum confidence for a trade, chosen on the validation rows.
        parts: The forecasters of the model, by name: the network, baselines. None for forecasts
            of others.
        weights: Weight of each part, chosen on the validation rows.
    """

    dataset: MarketDataset
    model: Forecast
    validation: FloatArray
    baselines: tuple[Forecast, ...]
    validation_losses: Mapping[str, float]
    threshold: float
    parts: Mapping[str, Part]
    weights: Mapping[str, float]

    @property
    def calibration(self) -> Mapping[str, Any]:
        """Calibration of the network, or of the model's one part if it has no network."""
        return next((part.calibration for part in self.parts.values()), {"method": "none"})


@dataclass(frozen=True, eq=False)
class JudgedPart:
    """Results for one part of a blended model.

    Attributes:
        weight: Its weight in the newest fold.
        calibration: Its calibration in the newest fold.
        numbers: What it computes with in the newest fold; None for the network.
        skills: On the validation rows of the newest fold and the test rows of all folds.
    """

    weight: float
    calibration: Mapping[str, Any]
    numbers: LastRowModel | None
    skills: PartSkills


@dataclass(frozen=True, eq=False)
class JudgedBlend:
    """Results for the parts of a blended model, and for the blend itself.

    Attributes:
        parts: By name, the network first.
        skills: Of the blend, on the same rows as those of its parts.
    """

    parts: Mapping[str, JudgedPart]
    skills: PartSkills


@dataclass(frozen=True, eq=False)
class Judgement:
    """Test results of a model and its calibration.

    Attributes:
        calibration: Calibration of the newest fold, for the manifest.
        threshold: Minimum confidence for a trade, from the newest fold.
        evaluation: Scores, skills, intervals, backtests, verdict.
        daily: Losses by day, to compare the model with others.
        numbers: What a model without a network computes with, from the newest fold.
        blend: Results for the parts, if the model has several.
        hit_rate: Share of right directions on the test rows, at any confidence; None if there
            are too few for an interval.
        levels: How often stop and targets of directions were reached on the test rows, at any
            confidence; None as above.
    """

    calibration: Mapping[str, Any]
    threshold: float
    evaluation: Evaluation
    daily: DailyLosses
    numbers: LastRowModel | None = None
    blend: JudgedBlend | None = None
    hit_rate: HitRate | None = None
    levels: LevelsReached | None = None


def forecast_fold(
    dataset: MarketDataset,
    validation_logits: FloatArray,
    test_logits: FloatArray,
    rules: JudgingRules,
    pooled: Sequence[Baseline] = (),
) -> FoldForecasts:
    """Calibrate the network and fit the baselines of one fold; blend if the rules say so.

    Args:
        dataset: The fold.
        validation_logits: Logits of the validation rows in order, shape (n_rows, C).
        test_logits: Logits of the test rows in order, shape (n_rows, C).
        rules: Settings of the judgement.
        pooled: More baselines, fitted on the train rows of many markets, including this one.
    """
    baselines = [*_fit_baselines(dataset, rules.seed), *pooled]
    parts = {NETWORK: _calibrated(dataset, validation_logits, test_logits)}
    by_name = {baseline.name: baseline for baseline in baselines}
    for name in rules.blend:
        try:
            parts[name] = _part_of(by_name[name], dataset)
        except ValueError as error:
            market = dataset.bars.symbol, dataset.bars.timeframe.value
            log.warning("%s %s: %s takes no part in the blend: %s", *market, name, error)
    return _forecast_with(dataset, parts, baselines, rules)


def forecast_last_row(dataset: MarketDataset, name: str, rules: JudgingRules) -> FoldForecasts:
    """Use a baseline as the model of one fold, and drop it from the baselines.

    Args:
        dataset: The fold.
        name: Name of the baseline.
        rules: Settings of the judgement.

    Raises:
        NotEnoughBarsError: Its inputs are not known on enough of the rows.
    """
    baselines = _fit_baselines(dataset, rules.seed)
    [chosen] = [baseline for baseline in baselines if baseline.name == name]
    try:
        part = _part_of(chosen, dataset)
    except ValueError as error:
        bars = dataset.bars
        raise NotEnoughBarsError(
            bars.symbol,
            bars.timeframe,
            f"{len(bars)} bars are too few for model={name}: {error}",
            "load more bars or use a longer history_days",
        ) from error
    others = [baseline for baseline in baselines if baseline is not chosen]
    return _forecast_with(dataset, {name: part}, others, rules)


def _forecast_with(
    dataset: MarketDataset,
    parts: Mapping[str, Part],
    baselines: Sequence[Baseline],
    rules: JudgingRules,
) -> FoldForecasts:
    labels = dataset.label[dataset.rows("validation")]
    weights: tuple[float, ...] = (1.0,)
    if len(parts) > 1:
        weights = choose_weights([part.validation for part in parts.values()], labels)
    validation, test = (
        blend_probabilities([getattr(part, rows) for part in parts.values()], weights)
        for rows in ("validation", "test")
    )
    return FoldForecasts(
        dataset,
        Forecast(rules.model_name, test),
        validation,
        *_ask(dataset, baselines),
        _threshold(dataset, validation, rules),
        parts,
        dict(zip(parts, weights, strict=True)),
    )


def forecast_baselines(
    dataset: MarketDataset, seed: int = 0, pooled: Sequence[Baseline] = ()
) -> tuple[tuple[Forecast, ...], dict[str, float]]:
    """Fit and calibrate the baselines of one market and make their forecasts, without a model.

    Args:
        dataset: The fold.
        seed: For the boosting baseline.
        pooled: As in ``forecast_fold``.

    Returns:
        Forecasts of the test rows, and the log-loss of each on the validation rows, by name.
    """
    return _ask(dataset, [*_fit_baselines(dataset, seed), *pooled])


def forecast_given(
    dataset: MarketDataset, forecast: Forecast, rules: JudgingRules, threshold: float = 0.0
) -> FoldForecasts:
    """Compare external forecasts of the test rows with the baselines, without calibration.

    Args:
        dataset: The fold.
        forecast: Forecast of the test rows in order.
        rules: Settings of the judgement.
        threshold: Minimum confidence for a trade, if the forecast has no decisions.
    """
    return FoldForecasts(
        dataset,
        forecast,
        np.empty((0, N_CLASSES)),
        *_ask(dataset, _fit_baselines(dataset, rules.seed)),
        threshold,
        {},
        {},
    )


def fit_pooled_baselines(markets: Sequence[MarketDataset], seed: int = 0) -> list[Baseline]:
    """Fit the baselines that learn from the train rows of many markets at once.

    Args:
        markets: At least one; all with the same split times and the same feature scaling.
        seed: For the boosting baselines.
    """
    rows = [dataset.rows("train") for dataset in markets]
    known = [
        baseline_inputs(dataset).take(train) for dataset, train in zip(markets, rows, strict=True)
    ]
    labels = [dataset.label[train] for dataset, train in zip(markets, rows, strict=True)]
    inputs, came = BaselineInputs.joined(known), np.concatenate(labels)
    baselines = pooled_baselines(seed)
    for baseline in baselines:
        baseline.fit(inputs, came)
    return baselines


def judge_folds(folds: Sequence[FoldForecasts], rules: JudgingRules) -> Judgement:
    """Join the test rows of all folds and judge them together.

    Args:
        folds: Folds of one market in time order; their test rows do not overlap.
        rules: Settings of the judgement.

    Raises:
        ValueError: Test rows overlap, are not in time order, or are not among the newest
            fold's bars.
    """
    _check_order(folds)
    newest = folds[-1]
    labels = np.concatenate([_labels(fold, "test") for fold in folds])
    baselines = [
        pool(forecasts[0].name, forecasts)
        for forecasts in zip(*(fold.baselines for fold in folds), strict=True)
    ]
    model = pool(rules.model_name, [fold.model for fold in folds])
    evaluation = evaluate(
        model,
        baselines,
        labels,
        bootstrap=Bootstrap(
            newest.dataset.label_rule.horizon,
            rules.seed,
            rules.repetitions,
            day=math.ceil(newest.dataset.bars.timeframe.bars_per_day),
        ),
        money=_money(folds, rules),
        search=Search(rules.n_trials, rules.n_looks),
        cautions=[*_better_alone(newest), *_never_trades(newest)],
        rival=choose_rival(folds),
    )
    by_name = {forecast.name: forecast for forecast in baselines}
    named = (TRAIN_PRIOR, evaluation.best_baseline, ROLLING_PRIOR, evaluation.rival)
    compared = (model, *(by_name[name] for name in named))
    losses = [row_log_loss(forecast.probabilities, labels) for forecast in compared]
    daily = sum_by_day(_test_times(folds), losses)
    return Judgement(
        newest.calibration,
        newest.threshold,
        evaluation,
        daily,
        next((part.numbers for part in newest.parts.values()), None),
        _judge_blend(folds, evaluation.bootstrap),
        _hit_rate(folds, _decided(model), labels, evaluation.bootstrap),
        _levels_reached(folds, _decided(model), evaluation.bootstrap),
    )


def _hit_rate(
    folds: Sequence[FoldForecasts], decided: IntArray, labels: IntArray, bootstrap: Bootstrap
) -> HitRate | None:
    rows, hits = moves_after(decided, labels)
    timeframe = folds[-1].dataset.bars.timeframe
    rate = hit_rate(hits, _test_times(folds)[rows], timeframe, bootstrap)
    if rate is None or rate.ends is None:
        return None
    return HitRate(rate.value, *rate.ends, n_moves=len(hits))


def _levels_reached(
    folds: Sequence[FoldForecasts], decided: IntArray, bootstrap: Bootstrap
) -> LevelsReached | None:
    bars = folds[-1].dataset.bars
    has_direction = decided != Signal.NO_TRADE
    rows = np.searchsorted(bars.open_time, _test_times(folds)[has_direction])
    levels = levels_along(bars, rows, decided[has_direction])
    return levels_reached(bars, rows, levels, bootstrap)


def choose_rival(folds: Sequence[FoldForecasts]) -> str:
    """The baseline with the smallest log-loss over the validation rows of all folds."""
    counts = [len(fold.dataset.rows("validation")) for fold in folds]
    losses = {
        name: sum(
            count * fold.validation_losses[name] for count, fold in zip(counts, folds, strict=True)
        )
        for name in folds[0].validation_losses
    }
    return min(losses, key=losses.__getitem__)


def daily_beside(folds: Sequence[FoldForecasts], rival: str) -> DailyLosses | None:
    """Losses by day, with a chosen baseline as both the rival and the best baseline.

    Args:
        folds: As in ``judge_folds``.
        rival: Name of the baseline.

    Returns:
        None if there is no baseline of that name.
    """
    labels = np.concatenate([_labels(fold, "test") for fold in folds])
    forecasts = [{entry.name: entry for entry in fold.baselines} for fold in folds]
    if any(rival not in by_name for by_name in forecasts):
        return None
    compared = (
        [fold.model for fold in folds],
        *(
            [by_name[name] for by_name in forecasts]
            for name in (TRAIN_PRIOR, rival, ROLLING_PRIOR, rival)
        ),
    )
    losses = [
        row_log_loss(np.concatenate([entry.probabilities for entry in entries]), labels)
        for entries in compared
    ]
    return sum_by_day(_test_times(folds), losses)


def baseline_inputs(dataset: MarketDataset) -> BaselineInputs:
    """Inputs of the baselines at each bar, shape (n_bars, ...).

    The first bars are NaN, because indicators need earlier bars.
    """
    return BaselineInputs(
        features=dataset.features.astype(np.float64),
        last_known_label=last_known_labels(dataset.label, dataset.label_rule.horizon),
        rsi_ma=read_rsi_ma(dataset.bars).signal,
        momentum=read_momentum(dataset.bars).signal,
        settled_counts=settled_class_counts(
            dataset.label, dataset.label_rule.horizon, rolling_prior_bars(dataset.bars.timeframe)
        ),
        volatility=volatility_columns(dataset.bars),
        clock=clock_columns(dataset.bars),
    )


def bars_per_year(timeframe: Timeframe) -> float:
    """Bars in a year; crypto markets do not close."""
    return timeframe.bars_per_day * _DAYS_PER_YEAR


def _fit_baselines(dataset: MarketDataset, seed: int) -> list[Baseline]:
    train = dataset.rows("train")
    known, baselines = baseline_inputs(dataset).take(train), default_baselines(seed)
    for baseline in baselines:
        baseline.fit(known, dataset.label[train])
    return baselines


def _ask(
    dataset: MarketDataset, baselines: Sequence[Baseline]
) -> tuple[tuple[Forecast, ...], dict[str, float]]:
    """Calibrated forecasts of the test rows, and the log-loss of each on the validation rows."""
    inputs = baseline_inputs(dataset)
    validation, test = (inputs.take(dataset.rows(part)) for part in ("validation", "test"))
    labels = dataset.label[dataset.rows("validation")]
    forecasts, losses = [], {}
    for baseline in baselines:
        known, asked = baseline.predict_proba(validation), baseline.predict_proba(test)
        if baseline.name not in UNCALIBRATED:
            logits = [np.log(np.maximum(said, PROBABILITY_FLOOR)) for said in (known, asked)]
            part = _calibrated(dataset, *logits)
            known, asked = part.validation, part.test
        forecasts.append(Forecast(baseline.name, asked, baseline.predict(test)))
        losses[baseline.name] = float(row_log_loss(known, labels).mean())
    return tuple(forecasts), losses


def _part_of(baseline: Baseline, dataset: MarketDataset) -> Part:
    """A fitted baseline as a part of the model, computed as a prediction computes it.

    Raises:
        ValueError: It is no such baseline, or its inputs are not known on enough of the rows.
    """
    if not isinstance(baseline, LastRowClassifier):
        raise ValueError(f"{baseline.name} is no model that can be served")
    numbers, inputs = baseline.plain(), baseline_inputs(dataset).columns(baseline.columns)
    logits = []
    for part in ("validation", "test"):
        rows = inputs[dataset.rows(part)]
        n_unknown = int((~np.isfinite(rows).all(axis=1)).sum())
        if n_unknown:
            raise ValueError(f"its inputs are not known on {n_unknown} of {len(rows)} {part} rows")
        logits.append(numbers.logits(rows))
    return replace(_calibrated(dataset, *logits), numbers=numbers)


def _calibrated(
    dataset: MarketDataset, validation_logits: FloatArray, test_logits: FloatArray
) -> Part:
    labels = dataset.label[dataset.rows("validation")]
    calibration = fit_calibration(validation_logits, labels)
    validation = apply_calibration(validation_logits, calibration)
    return Part(validation, apply_calibration(test_logits, calibration), calibration)


def _threshold(dataset: MarketDataset, probabilities: FloatArray, rules: JudgingRules) -> float:
    """Choose the confidence threshold on the validation rows, for the served probabilities."""
    validation = dataset.rows("validation")
    first, last = int(validation[0]), int(validation[-1]) + dataset.label_rule.horizon + 1
    choice = choose_threshold(
        probabilities,
        validation - first,
        prices_of(dataset, first, last),
        exit_rule_of(dataset, first, last, rules.exit),
        rules.costs,
    )
    return choice.threshold


def _better_alone(fold: FoldForecasts) -> list[str]:
    """Caution if a baseline beats the network on the validation rows, else an empty list."""
    if NETWORK not in fold.parts:
        return []
    rival = choose_rival([fold])
    loss, model = fold.validation_losses[rival], _validation_loss(fold, fold.validation)
    network = _validation_loss(fold, fold.parts[NETWORK].validation)
    if loss >= network:
        return []
    no_weight = ", and the network has no weight in the blend" if not fold.weights[NETWORK] else ""
    behind = ""
    if len(fold.parts) > 1 and rival not in fold.parts and loss < model:
        behind = f", and than the blend ({model:.4f}), of which it is no part"
    advice = ""
    if rival in ALONE:
        symbol = fold.dataset.bars.symbol
        advice = f": the same command for {symbol} alone with model={rival} trains it"
    return [
        f"on validation rows the baseline {rival} alone is better than the network alone "
        f"(log-loss {loss:.4f} against {network:.4f}){no_weight}{behind}{advice}"
    ]


def _validation_loss(fold: FoldForecasts, probabilities: FloatArray) -> float:
    return float(row_log_loss(probabilities, _labels(fold, "validation")).mean())


def _never_trades(fold: FoldForecasts) -> list[str]:
    """Caution if no threshold makes a profit on the validation rows, else an empty list."""
    if fold.threshold < NO_TRADES:
        return []
    return ["no trades: no confidence threshold earned anything after costs on validation rows"]


def _judge_blend(folds: Sequence[FoldForecasts], bootstrap: Bootstrap) -> JudgedBlend | None:
    """The skill of each part, with the same kind of interval that the gate uses for the model."""
    newest = folds[-1]
    if len(newest.parts) < 2:
        return None

    def skills(validation: FloatArray, tests: Mapping[int, FloatArray]) -> PartSkills:
        """Of a forecaster: on the newest validation rows, and on the test rows of its folds."""
        asked = [folds[number] for number in tests]
        known, labels = _labels(newest, "validation"), [_labels(fold, "test") for fold in asked]
        shares = class_shares(newest.dataset.label[newest.dataset.rows("train")])
        prior = np.concatenate([_prior(fold) for fold in asked])
        return PartSkills(
            _part_skill(validation, np.tile(shares, (len(known), 1)), known, bootstrap),
            _part_skill(
                np.concatenate(list(tests.values())), prior, np.concatenate(labels), bootstrap
            ),
        )

    parts = {}
    for name, part in newest.parts.items():
        # In an earlier fold there may have been too few bars for a part.
        tests = {k: fold.parts[name].test for k, fold in enumerate(folds) if name in fold.parts}
        parts[name] = JudgedPart(
            newest.weights[name], part.calibration, part.numbers, skills(part.validation, tests)
        )
    tests = {k: fold.model.probabilities for k, fold in enumerate(folds)}
    return JudgedBlend(parts, skills(newest.validation, tests))


def _part_skill(
    probabilities: FloatArray, reference: FloatArray, came: IntArray, bootstrap: Bootstrap
) -> PartSkill:
    losses, prior_losses = row_log_loss(probabilities, came), row_log_loss(reference, came)
    return PartSkill.of(bootstrap.estimate(skill_rows(losses, prior_losses)))


def _prior(fold: FoldForecasts) -> FloatArray:
    return next(said.probabilities for said in fold.baselines if said.name == TRAIN_PRIOR)


def _labels(fold: FoldForecasts, part: DatasetPart) -> IntArray:
    labels: IntArray = fold.dataset.label[fold.dataset.rows(part)]
    return labels


def _check_order(folds: Sequence[FoldForecasts]) -> None:
    times = _test_times(folds)
    if (np.diff(times) <= 0).any():
        raise ValueError("the test rows of the folds overlap or are not in time order")
    if not np.isin(times, folds[-1].dataset.bars.open_time).all():
        raise ValueError("the newest fold's bars do not hold every test row")


def _test_times(folds: Sequence[FoldForecasts]) -> IntArray:
    """Open times of the last bar of each test window, fold after fold."""
    return np.concatenate([f.dataset.bars.open_time[f.dataset.rows("test")] for f in folds])


def _money(folds: Sequence[FoldForecasts], rules: JudgingRules) -> tuple[BacktestResult, ...]:
    """Backtest the model, each baseline that trades, and buy and hold, over all test bars.

    Bars can be missing in this span, but only while no position is open: a row with a known
    label has all bars of its horizon.
    """
    dataset = folds[-1].dataset
    first, last = _test_span(folds)
    prices = prices_of(dataset, first, last)
    exit_rule = exit_rule_of(dataset, first, last, rules.exit)
    yearly = bars_per_year(dataset.bars.timeframe)
    decided = [
        (rules.model_name, [_decided(f.model, f.threshold) for f in folds]),
        *(
            (forecasts[0].name, [_decided(forecast) for forecast in forecasts])
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
    results = [result.shown_among(rules.n_shown) for result in results]
    traded = [result for k, result in enumerate(results) if k == 0 or result.n_trades]
    return (*traded, buy_and_hold(prices, rules.costs, bars_per_year=yearly))


def _test_span(folds: Sequence[FoldForecasts]) -> tuple[int, int]:
    """Start and end positions in the newest fold's bars: first test row to last label's end."""
    dataset = folds[-1].dataset
    first = int(np.searchsorted(dataset.bars.open_time, _test_times(folds)[0]))
    return first, int(dataset.rows("test")[-1]) + dataset.label_rule.horizon + 1


def _per_bar(
    folds: Sequence[FoldForecasts], signals: Sequence[IntArray], first: int, n_bars: int
) -> IntArray:
    rows = np.searchsorted(folds[-1].dataset.bars.open_time, _test_times(folds)) - first
    return spread_signals(np.concatenate(signals), rows, n_bars)


def _decided(forecast: Forecast, threshold: float = 0.0) -> IntArray:
    if forecast.decisions is not None:
        return forecast.decisions
    return decide(forecast.probabilities, threshold)


def prices_of(dataset: MarketDataset, first: int, last: int) -> Prices:
    """Prices at positions ``first`` to ``last - 1``."""
    columns = (dataset.bars.column(name)[first:last] for name in ("open", "high", "low", "close"))
    return Prices(*columns)


def exit_rule_of(
    dataset: MarketDataset, first: int, last: int, where: Exit = Exit.HORIZON
) -> ExitRule:
    """The exit rule for bars ``first`` to ``last - 1``.

    Args:
        dataset: Has the label rule and the bars.
        first: Position of the first bar.
        last: Position after the last bar.
        where: Where positions close before the horizon ends.
    """
    horizon = dataset.label_rule.horizon
    if where is Exit.LEVELS:
        return ExitRule(horizon, brackets=_brackets(dataset.bars, np.arange(first, last)))
    distance = dataset.label_rule.barrier_distance(dataset.bars)
    return ExitRule(horizon, None if distance is None else distance[first:last])


def _brackets(bars: Bars, rows: IntArray) -> Brackets:
    """Stop and first target of a LONG and of a SHORT at each bar.

    The nearest target: with the usual horizons the others are seldom reached.
    """
    long, short = (
        levels_along(bars, rows, np.full(len(rows), signal)).prices
        for signal in (Signal.LONG, Signal.SHORT)
    )
    return Brackets(long[:, [STOP, FIRST_TARGET]], short[:, [FIRST_TARGET, STOP]])
