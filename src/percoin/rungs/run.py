"""The answers of every rung on a market, and their scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from percoin.assembly import bar_source, label_rule, split_spec, trading_costs
from percoin.bars.schema import Bars, format_time, is_simulated
from percoin.bars.store import BarStore
from percoin.config import RungsConfig
from percoin.dataset import MarketDataset, bars_to_load, build_dataset
from percoin.errors import PercoinError
from percoin.evaluation.backtest import BacktestResult
from percoin.evaluation.uncertainty import Bootstrap
from percoin.features.feature_set import FeatureDefinition
from percoin.inference import Predictor, ServedModel
from percoin.rules import Readings
from percoin.rungs.scores import Judge, RungScore
from percoin.signals.chain import RULES
from percoin.signals.market import SourcedBars
from percoin.signals.rule import rule_history
from percoin.types import UNKNOWN_LABEL, FloatArray, IntArray, Rung, Signal

RULES_TOGETHER = "rules in order"


@dataclass(frozen=True)
class RungTable:
    """Every rung of a market.

    Attributes:
        dataset: The rows that they were scored on.
        scores: One a rung, in the order of the chain, then the rules in that order.
        missing: Rungs without a score, and why.
        hold: Buying and holding over the test rows, and over all rows.
    """

    dataset: MarketDataset
    scores: tuple[RungScore, ...]
    missing: dict[str, str]
    hold: tuple[BacktestResult, BacktestResult]


def judge_rungs(settings: RungsConfig) -> RungTable:
    """Score every rung that the settings name.

    Raises:
        PercoinError: The bars cannot be had or make no dataset.
    """
    rule = label_rule(settings.labels)
    timeframe = settings.tf.timeframe
    n_bars = bars_to_load(timeframe, rule, settings.lookback, settings.history_days)
    source = bar_source(settings.source, BarStore(Path(settings.data_dir) / "bars"), n_bars)
    bars = source.load(settings.symbol, timeframe)
    spec = split_spec(settings.split)
    dataset = build_dataset(
        bars, FeatureDefinition.RELATIVE, rule, settings.lookback, spec, settings.history_days
    )
    rungs = [Rung(name) for name in settings.chain]
    judge = Judge(
        dataset,
        trading_costs(settings.costs),
        Bootstrap(dataset.label_rule.horizon, settings.seed, settings.repetitions),
        n_trials=len(rungs),
    )
    return score_market(judge, SourcedBars(bars, source), rungs, Path(settings.models_dir))


def score_market(
    judge: Judge, market: SourcedBars, rungs: Sequence[Rung], models_dir: Path
) -> RungTable:
    """Score the rungs of a chain on a market.

    Args:
        judge: With a dataset of the asked bars.
        market: All bars, so that rules have their history.
        rungs: In the order in which they are asked; ``Rung.HOLD`` says nothing.
        models_dir: The registry.
    """
    scores: list[RungScore] = []
    missing: dict[str, str] = {}
    answered: list[IntArray] = []
    for rung in rungs:
        try:
            if rung is Rung.ML:
                model = Predictor(models_dir).model(market.asked.symbol, market.asked.timeframe)
                scores.append(judge.score_model(rung, _ask_model(model, judge.dataset)))
            elif rung is not Rung.HOLD:
                readings = rule_history(RULES[rung], market)
                answered.append(_answers(readings, market.asked, judge.dataset))
                scores.append(judge.score_rule(rung, answered[-1]))
        except (PercoinError, _NotComparableError) as error:
            missing[rung.value] = str(error)
    if len(answered) > 1:
        scores.append(judge.score_rule(RULES_TOGETHER, first_direction(answered)))
    return RungTable(judge.dataset, tuple(scores), missing, judge.hold())


class _NotComparableError(Exception):
    """A model that cannot be scored on these rows; the message says why."""


def _ask_model(model: ServedModel, dataset: MarketDataset) -> FloatArray:
    """Probabilities of the test rows, shape (n_rows, C), if it has learnt from none of them."""
    manifest, bars, test = model.manifest, dataset.bars, dataset.rows("test")
    if is_simulated(manifest.bars.origin) != is_simulated(bars.origin):
        raise _NotComparableError(
            f"the model learnt from {manifest.bars.origin!r}, the bars are {bars.origin!r}"
        )
    first, unseen = bars.frame.index[test[0]], pd.Timestamp(manifest.bars.splits["test"].first)
    if first < unseen:
        raise _NotComparableError(
            f"the test rows here begin {format_time(first)} UTC, but bars before "
            f"{format_time(unseen)} made the model: give the settings and bars it was trained with"
        )
    rows, probabilities = model.probabilities(bars, int(test[0]))
    if not np.isin(test, rows).all():
        raise _NotComparableError(
            f"its window of {manifest.lookback} bars is not whole on every test row"
        )
    return probabilities[np.searchsorted(rows, test)]


def _answers(readings: Readings, bars: Bars, dataset: MarketDataset) -> IntArray:
    """What a rule says at each bar of a dataset, which are the last of ``bars``."""
    answers = np.where(readings.is_known, readings.signal, UNKNOWN_LABEL)
    first = int(np.searchsorted(bars.open_time, dataset.bars.open_time[0]))
    return answers[first : first + len(dataset.bars)].astype(np.int64)


def first_direction(answered: Sequence[IntArray]) -> IntArray:
    """The first LONG or SHORT of several rules at each bar; what the last says if none has."""
    chosen = answered[-1]
    for answers in reversed(answered[:-1]):
        is_direction = (answers == Signal.LONG) | (answers == Signal.SHORT)
        chosen = np.where(is_direction, answers, chosen)
    return chosen
