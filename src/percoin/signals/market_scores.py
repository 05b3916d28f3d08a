"""Score the answers of every source on a market."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from percoin.bars.schema import Bars, format_time, is_simulated
from percoin.dataset import MarketDataset
from percoin.errors import PercoinError
from percoin.evaluation.backtest import BacktestResult
from percoin.features.rules import Readings
from percoin.inference import Predictor, ServedModel
from percoin.labels import is_relative
from percoin.signals.chain import RULES
from percoin.signals.market import SourcedBars
from percoin.signals.rule import rule_history
from percoin.signals.scores import Scorer, SourceScore
from percoin.types import UNKNOWN_LABEL, FloatArray, IntArray, Signal, Source

RULES_IN_ORDER = "rules in order"


@dataclass(frozen=True)
class SourceTable:
    """Scores of every source on a market.

    Attributes:
        dataset: The scored rows.
        scores: One for each source, in the order of the chain; last, all rules asked in
            that order.
        missing: Sources without a score, and why.
        hold: Buy and hold over the test rows, and over all rows.
    """

    dataset: MarketDataset
    scores: tuple[SourceScore, ...]
    missing: dict[str, str]
    hold: tuple[BacktestResult, BacktestResult]


def score_market(
    scorer: Scorer, market: SourcedBars, sources: Sequence[Source], models_dir: Path
) -> SourceTable:
    """Score the sources of a chain on a market.

    Args:
        scorer: Has a dataset made from the asked bars.
        market: All bars, so that rules have their history.
        sources: In the order of the chain; ``Source.HOLD`` gets no score.
        models_dir: The registry.
    """
    scores: list[SourceScore] = []
    missing: dict[str, str] = {}
    answered: list[IntArray] = []
    for source in sources:
        try:
            if source is Source.MODEL:
                model = Predictor(models_dir).model(market.asked.symbol, market.asked.timeframe)
                said = _ask_model(model, scorer.dataset, market)
                scores.append(scorer.score_model(source.option, said))
            elif source is not Source.HOLD:
                readings = rule_history(RULES[source], market)
                answered.append(_answers(readings, market.asked, scorer.dataset))
                scores.append(scorer.score_rule(source.option, answered[-1]))
        except (PercoinError, _NotComparableError) as error:
            missing[source.option] = str(error)
    if len(answered) > 1:
        scores.append(scorer.score_rule(RULES_IN_ORDER, first_direction(answered)))
    return SourceTable(scorer.dataset, tuple(scores), missing, scorer.hold())


class _NotComparableError(Exception):
    """The model cannot be scored on these rows; the message says why."""


def _ask_model(model: ServedModel, dataset: MarketDataset, market: SourcedBars) -> FloatArray:
    """Probabilities of the test rows, shape (n_rows, C); the model must not have seen them.

    Raises:
        _NotComparableError: The model saw some of these rows, was trained on another kind of
            bars or says nothing of the price, or a window is incomplete.
        BarsNotFoundError: A market that the model compares it with has no bars.
    """
    manifest, bars, test = model.manifest, dataset.bars, dataset.rows("test")
    if is_simulated(manifest.bars.origin) != is_simulated(bars.origin):
        raise _NotComparableError(
            f"the model learnt from {manifest.bars.origin!r}, the bars are {bars.origin!r}"
        )
    if is_relative(manifest.label_rule):
        raise _NotComparableError(
            "the model says how the market does beside the others of its pool, and the labels here "
            "are of its price: see its scores with percoin registry or report"
        )
    first, unseen = bars.frame.index[test[0]], pd.Timestamp(manifest.bars.splits["test"].first)
    if manifest.refit is not None:
        # Its last labels reach to the last of its bars.
        unseen = pd.Timestamp(manifest.known_until)
    if first < unseen:
        raise _NotComparableError(
            f"the test rows here begin {format_time(first)} UTC, but the model learnt from bars "
            f"before {format_time(unseen)}: give the settings and bars that it was trained with"
        )
    bars = replace(bars, panel=market.beside(manifest.references).panel)
    rows, probabilities = model.probabilities(bars, int(test[0]))
    if not np.isin(test, rows).all():
        raise _NotComparableError(f"some test rows have no full window of {manifest.lookback} bars")
    return probabilities[np.searchsorted(rows, test)]


def _answers(readings: Readings, bars: Bars, dataset: MarketDataset) -> IntArray:
    """Answers of a rule at each bar of the dataset; its bars are the last of ``bars``."""
    answers = np.where(readings.is_known, readings.signal, UNKNOWN_LABEL)
    first = int(np.searchsorted(bars.open_time, dataset.bars.open_time[0]))
    return answers[first : first + len(dataset.bars)].astype(np.int64)


def first_direction(answered: Sequence[IntArray]) -> IntArray:
    """The first LONG or SHORT of several rules at each bar, else the answer of the last rule."""
    chosen = answered[-1]
    for answers in reversed(answered[:-1]):
        is_direction = (answers == Signal.LONG) | (answers == Signal.SHORT)
        chosen = np.where(is_direction, answers, chosen)
    return chosen
