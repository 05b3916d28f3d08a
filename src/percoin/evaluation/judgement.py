"""Judge the forecasts of one fold (the usual split) or of several (a walk-forward test).

Compares the model with the baselines on the same test rows, backtests them, and decides.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from percoin.dataset import Part as DatasetPart
from percoin.evaluation.backtest import BacktestResult, backtest, buy_and_hold
from percoin.evaluation.baselines import ALONE, ROLLING_PRIOR, TRAIN_PRIOR, class_shares
from percoin.evaluation.blend import NETWORK, PartSkill, PartSkills
from percoin.evaluation.daily import DailyLosses, sum_by_day
from percoin.evaluation.evaluate import Evaluation, Forecast, evaluate, pool
from percoin.evaluation.fold_forecasts import FoldForecasts, JudgingRules
from percoin.evaluation.gate import Search
from percoin.evaluation.hit_rate import HitRate, hit_rate, moves_after
from percoin.evaluation.last_row import LastRowModel
from percoin.evaluation.level_reach import levels_reached
from percoin.evaluation.metrics import row_log_loss
from percoin.evaluation.threshold import decide, spread_signals
from percoin.evaluation.trading import bars_per_year, exit_rule_of, prices_of
from percoin.evaluation.uncertainty import Bootstrap, Estimate, skill_rows
from percoin.features.levels import levels_along
from percoin.types import (
    NO_TRADES,
    FloatArray,
    IntArray,
    LevelsReached,
    Signal,
)


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
        network_adds: Log-loss of the same parts without the network, their weights chosen anew
            on the validation rows, minus that of the blend, in nats a row, paired on the test
            rows; None if a fold has no network or nothing else.
    """

    parts: Mapping[str, JudgedPart]
    skills: PartSkills
    network_adds: Estimate | None = None


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
        hit_rate: Share of right directions on the test rows, at any confidence, among those that
            a move followed; None if there are too few for an interval.
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

    @property
    def fitted(self) -> dict[str, LastRowModel]:
        """The parts that are no network, by name."""
        if self.blend is None:
            return {} if self.numbers is None else {self.evaluation.model.name: self.numbers}
        parts = self.blend.parts.items()
        return {name: part.numbers for name, part in parts if part.numbers is not None}

    def served_with(self, fitted: Mapping[str, LastRowModel]) -> Judgement:
        """The same figures beside parts that were fitted again."""
        numbers = fitted.get(self.evaluation.model.name, self.numbers)
        if self.blend is None:
            return replace(self, numbers=numbers)
        parts = {
            name: replace(part, numbers=fitted.get(name, part.numbers))
            for name, part in self.blend.parts.items()
        }
        return replace(self, blend=replace(self.blend, parts=parts))


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
            day=_rows_a_day(folds),
        ),
        money=_money(folds, rules),
        search=Search(rules.n_trials, rules.n_looks),
        cautions=[*_better_alone(newest), *_never_trades(newest)],
        rival=choose_rival(folds),
    )
    without = _without_network(folds)
    return Judgement(
        newest.calibration,
        newest.threshold,
        evaluation,
        _daily(folds, (evaluation.best_baseline, evaluation.rival), without),
        next((part.numbers for part in newest.parts.values()), None),
        _judge_blend(folds, evaluation.bootstrap, without),
        _hit_rate(folds, _decided(model), labels, evaluation.bootstrap),
        _levels_reached(folds, _decided(model), evaluation.bootstrap),
    )


def _rows_a_day(folds: Sequence[FoldForecasts]) -> int:
    """Test rows of a day: its bars, but fewer for forecasts of every so many bars only."""
    timeframe = folds[-1].dataset.bars.timeframe
    opened = [fold.dataset.bars.open_time[fold.dataset.rows("test")] for fold in folds]
    steps = np.diff(np.concatenate(opened)) / timeframe.milliseconds
    usual = float(np.median(steps)) if len(steps) else 1.0
    return max(1, math.ceil(timeframe.bars_per_day / usual))


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
    if folds[-1].dataset.label_rule.compared_with:
        # Such a position is one of two legs: no price of the market alone ends it.
        return None
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


def _daily(
    folds: Sequence[FoldForecasts], compared: tuple[str, str], without: FloatArray | None
) -> DailyLosses:
    best_baseline, rival = compared
    names = (TRAIN_PRIOR, best_baseline, ROLLING_PRIOR, rival)
    losses = [_model_losses(folds), *(_baseline_losses(folds, name) for name in names)]
    return sum_by_day(_test_times(folds), losses if without is None else [*losses, without])


def _model_losses(folds: Sequence[FoldForecasts]) -> FloatArray:
    return _losses(folds, [fold.model.probabilities for fold in folds])


def _baseline_losses(folds: Sequence[FoldForecasts], name: str) -> FloatArray:
    by_name = [{entry.name: entry for entry in fold.baselines} for fold in folds]
    return _losses(folds, [baselines[name].probabilities for baselines in by_name])


def _losses(folds: Sequence[FoldForecasts], said: Sequence[FloatArray]) -> FloatArray:
    """Log-losses of forecasts of the test rows of all folds, shape (n_rows,)."""
    labels = np.concatenate([_labels(fold, "test") for fold in folds])
    return row_log_loss(np.concatenate(said), labels)


def _without_network(folds: Sequence[FoldForecasts]) -> FloatArray | None:
    """Losses of the model without its network; None if a fold has none, or nothing else."""
    said = [answers for fold in folds if (answers := fold.without_network()) is not None]
    return _losses(folds, said) if len(said) == len(folds) else None


def _better_alone(fold: FoldForecasts) -> list[str]:
    """Caution if a baseline beats the network on the validation rows, else an empty list.

    Of an average without a network: if one beats the average.
    """
    if NETWORK not in fold.parts and len(fold.parts) < 2:
        return []
    rival = choose_rival([fold])
    loss, model = fold.validation_losses[rival], _validation_loss(fold, fold.validation)
    if NETWORK not in fold.parts:
        if loss >= model:
            return []
        return [
            f"on validation rows the baseline {rival} alone is better than the average "
            f"(log-loss {loss:.4f} against {model:.4f}), of which it is no part"
        ]
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
        advice = f": model={rival}, for {symbol} alone and without settings of a network, trains it"
    return [
        f"on validation rows the baseline {rival} alone is better than the network alone "
        f"(log-loss {loss:.4f} against {network:.4f}){no_weight}{behind}{advice}"
    ]


def _validation_loss(fold: FoldForecasts, probabilities: FloatArray) -> float:
    return float(row_log_loss(probabilities, _labels(fold, "validation")).mean())


def _never_trades(fold: FoldForecasts) -> list[str]:
    """Caution if no threshold makes a profit on the validation rows, else an empty list.

    Without forecasts of validation rows none was searched.
    """
    if fold.threshold < NO_TRADES or len(fold.validation) == 0:
        return []
    return ["no trades: no confidence threshold earned anything after costs on validation rows"]


def _judge_blend(
    folds: Sequence[FoldForecasts], bootstrap: Bootstrap, without: FloatArray | None
) -> JudgedBlend | None:
    """The skill of each part, with the same kind of interval that the gate uses for the model.

    Args:
        folds: As in ``judge_folds``.
        bootstrap: For the intervals.
        without: Losses of the model without its network, if there are any.
    """
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
    adds = None if without is None else bootstrap.estimate(without - _model_losses(folds))
    return JudgedBlend(parts, skills(newest.validation, tests), adds)


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
    if forecast.decisions is None:
        return decide(forecast.probabilities, threshold)
    if threshold <= 0:
        return forecast.decisions
    # A signal counts if its own probability, not that of the likeliest class, is high enough.
    own = np.take_along_axis(forecast.probabilities, forecast.decisions[:, None], axis=1)[:, 0]
    is_sure = (own >= threshold) & (threshold < NO_TRADES)
    return np.where(is_sure, forecast.decisions, Signal.NO_TRADE).astype(np.int64)
