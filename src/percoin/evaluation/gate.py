"""Decide whether a model may be served, and control the false discovery rate of a sweep.

A sweep trains and judges many models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from percoin.evaluation.block_length import MIN_BLOCKS
from percoin.evaluation.collapse import Collapse, CollapseKind
from percoin.evaluation.uncertainty import Estimate
from percoin.intervals import interval_text

# Largest expected share of models without skill among all accepted models.
FALSE_DISCOVERY_RATE = 0.05
# One tail of a two-sided 95 % interval.
_ONE_SIDED = 0.025
# How reasons begin that the number of tries decided.
_AFTER_LOOKS, _AMONG_MODELS = "no skill shown after", "not significant among the"

# How the reason begins that forecasts were not known at the close of their bars.
STAMPED = "stamped "
# One row alone is always the same as itself.
_LEAST_TO_BE_CONSTANT = 30


class Outcome(StrEnum):
    """The gate's decision about a model."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    UNTESTABLE = "untestable"


# What was shown, for people: an accepted model can still lose money. Programs read the outcome.
SHOWN = {
    Outcome.ACCEPTED.value: "skill shown",
    Outcome.REJECTED.value: "no skill shown",
    Outcome.UNTESTABLE.value: "too few rows to tell",
}


@dataclass(frozen=True)
class GateRules:
    """Requirements of the gate.

    Attributes:
        min_effective_rows: With fewer effective rows, a block bootstrap interval is not
            reliable.
        plausible_skill: The largest plausible log-loss skill over the train prior. Test rows
            that cannot detect a skill of this size prove nothing.
        suspicious_skill: Skill above this counts as a leak until proved otherwise. If
            volatility changes after the train rows, every forecaster can gain up to .1.
        suspicious_lead: The same for the lead over the rival, in nats a row.
    """

    min_effective_rows: float = 50.0
    plausible_skill: float = 0.03
    suspicious_skill: float = 0.20
    suspicious_lead: float = 0.03


@dataclass(frozen=True)
class Search:
    """How a model was found before its test rows judged it.

    A choice among ``n_trials`` settings makes the chosen one look too good, but only on the
    rows used for the choice. These are validation rows. The choice does not use test rows, so
    the interval on test rows is as valid as for a single trial, and ``n_trials`` does not
    change the gate's requirement. Dividing by ``n_trials`` would correct for looks at the test
    rows that did not happen, and would reject nearly all real skill. The gate still reports
    the number, because validation scores of a chosen model are not evidence. The deflated
    Sharpe ratio counts every trial as a look; this is too strict, never too lenient.

    Test rows are fresh only once. If someone tunes, reads the verdict and tunes again on the
    same bars, the choice uses the test rows too. Among ``n_looks`` models without skill, one
    passes by luck with a probability of up to ``n_looks`` times 2.5 %. So the last model needs
    stronger evidence (Bonferroni): its p-value times ``n_looks`` must be at most 2.5 %, one
    tail of the interval of a first look.

    Attributes:
        n_trials: Number of settings tried, including this model's; the choice uses validation
            rows.
        n_looks: Number of chosen models that these test rows have judged, including this one.
    """

    n_trials: int = 1
    n_looks: int = 1


@dataclass(frozen=True)
class Verdict:
    """The gate's decision for one model, with reasons.

    Attributes:
        outcome: Accepted, rejected or untestable.
        reasons: One sentence each; the first is the decisive one.
        cautions: Warnings for the reader that do not change the outcome.
        p_value: One-sided, for "no skill over one of the two priors": the larger p-value of the
            two, times the looks at the test rows. None if there are too few rows.
            ``control_false_discoveries`` uses it for a sweep.
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

    The gate accepts the model if its skill over both priors is significantly above zero and
    it is not significantly behind its rival.

    Args:
        skill: Log-loss skill over the train prior.
        lead: Log-loss of the rival minus the model's, in nats a row.
        rival: Name of the rival: the strongest baseline on validation rows, which a user
            would choose.
        collapse: The detected collapse (nearly constant output), if any.
        rules: Requirements of the gate.
        cautions: More warnings about the model; stored without effect on the outcome.
        search: How the model was found.
        recent_skill: Log-loss skill over the rolling prior, if known.
    """
    rules = rules or GateRules()
    search = search or Search()
    noticed = (*cautions, *_choices(search), *_suspicions(skill, lead, rules))
    rulers = {"train prior": skill} | (
        {} if recent_skill is None else {"rolling prior": recent_skill}
    )
    rulers = {name: _after_looks(estimate, search) for name, estimate in rulers.items()}
    p_values = [estimate.p_value for estimate in rulers.values() if estimate.p_value is not None]
    # Both skills must be above zero, so the weaker evidence (larger p-value) counts.
    p_value = max(p_values) if len(p_values) == len(rulers) else None

    def verdict(outcome: Outcome, *reasons: str) -> Verdict:
        return Verdict(outcome, reasons, noticed, p_value)

    unmeasured = _unmeasured(collapse, list(rulers.values()), rules)
    if unmeasured is not None:
        return verdict(*unmeasured)
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


def _unmeasured(
    collapse: Collapse | None, skills: Sequence[Estimate], rules: GateRules
) -> tuple[Outcome, str] | None:
    """The decision on a model whose skills say nothing; None if they count."""
    collapsed = "" if collapse is None else f"collapsed ({collapse.kind}): {collapse.detail}"
    # Few rows show that; the other kinds can be chance on more.
    is_constant = collapse is not None and collapse.kind is CollapseKind.CONSTANT
    if is_constant and all(skill.n_rows >= _LEAST_TO_BE_CONSTANT for skill in skills):
        return Outcome.REJECTED, collapsed
    for skill in skills:
        if skill.lower is None or skill.n_effective_rows < rules.min_effective_rows:
            return Outcome.UNTESTABLE, _too_few_rows(skill, rules)
    return (Outcome.REJECTED, collapsed) if collapsed else None


def _choices(search: Search) -> list[str]:
    """Cautions about how the model was chosen."""
    found = []
    if search.n_trials > 1:
        found.append(
            f"chosen from {search.n_trials} trials on validation rows, so its scores on them are "
            "too good"
        )
    if search.n_looks > 1:
        found.append(
            f"{search.n_looks} chosen models, this one included, were judged on the same test rows"
        )
    return found


def _after_looks(skill: Estimate, search: Search) -> Estimate:
    """The same estimate, with the p-value multiplied by the looks at the test rows."""
    if skill.p_value is None:
        return skill
    return replace(skill, p_value=min(1.0, skill.p_value * search.n_looks))


def _worn(p_value: float, search: Search) -> str:
    return (
        f"{_AFTER_LOOKS} {search.n_looks} looks at the same test rows: p={p_value:.2g}, "
        f"corrected for the looks, must be at most {_ONE_SIDED:g}; newer bars give fresh test rows"
    )


def control_false_discoveries(
    p_values: Mapping[str, float | None], rate: float = FALSE_DISCOVERY_RATE
) -> dict[str, bool]:
    """Find the models that stay significant among all tried (Benjamini and Yekutieli, 2001).

    The method is valid under any dependence; it is needed because markets move together. A
    model without a p-value is not significant and does not count as tried.

    Args:
        p_values: ``Verdict.p_value`` of each model, by name.
        rate: Largest expected share of models without skill among the significant ones.

    Returns:
        For every name, whether the model stays significant.
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
    """The reason text for a model that is not significant among all tried models."""
    shown = "without a p-value" if p_value is None else f"p={p_value:.2g}"
    return (
        f"{_AMONG_MODELS} {n_tested} models tried: {shown}, false discovery rate "
        f"{rate:g} (Benjamini-Yekutieli)"
    )


def was_tried_too_often(reason: str) -> bool:
    """Whether a reason is that of the false discovery control or of the looks at the test rows."""
    return reason.startswith((_AFTER_LOOKS, _AMONG_MODELS))


def apply_false_discovery_control(
    verdicts: Mapping[str, Verdict], rate: float = FALSE_DISCOVERY_RATE
) -> dict[str, Verdict]:
    """Apply false discovery control to the verdicts of a sweep; it can reject accepted models.

    Args:
        verdicts: Verdict of each model, by name.
        rate: Largest expected share of models without skill among the accepted.
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
            f"too few test rows: {skill.n_rows} show only a skill above {detectable:.3f}, and "
            f"more than {rules.plausible_skill:g} is not plausible: {shown}"
        )
        return Outcome.UNTESTABLE, reason
    return (
        Outcome.REJECTED,
        f"no skill shown: {shown}; these rows would show a skill of {detectable:.4f}",
    )


def _too_few_rows(skill: Estimate, rules: GateRules) -> str:
    if skill.lower is None:
        n_blocks = skill.n_rows / skill.block_length
        return (
            f"too few test rows for an interval: {skill.n_rows}, which make {n_blocks:.1f} blocks "
            f"of {skill.block_length} rows (a day, or the reach of a label) and not {MIN_BLOCKS}"
        )
    return (
        f"{skill.n_rows} test rows count as {skill.n_effective_rows:.0f} independent ones; "
        f"at least {rules.min_effective_rows:.0f} are needed"
    )


def _suspicions(skill: Estimate, lead: Estimate, rules: GateRules) -> list[str]:
    suspicions = []
    # On few rows a large figure is luck. Without skill, a lead only shows that the rival is bad.
    if _is_sure(skill) and skill.value > rules.suspicious_skill:
        suspicions.append(
            f"skill {skill.value:.3f} is above {rules.suspicious_skill:g}: a leak until proved "
            "otherwise"
        )
    if skill.value > 0 and _is_sure(lead) and lead.value > rules.suspicious_lead:
        suspicions.append(
            f"{lead.value:.3f} nats a row ahead of its rival, more than "
            f"{rules.suspicious_lead:g}: a leak until proved otherwise"
        )
    return suspicions


def _is_sure(estimate: Estimate) -> bool:
    return estimate.lower is not None and estimate.lower > 0
