"""Mean results of many models, with intervals that allow for correlated markets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from percoin.evaluation.blend import without_network_advice
from percoin.evaluation.joint import (
    JointMean,
    days_of,
    joint_lead,
    joint_network_lead,
    joint_recent_skill,
    joint_skill,
    widest_mean,
)
from percoin.evaluation.uncertainty import Bootstrap
from percoin.intervals import interval_text
from percoin.report.reading import SavedModel
from percoin.types import Timeframe


@dataclass(frozen=True)
class JointResult:
    """The judged models of one bar length and one variant.

    Attributes:
        timeframe: Bar length.
        variant: As in ``SavedModel``.
        skill: Mean log-loss skill over the train prior.
        lead: Mean of the rival's log-loss minus the model's own, in nats a bar.
        recent_skill: Mean log-loss skill over the rolling prior; None if it is unknown for
            some models.
        network_adds: Mean of what the networks add to the other parts of their models, in nats
            a bar; None if it is unknown for all.
    """

    timeframe: Timeframe
    variant: str
    skill: JointMean
    lead: JointMean
    recent_skill: JointMean | None = None
    network_adds: JointMean | None = None

    @property
    def name(self) -> str:
        """Name in messages: bar length and variant."""
        return " ".join(filter(None, (self.timeframe.value, self.variant)))


def joint_results(models: Sequence[SavedModel]) -> tuple[JointResult, ...]:
    """Average the models of several markets that share a bar length and variant.

    Args:
        models: Any models; those without evaluation are left out.

    Returns:
        One entry per bar length and variant with at least two models, sorted by both.
    """
    groups: dict[tuple[Timeframe, str], list[SavedModel]] = {}
    for model in models:
        if model.evaluation is not None:
            groups.setdefault((model.timeframe, model.variant), []).append(model)
    order = list(Timeframe)
    return tuple(
        _joint_result(timeframe, variant, groups[timeframe, variant])
        for timeframe, variant in sorted(groups, key=lambda key: (order.index(key[0]), key[1]))
        if len(groups[timeframe, variant]) > 1
    )


def _joint_result(timeframe: Timeframe, variant: str, models: Sequence[SavedModel]) -> JointResult:
    evaluations = [model.evaluation for model in models if model.evaluation is not None]
    daily = [model.course.daily for model in models if model.course.daily is not None]
    if len(daily) < len(models):
        return JointResult(
            timeframe,
            variant,
            widest_mean([evaluation.model.skill for evaluation in evaluations]),
            widest_mean([evaluation.lead for evaluation in evaluations]),
        )
    horizon = max(evaluation.bootstrap.horizon for evaluation in evaluations)
    bootstrap = Bootstrap(days_of(horizon, timeframe.bars_per_day))
    return JointResult(
        timeframe,
        variant,
        joint_skill(daily, bootstrap),
        joint_lead(daily, bootstrap),
        joint_recent_skill(daily, bootstrap),
        joint_network_lead(daily, bootstrap),
    )


def in_a_sentence(group: JointResult) -> str:
    """The means with their intervals, and the basis of the intervals."""
    skill = group.skill
    if skill.n_days is None:
        basis = "the worst case, if all err together: some models have no losses by day"
    elif skill.lower is None:
        basis = f"{skill.n_days} days are too few for an interval"
    else:
        basis = (
            f"95 % intervals over the same {skill.n_days} days for all, as markets move together"
        )
    shown = interval_text(skill, without="")
    if group.recent_skill is not None:
        shown += f", recent skill {interval_text(group.recent_skill, without='')}"
    adds = ""
    if group.network_adds is not None:
        n_models = group.network_adds.n_models
        whose = "their networks" if n_models == skill.n_models else f"the networks of {n_models}"
        found = interval_text(group.network_adds, without="")
        adds = f", and {whose} add {found} to the same parts without them"
        adds += without_network_advice(group.network_adds)
    return (
        f"{group.name}: the {skill.n_models} models' mean skill is {shown}, their lead over their "
        f"rivals {interval_text(group.lead, without='')} nats a bar{adds} ({basis})."
    )
