import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from optuna.trial import TrialState
from tuning_builders import measure_worth, searcher, silent, worth

from percoin.errors import DivergedError, InterruptedRunError
from percoin.tuning.search import Fate, Tried, best_of, importances
from percoin.tuning.trial import Measured

KILLED_SEARCH = Path(__file__).with_name("killed_search.py")


def run(folder: Path, *overrides: str, measure=measure_worth, announce=silent) -> list[Tried]:
    with searcher(folder, *overrides) as search:
        return search.run(measure, announce)


def outcomes(tried: list[Tried]) -> list[tuple]:
    """What a search found, without its times."""
    return [(t.number, t.parameters, t.fate, t.skill, t.is_own) for t in tried]


def states(folder: Path) -> list[TrialState]:
    with searcher(folder) as search:
        return [trial.state for trial in search.study.get_trials()]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> list[Tried]:
    return run(tmp_path_factory.mktemp("study"), "experiment.trials=6")


def test_the_own_settings_come_first_and_the_rest_are_measured(uninterrupted):
    assert [each.number for each in uninterrupted] == [1, 2, 3, 4, 5, 6]
    assert [each.is_own for each in uninterrupted] == [True, False, False, False, False, False]
    own = uninterrupted[0].candidate
    assert (own.lr, own.dropout, own.lookback) == (0.001, 0.3, 8)
    assert uninterrupted[0].skill == pytest.approx(0.02 - 0.002 - 0.002)
    assert len({str(each.candidate) for each in uninterrupted}) == 6


def test_the_best_is_the_first_whole_trial_of_the_largest_skill(uninterrupted):
    best = best_of(uninterrupted)
    assert best.skill == max(each.skill for each in uninterrupted)
    twice = [replace(best, number=1), replace(best, number=2)]
    assert best_of(twice).number == 1
    assert best_of([replace(best, fate=Fate.ENDED_EARLY)]) is None
    assert best_of([replace(best, fate=Fate.FAILED, skill=None)]) is None


def test_more_trials_go_on_with_what_is_there(tmp_path, uninterrupted):
    run(tmp_path, "experiment.trials=3")
    assert outcomes(run(tmp_path, "experiment.trials=6")) == outcomes(uninterrupted)
    assert outcomes(run(tmp_path, "experiment.trials=2")) == outcomes(uninterrupted)


def test_random_proposals_differ_although_each_has_a_sampler_of_its_own(tmp_path):
    tried = run(tmp_path, "experiment.trials=5", "experiment.startup_trials=9")
    assert len({str(each.candidate) for each in tried}) == 5


def test_another_seed_proposes_something_else(tmp_path, uninterrupted):
    other = run(tmp_path, "experiment.trials=3", "experiment.seed=1")
    assert outcomes(other)[0] == outcomes(uninterrupted)[0]
    assert outcomes(other)[1:] != outcomes(uninterrupted)[1:3]


@pytest.mark.parametrize(
    "error",
    [DivergedError("BTCUSDT", "1h", "loss nan", "lower lr"), torch.OutOfMemoryError("full")],
)
def test_a_trial_that_fails_says_why_and_the_search_goes_on(tmp_path, error):
    def measure(settings, report):
        if settings.lr != 0.001:
            raise error
        return measure_worth(settings, report)

    tried = run(tmp_path, "experiment.trials=3", measure=measure)
    assert [each.fate for each in tried] == [Fate.WHOLE, Fate.FAILED, Fate.FAILED]
    is_full = isinstance(error, torch.OutOfMemoryError)
    reason = "memory ran out (full); " if is_full else "loss nan; lower lr"
    assert all(each.reason.startswith(reason) for each in tried[1:])
    assert tried[1].skill is None
    assert tried[1].candidate is not None
    assert best_of(tried).number == 1


def test_an_error_that_nobody_foresaw_is_not_swallowed(tmp_path):
    def measure(settings, report):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(tmp_path, measure=measure)


def by_epochs(settings, report) -> Measured:
    """Three epochs, each as good as the settings, ended when told to."""
    for epoch in (1, 2, 3):
        if report(epoch, worth(settings)) and epoch < 3:
            return Measured(worth(settings), epoch, ended_early=True)
    return Measured(worth(settings), 3, ended_early=False)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["median", "halving"])
def test_a_trial_worse_than_the_others_is_told_as_ended_early(tmp_path, kind):
    words = ("experiment.trials=10", f"experiment.pruner.kind={kind}")
    tried = run(tmp_path, *words, measure=by_epochs)
    early = [each for each in tried if each.fate is Fate.ENDED_EARLY]
    assert early
    assert all(each.skill < best_of(tried).skill and each.n_epochs < 3 for each in early)
    assert states(tmp_path).count(TrialState.PRUNED) == len(early)
    assert tried[0].fate is Fate.WHOLE


def test_no_trial_ends_early_before_its_warm_up_or_without_a_pruner(tmp_path):
    words = ("experiment.trials=10", "experiment.pruner.warmup_epochs=2")
    early = [each for each in run(tmp_path / "a", *words, measure=by_epochs) if each.n_epochs < 3]
    assert {each.n_epochs for each in early} == {2}
    words = ("experiment.trials=10", "experiment.pruner.kind=none")
    assert {each.fate for each in run(tmp_path / "b", *words, measure=by_epochs)} == {Fate.WHOLE}


def test_the_own_settings_are_never_ended_early(tmp_path):
    told = []

    def measure(settings, report):
        told.append(report(1, -9.0 if settings.lr == 0.001 else 0.0))
        return Measured(-9.0 if settings.lr == 0.001 else 0.0, 1, ended_early=told[-1])

    words = ("experiment.pruner.kind=halving", "experiment.trials=4")
    with searcher(tmp_path, *words) as search:
        for lr in (0.002, 0.003):
            search.study.enqueue_trial({**search.space.own(), "lr": lr})
        search.study.enqueue_trial(search.space.own(), user_attrs={"own": True})
        search.study.enqueue_trial(search.space.own())
        tried = search.run(measure, silent)
    assert [each.fate for each in tried[2:]] == [Fate.WHOLE, Fate.ENDED_EARLY]


def test_time_is_up_before_a_trial_and_not_within_one(tmp_path):
    tried = run(tmp_path, "experiment.trials=6", "experiment.max_minutes=0.000001")
    assert len(tried) <= 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, InterruptedRunError])
def test_an_interrupted_trial_is_tried_again(tmp_path, uninterrupted, error):
    seen = []

    def measure(settings, report):
        seen.append(settings.lr)
        if len(seen) == 4:
            report(1, 0.0)
            if error is KeyboardInterrupt:
                raise error
            raise error("BTCUSDT", "1h", "interrupted by SIGTERM", "", signal_number=15)
        return measure_worth(settings, report)

    with pytest.raises(error):
        run(tmp_path, "experiment.trials=6", measure=measure)
    assert states(tmp_path) == [*[TrialState.COMPLETE] * 3, TrialState.FAIL, TrialState.WAITING]
    assert outcomes(run(tmp_path, "experiment.trials=6")) == outcomes(uninterrupted)


def test_an_interruption_before_a_trial_has_begun_leaves_none_open(tmp_path, monkeypatch):
    with searcher(tmp_path, "experiment.trials=2") as search:
        ask = search.study.ask

        def interrupted():
            ask()
            raise KeyboardInterrupt

        monkeypatch.setattr(search.study, "ask", interrupted)
        with pytest.raises(KeyboardInterrupt):
            search.run(measure_worth, silent)
    assert states(tmp_path) == [TrialState.FAIL, TrialState.WAITING]
    assert run(tmp_path, "experiment.trials=1")[0].is_own


def killed(folder: Path, in_trial: int) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.run(
        [sys.executable, str(KILLED_SEARCH), str(folder), str(in_trial)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == -signal.SIGKILL, process.stderr


@pytest.mark.slow
def test_a_search_whose_process_is_killed_goes_on_as_if_it_had_not_been(tmp_path, uninterrupted):
    killed(tmp_path, in_trial=3)
    assert states(tmp_path) == [TrialState.COMPLETE, TrialState.COMPLETE, TrialState.RUNNING]
    tried = run(tmp_path, "experiment.trials=6")
    assert outcomes(tried) == outcomes(uninterrupted)
    assert [each.trial for each in tried] == [0, 1, 3, 4, 5, 6]
    assert states(tmp_path)[2] is TrialState.FAIL


def left_open(folder: Path) -> None:
    """What a process leaves that dies in a trial."""
    with searcher(folder) as search:
        search.study.enqueue_trial(search.space.own(), user_attrs={"own": True})
        search.space.suggest(search.study.ask())


def test_settings_over_which_two_processes_died_are_not_tried_a_third_time(tmp_path):
    left_open(tmp_path)

    def dies(settings, report):
        raise SystemExit

    with pytest.raises(SystemExit):
        run(tmp_path, measure=dies)
    assert states(tmp_path) == [TrialState.FAIL, TrialState.RUNNING]
    tried = run(tmp_path, "experiment.trials=3")
    assert (tried[0].fate, tried[0].reason) == (Fate.FAILED, "its process died 2 times")
    assert tried[0].is_own
    assert [each.fate for each in tried[1:]] == [Fate.WHOLE] * 2


@pytest.mark.slow
def test_a_long_search_proposes_what_is_worth_more_and_knows_what_mattered(tmp_path):
    with searcher(tmp_path, "experiment.trials=24", "experiment.space.labels=[]") as search:
        tried = search.run(measure_worth, silent)
        skills = [each.skill for each in tried]
        assert sum(skills[-6:]) > sum(skills[:6])
        found = importances(search.study, tried)
        assert set(found) == {"lr", "dropout", "width", "lookback"}
        assert max(found, key=found.get) in {"lr", "dropout"}
        assert sum(found.values()) == pytest.approx(1)
        assert importances(search.study, tried[:7]) == {}
