"""The chain of sources: the first source with an answer gives it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from percoin.bars.schema import Bars
from percoin.signals.freshness import find_staleness
from percoin.signals.hold import HoldSource
from percoin.signals.model import ModelSource
from percoin.signals.momentum import MomentumRule
from percoin.signals.professional import ProfessionalRule
from percoin.signals.protocol import AsksTogether, MarketBars, SignalSource, TellsMove
from percoin.signals.rsi_ma import RsiMaRule
from percoin.signals.rule import Rule, RuleSource
from percoin.signals.worth import WorthFiles
from percoin.types import ExpectedMove, Passed, Prediction, Source

__all__ = ["Chain", "HoldSource", "ModelSource", "SignalSource", "ask", "build_chain"]

log = logging.getLogger(__name__)

RULES: Mapping[Source, Rule] = {
    rule.source: rule for rule in (ProfessionalRule(), RsiMaRule(), MomentumRule())
}


@dataclass(frozen=True)
class Chain:
    """The sources to ask, in order, and the age limit of the newest bar.

    Attributes:
        sources: The sources; the last one always has an answer.
        names: Names of all sources but the last, for the answer to a market without bars.
        max_age_bars: As for ``find_staleness``.
        worths: Measured quality of the rules; when it changes, answers are made again.
    """

    sources: Sequence[SignalSource]
    names: Sequence[Source]
    max_age_bars: float | None = None
    worths: WorthFiles | None = None


def build_chain(
    order: Sequence[Source],
    model: SignalSource,
    use_pro: bool = True,
    worths: WorthFiles | None = None,
    require_accepted: bool = True,
) -> list[SignalSource]:
    """Build the sources of a chain, in order.

    Args:
        order: Sources to ask; the last must be ``Source.HOLD``.
        model: Answers as ``Source.MODEL``.
        use_pro: False keeps the ``PRO`` rule in the chain, but it never answers.
        worths: Measured quality of the rules on each market; None leaves them unjudged.
        require_accepted: Skip a rule on markets where it measured worse than a coin.
    """
    sources: dict[Source, SignalSource] = {
        Source.MODEL: model,
        Source.HOLD: HoldSource(),
        **{
            source: RuleSource(rule, use_pro or source is not Source.PRO, worths, require_accepted)
            for source, rule in RULES.items()
        },
    }
    return [sources[source] for source in order]


def prepare(sources: Sequence[SignalSource], markets: Sequence[Bars]) -> None:
    """Before ``ask`` about many markets: ask those sources together that are faster so."""
    for source in sources:
        if isinstance(source, AsksTogether):
            source.prepare(markets)


def ask(
    sources: Sequence[SignalSource],
    market: MarketBars,
    max_age_bars: float | None = None,
    now: datetime | None = None,
) -> Prediction:
    """Ask the sources in order; log who answered and why the others did not.

    If the newest bar is too old to act on, every answer but holding is skipped
    (``stale_data``), and there is no expected move. Otherwise a source that was not asked
    because one before it had an answer still tells that, if it knows.

    Args:
        sources: The sources; the last one must always have an answer.
        market: Closed bars; the answer is for the newest bar of the asked timeframe.
        max_age_bars: As for ``find_staleness``; None takes a default by the bar source.
        now: Time with a zone; None is this machine's clock.
    """
    passed: list[Passed] = []
    staleness = find_staleness(market.asked, max_age_bars, now or datetime.now(UTC))
    for place, source in enumerate(sources):
        answer = source.answer(market)
        if staleness and isinstance(answer, Prediction) and answer.source is not Source.HOLD:
            answer = Passed(answer.source, "stale_data", staleness)
        if isinstance(answer, Prediction):
            _log_prediction(answer)
            move = None
            if not staleness:
                move = _move(answer, passed) or _move_of_others(sources[place + 1 :], market)
            return replace(answer, passed=tuple(passed), expected_move=move)
        log.info("FALLBACK %s reason=%s", market.asked.symbol, answer.reason)
        passed.append(answer)
    raise ValueError("the last source of a chain must always have an answer")


def _move(answer: Prediction, passed: Sequence[Passed]) -> ExpectedMove | None:
    """The expected move by the market's model, whether that gives the answer or not."""
    moves = [answer.expected_move, *(each.expected_move for each in passed)]
    return next((move for move in moves if move is not None), None)


def _move_of_others(sources: Sequence[SignalSource], market: MarketBars) -> ExpectedMove | None:
    """The expected move by a source that is no longer asked for its answer."""
    for source in sources:
        if isinstance(source, TellsMove):
            try:
                return source.expected_move(market)
            except Exception:
                # The answer is there already, and does not depend on this.
                bars = market.asked
                log.exception("%s %s: no expected move is known", bars.symbol, bars.timeframe)
    return None


def _log_prediction(prediction: Prediction) -> None:
    log.info(
        "PREDICT %s tf=%s pred=%s conf=%.2f source=%s",
        prediction.symbol,
        prediction.timeframe.value,
        prediction.signal.name,
        prediction.confidence,
        prediction.source.value,
    )
