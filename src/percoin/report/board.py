"""The content of the report: the order of the models, their joint verdicts, the sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from percoin.bars.schema import is_simulated
from percoin.evaluation.backtest import BUY_AND_HOLD, BacktestResult
from percoin.evaluation.baselines import rolling_prior_days
from percoin.evaluation.evaluate import Assessment, Evaluation
from percoin.evaluation.gate import (
    FALSE_DISCOVERY_RATE,
    SHOWN,
    Outcome,
    Verdict,
    apply_false_discovery_control,
    control_false_discoveries,
)
from percoin.evaluation.uncertainty import Estimate
from percoin.registry.manifest import Manifest, StoredVerdict
from percoin.report.joint_results import JointResult, in_a_sentence, joint_results
from percoin.report.reading import SavedModel
from percoin.types import CLASS_NAMES

# Largest number of names in a list.
_NAMED = 8


class BoardStatus(StrEnum):
    """Status of a model in the report."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    UNTESTABLE = "untestable"
    NOT_JUDGED = "not judged"
    BROKEN = "broken"
    NO_MODEL = "no model"


_JUDGED = (BoardStatus.ACCEPTED, BoardStatus.REJECTED, BoardStatus.UNTESTABLE)


# What a rejected model has shown that has skill: its rival has surely more.
BEHIND = "behind its rival"


@dataclass(frozen=True)
class RankedModel:
    """One model with its rank and its verdict among all models shown.

    Attributes:
        rank: Place on the leaderboard, from 1; None if the model has no skill to rank.
        model: The model as stored in the registry.
        status: Status after false discovery control over all models shown.
        reasons: Reasons for the status; the first one decided.
        cautions: Facts that a reader should know, although they did not decide.
        leads: Whether it is significantly better than its rival, after the same control. The
            rival is the baseline that was best on validation rows.
    """

    rank: int | None
    model: SavedModel
    status: BoardStatus
    reasons: tuple[str, ...]
    cautions: tuple[str, ...]
    leads: bool = False

    @property
    def anchor(self) -> str:
        """HTML anchor of its section on the page."""
        return "".join(c if c.isalnum() or c in "._=" else "-" for c in self.model.name)

    @property
    def passed_alone(self) -> bool:
        """Whether its own test accepted it, before the control over all models."""
        evaluation = self.model.evaluation
        return evaluation is not None and evaluation.verdict.is_accepted

    @property
    def is_behind(self) -> bool:
        """Whether it was rejected although it has skill: its rival has surely more."""
        return self.status is BoardStatus.REJECTED and self.phrase.startswith(SHOWN["accepted"])

    @property
    def shown(self) -> str:
        """What the test showed, in a few words for people; programs read the status."""
        return BEHIND if self.is_behind else SHOWN.get(self.status, self.status.value)

    @property
    def short_reason(self) -> str:
        """What ``shown`` leaves out of what the test showed, or the deciding reason."""
        if self.phrase:
            return self.phrase.removeprefix(self.shown).lstrip(" ,:")
        return self.reasons[0].partition(":")[0].replace("_", " ")

    @property
    def phrase(self) -> str:
        """What was shown in full, with the control; empty if the model was not judged."""
        evaluation = self.model.evaluation
        is_judged = evaluation is not None and self.status in _JUDGED
        if evaluation is None or not is_judged:
            return ""
        return evaluation.shown(Outcome(self.status.value), self.reasons[0])


@dataclass(frozen=True)
class Board:
    """All models shown, best first.

    Attributes:
        entries: Sorted by skill, those of simulated markets after all others; models without a
            skill follow, sorted by symbol and bar length.
        created_at: Time of the report (UTC).
        n_tried: Number of counted models with a p-value; false discovery control runs over these.
        n_lost: Number of counted models that were accepted alone, but not after the control.
        joint: Mean results of the models of each bar length and variant; empty if each
            has only one model.
        notes: Further sentences for the top of the report.
    """

    entries: tuple[RankedModel, ...]
    created_at: datetime
    n_tried: int
    n_lost: int
    joint: tuple[JointResult, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def counted(self) -> tuple[RankedModel, ...]:
        """The models that counts, means and the answer are of: not those of simulated markets.

        Without a model of a real market they are all models.
        """
        if not any(_is_real(entry.model) for entry in self.entries):
            return self.entries
        return tuple(entry for entry in self.entries if not _is_simulated(entry.model))

    @property
    def counts(self) -> dict[BoardStatus, int]:
        """Number of counted models of each status, zeros included."""
        found = Counter(entry.status for entry in self.counted)
        return {status: found[status] for status in BoardStatus}

    @property
    def tested(self) -> str:
        """The period of the test rows, as a phrase; empty if no model could be read."""
        dated = [(each.model, days) for each in self.counted if (days := test_days(each.model))]
        firsts = [first for model, (first, _) in dated if model.judging.n_folds == 1]
        lasts = [last for _, (_, last) in dated]
        if len(firsts) < len(lasts):
            return f"tests until {max(lasts)}"
        return f"tests of {min(firsts)} to {max(lasts)}" if lasts else ""

    @property
    def is_sweep(self) -> bool:
        """Whether more than one model was tested, so that a choice among them needs control."""
        return self.n_tried > 1


def make_board(
    models: Sequence[SavedModel], now: datetime | None = None, notes: Sequence[str] = ()
) -> Board:
    """Judge all models together, with false discovery control, and sort them.

    Models of simulated markets say nothing about real ones: beside these they are controlled
    apart, and no count or mean is of them.

    Args:
        models: As returned by ``read_models``; each has a different name.
        now: Time of the report; None means the current time.
        notes: Further sentences for the top of the report.
    """
    has_real = any(_is_real(model) for model in models)
    played = [model for model in models if has_real and _is_simulated(model)]
    counted = [model for model in models if not (has_real and _is_simulated(model))]
    board = _judge_together(counted)
    entries = [*board.entries, *_judge_together(played).entries]
    return replace(
        board,
        entries=tuple(
            replace(entry, rank=k if entry.model.evaluation else None)
            for k, entry in enumerate(sorted(entries, key=_has_no_skill), start=1)
        ),
        created_at=now or board.created_at,
        notes=(*notes, *_played_note(played)),
    )


def _is_simulated(model: SavedModel) -> bool:
    """Whether the model learnt from simulated bars; False if that is not known."""
    return model.manifest is not None and is_simulated(model.manifest.bars.origin)


def _is_real(model: SavedModel) -> bool:
    """Whether the model learnt from bars of a real market; False if that is not known."""
    return model.manifest is not None and not is_simulated(model.manifest.bars.origin)


def _played_note(played: Sequence[SavedModel]) -> list[str]:
    if not played:
        return []
    verb = "is of a simulated market" if len(played) == 1 else "are of simulated markets"
    return [f"{_models(len(played))} {verb}, judged apart and not counted."]


def _judge_together(models: Sequence[SavedModel]) -> Board:
    """The models with one control over all of them, sorted."""
    n_shown = sum(model.evaluation is not None for model in models)
    models = [_shown_among(model, n_shown) for model in models]
    judged = {model.name: model.evaluation for model in models if model.evaluation is not None}
    alone = {name: evaluation.verdict for name, evaluation in judged.items()}
    controlled = alone
    if len(alone) > 1:
        controlled = apply_false_discovery_control(alone, FALSE_DISCOVERY_RATE)
    leads = control_false_discoveries(
        {name: evaluation.lead.p_value for name, evaluation in judged.items()},
        FALSE_DISCOVERY_RATE,
    )
    entries = [
        _entry(model, controlled.get(model.name), leads.get(model.name, False)) for model in models
    ]
    return Board(
        entries=tuple(sorted(entries, key=_place)),
        created_at=datetime.now(UTC),
        n_tried=sum(verdict.p_value is not None for verdict in alone.values()),
        n_lost=sum(v.is_accepted and not controlled[name].is_accepted for name, v in alone.items()),
        joint=joint_results(models),
    )


def _has_no_skill(entry: RankedModel) -> bool:
    return entry.model.evaluation is None


def _shown_among(model: SavedModel, n_models: int) -> SavedModel:
    """The model with Sharpe ratios deflated for the number of all models in the report.

    Its run may have counted the markets of a pool or fleet already. These are among the models of
    the report, or are more, so the larger number counts and they are not multiplied.
    """
    evaluation = model.evaluation
    if evaluation is None:
        return model
    money = []
    for result in evaluation.money:
        is_model = result.name == evaluation.model.name
        own = _own_trials(model, result.n_trials) if is_model else 1
        money.append(result.tried(own * max(result.n_trials // own, n_models)))
    return replace(model, evaluation=replace(evaluation, money=tuple(money)))


def _own_trials(model: SavedModel, n_tried: int) -> int:
    """Trials of the model alone; ``n_tried`` is these times the models shown with it.

    Settings of another program may not name them; all tries are then its own.
    """
    trials = None if model.manifest is None else model.manifest.config.get("trials")
    return trials if type(trials) is int and trials > 0 and n_tried % trials == 0 else n_tried


def _entry(model: SavedModel, verdict: Verdict | None, leads: bool) -> RankedModel:
    if not model.exists:
        return RankedModel(None, model, BoardStatus.NO_MODEL, (model.problem,), ())
    if model.manifest is None:
        if verdict is None:
            return RankedModel(None, model, BoardStatus.BROKEN, (model.problem,), ())
        status = BoardStatus(verdict.outcome.value)
        return RankedModel(None, model, status, verdict.reasons, verdict.cautions, leads)
    cautions = [text for text in (model.standing, model.manifest.refit_text) if text]
    if _is_simulated(model):
        cautions.append("its bars were simulated: it says nothing about a real market")
    if verdict is None:
        return RankedModel(None, model, BoardStatus.NOT_JUDGED, (model.problem,), tuple(cautions))
    gate, reasons = model.manifest.gate, verdict.reasons
    stored, status = gate.verdict.value.replace("_", " "), BoardStatus(verdict.outcome.value)
    if status is BoardStatus.ACCEPTED and gate.verdict is not StoredVerdict.ACCEPTED:
        # An acceptance may be withdrawn, so the manifest decides whether the model is served.
        status, reasons = BoardStatus(stored), gate.reasons or (f"its manifest says {stored}",)
    elif model.evaluation is not None and stored != model.evaluation.verdict.outcome.value:
        cautions.append(f"its manifest says {stored}: {'; '.join(gate.reasons)}")
    return RankedModel(None, model, status, reasons, (*cautions, *verdict.cautions), leads)


def _place(entry: RankedModel) -> tuple[bool, float, int, str, int]:
    evaluation = entry.model.evaluation
    skill = -evaluation.model.skill.value if evaluation else 0.0
    has_none = (BoardStatus.BROKEN, BoardStatus.NO_MODEL)
    last = has_none.index(entry.status) + 1 if entry.status in has_none else 0
    length = entry.model.timeframe.milliseconds
    return (evaluation is None, skill, last, entry.model.symbol, length)


def rival_of(evaluation: Evaluation) -> Assessment:
    """The result of the rival: the baseline that the model must beat."""
    return next(line for line in evaluation.baselines if line.name == evaluation.rival_name)


def money_of(evaluation: Evaluation) -> tuple[BacktestResult | None, BacktestResult | None]:
    """The backtest of the model and that of buy and hold; None if there is none."""
    by_name = {result.name: result for result in evaluation.money}
    return by_name.get(evaluation.model.name), by_name.get(BUY_AND_HOLD)


def test_days(model: SavedModel) -> tuple[str, str] | None:
    """First and last day of the test rows, such as ``2025-08-31``; None if unknown.

    The manifest of a walk-forward has only the dates of the newest fold: the first entry is
    then ``fold 1 of 5``.
    """
    if model.tested is not None:
        return model.tested
    if model.manifest is None:
        return None
    span, n_folds = model.manifest.bars.splits["test"], model.judging.n_folds
    return span.first[:10] if n_folds == 1 else f"fold 1 of {n_folds}", span.last[:10]


def age(manifest: Manifest, now: datetime) -> timedelta:
    """Time from the export of the model until ``now``."""
    return now - datetime.fromisoformat(manifest.created_at)


def majority_share(confusion_matrix: Sequence[Sequence[int]]) -> tuple[str, float]:
    """The most frequent label and its share, which is the accuracy of always predicting it.

    Args:
        confusion_matrix: Rows are labels, columns are decisions.
    """
    counts = [sum(row) for row in confusion_matrix]
    largest = max(range(len(counts)), key=counts.__getitem__)
    return CLASS_NAMES[largest], counts[largest] / max(1, sum(counts))


def answer(board: Board) -> str:
    """The main finding of the report in one sentence."""
    models = [entry for entry in board.counted if entry.model.exists]
    n_models, n_accepted = len(models), board.counts[BoardStatus.ACCEPTED]
    if n_models == 0:
        return "No job left a model."
    if n_models == 1:
        return f"{models[0].model.name}: {models[0].shown}."
    if n_accepted == 0:
        return f"None of the {_models(n_models)} has shown skill."
    verb = "has" if n_accepted == 1 else "have"
    return f"{n_accepted} of {_models(n_models)} {verb} shown skill."


def headlines(board: Board) -> list[str]:
    """Sentences for the top of the report, after the answer."""
    return [*board.notes, sweep_note(board), *map(in_a_sentence, board.joint), *_leaders(board)]


def _leaders(board: Board) -> list[str]:
    if not board.is_sweep:
        return []
    leaders = [entry.model.name for entry in board.counted if entry.leads]
    found = f"{', '.join(leaders[:_NAMED])}{', ...' if len(leaders) > _NAMED else ''}"
    return [
        f"Surely ahead of its rival, by the same control: {len(leaders)} of "
        f"{_models(board.n_tried)}{f' ({found})' if leaders else ''}."
    ]


def sweep_note(board: Board) -> str:
    """How many models were tried, and how that changed the verdicts."""
    if not any(entry.model.evaluation for entry in board.counted):
        return "No model has been judged."
    if board.n_tried == 0:
        return "No model has been judged on enough test bars to tell its skill from luck."
    if not board.is_sweep:
        return (
            "One model was judged, on its own. If it is the best of several that were tried, "
            "report them together: luck finds a winner among many."
        )
    n_alone = sum(entry.passed_alone for entry in board.counted)
    n_accepted = board.counts[BoardStatus.ACCEPTED]
    # What passed the control here too, but not its manifest.
    n_withdrawn = n_alone - board.n_lost - n_accepted
    withdrawn = f", {n_withdrawn} withdrawn since" if n_withdrawn else ""
    return (
        f"{board.n_tried} models were tried. Luck alone would make some of them look good, so "
        f"at most {FALSE_DISCOVERY_RATE:.0%} of those with skill shown may be expected to have "
        "none (Benjamini-Yekutieli, which allows for markets that move together): judged alone "
        f"{n_alone} would show skill, judged together {n_accepted}{withdrawn}."
    )


def _models(count: int) -> str:
    return "1 model" if count == 1 else f"{count} models"


def in_words(entry: RankedModel) -> list[str]:
    """Explains the figures of one model to a trader, one sentence each."""
    evaluation = entry.model.evaluation
    if evaluation is None:
        return []
    return [
        _skill_in_words(evaluation, rolling_prior_days(entry.model.timeframe)),
        _activity_in_words(evaluation),
        _direction_in_words(evaluation),
        *_money_in_words(evaluation),
    ]


def _skill_in_words(evaluation: Evaluation, n_recent_days: int) -> str:
    skill, recent = evaluation.model.skill, evaluation.model.recent_skill
    said = (
        f"Over {evaluation.n_rows:,} test bars, worth {skill.n_effective_rows:,.0f} independent "
        f"ones, its probabilities were {_better(skill.value)} (log-loss) than quoting the "
        "long-run shares of the three answers every time"
    )
    if skill.ends is not None:
        said += "; likely between {} and {}".format(*map(_better, skill.ends))
    if recent is None:
        return f"{said}."
    return (
        f"{said}. Than quoting those of the last {n_recent_days} days they were "
        f"{_better(recent.value)}."
    )


def _better(skill: float) -> str:
    return f"{abs(skill):.1%} {'better' if skill >= 0 else 'worse'}"


def _activity_in_words(evaluation: Evaluation) -> str:
    auc = evaluation.model.activity.auc
    if auc is None:
        return "Moves: the test bars were all moves or all quiet, so this cannot be measured."
    return (
        f"Moves: shown one bar before a move and one before none, it picks the right one "
        f"{auc.value:.0%} of the time{_likely(auc, '.0%')}; 50% is a coin flip."
    )


def _direction_in_words(evaluation: Evaluation) -> str:
    auc = evaluation.model.direction.auc
    if auc is None:
        return "Direction: moves went one way only, so this cannot be measured."
    if auc.lower is None or auc.upper is None:
        found = "there are too few moves for more"
    elif auc.lower > 0.5:
        found = "that is more than a coin flip"
    elif auc.upper < 0.5:
        found = "that is worse than a coin flip"
    else:
        found = "that cannot be told from a coin flip"
    return (
        f"Direction: shown one bar before a rise and one before a fall, it picks the right one "
        f"{auc.value:.0%} of the time{_likely(auc, '.0%')}; {found}."
    )


def _money_in_words(evaluation: Evaluation) -> list[str]:
    model, hold = money_of(evaluation)
    if model is None:
        return []
    beside = f"; buying and holding made {hold.net_return:+.1%}" if hold else ""
    if not model.n_trades:
        return [f"Money: it was never confident enough to trade{beside}."]
    trades = "1 trade" if model.n_trades == 1 else f"{model.n_trades:,} trades"
    hits = ""
    if model.hit_rate is not None and model.break_even_hit_rate is not None:
        hits = (
            f" It was right in {model.hit_rate:.0%} of them and needed "
            f"{model.break_even_hit_rate:.0%} to pay its costs."
        )
    return [f"Money: {trades} made {model.net_return:+.1%} after costs{beside}.{hits}"]


def _likely(estimate: Estimate, spec: str) -> str:
    if estimate.ends is None:
        return ""
    lower, upper = estimate.ends
    return f" (likely {lower:{spec}} to {upper:{spec}})"
