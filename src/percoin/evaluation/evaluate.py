"""All test results of one model and its baselines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from percoin.evaluation.backtest import BacktestResult
from percoin.evaluation.baselines import ROLLING_PRIOR, TRAIN_PRIOR
from percoin.evaluation.collapse import (
    Collapse,
    CollapseLimits,
    describe_lopsided,
    detect_collapse,
)
from percoin.evaluation.gate import (
    STAMPED,
    GateRules,
    Outcome,
    Search,
    Verdict,
    judge,
    was_tried_too_often,
)
from percoin.evaluation.metrics import ReliabilityBin, Scores, reliability, row_log_loss, score
from percoin.evaluation.skills import BinaryView, activity, direction
from percoin.evaluation.uncertainty import Bootstrap, Estimate, skill_rows
from percoin.types import FloatArray, IntArray, Signal

# Enough for a curve on a page; the full series makes metrics.json too large.
_CURVE_POINTS = 400
# In nats. Two ways to compute the same forecast differ by less.
_SAME_LOSS = 1e-6


@dataclass(frozen=True)
class Forecast:
    """One forecaster's output on the test rows.

    Attributes:
        name: Name in tables.
        probabilities: Shape (n, C).
        decisions: Its signals, shape (n,); None means the most probable class.
    """

    name: str
    probabilities: FloatArray
    decisions: IntArray | None = None


@dataclass(frozen=True)
class Skill:
    """One of the two skills: activity (is there a move?) or direction (which way?).

    Attributes:
        auc: Area under the ROC curve, tested against .5; None if one of the two
            outcomes never occurs.
        log_loss_skill: Log-loss skill over the train prior on the same question; None if
            the question applies to no row.
        n_asked: Number of rows to which the question applies.
    """

    auc: Estimate | None
    log_loss_skill: Estimate | None
    n_asked: int


@dataclass(frozen=True)
class Assessment:
    """One line of the table: the model or a baseline.

    Attributes:
        name: Name in tables.
        scores: All scores.
        skill: Log-loss skill over the train prior (class shares of the train rows).
        activity: A move against NO_TRADE.
        direction: LONG against SHORT, on rows with a move.
        recent_skill: Log-loss skill over the rolling prior (class shares of the last days);
            None in older documents.
    """

    name: str
    scores: Scores
    skill: Estimate
    activity: Skill
    direction: Skill
    recent_skill: Estimate | None = None


@dataclass(frozen=True)
class Evaluation:
    """One model and its baselines on the same test rows.

    Attributes:
        model: Results of the model.
        baselines: Results of the baselines, in the given order.
        best_baseline: Name of the baseline with the smallest log-loss on the test rows.
        against_best: Log-loss of the best baseline minus the model's, in nats a row, paired.
        collapse: How the model has collapsed (nearly constant output), or None.
        verdict: The gate's decision.
        class_counts: Number of test rows of each class, in class order.
        reliability: For each class, predicted probability and observed frequency.
        bootstrap: Settings of the model's intervals. Intervals of the baselines use at most
            500 draws.
        money: Backtests after costs; the first is the model's. Empty without backtests.
        rival: Name of the baseline with the smallest log-loss on validation rows. The gate
            compares the model with it. Empty in older documents.
        against_rival: Log-loss of the rival minus the model's, in nats a row, paired; None in
            older documents.
    """

    model: Assessment
    baselines: tuple[Assessment, ...]
    best_baseline: str
    against_best: Estimate
    collapse: Collapse | None
    verdict: Verdict
    class_counts: tuple[int, ...]
    reliability: dict[str, tuple[ReliabilityBin, ...]]
    bootstrap: Bootstrap
    money: tuple[BacktestResult, ...] = ()
    rival: str = ""
    against_rival: Estimate | None = None

    @property
    def n_rows(self) -> int:
        """Number of test rows."""
        return sum(self.class_counts)

    @property
    def rival_name(self) -> str:
        """The baseline that the gate compares with: the rival, or in older documents the best."""
        return self.rival or self.best_baseline

    @property
    def lead(self) -> Estimate:
        """Log-loss of ``rival_name`` minus the model's, in nats a row."""
        return self.against_best if self.against_rival is None else self.against_rival

    @property
    def filled_bins(self) -> dict[str, tuple[ReliabilityBin, ...]]:
        """``reliability`` without bins of less than 1 % of the rows, or fewer than 10.

        Their frequency is mostly chance.
        """
        few = max(10.0, 0.01 * self.n_rows)
        return {
            name: tuple(each for each in bins if each.n_rows >= few)
            for name, bins in self.reliability.items()
        }

    def shown(self, outcome: Outcome | None = None, reason: str = "") -> str:
        """What the test rows show, or why that does not count, as a phrase for people.

        Args:
            outcome: Outcome after false discovery control over all tried models; the model's
                own outcome if None.
            reason: The reason that decided ``outcome``; empty means that control. It is not
                used without an outcome.
        """
        reason = reason if outcome is not None else self.verdict.reasons[0]
        outcome, lead = outcome or self.verdict.outcome, self.lead
        if outcome is Outcome.UNTESTABLE:
            return "too few rows to tell"
        if self.collapse is not None:
            return "no skill shown: hardly more than a constant answer"
        if reason.startswith(STAMPED):
            return reason.partition(":")[0]
        rulers = [self.model.skill, self.model.recent_skill]
        is_above = all(e is None or (e.lower is not None and e.lower > 0) for e in rulers)
        if outcome is not Outcome.ACCEPTED and not is_above:
            return "no skill shown"
        if lead.upper is not None and lead.upper < 0:
            return f"skill shown, behind {self.rival_name}"
        if outcome is not Outcome.ACCEPTED and reason and not was_tried_too_often(reason):
            # Such as a live skill that is gone.
            return reason.partition(":")[0]
        if outcome is not Outcome.ACCEPTED:
            # The interval is valid for this model alone, not after a choice among many.
            return "no skill shown among all that was tried"
        is_ahead = lead.lower is not None and lead.lower > 0
        return f"skill shown, {'ahead of' if is_ahead else 'level with'} {self.rival_name}"

    def to_json(self) -> dict[str, Any]:
        """Plain dicts, lists, strings and finite numbers.

        Equity curves keep fewer points, as ``[position of the bar, equity]`` pairs.
        """
        document = asdict(self)
        document["n_rows"] = self.n_rows
        for entry, result in zip(document["money"], self.money, strict=True):
            entry["equity"] = _thin(result.equity)
        plain: dict[str, Any] = _plain(document)
        return plain


def evaluate(
    model: Forecast,
    baselines: Sequence[Forecast],
    labels: IntArray,
    *,
    bootstrap: Bootstrap,
    rules: GateRules | None = None,
    limits: CollapseLimits | None = None,
    money: Sequence[BacktestResult] = (),
    search: Search | None = None,
    cautions: Sequence[str] = (),
    rival: str | None = None,
) -> Evaluation:
    """Score a model and its baselines on the same rows, then judge the model.

    Args:
        model: The model's calibrated forecast.
        baselines: Forecasts of the baselines, same rows in the same order. One must be named
            ``train_prior``. One named ``rolling_prior`` is the second reference for skill.
            Join walk-forward folds with ``pool`` first.
        labels: Labels of the test rows in time order, shape (n,).
        bootstrap: Settings of the intervals; the horizon is that of the labels.
        rules: Requirements of the gate.
        limits: Limits from which a forecaster counts as collapsed.
        money: Backtests to store with the results, the model's first.
        search: How the model was found.
        cautions: More warnings for the reader, from outside the test rows.
        rival: Name of the strongest baseline on validation rows. None takes the strongest one
            on these test rows, which is a little too strict for the model.

    Raises:
        ValueError: Malformed probabilities or labels, no train prior, or an unknown rival.
    """
    prior, recent = _rulers(baselines, rival)
    # The model's intervals decide, so they get all draws. Those of the baselines are only shown.
    coarse = replace(bootstrap, repetitions=min(500, bootstrap.repetitions))
    line = assess(model, labels, prior, bootstrap, recent)
    leads, best = _leads(model, baselines, labels)
    rival = best if rival is None else rival
    against_best, against_rival = (bootstrap.estimate(leads[name]) for name in (best, rival))
    collapse = detect_collapse(model.probabilities, limits, model.decisions)
    cautions = [*cautions, *_further_cautions(model, labels, limits)]
    verdict = judge(
        line.skill, against_rival, rival, collapse, rules, cautions, search, line.recent_skill
    )
    return Evaluation(
        model=line,
        baselines=tuple(assess(entry, labels, prior, coarse, recent) for entry in baselines),
        best_baseline=best,
        against_best=against_best,
        collapse=collapse,
        verdict=verdict,
        class_counts=tuple(np.bincount(labels, minlength=len(Signal)).tolist()),
        reliability={s.name: tuple(reliability(model.probabilities, labels, s)) for s in Signal},
        bootstrap=bootstrap,
        money=tuple(money),
        rival=rival,
        against_rival=against_rival,
    )


def _rulers(
    baselines: Sequence[Forecast], rival: str | None
) -> tuple[FloatArray, FloatArray | None]:
    """Probabilities of the train prior, and of the rolling prior if given."""
    said = {forecast.name: forecast.probabilities for forecast in baselines}
    if TRAIN_PRIOR not in said:
        raise ValueError(f"skill is measured from the baseline {TRAIN_PRIOR!r}, which is missing")
    if rival is not None and rival not in said:
        raise ValueError(f"the rival {rival!r} is none of the baselines")
    return said[TRAIN_PRIOR], said.get(ROLLING_PRIOR)


def describe_absent(labels: IntArray) -> str | None:
    """A caution that names classes without any row, or None."""
    counts = np.bincount(labels, minlength=len(Signal))
    absent = [signal.name for signal in Signal if counts[signal] == 0]
    if not absent:
        return None
    return (
        f"no test row is {' or '.join(absent)}: macro-F1 and balanced accuracy are means over the "
        "other classes, and what the model knows of such rows is not shown"
    )


def _further_cautions(
    model: Forecast, labels: IntArray, limits: CollapseLimits | None
) -> list[str]:
    lopsided = describe_lopsided(model.probabilities, limits, model.decisions)
    return list(filter(None, [lopsided, describe_absent(labels)]))


def _leads(
    model: Forecast, baselines: Sequence[Forecast], labels: IntArray
) -> tuple[dict[str, FloatArray], str]:
    """Each baseline's log-loss minus the model's, per row, and the best baseline's name.

    Rounding differences count as 0: a blend with network weight 0 is level with the regression.
    """
    own = row_log_loss(model.probabilities, labels)
    losses = {f.name: row_log_loss(f.probabilities, labels) for f in baselines}
    leads = {name: theirs - own for name, theirs in losses.items()}
    leads = {name: np.where(np.abs(a) < _SAME_LOSS, 0.0, a) for name, a in leads.items()}
    return leads, min(losses, key=lambda name: float(losses[name].mean()))


def assess(
    forecast: Forecast,
    labels: IntArray,
    prior: FloatArray,
    bootstrap: Bootstrap,
    recent: FloatArray | None = None,
) -> Assessment:
    """Compute one line of the table.

    Args:
        forecast: Forecast of the model or a baseline.
        labels: Shape (n,).
        prior: Probabilities of the train prior on the same rows, shape (n, C). With several
            folds they differ from row to row.
        bootstrap: Settings of the intervals.
        recent: Probabilities of the rolling prior on the same rows, shape (n, C), if known.
    """
    probabilities = forecast.probabilities
    losses = row_log_loss(probabilities, labels)

    def skill_over(ruler: FloatArray) -> Estimate:
        return bootstrap.estimate(skill_rows(losses, row_log_loss(ruler, labels)))

    return Assessment(
        name=forecast.name,
        scores=score(probabilities, labels, forecast.decisions),
        skill=skill_over(prior),
        recent_skill=None if recent is None else skill_over(recent),
        activity=_skill(activity(probabilities, labels), activity(prior, labels), bootstrap),
        direction=_skill(direction(probabilities, labels), direction(prior, labels), bootstrap),
    )


def pool(name: str, folds: Sequence[Forecast]) -> Forecast:
    """Join the forecasts of walk-forward folds, in time order.

    Args:
        name: Name in tables.
        folds: One forecast per fold; all of them with decisions, or none.
    """
    decisions = [fold.decisions for fold in folds if fold.decisions is not None]
    if decisions and len(decisions) != len(folds):
        raise ValueError(f"{len(decisions)} of {len(folds)} folds of {name} have decisions")
    probabilities = np.concatenate([fold.probabilities for fold in folds])
    return Forecast(name, probabilities, np.concatenate(decisions) if decisions else None)


def _skill(view: BinaryView, reference: BinaryView, bootstrap: Bootstrap) -> Skill:
    n_asked = int(view.asked.sum())
    if n_asked == 0:
        return Skill(None, None, 0)
    gains = skill_rows(view.row_losses(), reference.row_losses())
    auc = bootstrap.estimate_auc(view.auc_rows()) if view.auc() is not None else None
    return Skill(auc, bootstrap.estimate(gains), n_asked)


def _thin(equity: FloatArray) -> list[tuple[int, float]]:
    """At most ``_CURVE_POINTS`` points, including the first and the last."""
    chosen = np.unique(np.linspace(0, len(equity) - 1, _CURVE_POINTS).round().astype(int))
    return [(int(bar), float(equity[bar])) for bar in chosen]


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, str):
        return str(value)
    return value
