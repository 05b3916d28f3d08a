"""One round: look at every market, demote what has lost its skill, train what is due."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from percoin.errors import PercoinError, SweepError
from percoin.registry.publish import served_id
from percoin.registry.revision import demote
from percoin.retrain.decisions import Decision, MarketState, Verb, decide
from percoin.retrain.states import Subject, Task, find_markets, look_at
from percoin.sweep.claims import claimed
from percoin.sweep.jobs import Job

log = logging.getLogger(__name__)

_LOCK_FILE = ".retrain.lock"
ADVICE = "wait until it has ended"


@dataclass(frozen=True)
class Outcome:
    """One market after a round.

    Attributes:
        state: As it was found.
        decisions: One, and another one where a demotion or new bars made it another case.
        result: What came of them, in words; empty of a dry run and where nothing was done.
        version: That a training made, if any.
        failed: Whether something that was to be done could not be done.
    """

    state: MarketState
    decisions: tuple[Decision, ...]
    result: str = ""
    version: str | None = None
    failed: bool = False

    @property
    def is_to_train(self) -> bool:
        """Whether the last word was to train, and nothing came in between."""
        return self.decisions[-1].verb is Verb.TRAIN and not self.failed


@dataclass(frozen=True)
class Round:
    """All markets after a round.

    Attributes:
        outcomes: In the order of the registry.
        is_dry: Whether nothing was done.
        notes: What concerns all trainings together, one line each.
        stopped_by: Number of the signal that ended it early, if one did.
    """

    outcomes: tuple[Outcome, ...]
    is_dry: bool
    notes: tuple[str, ...] = ()
    stopped_by: int | None = None


def run_round(task: Task, now: datetime) -> Round:
    """Look at all markets, and do what is due unless the task says to explain only.

    Args:
        task: What to do.
        now: The present moment, with its zone.

    Raises:
        ConfigError: No market of the name.
        SweepError: Another process is at it.
    """
    markets = find_markets(task.settings)
    if task.settings.dry_run:
        subjects = [look_at(market, task, now) for market in markets]
        found = [Outcome(s.state, (decide(s.state, task.rules, now),)) for s in subjects]
        return Round(tuple(found), is_dry=True)
    if not markets:
        return Round((), is_dry=False)
    root = Path(task.settings.models_dir)
    root.mkdir(parents=True, exist_ok=True)
    with claimed(root, _LOCK_FILE, advice=ADVICE):
        # Only now: another process may have trained some of them.
        subjects = [look_at(market, task, now) for market in markets]
        considered = [_consider(subject, task, now) for subject in subjects]
        return _train(considered, task)


def _consider(subject: Subject, task: Task, now: datetime) -> tuple[Outcome, Job | None]:
    """Decide on a market, demote its model if need be, and prepare the training that is due."""
    decision = decide(subject.state, task.rules, now)
    outcome, job = Outcome(subject.state, (decision,)), None
    try:
        if decision.verb is Verb.DEMOTE:
            outcome = replace(outcome, result=_demote(subject, decision))
            subject = look_at(subject.market, task, now)
            outcome = _also(outcome, decide(subject.state, task.rules, now))
        if outcome.is_to_train:
            # Lightning takes seconds to import: only for whoever trains.
            from percoin.retrain.trainings import fetch, job_of

            job = job_of(subject, task.settings)
            n_new = fetch(job, subject.state.data_end)
            if n_new is not None:
                subject = replace(subject, state=replace(subject.state, n_new_bars=n_new))
                renewed = decide(subject.state, task.rules, now)
                if renewed.verb is not Verb.TRAIN:
                    outcome = _also(outcome, renewed)
    except PercoinError as error:
        outcome = _failed(outcome, str(error))
    return outcome, job if outcome.is_to_train else None


def _also(outcome: Outcome, decision: Decision) -> Outcome:
    return replace(outcome, decisions=(*outcome.decisions, decision))


def _failed(outcome: Outcome, error: str) -> Outcome:
    return _with_result(replace(outcome, failed=True), error)


def _with_result(outcome: Outcome, result: str) -> Outcome:
    return replace(outcome, result="; ".join(filter(None, (outcome.result, result))))


def _demote(subject: Subject, decision: Decision) -> str:
    market = subject.market
    version_id = served_id(market)
    if version_id is None:
        raise SweepError(
            f"{market.link} is a plain folder, so there is no version to demote; take it away"
        )
    reason = decision.reasons[0].text
    demote(market.root, market.symbol, market.timeframe, version_id, reason)
    log.warning("%s: %s is demoted: %s", subject.state.name, version_id, reason)
    return f"{version_id} demoted"


def _train(considered: Sequence[tuple[Outcome, Job | None]], task: Task) -> Round:
    outcomes = {outcome.state.name: outcome for outcome, _ in considered}
    jobs = [job for _, job in considered if job is not None]
    if not jobs:
        return Round(tuple(outcomes.values()), is_dry=False)
    from percoin.retrain.trainings import train_jobs

    trainings = train_jobs(jobs, task.settings)
    for training in trainings.ended:
        outcome = outcomes[training.name]
        if training.error:
            outcomes[training.name] = _failed(outcome, training.error)
        else:
            outcome = replace(outcome, version=training.version)
            outcomes[training.name] = _with_result(outcome, training.result)
    return Round(
        tuple(outcomes.values()),
        is_dry=False,
        notes=trainings.notes,
        stopped_by=trainings.stopped_by,
    )
