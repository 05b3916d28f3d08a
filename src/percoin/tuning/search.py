"""The search loop: ask Optuna for settings, measure them, report back; can resume after a kill."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np
import optuna
from optuna.pruners import BasePruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from percoin.config import PrunerConfig, PrunerKind, TrainConfig, TuneConfig
from percoin.errors import InterruptedRunError, MarketError, PercoinError
from percoin.training.memory import memory_errors
from percoin.tuning.space import Candidate, SearchSpace
from percoin.tuning.studies import Studies
from percoin.tuning.trial import Measured, Report

log = logging.getLogger(__name__)

# Names of the notes on a trial.
_OWN = "own"  # the command's own settings
_AGAIN = "again"  # was interrupted; its parameters are queued again
_DEATHS = "deaths"  # number of processes that died with these parameters
_REASON = "reason"  # why it failed
_EPOCHS = "epochs"
_SECS = "secs"

_MOST_DEATHS = 2
# Complete trials; fewer are too few for so many parameters.
_ENOUGH_FOR_IMPORTANCE = 8

Measure = Callable[[TrainConfig, Report], Measured]
Announce = Callable[[list["Tried"]], None]


class Fate(StrEnum):
    """How a trial ended."""

    WHOLE = "whole"
    ENDED_EARLY = "ended early"
    FAILED = "failed"


@dataclass(frozen=True)
class Tried:
    """One finished trial.

    Attributes:
        number: Number among the finished trials, from 1; a trial that was interrupted and
            tried again counts once.
        trial: Optuna's number of the trial in the file.
        candidate: The settings tried; None if the process died before they were chosen.
        parameters: The same settings as Optuna's parameters.
        fate: How it ended.
        skill: Validation skill; of the last epoch if it ended early, None if it failed.
        is_own: Whether it used the command's own settings.
        n_epochs: Epochs trained.
        secs: Wall time.
        reason: Why it failed.
    """

    number: int
    trial: int
    candidate: Candidate | None
    parameters: dict[str, Any]
    fate: Fate
    skill: float | None
    is_own: bool
    n_epochs: int
    secs: float
    reason: str | None


@dataclass(frozen=True)
class Searcher:
    """One study and how it is searched.

    Attributes:
        studies: All studies of the market.
        study: The Optuna study.
        space: The settings that may be tried.
        config: Number of trials, time limit, sampler and pruner.
    """

    studies: Studies
    study: optuna.Study
    space: SearchSpace
    config: TuneConfig

    def run(self, measure: Measure, announce: Announce) -> list[Tried]:
        """Try settings until there are enough trials or the time is up.

        Trials that an earlier process left unfinished are tried again first.

        Args:
            measure: Measures the validation skill of settings.
            announce: Called after each trial with all finished trials.

        Returns:
            All finished trials.

        Raises:
            InterruptedRunError: Ctrl-C or SIGTERM; the interrupted trial is queued again.
        """
        self.study.pruner = _pruner(self.config.pruner)
        self._give_back_what_died()
        if not self.study.get_trials(deepcopy=False):
            self.study.enqueue_trial(self.space.own(), user_attrs={_OWN: True})
        try:
            return self._run(measure, announce)
        except (InterruptedRunError, KeyboardInterrupt):
            for trial in self._open_trials():
                self._give_back(trial, trial.user_attrs.get(_DEATHS, 0))
            raise

    def tried(self) -> list[Tried]:
        """All finished trials, in order."""
        settled = [t for t in self.study.get_trials(deepcopy=False) if _is_settled(t)]
        return [self._tried(number, trial) for number, trial in enumerate(settled, start=1)]

    def _run(self, measure: Measure, announce: Announce) -> list[Tried]:
        started = time.monotonic()
        while len(tried := self.tried()) < self.config.trials:
            if self._is_over_time(started):
                log.info("experiment.max_minutes=%g is over", self.config.max_minutes)
                break
            self._try_one(len(tried), measure)
            announce(self.tried())
        return tried

    def _is_over_time(self, started: float) -> bool:
        limit = self.config.max_minutes
        return limit is not None and time.monotonic() - started > limit * 60

    def _try_one(self, n_before: int, measure: Measure) -> None:
        # Each trial gets a new sampler with its own seed, so a search that is killed and
        # resumed proposes the same settings as one that was not killed.
        self.study.sampler = _sampler(self.config, n_before)
        trial = self.study.ask()
        is_own = bool(trial.user_attrs.get(_OWN))

        def report(epoch: int, skill: float) -> bool:
            trial.report(skill, epoch)
            # The command's own settings are the reference, so their trial never ends early.
            return trial.should_prune() and not is_own

        began = time.monotonic()
        try:
            settings = self.space.settings(self.space.suggest(trial))
            with memory_errors(settings.symbol, settings.tf.name):
                measured = measure(replace(settings, epochs=self.config.epochs), report)
        except InterruptedRunError:
            raise
        except PercoinError as error:
            trial.set_user_attr(_SECS, time.monotonic() - began)
            trial.set_user_attr(_REASON, _reason(error))
            self.study.tell(trial, state=TrialState.FAIL)
            return
        trial.set_user_attr(_SECS, time.monotonic() - began)
        trial.set_user_attr(_EPOCHS, measured.n_epochs)
        if measured.ended_early:
            self.study.tell(trial, state=TrialState.PRUNED)
        else:
            self.study.tell(trial, measured.skill)

    def _give_back_what_died(self) -> None:
        """Queue trials again that a dead process left unfinished."""
        for trial in self._open_trials():
            deaths = trial.user_attrs.get(_DEATHS, 0) + 1
            if deaths < _MOST_DEATHS:
                log.info("trial %d was cut off: trying it again", len(self.tried()) + 1)
                self._give_back(trial, deaths)
            else:
                reason = f"its process died {deaths} times"
                self._note(trial, _REASON, reason)
                self.study.tell(trial.number, state=TrialState.FAIL)

    def _open_trials(self) -> list[FrozenTrial]:
        """Interrupted trials: no other process can run them, because this one holds the lock."""
        return self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))

    def _give_back(self, trial: FrozenTrial, deaths: int) -> None:
        chosen = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
        notes = {_DEATHS: deaths, _OWN: bool(trial.user_attrs.get(_OWN))}
        self._note(trial, _AGAIN, True)
        self.study.tell(trial.number, state=TrialState.FAIL)
        if chosen:
            self.study.enqueue_trial(chosen, user_attrs=notes)

    def _note(self, trial: FrozenTrial, name: str, value: Any) -> None:
        self.studies.set_attribute(self.study, trial.number, name, value)

    def _tried(self, number: int, trial: FrozenTrial) -> Tried:
        notes = trial.user_attrs
        return Tried(
            number=number,
            trial=trial.number,
            candidate=self._candidate(trial.params),
            parameters=dict(trial.params),
            fate=_FATES[trial.state],
            skill=trial.value,
            is_own=bool(notes.get(_OWN)),
            n_epochs=notes.get(_EPOCHS, 0),
            secs=notes.get(_SECS, 0.0),
            reason=notes.get(_REASON),
        )

    def _candidate(self, parameters: dict[str, Any]) -> Candidate | None:
        try:
            return self.space.candidate(parameters)
        except ValueError:
            # A parameter is missing: the process died while Optuna chose the parameters.
            return None


_FATES = {
    TrialState.COMPLETE: Fate.WHOLE,
    TrialState.PRUNED: Fate.ENDED_EARLY,
    TrialState.FAIL: Fate.FAILED,
}


def best_of(tried: Sequence[Tried]) -> Tried | None:
    """The complete trial with the largest skill, the first if several; None if there is none."""
    whole = [(each.skill, -each.number, each) for each in tried if each.fate is Fate.WHOLE]
    return max(whole)[2] if whole else None


def importances(study: optuna.Study, tried: Sequence[Tried]) -> dict[str, float]:
    """Share of the skill's variance that each parameter explains (fANOVA, Hutter et al., 2014).

    Empty if there are too few complete trials.
    """
    whole = [each for each in tried if each.fate is Fate.WHOLE]
    if len(whole) < _ENOUGH_FOR_IMPORTANCE or len({each.skill for each in whole}) < 2:
        return {}
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    return optuna.importance.get_param_importances(study, evaluator=evaluator)


def _is_settled(trial: FrozenTrial) -> bool:
    return trial.state in _FATES and not trial.user_attrs.get(_AGAIN)


def _reason(error: PercoinError) -> str:
    """The error in one line, without the market, as all trials have the same market."""
    text = error.without_market if isinstance(error, MarketError) else str(error)
    return text.partition("\n")[0]


def _sampler(config: TuneConfig, n_before: int) -> BaseSampler:
    (seed,) = np.random.SeedSequence([config.seed, n_before]).generate_state(1)
    return TPESampler(seed=int(seed), n_startup_trials=config.startup_trials)


def _pruner(config: PrunerConfig) -> BasePruner:
    if config.kind == PrunerKind.MEDIAN:
        return MedianPruner(config.startup_trials, config.warmup_epochs)
    if config.kind == PrunerKind.HALVING:
        return SuccessiveHalvingPruner(config.warmup_epochs, config.reduction_factor)
    return NopPruner()
