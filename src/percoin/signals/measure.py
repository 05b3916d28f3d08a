"""Measure the quality of each rule on a market, on all of its bars.

A fixed rule has learnt from no bar, so all bars test it. The hit rate is the share of right
directions among those that a move followed, by the labels. A rule is worse than a coin if the
upper end of the hit rate's interval lies below one half. The error of that end is divided by
the number of rules (Bonferroni): if all rules are as good as a coin, at most one market in
twenty loses a rule.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import numpy as np

from percoin.bars.schema import Bars
from percoin.errors import DataError, NotEnoughBarsError
from percoin.evaluation.hit_rate import hit_rate, moves_after
from percoin.evaluation.level_reach import levels_reached
from percoin.evaluation.uncertainty import Bootstrap
from percoin.labels import LabelRule
from percoin.registry.field_checks import open_time_text, time_text
from percoin.signals.chain import RULES
from percoin.signals.market import SourcedBars
from percoin.signals.rule import Rule, rule_history, rule_levels
from percoin.signals.worth import (
    FORMAT_VERSION,
    MarketWorth,
    MeasuredBars,
    SourceVerdict,
    SourceWorth,
    WorthFiles,
)
from percoin.types import UNKNOWN_LABEL, IntArray, Signal

# Largest share of markets on which some source as good as a coin is called worse. The same
# limit holds for better.
ERROR = 0.05
# With fewer moves, good or bad luck looks like skill.
MIN_MOVES = 30


def measure_worth(
    market: SourcedBars, label_rule: LabelRule, repetitions: int = 2000, seed: int = 0
) -> MarketWorth:
    """Measure every rule of the chain on all bars of a market.

    Args:
        market: Bars of the market.
        label_rule: Gives the right answers; it is fitted here if needed.
        repetitions: Bootstrap draws behind each interval.
        seed: Seed of these draws.

    Raises:
        DataError: There are too few bars for a single label.
    """
    bars = market.asked
    known = np.flatnonzero(label_rule.knows(bars))
    if len(known) == 0:
        found = f"none of {len(bars)} bars has a known label, so no source can be measured"
        raise NotEnoughBarsError(bars.symbol, bars.timeframe, found, "load a longer history")
    rule = label_rule.fitted(bars, known)
    labels = rule.label(bars).label
    confidence = 1 - 2 * ERROR / len(RULES)
    bootstrap = Bootstrap(rule.horizon, seed, repetitions, confidence)
    return MarketWorth(
        FORMAT_VERSION,
        bars.symbol,
        bars.timeframe,
        time_text(datetime.now(UTC)),
        MeasuredBars(
            bars.origin,
            len(bars),
            open_time_text(int(bars.open_time[0])),
            open_time_text(int(bars.open_time[-1])),
            bars.sha256(),
        ),
        rule.to_json(),
        confidence,
        {
            source.option: _measure(each, market, labels, bootstrap)
            for source, each in RULES.items()
        },
    )


def is_known(known: MarketWorth | None, bars: Bars, label_rule: LabelRule) -> bool:
    """Whether the known measurement used exactly these bars and this label rule."""
    return (
        known is not None
        and known.bars.sha256 == bars.sha256()
        and _same_rule(known.label_rule, label_rule.to_json())
    )


def measure_again(market: SourcedBars, label_rule: LabelRule, files: WorthFiles) -> bool:
    """Measure a market and store the result, unless these bars are already measured.

    Returns:
        Whether a measurement was made.

    Raises:
        DataError: There are too few bars.
        OSError: The file cannot be written.
    """
    bars = market.asked
    known = files.read(bars.symbol, bars.timeframe, bars.origin)
    if is_known(known, bars, label_rule):
        return False
    files.write(measure_worth(market, label_rule))
    return True


def _measure(
    rule: Rule, market: SourcedBars, labels: IntArray, bootstrap: Bootstrap
) -> SourceWorth:
    bars = market.asked
    try:
        signals = rule_history(rule, market).signal
        # The bars of the horizon follow each row with a label.
        asked = np.flatnonzero((signals != Signal.NO_TRADE) & (labels != UNKNOWN_LABEL))
        levels = rule_levels(rule, market, asked, signals[asked])
    except DataError:
        # Without its bars, the rule gives no live answers either.
        return SourceWorth(SourceVerdict.TOO_FEW, 0, 0)
    reached = levels_reached(bars, asked, levels, bootstrap)
    rows, hits = moves_after(signals, labels)
    estimate = hit_rate(hits, bars.open_time[rows], bars.timeframe, bootstrap)
    n_answers = int((signals != Signal.NO_TRADE).sum())
    rate = None if estimate is None else estimate.known
    if rate is None or len(hits) < MIN_MOVES:
        return SourceWorth(SourceVerdict.TOO_FEW, n_answers, len(hits), levels=reached)
    return SourceWorth(SourceVerdict.of(rate), n_answers, len(hits), rate, reached)


def _same_rule(known: Mapping[str, object], asked: Mapping[str, object]) -> bool:
    """Whether two label rules agree; values that ``asked`` has not fitted yet are ignored."""
    return all(known.get(name) == value for name, value in asked.items() if value is not None)
