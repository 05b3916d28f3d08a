"""Everything that is known about one model on its test rows, and the table of it."""

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
from percoin.evaluation.gate import GateRules, Outcome, Search, Verdict, judge
from percoin.evaluation.metrics import ReliabilityBin, Scores, reliability, row_log_loss, score
from percoin.evaluation.skills import BinaryView, activity, direction
from percoin.evaluation.uncertainty import Bootstrap, Estimate, skill_rows
from percoin.types import FloatArray, IntArray, Signal

# Enough for a curve on a page; the full series would swell metrics.json.
_CURVE_POINTS = 400
# In nats; two ways to compute one forecast differ by less.
_SAME_LOSS = 1e-6


@dataclass(frozen=True)
class Forecast:
    """What one forecaster said on the test rows.

    Attributes:
        name: Name in tables.
        probabilities: Shape (n, C).
        decisions: What it would do, shape (n,); None for the likeliest class.
    """

    name: str
    probabilities: FloatArray
    decisions: IntArray | None = None


@dataclass(frozen=True)
class Skill:
    """One of the two skills: activity or direction.

    Attributes:
        auc: Area under the ROC curve, tested against .5; None if one of the two
            answers never came.
        log_loss_skill: Over the train prior's answer to the same question; None if
            it was never asked.
        n_asked: Rows on which it was asked.
    """

    auc: Estimate | None
    log_loss_skill: Estimate | None
    n_asked: int


@dataclass(frozen=True)
class Assessment:
    """One line of the table: the model or a baseline.

    Attributes:
        name: Name in tables.
        scores: Every score.
        skill: Log-loss skill over the train prior.
        activity: A move against NO_TRADE.
        direction: LONG against SHORT where a move came.
        recent_skill: Log-loss skill over the rolling prior; None in documents from before
            there was one.
    """

    name: str
    scores: Scores
    skill: Estimate
    activity: Skill
    direction: Skill
    recent_skill: Estimate | None = None


@dataclass(frozen=True)
class Evaluation:
    """One model beside its baselines on the same test rows.

    Attributes:
        model: The model's line.
        baselines: Theirs, in the order they were given.
        best_baseline: Name of the one with the smallest log-loss on the test rows.
        against_best: Its log-loss minus the model's, in nats a row, paired.
        collapse: How the model has collapsed, or None.
        verdict: The gate's answer.
        class_counts: Test rows of each class, in class order.
        reliability: For each class what was promised and what came.
        bootstrap: Settings behind the intervals of the model; the baselines' take at
            most 500 draws.
        money: Backtests after costs; the first is the model's. Empty if none was made.
        rival: Name of the baseline that was strongest on validation rows, which the gate
            holds the model to; empty in documents from before it was named.
        against_rival: Its log-loss minus the model's, in nats a row, paired; None as above.
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
        """Test rows."""
        return sum(self.class_counts)

    @property
    def rival_name(self) -> str:
        """The rival, or in older documents the best baseline, which the gate held it to."""
        return self.rival or self.best_baseline

    @property
    def lead(self) -> Estimate:
        """Log-loss of ``rival_name`` minus the model's, in nats a row."""
        return self.against_best if self.against_rival is None else self.against_rival

    def shown(self, outcome: Outcome | None = None) -> str:
        """What the test rows have shown, in words for people.

        Args:
            outcome: After a control over all models that were tried; its own without.
        """
        outcome, lead = outcome or self.verdict.outcome, self.lead
        if outcome is Outcome.UNTESTABLE:
            return "too few rows to tell"
        if self.collapse is not None:
            return "no skill shown: hardly more than a constant answer"
        rulers = [self.model.skill, self.model.recent_skill]
        is_above = all(e is None or (e.lower is not None and e.lower > 0) for e in rulers)
        if outcome is not Outcome.ACCEPTED and not is_above:
            return "no skill shown"
        if lead.upper is not None and lead.upper < 0:
            return f"skill shown, behind {self.rival_name}"
        if outcome is not Outcome.ACCEPTED:
            # Its interval holds alone, and not for all that was tried.
            return "no skill shown among all that was tried"
        is_ahead = lead.lower is not None and lead.lower > 0
        return f"skill shown, {'ahead of' if is_ahead else 'level with'} {self.rival_name}"

    def to_json(self) -> dict[str, Any]:
        """Plain dicts, lists, strings and finite numbers; equity curves are thinned.

        An equity curve becomes ``[position of the bar, equity]`` pairs.
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
    """Score a model and its baselines on the same rows and judge it.

    Args:
        model: The model's calibrated forecast.
        baselines: Theirs, on the same rows in the same order; one must be named
            ``train_prior``; one that is named ``rolling_prior`` is the second ruler.
            Walk-forward folds are pooled with ``pool`` beforehand.
        labels: Of the test rows in time order, shape (n,).
        bootstrap: Settings of the intervals; the horizon is that of the labels.
        rules: What the gate asks for.
        limits: Where a predictor counts as collapsed.
        money: Backtests to keep with the rest, the model's first.
        search: How the model was found.
        cautions: What a reader should know and the test rows do not say.
        rival: Name of the baseline that was strongest on validation rows. Without it the one
            that is strongest on these very rows, a little too hard for the model.

    Raises:
        ValueError: Malformed probabilities or labels, no train prior, or no such rival.
    """
    prior, recent = _rulers(baselines, rival)
    # The intervals that decide get all draws; those of the baselines are for the eye.
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
    """Probabilities of the train prior, and of the rolling prior if it is there."""
    said = {forecast.name: forecast.probabilities for forecast in baselines}
    if TRAIN_PRIOR not in said:
        raise ValueError(f"skill is measured from the baseline {TRAIN_PRIOR!r}, which is missing")
    if rival is not None and rival not in said:
        raise ValueError(f"the rival {rival!r} is none of the baselines")
    return said[TRAIN_PRIOR], said.get(ROLLING_PRIOR)


def describe_absent(labels: IntArray) -> str | None:
    """A caution that names the classes that no row has, or None."""
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
    """Each baseline's log-losses minus the model's, row by row, and the best baseline's name.

    A difference of rounding alone is none: a blend without the network is level.
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
        forecast: Of the model or a baseline.
        labels: Shape (n,).
        prior: Probabilities of the train prior on the same rows, shape (n, C); with
            pooled folds they differ from row to row.
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
    auc = bootstrap.estimate(view.auc_rows(), null=0.5) if view.auc() is not None else None
    return Skill(auc, bootstrap.estimate(gains), n_asked)


def _thin(equity: FloatArray) -> list[tuple[int, float]]:
    """At most ``_CURVE_POINTS`` points, the first and the last among them."""
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
