"""Whether a model may be served: the verdict, and the false discovery rate over a sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from percoin.evaluation.collapse import Collapse
from percoin.evaluation.uncertainty import Estimate


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
        suspicious_lead: The same for a lead over the best baseline, in nats a row.
    """

    min_effective_rows: float = 50.0
    plausible_skill: float = 0.03
    suspicious_skill: float = 0.20
    suspicious_lead: float = 0.03


@dataclass(frozen=True)
class Verdict:
    """The gate's answer for one model.

    Attributes:
        outcome: Accepted, rejected or untestable.
        reasons: Why, one sentence each; the first decides.
        cautions: What a reader should know although it did not decide.
        p_value: One-sided, for "no skill over the train prior"; None if untestable
            for want of rows. ``control_false_discoveries`` takes it over a sweep.
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
    against_best: Estimate,
    best_name: str,
    collapse: Collapse | None,
    rules: GateRules | None = None,
    cautions: Sequence[str] = (),
) -> Verdict:
    """Judge one model on its test rows.

    Args:
        skill: Log-loss skill over the train prior.
        against_best: Log-loss of the best baseline minus the model's, in nats a row.
        best_name: Which baseline that is. It is chosen on the same rows, which makes
            the comparison slightly too hard for the model, never too easy.
        collapse: A collapse that was detected, if any.
        rules: What is asked for.
        cautions: What else was noticed about the model; kept, and decides nothing.
    """
    rules = rules or GateRules()
    noticed = (*cautions, *_suspicions(skill, against_best, rules))
    if collapse is not None:
        reason = f"collapsed ({collapse.kind}): {collapse.detail}"
        return Verdict(Outcome.REJECTED, (reason,), noticed, skill.p_value)
    if (
        skill.lower is None
        or skill.upper is None
        or skill.n_effective_rows < (rules.min_effective_rows)
    ):
        return Verdict(Outcome.UNTESTABLE, (_too_few_rows(skill, rules),), noticed, skill.p_value)
    shown = f"skill over the train prior {_interval(skill)}"
    if skill.upper < 0:
        reasons: tuple[str, ...] = (f"worse than the train prior: {shown}",)
        return Verdict(Outcome.REJECTED, reasons, noticed, skill.p_value)
    if skill.lower <= 0:
        return _undecided(skill, shown, noticed, rules)
    versus = f"{best_name} minus model {_interval(against_best)} nats a row"
    if against_best.upper is not None and against_best.upper < 0:
        reasons = (f"worse than the best baseline: {versus}", shown)
        return Verdict(Outcome.REJECTED, reasons, noticed, skill.p_value)
    reasons = (shown, f"not worse than the best baseline: {versus}")
    return Verdict(Outcome.ACCEPTED, reasons, noticed, skill.p_value)


def control_false_discoveries(
    p_values: Mapping[str, float | None], rate: float = 0.05
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


def apply_false_discovery_control(
    verdicts: Mapping[str, Verdict], rate: float = 0.05
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
            (
                f"does not stand among {n_tested} models tried: p={verdict.p_value:.2g}, false "
                f"discovery rate {rate:g} (Benjamini-Yekutieli)",
                *verdict.reasons,
            ),
            verdict.cautions,
            verdict.p_value,
        )
        for name, verdict in verdicts.items()
    }


def _undecided(skill: Estimate, shown: str, cautions: tuple[str, ...], rules: GateRules) -> Verdict:
    detectable = skill.smallest_detectable or 0.0
    if detectable > rules.plausible_skill:
        reason = (
            f"{skill.n_rows} test rows would show no skill below {detectable:.3f}, and at most "
            f"{rules.plausible_skill:g} is plausible: {shown}"
        )
        return Verdict(Outcome.UNTESTABLE, (reason,), cautions, skill.p_value)
    reason = f"no skill shown: {shown}; {detectable:.4f} would have been seen"
    return Verdict(Outcome.REJECTED, (reason,), cautions, skill.p_value)


def _too_few_rows(skill: Estimate, rules: GateRules) -> str:
    return (
        f"{skill.n_rows} test rows count as {skill.n_effective_rows:.0f} independent ones; "
        f"{rules.min_effective_rows:.0f} are needed to prove anything"
    )


def _suspicions(skill: Estimate, against_best: Estimate, rules: GateRules) -> list[str]:
    suspicions = []
    if skill.value > rules.suspicious_skill:
        suspicions.append(
            f"skill {skill.value:.3f} is above {rules.suspicious_skill:g}: a leak until proved "
            "otherwise"
        )
    if against_best.value > rules.suspicious_lead:
        suspicions.append(
            f"{against_best.value:.3f} nats a row ahead of the best baseline, more than "
            f"{rules.suspicious_lead:g}: a leak until proved otherwise"
        )
    return suspicions


def _interval(estimate: Estimate) -> str:
    if estimate.lower is None or estimate.upper is None:
        return f"{estimate.value:+.4f} (too few rows for an interval)"
    return f"{estimate.value:+.4f} [{estimate.lower:+.4f}, {estimate.upper:+.4f}]"
