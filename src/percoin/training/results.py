"""Results of several markets: each next to its rival, then the means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from percoin.evaluation.baselines import LOGISTIC
from percoin.evaluation.blend import without_network_advice
from percoin.evaluation.daily import DailyLosses
from percoin.evaluation.joint import JointMean, joint_lead, joint_network_lead, joint_skill
from percoin.evaluation.table import align
from percoin.evaluation.uncertainty import Bootstrap
from percoin.expected_move.judging import JudgedMove
from percoin.intervals import Interval, interval_text
from percoin.training.manifest_draft import ExportedModel

_IN_TRAINING = "in training"
_COLUMNS = (
    "market",
    _IN_TRAINING,
    "skill [95 %]",
    "ahead of rival [95 %]",
    "activity AUC",
    "direction AUC",
    "verdict",
    "rival",
)
_TOO_FEW_DAYS = "[too few days]"
_LEGEND = (
    "skill: share of the train prior's log-loss that is removed; rival: the baseline that was "
    "strongest on validation rows; ahead of it: its log-loss minus the model's, in nats a row; "
    "intervals of means draw days, the same for all markets"
)


@dataclass(frozen=True)
class MarketResult:
    """Result of one market, storable as JSON.

    Attributes:
        symbol: Market.
        is_seen: Whether the model was trained on this market's train rows.
        skill: Log-loss skill over the train prior.
        lower: Lower end of the skill's interval; None if there are too few rows.
        upper: Upper end.
        logistic: Same skill of the logistic regression fitted on this market alone.
        rival: The baseline that was strongest on this market's validation rows.
        lead: Log-loss of the rival minus the model's, in nats a row.
        activity_auc: None if the test rows have only one of the two classes.
        direction_auc: Same.
        verdict: Verdict of the acceptance gate.
        p_value: P-value of the gate.
        reason: First reason of the gate.
        version: The exported version.
        is_served: Whether this version is served now.
        daily: Losses by day, beside those of the rival.
        move: Test of the forecast of the expected move; None if there are too few rows.
    """

    symbol: str
    is_seen: bool
    skill: float
    lower: float | None
    upper: float | None
    logistic: float
    rival: str
    lead: Interval
    activity_auc: float | None
    direction_auc: float | None
    verdict: str
    p_value: float | None
    reason: str
    version: str
    is_served: bool
    daily: DailyLosses
    move: JudgedMove | None

    def __post_init__(self) -> None:
        texts = (self.symbol, self.rival, self.verdict, self.reason, self.version)
        if not all(text.isprintable() for text in texts):
            raise ValueError("a text of a result cannot be printed")
        if self.p_value is not None and not 0 <= self.p_value <= 1:
            raise ValueError("p_value is not between 0 and 1")

    @classmethod
    def of(cls, symbol: str, is_seen: bool, exported: ExportedModel) -> MarketResult:
        """Build the result of a model that was judged and exported."""
        judgement = exported.judgement
        evaluation = judgement.evaluation
        model, verdict = evaluation.model, evaluation.verdict
        lines = {line.name: line for line in evaluation.baselines}
        return cls(
            symbol=symbol,
            is_seen=is_seen,
            skill=model.skill.value,
            lower=model.skill.lower,
            upper=model.skill.upper,
            # If the model is itself the logistic regression, that is no baseline.
            logistic=lines.get(LOGISTIC, model).skill.value,
            rival=evaluation.rival_name,
            lead=evaluation.lead.plain,
            activity_auc=None if model.activity.auc is None else model.activity.auc.value,
            direction_auc=None if model.direction.auc is None else model.direction.auc.value,
            verdict=verdict.outcome.value,
            p_value=verdict.p_value,
            reason=verdict.reasons[0],
            version=exported.version.folder.name,
            is_served=exported.version.is_served,
            daily=judgement.daily,
            move=None if exported.move is None else exported.move.judged,
        )


@dataclass(frozen=True)
class MarketMeans:
    """Means over markets; the intervals allow for the correlation between markets.

    Attributes:
        seen: Mean skill of the markets in the training.
        unseen: Mean skill of the markets left out of it; None if there are none.
        rival_lead_seen: Log-loss of the rivals minus that of the model, in nats per row.
        rival_lead_unseen: Same for the markets left out.
        network_adds: Log-loss of the models without their network minus theirs, over all
            markets; None if no market has both.
    """

    seen: JointMean
    unseen: JointMean | None
    rival_lead_seen: JointMean
    rival_lead_unseen: JointMean | None
    network_adds: JointMean | None

    @classmethod
    def of(cls, results: Sequence[MarketResult], bootstrap: Bootstrap) -> MarketMeans:
        """Average several markets.

        Args:
            results: At least one is of a market in the training.
            bootstrap: Its horizon is in days.
        """
        seen = [entry.daily for entry in results if entry.is_seen]
        unseen = [entry.daily for entry in results if not entry.is_seen]
        return cls(
            joint_skill(seen, bootstrap),
            joint_skill(unseen, bootstrap) if unseen else None,
            joint_lead(seen, bootstrap),
            joint_lead(unseen, bootstrap) if unseen else None,
            joint_network_lead([entry.daily for entry in results], bootstrap),
        )


def format_markets(results: Sequence[MarketResult], means: MarketMeans, is_pool: bool) -> str:
    """Format the table of markets, with the means below it.

    Args:
        results: Results of the markets.
        means: Means over them.
        is_pool: Whether the markets learn from each other. If not, the column "in training" is
            left out.
    """
    table = [_COLUMNS, *map(_row, results)]
    if not is_pool:
        place = _COLUMNS.index(_IN_TRAINING)
        table = [(*row[:place], *row[place + 1 :]) for row in table]
    lines = [align(table[0], table[1:]), ""]
    for name, is_seen, skill, lead in (
        ("seen" if is_pool else "fleet", True, means.seen, means.rival_lead_seen),
        ("unseen", False, means.unseen, means.rival_lead_unseen),
    ):
        if skill is not None and lead is not None:
            group = [entry for entry in results if entry.is_seen is is_seen]
            lines += _means(name, group, skill, lead)
    if means.network_adds is not None:
        adds = interval_text(means.network_adds, without=_TOO_FEW_DAYS)
        which, them = ("its network adds", "it") if is_pool else ("their networks add", "them")
        advice = without_network_advice(means.network_adds)
        lines.append(f"{which} {adds} nats a row to the same parts without {them}{advice}")
    return "\n".join([*lines, _LEGEND])


def _means(
    name: str, group: Sequence[MarketResult], skill: JointMean, lead: JointMean
) -> list[str]:
    n_ahead = sum(entry.lead.value > 0 for entry in group)
    return [
        f"{name}: mean skill {interval_text(skill, without=_TOO_FEW_DAYS)}, over "
        f"{_markets(skill.n_models)} and {skill.n_days} days",
        f"{name}: ahead of the rival on {n_ahead} of {len(group)}; its log-loss minus the "
        f"model's {interval_text(lead, without=_TOO_FEW_DAYS)} nats a row",
    ]


def _row(entry: MarketResult) -> tuple[str, ...]:
    aucs = (entry.activity_auc, entry.direction_auc)
    return (
        entry.symbol,
        "seen" if entry.is_seen else "unseen",
        interval_text(Interval(entry.skill, entry.lower, entry.upper)),
        interval_text(entry.lead),
        *("-" if auc is None else f"{auc:.3f}" for auc in aucs),
        entry.verdict,
        entry.rival,
    )


def _markets(number: int) -> str:
    return "1 market" if number == 1 else f"{number} markets"
