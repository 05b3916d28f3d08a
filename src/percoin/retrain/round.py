"""One round: check every market, demote models without live skill, train models that are due."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from percoin.errors import PercoinError, SweepError
from percoin.file_lock import claimed
from percoin.printable import printable
from percoin.registry.layout import MarketFolder
from percoin.registry.manifest import StoredVerdict
from percoin.registry.publish import served_id
from percoin.registry.revision import demote
from percoin.retrain.decisions import Condition, Decision, MarketState, Verb, decide, held_up
from percoin.retrain.pools import SharedNetwork, find_pools
from percoin.retrain.source_worth import measure_sources
from percoin.retrain.states import Subject, Task, find_markets, look_at
from percoin.sweep.jobs import Job

log = logging.getLogger(__name__)

_LOCK_FILE = ".retrain.lock"
ADVICE = "wait until it has ended"


@dataclass(frozen=True)
class MarketOutcome:
    """One market after a round.

    Attributes:
        state: State of the market at the start of the round, or when another version was served.
        decisions: One decision, and a second one if a demotion or new bars changed it.
        result: What was done, in words; empty in a dry run and if nothing was done.
        version: Version made by a training, or None.
        failed: Whether a planned step failed.
    """

    state: MarketState
    decisions: tuple[Decision, ...]
    result: str = ""
    version: str | None = None
    failed: bool = False

    @property
    def is_to_train(self) -> bool:
        """Whether the last decision is to train and nothing has failed."""
        return self.decisions[-1].verb is Verb.TRAIN and not self.failed


@dataclass(frozen=True)
class Round:
    """All markets after a round.

    Attributes:
        outcomes: In the order of the registry; markets added only by their pool come last.
        is_dry: Whether it was a dry run.
        notes: Messages about several markets, one line each.
        stopped_by: Number of the signal that ended the round early, or None.
    """

    outcomes: tuple[MarketOutcome, ...]
    is_dry: bool
    notes: tuple[str, ...] = ()
    stopped_by: int | None = None


def run_round(task: Task, now: datetime) -> Round:
    """Check all markets and do what is due; a dry run only explains.

    Args:
        task: What to do.
        now: Current time, with its time zone.

    Raises:
        ConfigError: There is no market of this name.
        InUseError: Another process runs a round on the same models folder.
    """
    markets = find_markets(task.settings)
    if task.settings.dry_run:
        return _RoundUnderWay(task, now, markets).explain()
    if not markets:
        return Round((), is_dry=False)
    root = Path(task.settings.models_dir)
    root.mkdir(parents=True, exist_ok=True)
    with claimed(root, _LOCK_FILE, advice=ADVICE):
        # Check the markets only now: another process may have trained some of them.
        return _RoundUnderWay(task, now, markets).carry_out()


class _RoundUnderWay:
    """A running round: the state, the decisions and the outcome of each market.

    Args:
        task: What to do.
        now: Current time, with its time zone.
        markets: The requested markets; the other markets of their pools are added.
    """

    def __init__(self, task: Task, now: datetime, markets: Sequence[MarketFolder]) -> None:
        self._task, self._now = task, now
        subjects = [self._look(market) for market in markets]
        self._pools = find_pools(subjects, self._look, task.settings, task.source)
        members = [member for pool in self._pools for member in pool.members]
        self._subjects = {subject.state.name: subject for subject in (*subjects, *members)}
        self._outcomes = {
            name: _outcome(subject, self._decide(subject))
            for name, subject in self._subjects.items()
        }

    def explain(self) -> Round:
        """Return what a round would do, without doing it."""
        for name, subject in self._subjects.items():
            if self._outcomes[name].decisions[-1].verb is Verb.DEMOTE:
                after = self._decide(_demoted(subject, self._outcomes[name].decisions[-1]))
                self._outcomes[name] = _also(self._outcomes[name], after)
        for pool in self._pools:
            self._decide_for_pool(pool)
        return self._round(notes=[pool.note for pool in self._pools if pool.note])

    def carry_out(self) -> Round:
        """Demote models without live skill, train those that are due, measure the rules."""
        for name in self._outcomes:
            self._demote_if_due(name)
        shared = {member.state.name for pool in self._pools for member in pool.members}
        jobs = [job for name in self._outcomes if name not in shared for job in self._prepare(name)]
        notes = []
        for found in self._pools:
            self._decide_for_pool(found)
            pool, job = self._prepare_pool(found)
            notes += [pool.note] if pool.note else []
            jobs += [job] if job is not None else []
        trained = self._train(jobs, notes)
        if trained.stopped_by is None:
            measure_sources(self._subjects.values(), self._task.settings)
        return trained

    def _look(self, market: MarketFolder) -> Subject:
        try:
            return look_at(market, self._task, self._now)
        except Exception as error:  # noqa: BLE001 - the other markets of the round go on
            return Subject.unknown(market, _told(f"{market.symbol} {market.timeframe}", error))

    @contextmanager
    def _alone(self, *names: str) -> Iterator[None]:
        """Catch every error of these markets, so that the other markets go on."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - the other markets of the round go on
            problem = _told(", ".join(names), error)
            for name in names:
                self._fail(name, problem)

    def _decide(self, subject: Subject) -> Decision:
        if subject.problem:
            return held_up(Decision(Verb.KEEP, ()), "it could not be checked")
        return decide(subject.state, self._task.rules, self._now)

    def _decide_for_pool(self, pool: SharedNetwork) -> None:
        """Replace the decision of each market alone with the decision of its pool."""
        names = {member.market.symbol: member.state.name for member in pool.members}
        alone = {
            symbol: self._outcomes[name].decisions[-1]
            for symbol, name in names.items()
            if self._outcomes[name].decisions[-1].verb is not Verb.DEMOTE
        }
        for symbol, decision in pool.decide(alone, self._task.rules).items():
            outcome = self._outcomes[names[symbol]]
            decisions = (*outcome.decisions[:-1], decision)
            self._outcomes[names[symbol]] = replace(outcome, decisions=decisions)

    def _demote_if_due(self, name: str) -> None:
        subject, outcome = self._subjects[name], self._outcomes[name]
        (decision,) = outcome.decisions
        if decision.verb is not Verb.DEMOTE:
            return
        with self._alone(name):
            if served_id(subject.market) not in (None, subject.served):
                # Trained or promoted since: the record that was looked at is of another version.
                self._subjects[name] = subject = self._look(subject.market)
                decision = self._decide(subject)
                outcome = _outcome(subject, decision)
                self._outcomes[name] = outcome
                if decision.verb is not Verb.DEMOTE:
                    return
            self._outcomes[name] = replace(outcome, result=_demote(subject, decision))
            self._subjects[name] = subject = self._look(subject.market)
            self._outcomes[name] = _also(self._outcomes[name], self._decide(subject))

    def _prepare(self, name: str) -> list[Job]:
        """Return the training of a market, if it is still due after new bars are fetched."""
        if not self._outcomes[name].is_to_train:
            return []
        # Import late: Lightning takes seconds to import, and only a training needs it.
        from percoin.retrain.trainings import fetch, job_of

        subject, jobs = self._subjects[name], list[Job]()
        with self._alone(name):
            job = job_of(subject, self._task.settings)
            n_new = fetch(job, subject.market.symbol, subject.state.data_end)
            if n_new is not None:
                renewed = self._decide(self._renew(name, n_new))
                if renewed.verb is not Verb.TRAIN:
                    self._outcomes[name] = _also(self._outcomes[name], renewed)
            jobs += [job] if self._outcomes[name].is_to_train else []
        return jobs

    def _prepare_pool(self, pool: SharedNetwork) -> tuple[SharedNetwork, Job | None]:
        """Return a pool without the markets that have no bars, and its training if still due."""
        names = [member.state.name for member in pool.members]
        if not any(self._outcomes[name].is_to_train for name in names):
            return pool, None
        from percoin.retrain.trainings import fetch_pool, pool_job_of

        with self._alone(*(name for name in names if self._outcomes[name].is_to_train)):
            pool, n_new = fetch_pool(pool, self._task.settings)
            self._decide_again(pool, n_new)
            if any(self._outcomes[name].is_to_train for name in names):
                return pool, pool_job_of(pool, self._task.settings)
        return pool, None

    def _decide_again(self, pool: SharedNetwork, n_new: Mapping[str, int]) -> None:
        """Decide for a pool again after its bars were fetched."""
        names = {m.market.symbol: m.state.name for m in pool.members}
        for symbol, count in n_new.items():
            self._renew(names[symbol], count)
        alone = {
            symbol: self._decide(self._subjects[name])
            for symbol, name in names.items()
            if self._outcomes[name].decisions[-1].verb is not Verb.DEMOTE
        }
        for symbol, decision in pool.decide(alone, self._task.rules).items():
            outcome = self._outcomes[names[symbol]]
            if decision.verb is not outcome.decisions[-1].verb:
                self._outcomes[names[symbol]] = _also(outcome, decision)

    def _renew(self, name: str, n_new_bars: int) -> Subject:
        """Store the number of new bars of a market."""
        subject = self._subjects[name]
        subject = replace(subject, state=replace(subject.state, n_new_bars=n_new_bars))
        self._subjects[name] = subject
        return subject

    def _fail(self, name: str, error: str) -> None:
        outcome = replace(self._outcomes[name], failed=True)
        self._outcomes[name] = _with_result(outcome, error)

    def _train(self, jobs: Sequence[Job], notes: Sequence[str]) -> Round:
        if not jobs:
            return self._round(notes=notes)
        from percoin.retrain.trainings import train_jobs

        trainings = train_jobs(jobs, self._task.settings)
        for training in trainings.ended:
            if training.error:
                self._fail(training.name, training.error)
                continue
            outcome = replace(self._outcomes[training.name], version=training.version)
            self._outcomes[training.name] = _with_result(outcome, training.result)
        return self._round([*notes, *trainings.notes], trainings.stopped_by)

    def _round(self, notes: Sequence[str], stopped_by: int | None = None) -> Round:
        is_dry = self._task.settings.dry_run
        return Round(tuple(self._outcomes.values()), is_dry, tuple(notes), stopped_by)


def _outcome(subject: Subject, decision: Decision) -> MarketOutcome:
    return MarketOutcome(subject.state, (decision,), subject.problem, failed=bool(subject.problem))


def _told(name: str, error: Exception) -> str:
    """Return the error text for a market; an unexpected error is also logged."""
    if isinstance(error, PercoinError):
        return str(error)
    found = f"unexpected {type(error).__name__}: {printable(str(error))}"
    log.error("%s: %s", name, found, exc_info=log.isEnabledFor(logging.DEBUG))
    return found


def _also(outcome: MarketOutcome, decision: Decision) -> MarketOutcome:
    return replace(outcome, decisions=(*outcome.decisions, decision))


def _with_result(outcome: MarketOutcome, result: str) -> MarketOutcome:
    return replace(outcome, result="; ".join(filter(None, (outcome.result, result))))


def _demoted(subject: Subject, decision: Decision) -> Subject:
    """The market as it would be found after its demotion."""
    said = f"{StoredVerdict.REJECTED.value}, {decision.reasons[0].text}"
    state = replace(subject.state, condition=Condition.NOT_ACCEPTED, said=said)
    return replace(subject, state=state)


def _demote(subject: Subject, decision: Decision) -> str:
    market = subject.market
    if served_id(market) is None:
        raise SweepError(
            f"{market.link} is a plain folder, so there is no version to demote; copy the "
            "models folder with its links as they are (cp -a), or move this one aside and promote "
            "a version"
        )
    reason = decision.reasons[0].text
    demote(market.root, market.symbol, market.timeframe, subject.served, reason)
    log.warning("%s: %s is demoted: %s", subject.state.name, subject.served, reason)
    return f"{subject.served} demoted"
