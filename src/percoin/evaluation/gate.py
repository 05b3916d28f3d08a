"""Whether a model may be served: the verdict, and the false discovery rate over a sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from percoin.evaluation.collapse import Collapse
from percoin.evaluation.uncertainty import MIN_BLOCKS, Estimate
from percoin.intervals import interval_text

# Largest expected share of false ones among the models that are accepted together.
FALSE_DISCOVERY_RATE = 0.05
# Beyond the nearer end of a two-sided interval of 95 %.
_ONE_SIDED = 0.025


class Outcome(StrEnum):
    """What the gate says about a model."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    UNTESTABLE = "untestable"


@dataclass(frozen=True)
class GateRules:
    """What the gate asks for.

    Attributes:
        min_effective_rows: Below this an interval from blocks is not to be trusted.
        plausible_skill: The largest log-loss skill over the train prior that is
            plausible here. Rows that could not detect even that prove nothing.
        suspicious_skill: Skill above this is a leak until proved otherwise. A market
            that calms down or wakes up after the train rows gives everyone up to .1.
        suspicious_lead: The same for a lead over the rival, in nats a row.
    """

    min_effective_rows: float = 50.0
    plausible_skill: float = 0.03
    suspicious_skill: float = 0.20
    suspicious_lead: float = 0.03


@dataclass(frozen=True)
class Search:
    """How a model was found before its test rows judged it.

    A choice among ``n_trials`` settings flatters the chosen one on the rows that it was
    chosen on, and on no others. These are validation rows: the test rows took no part, so
    the interval on them is as good as that of a model that was the only one tried, and
    the gate asks for no more, however many trials there were. Dividing by ``n_trials``
    would pay for looks at the test rows that nobody took, and reject nearly all that is
    real. The gate names the number all the same, because a reader must not take the
    validation figures of a chosen model for evidence. The deflated Sharpe ratio counts
    every trial as a look, which is too strict and never too kind.

    Test rows are fresh only once. Whoever tunes, looks at the verdict and tunes again on
    the same bars chooses on the test rows too: of ``n_looks`` worthless models up to
    ``n_looks`` times 2.5 % pass by luck. So the evidence of the last one must be that
    many times as strong (Bonferroni): its p-value times ``n_looks`` may not exceed the
    2.5 % above a first look's interval.

    Attributes:
        n_trials: Settings tried, this model's among them; the choice saw validation rows.
        n_looks: Chosen models that these test rows have judged, this one among them.
    """

    n_trials: int = 1
    n_looks: int = 1


@dataclass(frozen=True)
class Verdict:
    """The gate's answer for one model.

    Attributes:
        outcome: Accepted, rejected or untestable.
        reasons: Why, one sentence each; the first decides.
        cautions: What a reader should know although it did not decide.
        p_value: One-sided, for "no skill over one of the two priors": the larger of both,
            times the looks at the test rows; None if untestable for want of rows.
            ``control_false_discoveries`` takes it over a sweep.
    """

    outcome: Outcome
    reasons: tuple[str, ...]
    cautions: tuple[str, ...] = ()
    p_value: float | None = None

    @property
    def is_accepted(self) -> bool:
        """Whether the model may be served."""
        return self.outcome is Outcome.ACCEPTED


def judge(
    skill: Estimate,
    lead: Estimate,
    rival: str,
    collapse: Collapse | None,
    rules: GateRules | None = None,
    cautions: Sequence[str] = (),
    search: Search | None = None,
    recent_skill: Estimate | None = None,
) -> Verdict:
    """Judge one model on its test rows.

    It is accepted if its skill is above zero by both rulers and it is not behind its rival
    beyond noise.

    Args:
        skill: Log-loss skill over the train prior.
        lead: Log-loss of the rival minus the model's, in nats a row.
        rival: Which baseline that is: the strongest one on validation rows, as a user would
            have chosen it.
        collapse: A collapse that was detected, if any.
        rules: What is asked for.
        cautions: What else was noticed about the model; kept, and decides nothing.
        search: How the model was found.
        recent_skill: Log-loss skill over the rolling prior, where that is known.
    """
    rules = rules or GateRules()
    search = search or Search()
    noticed = (*cautions, *_choices(search), *_suspicions(skill, lead, rules))
    rulers = {"train prior": skill} | (
        {} if recent_skill is None else {"rolling prior": recent_skill}
    )
    rulers = {name: _after_looks(estimate, search) for name, estimate in rulers.items()}
    p_values = [estimate.p_value for estimate in rulers.values() if estimate.p_value is not None]
    # Both have to be above zero, so the weaker evidence is the evidence for that.
    p_value = max(p_values) if len(p_values) == len(rulers) else None

    def verdict(outcome: Outcome, *reasons: str) -> Verdict:
        return Verdict(outcome, reasons, noticed, p_value)

    if collapse is not None:
        return verdict(Outcome.REJECTED, f"collapsed ({collapse.kind}): {collapse.detail}")
    for estimate in rulers.values():
        if estimate.lower is None or estimate.n_effective_rows < rules.min_effective_rows:
            return verdict(Outcome.UNTESTABLE, _too_few_rows(estimate, rules))
    shown = {name: f"skill over the {name} {interval_text(e)}" for name, e in rulers.items()}
    for name, estimate in rulers.items():
        if estimate.upper is not None and estimate.upper < 0:
            return verdict(Outcome.REJECTED, f"worse than the {name}: {shown[name]}")
    for name, estimate in rulers.items():
        if estimate.lower is not None and estimate.lower <= 0:
            return verdict(*_undecided(estimate, shown[name], rules))
    versus = f"{rival} minus model {interval_text(lead)} nats a row"
    if lead.upper is not None and lead.upper < 0:
        return verdict(Outcome.REJECTED, f"behind {rival}: {versus}", *shown.values())
    if p_value is not None and search.n_looks > 1 and p_value > _ONE_SIDED:
        return verdict(Outcome.REJECTED, _worn(p_value, search), *shown.values())
    is_ahead = lead.lower is not None and lead.lower > 0
    standing = f"{'ahead of' if is_ahead else 'level with'} {rival}: {versus}"
    return verdict(Outcome.ACCEPTED, *shown.values(), standing)


def _choices(search: Search) -> list[str]:
    """What a reader should know of the choices behind a model."""
    found = []
    if search.n_trials > 1:
        found.append(
            f"chosen from {search.n_trials} trials on validation: its figures there are flattered"
        )
    if search.n_looks > 1:
        found.append(
            f"the same test rows have judged chosen models before, {search.n_looks} with this one"
        )
    return found


def _after_looks(skill: Estimate, search: Search) -> Estimate:
    """The same with a p-value that has paid for every look at the test rows."""
    if skill.p_value is None:
        return skill
    return replace(skill, p_value=min(1.0, skill.p_value * search.n_looks))


def _worn(p_value: float, search: Search) -> str:
    return (
        f"no skill shown after {search.n_looks} looks at the same test rows: p={p_value:.2g} "
        f"with all of them paid for, {_ONE_SIDED:g} at most; newer bars make fresh test rows"
    )


def control_false_discoveries(
    p_values: Mapping[str, float | None], rate: float = FALSE_DISCOVERY_RATE
) -> dict[str, bool]:
    """Which of many models still stand when all were tried (Benjamini and Yekutieli, 2001).

    Holds under any dependence, and markets move together. A model without a p-value
    does not stand, and does not count among those tried.

    Args:
        p_values: One per model, under its name, from ``Verdict.p_value``.
        rate: Largest expected share of false ones among those that stand.

    Returns:
        For every name whether it stands.
    """
    from scipy.stats import false_discovery_control

    tested = {name: value for name, value in p_values.items() if value is not None}
    stands = dict.fromkeys(p_values, False)
    if tested:
        adjusted = false_discovery_control(np.array(list(tested.values())), method="by")
        stands.update(zip(tested, (adjusted <= rate).tolist(), strict=True))
    return stands


def why_not_standing(
    n_tested: int, p_value: float | None, rate: float = FALSE_DISCOVERY_RATE
) -> str:
    """What is said of a model that does not stand among the others."""
    shown = "without a p-value" if p_value is None else f"p={p_value:.2g}"
    return (
        f"does not stand among {n_tested} models tried: {shown}, false discovery rate "
        f"{rate:g} (Benjamini-Yekutieli)"
    )


def apply_false_discovery_control(
    verdicts: Mapping[str, Verdict], rate: float = FALSE_DISCOVERY_RATE
) -> dict[str, Verdict]:
    """The verdicts of a sweep after the control: an accepted model may be rejected.

    Args:
        verdicts: One per model, under its name.
        rate: Largest expected share of false ones among the accepted.
    """
    stands = control_false_discoveries({k: v.p_value for k, v in verdicts.items()}, rate)
    n_tested = sum(verdict.p_value is not None for verdict in verdicts.values())
    return {
        name: verdict
        if stands[name] or not verdict.is_accepted
        else Verdict(
            Outcome.REJECTED,
            (why_not_standing(n_tested, verdict.p_value, rate), *verdict.reasons),
            verdict.cautions,
            verdict.p_value,
        )
        for name, verdict in verdicts.items()
    }


def _undecided(skill: Estimate, shown: str, rules: GateRules) -> tuple[Outcome, str]:
    detectable = skill.smallest_detectable or 0.0
    if detectable > rules.plausible_skill:
        reason = (
            f"{skill.n_rows} test rows would show no skill below {detectable:.3f}, and at most "
            f"{rules.plausible_skill:g} is plausible: {shown}"
        )
        return Outcome.UNTESTABLE, reason
    return Outcome.REJECTED, f"no skill shown: {shown}; {detectable:.4f} would have been seen"


def _too_few_rows(skill: Estimate, rules: GateRules) -> str:
    if skill.lower is None:
        n_blocks = skill.n_rows / skill.block_length
        return (
            f"{skill.n_rows} test rows are {n_blocks:.1f} blocks of {skill.block_length} (a day, "
            f"or the reach of a label); an interval takes {MIN_BLOCKS}"
        )
    return (
        f"{skill.n_rows} test rows count as {skill.n_effective_rows:.0f} independent ones; "
        f"{rules.min_effective_rows:.0f} are needed to prove anything"
    )


def _suspicions(skill: Estimate, lead: Estimate, rules: GateRules) -> list[str]:
    suspicions = []
    if skill.value > rules.suspicious_skill:
        suspicions.append(
            f"skill {skill.value:.3f} is above {rules.suspicious_skill:g}: a leak until proved "
            "otherwise"
        )
    # Without skill the lead only says how bad the rival is.
    if skill.value > 0 and lead.value > rules.suspicious_lead:
        suspicions.append(
            f"{lead.value:.3f} nats a row ahead of its rival, more than "
            f"{rules.suspicious_lead:g}: a leak until proved otherwise"
        )
    return suspicions
