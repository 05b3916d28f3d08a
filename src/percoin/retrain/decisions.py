"""Decide what to do with a market's model: train, demote or keep it, with reasons.

**Lost skill.** The record of live predictions grows and is tested many times. The upper end of a
95 % interval errs in one case of forty at one look, and far more often over a year of daily
looks. Sooner or later, chance puts almost every model without skill below zero, and many with a
little skill. So the interval is widened before its upper end is compared with zero: all looks
together then err with probability ``demote_error``. The formula is the normal mixture of Robbins
(1970), as an asymptotic confidence sequence (Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas,
2024), in days of the record, because the level of a market moves for weeks. The interval comes
from few blocks, so Student's t stands for the normal distribution. ``stress/placebo.md`` measures
it on real bars. A new training costs a model nothing, so that decision uses the plain interval.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from statistics import NormalDist

from percoin.evaluation.uncertainty import MOST_BLOCKS
from percoin.intervals import KnownInterval, interval_text
from percoin.types import Timeframe

# One tail of the live record's two-sided 95 % interval.
_TAIL = 0.025
# The mixture is tightest for a record of a year (equation 11 of Howard and Ramdas, 2022). Short
# records are of one season of the market, so they need more evidence.
_TIGHTEST_DAYS = 365.0
# SciPy's quantiles end below.
_SMALLEST_TAIL = 1e-300
# Clocks may be set back a little. A larger step means that one of the two clocks is wrong.
_OF_ANOTHER_CLOCK_DAYS = 1.0


class Verb(StrEnum):
    """What to do with a model."""

    TRAIN = "train"
    DEMOTE = "demote"
    KEEP = "keep"


class Cause(StrEnum):
    """The topic of a reason, for programs."""

    MISSING = "missing"
    INVALID = "invalid"
    REJECTED = "rejected"
    AGE = "age"
    NEW_BARS = "new_bars"
    DRIFT = "drift"
    LIVE_SKILL = "live_skill"
    TRIED_LATELY = "tried_lately"
    POOL = "pool"
    OBSTACLE = "obstacle"


class Condition(StrEnum):
    """The state of the model served for a market."""

    ACCEPTED = "accepted"
    NOT_ACCEPTED = "not accepted"
    INVALID = "invalid"
    MISSING = "missing"


@dataclass(frozen=True)
class Absent:
    """Stands for an unknown value.

    Attributes:
        why: Why the value is unknown, as a phrase.
    """

    why: str


@dataclass(frozen=True)
class FurthestDrift:
    """The feature whose distribution moved furthest from the train rows.

    Attributes:
        feature: Its name.
        psi: Population stability index; 0 means no drift.
        ratio: ``psi`` divided by the highest PSI of equally many consecutive train rows.
    """

    feature: str
    psi: float
    ratio: float


@dataclass(frozen=True)
class LiveSkill(KnownInterval):
    """Log-loss skill of the served version's live predictions over the rolling prior.

    Attributes:
        n_resolved: Number of predictions with a known outcome.
        n_independent: Number of independent predictions they count as, since their labels
            overlap.
        n_days: Number of days that they fill, one prediction a bar.
    """

    n_resolved: int
    n_independent: float
    n_days: float


@dataclass(frozen=True, kw_only=True)
class MarketState:
    """Everything a decision depends on.

    Attributes:
        symbol: Market.
        timeframe: Bar length.
        condition: State of the served model.
        said: The gate's reason or the problem with the model; empty if it is accepted.
        is_forced: A user chose to serve the model although its acceptance was withdrawn.
        data_end: Close of the newest bar that the served model knew; None without a model.
        n_bars: Number of bars the model was made from; 0 without a model.
        n_new_bars: Number of bars its source has, or must have, since ``data_end``.
        drift: Drift of the features.
        live: Skill of the live predictions.
        gate_lower: Lower end of the interval of the skill over the rolling prior when the gate
            judged the model; None if that was not measured.
        last_tried: When the last training of the market ended, with any verdict or error.
        obstacle: Why this command cannot train the market; empty if it can.
    """

    symbol: str
    timeframe: Timeframe
    condition: Condition
    said: str = ""
    is_forced: bool = False
    data_end: datetime | None = None
    n_bars: int = 0
    n_new_bars: int | Absent = Absent("nothing is known of new bars")
    drift: FurthestDrift | Absent = Absent("not measured")
    live: LiveSkill | Absent = Absent("no live record")
    gate_lower: float | None = None
    last_tried: datetime | None = None
    obstacle: str = ""

    @property
    def name(self) -> str:
        """Market and timeframe, as in ``BTCUSDT 15m``."""
        return f"{self.symbol} {self.timeframe.value}"


@dataclass(frozen=True)
class DueRules:
    """When a model needs a training or a demotion.

    Attributes:
        max_age_days: A model whose data ended longer ago is due.
        max_new_bars_share: A model is due with at least this many new bars, as a share of
            the bars it was made from.
        max_drift: A feature with a higher ``FurthestDrift.ratio`` makes the model due.
        min_resolved: With fewer independent live predictions, the live skill is ignored.
        demote_error: Probability, over all looks together, that a model without live skill is
            demoted although its skill is not below zero.
        pool_due_share: Share of a pool's models that must be due before the pool is trained.
        retry_days: Minimum time between two trainings of a market.
    """

    max_age_days: float
    max_new_bars_share: float
    max_drift: float
    min_resolved: int
    demote_error: float
    pool_due_share: float
    retry_days: float


@dataclass(frozen=True)
class RetrainReason:
    """The result of one check.

    Attributes:
        cause: Topic of the check.
        is_due: Whether it is a reason for a training or a demotion.
        text: A sentence with the number, the limit and the setting of that limit.
    """

    cause: Cause
    is_due: bool
    text: str


@dataclass(frozen=True)
class Decision:
    """What to do, and why; the decisive reasons come first."""

    verb: Verb
    reasons: tuple[RetrainReason, ...]


def decide(market: MarketState, rules: DueRules, now: datetime) -> Decision:
    """Decide what to do with the model of a market.

    After a demotion, the caller decides again: the model is then not accepted, which is a
    reason for a training.

    Args:
        market: State of the market.
        rules: The limits.
        now: Current time, with its time zone.
    """
    if gone := _skill_gone(market, rules):
        return Decision(Verb.DEMOTE, (gone,))
    reasons = list(_causes(market, rules, now))
    due = [reason for reason in reasons if reason.is_due]
    if not due:
        return Decision(Verb.KEEP, tuple(reasons))
    against = list(_objections(market, rules, now))
    if against:
        return Decision(Verb.KEEP, (*against, *due))
    return Decision(Verb.TRAIN, (*due, *(reason for reason in reasons if not reason.is_due)))


def decide_for_pool(
    decisions: Sequence[Decision], n_due: int, n_models: int, rules: DueRules, began: bool
) -> list[Decision]:
    """Decide for markets that share a network: train all of them or none.

    Args:
        decisions: The decision for each market on its own; none is to demote.
        n_due: Number of markets with a model of the pool that are due on their own.
        n_models: Number of markets with a model of the pool.
        rules: Gives ``pool_due_share``.
        began: Whether a training of the pool was interrupted.
    """
    is_due = began or (n_due > 0 and n_due >= rules.pool_due_share * n_models)
    counted = f"{n_due} of its {n_models} models {'is' if n_due == 1 else 'are'} due"
    limit = f"{'below' if not is_due else 'not below'} pool_due_share={rules.pool_due_share:g}"
    if n_due == 0:
        counted, limit = f"none of its {n_models} models is due", "and one must be"
    if began:
        text = "the training of its pool was interrupted and goes on"
    elif is_due:
        text = f"its pool is trained as one: {counted}, {limit}"
    else:
        text = f"its pool is trained as one, and waits: {counted}, {limit}"
    reason = RetrainReason(Cause.POOL, is_due, text)
    return [
        Decision(Verb.TRAIN if is_due else Verb.KEEP, (reason, *decision.reasons))
        if is_due or decision.verb is Verb.TRAIN
        else decision
        for decision in decisions
    ]


def held_up(decision: Decision, obstacle: str) -> Decision:
    """Return a decision to keep the model, because an obstacle prevents the training."""
    reason = RetrainReason(Cause.OBSTACLE, False, obstacle)
    return Decision(Verb.KEEP, (reason, *decision.reasons))


def lasting_upper(live: LiveSkill, rules: DueRules) -> float:
    """Upper end of an interval that is valid over any number of looks together.

    Args:
        live: Live skill with its 95 % interval for one look.
        rules: Gives ``demote_error``.
    """
    from scipy.stats import t as student

    # The mixture is two-sided. Only one side is used; the other half of the error pays for
    # standard errors that are estimated anew from other blocks at every look.
    error = rules.demote_error
    log_error = -2.0 * math.log(error)
    grown = live.n_days / _TIGHTEST_DAYS * (log_error + math.log(log_error + 1.0))
    reach = math.sqrt((grown + 1.0) / grown * (math.log(grown + 1.0) + log_error))
    tail = max(NormalDist().cdf(-reach), _SMALLEST_TAIL)
    wider = student.ppf(tail, MOST_BLOCKS - 1) / student.ppf(_TAIL, MOST_BLOCKS - 1)
    return float(live.value + (live.upper - live.value) * wider)


def _skill_gone(market: MarketState, rules: DueRules) -> RetrainReason | None:
    live = market.live
    if market.condition is not Condition.ACCEPTED or market.is_forced:
        return None
    if isinstance(live, Absent) or live.n_independent < rules.min_resolved:
        return None
    upper = lasting_upper(live, rules)
    if upper >= 0:
        return None
    text = (
        f"its live skill is gone: {_shown(live)}, at most {upper:+.4f} over all checks together "
        f"(demote_error={rules.demote_error:g})"
    )
    return RetrainReason(Cause.LIVE_SKILL, True, text)


def _causes(market: MarketState, rules: DueRules, now: datetime) -> Iterator[RetrainReason]:
    """Yield the result of every check, due or not."""
    if market.condition is Condition.MISSING:
        yield RetrainReason(Cause.MISSING, True, f"it has no model: {market.said}")
        return
    if market.condition is Condition.INVALID or market.data_end is None:
        yield RetrainReason(Cause.INVALID, True, f"its model cannot be loaded: {market.said}")
        return
    if market.condition is Condition.NOT_ACCEPTED:
        yield RetrainReason(Cause.REJECTED, True, f"no accepted model is served: {market.said}")
    yield _age(market.data_end, rules, now)
    yield _new_bars(market, rules)
    yield _drift(market, rules)
    yield _live(market, rules)


def _age(data_end: datetime, rules: DueRules, now: datetime) -> RetrainReason:
    days = (now - data_end) / timedelta(days=1)
    is_due = days > rules.max_age_days
    limit = f"{'more than' if is_due else 'at most'} max_age_days={rules.max_age_days:g}"
    if days < 0:
        return RetrainReason(
            Cause.AGE, False, f"its data ends {-days:.1f} days in the future: look at the clock"
        )
    shown = _beside(days, rules.max_age_days, 1)
    return RetrainReason(Cause.AGE, is_due, f"its data ends {shown} days ago, {limit}")


def _new_bars(market: MarketState, rules: DueRules) -> RetrainReason:
    n_new = market.n_new_bars
    if isinstance(n_new, Absent):
        return RetrainReason(Cause.NEW_BARS, False, f"new bars: {n_new.why}")
    if n_new == 0:
        return RetrainReason(Cause.NEW_BARS, False, "no new bar since")
    share = n_new / max(1, market.n_bars)
    is_due = share >= rules.max_new_bars_share
    limit = (
        f"{'not below' if is_due else 'below'} max_new_bars_share={rules.max_new_bars_share:g} "
        f"of the {market.n_bars:,} that it was made from"
    )
    shown = _beside(share, rules.max_new_bars_share, 3)
    return RetrainReason(
        Cause.NEW_BARS,
        is_due,
        f"{n_new:,} new {'bar' if n_new == 1 else 'bars'} since, {shown}, {limit}",
    )


def _drift(market: MarketState, rules: DueRules) -> RetrainReason:
    drift = market.drift
    if isinstance(drift, Absent):
        return RetrainReason(Cause.DRIFT, False, f"drift: {drift.why}")
    is_due = drift.ratio > rules.max_drift
    limit = f"{'more than' if is_due else 'at most'} max_drift={rules.max_drift:g}"
    shown = _beside(drift.ratio, rules.max_drift, 1)
    text = (
        f"{drift.feature} has drifted by {drift.psi:.3f}, {shown} times as far as within its "
        f"train rows, {limit}"
    )
    return RetrainReason(Cause.DRIFT, is_due, text)


def _live(market: MarketState, rules: DueRules) -> RetrainReason:
    live = market.live
    if isinstance(live, Absent):
        return RetrainReason(Cause.LIVE_SKILL, False, f"live skill: {live.why}")
    shown = _shown(live)
    if live.n_independent < rules.min_resolved:
        few = f"{shown}, too few to judge: min_resolved={rules.min_resolved}"
        return RetrainReason(Cause.LIVE_SKILL, False, few)
    if market.gate_lower is None:
        return RetrainReason(
            Cause.LIVE_SKILL, False, f"{shown}; its gate measured no skill to compare it with"
        )
    is_due = live.upper < market.gate_lower
    place = "all of it below" if is_due else "not below"
    gate = f"{place} {market.gate_lower:+.4f}, the least that its gate accepted it for"
    return RetrainReason(
        Cause.LIVE_SKILL, is_due, f"{shown}, {gate} (min_resolved={rules.min_resolved})"
    )


def _objections(market: MarketState, rules: DueRules, now: datetime) -> Iterator[RetrainReason]:
    """Yield the reasons against a training that is due."""
    if market.obstacle:
        yield RetrainReason(Cause.OBSTACLE, False, market.obstacle)
    has_model = market.condition in {Condition.ACCEPTED, Condition.NOT_ACCEPTED}
    if has_model and market.n_new_bars == 0:
        yield RetrainReason(
            Cause.NEW_BARS, False, "there is no new bar, so a training would give the same model"
        )
    if market.last_tried is not None:
        days = (now - market.last_tried) / timedelta(days=1)
        limit = f"less than retry_days={rules.retry_days:g}"
        if days < -_OF_ANOTHER_CLOCK_DAYS and rules.retry_days > 0:
            text = (
                f"it was trained at {market.last_tried:%Y-%m-%d %H:%M}, which is in the future: "
                "look at the clock, or give retry_days=0"
            )
            yield RetrainReason(Cause.TRIED_LATELY, False, text)
        elif max(0.0, days) < rules.retry_days:
            shown = _beside(max(0.0, days), rules.retry_days, 1)
            yield RetrainReason(
                Cause.TRIED_LATELY, False, f"it was trained {shown} days ago, {limit}"
            )


def _beside(value: float, limit: float, n_digits: int) -> str:
    """Format a number with enough digits to show on which side of its limit it lies."""
    text = f"{value:.{n_digits}f}"
    for more in range(n_digits + 1, n_digits + 6):
        if float(text) != limit or value == limit:
            break
        text = f"{value:.{more}f}"
    return text


def _shown(live: LiveSkill) -> str:
    return (
        f"live skill {interval_text(live)} of {live.n_resolved:,} predictions, "
        f"{live.n_independent:.0f} independent ones"
    )
