"""Measuring what the sources behind the model are worth on a market, on all of its bars.

A rule that is fixed has learnt from no bar, so all bars test it. Its directions are held against
the labels: how many of those that a move followed were right. It is worse than a coin where the
upper end of the interval of that share lies below one half. The error of that end is divided by
the number of sources (Bonferroni): where all of them are as good as a coin, at most one market
in twenty loses one.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import numpy as np

from percoin.bars.schema import Bars
from percoin.errors import DataError, NotEnoughBarsError
from percoin.evaluation.hit_rate import hit_rate, moves_after
from percoin.evaluation.uncertainty import Bootstrap
from percoin.intervals import KnownInterval
from percoin.labels import LabelRule
from percoin.registry.field_checks import open_time_text
from percoin.signals.chain import RULES
from percoin.signals.market import SourcedBars
from percoin.signals.rule import Rule, rule_history
from percoin.signals.worth import (
    FORMAT_VERSION,
    MarketWorth,
    MeasuredBars,
    SourceVerdict,
    SourceWorth,
    WorthFiles,
)
from percoin.types import IntArray, Signal

# Largest share of markets on which a source that is as good as a coin is called worse; the same
# share on which one is called better.
ERROR = 0.05
# With fewer, a run of luck or of bad luck looks like a skill.
MIN_MOVES = 30


def measure_worth(
    market: SourcedBars, label_rule: LabelRule, repetitions: int = 2000, seed: int = 0
) -> MarketWorth:
    """Measure every rule of the chain on all bars of a market.

    Args:
        market: Its bars.
        label_rule: Says what the right answer was; fitted here if it has to be.
        repetitions: Bootstrap draws behind each interval.
        seed: Of these draws.

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
        datetime.now(UTC).isoformat(timespec="seconds"),
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
    """Whether a measurement of these very bars by this rule is there."""
    return (
        known is not None
        and known.bars.sha256 == bars.sha256()
        and _same_rule(known.label_rule, label_rule.to_json())
    )


def measure_again(market: SourcedBars, label_rule: LabelRule, files: WorthFiles) -> bool:
    """Measure a market and keep it, unless that was done on these bars; whether it was due.

    Raises:
        DataError: There are too few bars.
        OSError: It cannot be kept.
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
    try:
        signals = rule_history(rule, market).signal
    except DataError:
        # Without the bars that it looks at it gives no answers either.
        return SourceWorth(SourceVerdict.TOO_FEW, 0, 0)
    bars = market.asked
    rows, hits = moves_after(signals, labels)
    estimate = hit_rate(hits, bars.open_time[rows], bars.timeframe, bootstrap)
    n_answers = int((signals != Signal.NO_TRADE).sum())
    if estimate is None or estimate.ends is None or len(hits) < MIN_MOVES:
        return SourceWorth(SourceVerdict.TOO_FEW, n_answers, len(hits))
    rate = KnownInterval(estimate.value, *estimate.ends)
    return SourceWorth(_verdict(rate), n_answers, len(hits), rate)


def _verdict(rate: KnownInterval) -> SourceVerdict:
    if rate.upper < 0.5:
        return SourceVerdict.WORSE
    return SourceVerdict.BETTER if rate.lower > 0.5 else SourceVerdict.LEVEL


def _same_rule(known: Mapping[str, object], asked: Mapping[str, object]) -> bool:
    """What a rule has not been fitted to yet is the same whatever it was fitted to."""
    return all(known.get(name) == value for name, value in asked.items() if value is not None)
