"""What the sweep makes of how its attempts end, on an engine that runs them in no time."""

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from percoin.file_lock import claimed
from percoin.sweep import run as run_module
from percoin.sweep.engine import Attempt, Ending
from percoin.sweep.jobs import Job, JobRecord, JobState, read_record, write_record
from percoin.sweep.run import SweepEnd, run_sweep

Behaviour = Callable[[Attempt], Ending | None]


@dataclass
class Engine:
    """Runs each attempt at once, by the function that its symbol names; None runs on."""

    behaviours: dict[str, Behaviour]
    n_slots: int = 2
    attempts: list[Attempt] = field(default_factory=list)
    running: list[Attempt] = field(default_factory=list)
    most_running: int = 0
    interrupted: bool = False

    def start(self, attempt: Attempt) -> None:
        attempt.job.folder.mkdir(parents=True, exist_ok=True)
        self.attempts.append(attempt)
        self.running.append(attempt)
        self.most_running = max(self.most_running, len(self.running))

    def wait(self, timeout_secs: float) -> list[Ending]:
        endings = []
        for attempt in list(self.running):
            ending = self.behaviours.get(attempt.job.symbol, finish)(replace(attempt, n_threads=1))
            if ending is not None:
                self.running.remove(attempt)
                endings.append(ending)
        return endings

    def keeps(self, attempt: Attempt) -> bool:
        return False

    def interrupt(self) -> None:
        assert not self.interrupted
        self.interrupted = True

    def close(self) -> None:
        self.running = []


def end(attempt: Attempt, state: JobState, **facts) -> Ending:
    record = JobRecord(state=state, attempt=attempt.number, started_at=time.time(), **facts)
    write_record(attempt.job.folder, record)
    return Ending(attempt)


def finish(attempt: Attempt) -> Ending:
    return end(attempt, JobState.FINISHED, result={"epochs": 1, "verdict": "accepted"})


def fail(attempt: Attempt) -> Ending:
    return end(attempt, JobState.FAILED, error="no bars; fetch some")


def die(attempt: Attempt) -> Ending:
    return Ending(attempt, death="killed by SIGKILL")


def die_in_training(attempt: Attempt) -> Ending:
    end(attempt, JobState.RUNNING, epoch=3)
    return die(attempt)


def once(first: Behaviour) -> Behaviour:
    return lambda attempt: first(attempt) if attempt.number == 1 else finish(attempt)


def jobs(folder: Path, *symbols: str) -> list[Job]:
    return [Job(symbol, "1h", folder / symbol / "1h", ()) for symbol in symbols]


def states(ended: SweepEnd) -> dict[str, str]:
    return {job.symbol: record.state.value for job, record in ended.jobs}


def tried(engine: Engine) -> list[tuple[str, int, bool]]:
    return [(each.job.symbol, each.number, each.force) for each in engine.attempts]


def test_all_jobs_run_with_no_more_at_a_time_than_the_engine_has_room_for(tmp_path, capfd):
    engine = Engine({}, n_slots=3)
    ended = run_sweep(jobs(tmp_path, *"ABCDEFG"), engine)

    assert set(states(ended).values()) == {"finished"}
    assert [job.symbol for job, _ in ended.jobs] == list("ABCDEFG")
    assert engine.most_running == 3
    assert (ended.stopped_by, ended.at_once) == (None, False)
    lines = capfd.readouterr().out.splitlines()
    assert len(lines) == 7
    assert "G 1h: finished, 1 epoch in 00:00, accepted  [7/7" in lines[-1]


def test_an_attempt_that_cannot_be_begun_is_tried_once_more_and_stops_nothing(tmp_path, capfd):
    class Refusing(Engine):
        def start(self, attempt: Attempt) -> None:
            super().start(attempt)
            if attempt.job.symbol == "A":
                self.running.remove(attempt)
                raise OSError("no room left")

    engine = Refusing({}, n_slots=1)
    ended = run_sweep(jobs(tmp_path, "A", "B"), engine)

    assert states(ended) == {"A": "killed", "B": "finished"}
    assert tried(engine) == [("A", 1, False), ("B", 1, False), ("A", 2, False)]
    assert dict(ended.jobs)[ended.jobs[0][0]].error == "no room left, 2 times"
    assert "A 1h: no room left; it is tried once more" in capfd.readouterr().out


def test_a_failure_is_told_at_once_and_stops_nothing(tmp_path, capfd):
    engine = Engine({"A": fail}, n_slots=1)
    ended = run_sweep(jobs(tmp_path, "A", "B"), engine)

    assert states(ended) == {"A": "failed", "B": "finished"}
    assert tried(engine) == [("A", 1, False), ("B", 1, False)]
    lines = capfd.readouterr().out.splitlines()
    assert "A 1h: failed: no bars; fetch some  [1/2, 1 failed" in lines[0]


def test_a_killed_job_is_tried_once_more_after_the_others(tmp_path, capfd):
    engine = Engine({"A": once(die)}, n_slots=1)
    ended = run_sweep(jobs(tmp_path, "A", "B"), engine)

    assert states(ended) == {"A": "finished", "B": "finished"}
    assert tried(engine) == [("A", 1, False), ("B", 1, False), ("A", 2, False)]
    assert "A 1h: killed by SIGKILL; it is tried once more" in capfd.readouterr().out


def test_a_job_that_is_killed_twice_is_given_up(tmp_path):
    engine = Engine({"A": die_in_training})
    ended = run_sweep(jobs(tmp_path, "A", "B"), engine)

    assert states(ended) == {"A": "killed", "B": "finished"}
    record = read_record(tmp_path / "A" / "1h")
    assert record is not None
    assert record == dict(ended.jobs)[ended.jobs[0][0]]
    assert (record.state, record.epoch) == (JobState.KILLED, 3)
    assert record.error == "killed by SIGKILL, 2 times"
    assert record.ended_at is not None


def test_a_process_that_ends_without_a_word_counts_as_killed(tmp_path):
    def vanish(attempt: Attempt) -> Ending:
        return Ending(attempt)

    ended = run_sweep(jobs(tmp_path, "A"), Engine({"A": vanish}))

    assert states(ended) == {"A": "killed"}


def test_a_job_that_somebody_else_stopped_is_tried_once_more(tmp_path):
    def stopped(attempt: Attempt) -> Ending:
        return end(attempt, JobState.INTERRUPTED, error="told to stop")

    engine = Engine({"A": once(stopped), "B": stopped})
    ended = run_sweep(jobs(tmp_path, "A", "B"), engine)

    assert states(ended) == {"A": "finished", "B": "killed"}


def test_force_holds_until_an_attempt_has_begun_to_train(tmp_path):
    behaviours = {"A": once(die), "B": once(die_in_training)}
    for symbol in "AB":
        folder = tmp_path / symbol / "1h"
        folder.mkdir(parents=True)
        write_record(folder, JobRecord(state=JobState.FINISHED, key="before"))
    engine = Engine(behaviours)
    run_sweep(jobs(tmp_path, "A", "B"), engine, force=True)

    assert tried(engine) == [("A", 1, True), ("B", 1, True), ("A", 2, True), ("B", 2, False)]


@pytest.mark.parametrize(("force", "secs"), [(False, 100.0), (True, 0.0)])
def test_answers_of_an_exchange_hold_for_a_while_unless_forced(tmp_path, force, secs):
    engine = Engine({})
    before = time.time()
    run_sweep(jobs(tmp_path, "A"), engine, force=force, reuse_bars_secs=100.0)

    (attempt,) = engine.attempts
    assert before - secs <= attempt.reuse_bars_since <= time.time() - secs


def test_a_job_that_died_keeps_the_record_of_what_it_was(tmp_path):
    folder = tmp_path / "A" / "1h"
    folder.mkdir(parents=True)
    write_record(folder, JobRecord(state=JobState.FINISHED, key="before", result={"version": "v"}))
    ended = run_sweep(jobs(tmp_path, "A"), Engine({"A": die}))

    ((_, record),) = ended.jobs
    assert (record.state, record.key, record.result) == (
        JobState.KILLED,
        "before",
        {"version": "v"},
    )


def interrupting(number: signal.Signals, then: Behaviour) -> Behaviour:
    """Runs on until the sweep is told to stop, then behaves like another."""
    told: list[bool] = []

    def behave(attempt: Attempt) -> Ending | None:
        if not told:
            told.append(True)
            os.kill(os.getpid(), number)
            return None
        return then(attempt)

    return behave


def stop(attempt: Attempt) -> Ending:
    return end(attempt, JobState.INTERRUPTED, error="told to stop; the same command goes on")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_running_jobs_stop_and_begins_no_others(tmp_path, number, capfd):
    usual = signal.getsignal(number)
    engine = Engine({"A": interrupting(number, stop), "B": finish})
    ended = run_sweep(jobs(tmp_path, "A", "B", "C"), engine)

    assert (ended.stopped_by, ended.at_once) == (number, False)
    assert engine.interrupted
    assert states(ended) == {"A": "interrupted", "B": "finished", "C": "waiting"}
    assert f"{number.name}: stopping 1 job; a second signal ends at once" in capfd.readouterr().out
    assert signal.getsignal(number) == usual


def test_a_job_that_dies_of_being_stopped_is_interrupted(tmp_path):
    engine = Engine({"A": interrupting(signal.SIGTERM, die_in_training)})
    ended = run_sweep(jobs(tmp_path, "A"), engine)

    assert states(ended) == {"A": "interrupted"}
    record = read_record(tmp_path / "A" / "1h")
    assert record is not None
    assert record.state == JobState.INTERRUPTED


def test_a_job_that_finishes_after_the_signal_is_finished(tmp_path):
    ended = run_sweep(jobs(tmp_path, "A"), Engine({"A": interrupting(signal.SIGINT, finish)}))

    assert (states(ended), ended.stopped_by) == ({"A": "finished"}, signal.SIGINT)


def test_a_second_signal_waits_for_nobody(tmp_path):
    def never_ends(attempt: Attempt) -> None:
        end(attempt, JobState.RUNNING)
        os.kill(os.getpid(), signal.SIGINT)

    ended = run_sweep(jobs(tmp_path, "A", "B"), Engine({"A": never_ends}, n_slots=1))

    assert (ended.stopped_by, ended.at_once) == (signal.SIGINT, True)
    assert states(ended) == {"A": "interrupted", "B": "waiting"}


def test_a_stopped_sweep_shows_how_jobs_stood_before_it(tmp_path):
    for symbol, state in (("B", JobState.FINISHED), ("C", JobState.RUNNING)):
        folder = tmp_path / symbol / "1h"
        folder.mkdir(parents=True)
        write_record(folder, JobRecord(state=state))
    engine = Engine({"A": interrupting(signal.SIGINT, stop)}, n_slots=1)
    ended = run_sweep(jobs(tmp_path, "A", "B", "C"), engine)

    assert states(ended) == {"A": "interrupted", "B": "finished", "C": "interrupted"}


def test_a_job_whose_folder_is_taken_waits_for_it(tmp_path):
    taken, free = jobs(tmp_path, "A", "B")
    taken.folder.mkdir(parents=True)
    with ExitStack() as other_process:
        other_process.enter_context(claimed(taken.folder))

        def end_the_other(attempt: Attempt) -> Ending:
            other_process.close()
            return finish(attempt)

        engine = Engine({"B": end_the_other})
        ended = run_sweep([taken, free], engine)
    assert tried(engine) == [("B", 1, False), ("A", 1, False)]
    assert set(states(ended).values()) == {"finished"}


def test_a_job_whose_folder_stays_taken_fails_and_keeps_the_others_record(tmp_path, monkeypatch):
    monkeypatch.setattr(run_module, "_ORPHAN_SECS", 0.05)
    monkeypatch.setattr(run_module, "_POLL_SECS", 0.02)
    (job,) = jobs(tmp_path, "A")
    job.folder.mkdir(parents=True)
    write_record(job.folder, JobRecord(state=JobState.RUNNING, pid=1))
    engine = Engine({})
    with claimed(job.folder):
        ended = run_sweep([job], engine)

    ((_, record),) = ended.jobs
    assert record.state == JobState.FAILED
    assert record.error == f"another process is training in {job.folder}; wait for it and try again"
    assert read_record(job.folder) == JobRecord(state=JobState.RUNNING, pid=1)
    assert engine.attempts == []


def test_a_folder_that_is_taken_late_in_a_sweep_is_waited_for_as_long(tmp_path, monkeypatch):
    monkeypatch.setattr(run_module, "_ORPHAN_SECS", 0.4)
    monkeypatch.setattr(run_module, "_POLL_SECS", 0.02)
    (job,) = jobs(tmp_path, "A")
    with ExitStack() as dying_process:

        def die_late(attempt: Attempt) -> Ending:
            time.sleep(0.5)  # longer than an orphan is waited for
            dying_process.enter_context(claimed(job.folder))
            threading.Timer(0.1, dying_process.close).start()
            return die(attempt)

        engine = Engine({"A": once(die_late)})
        ended = run_sweep([job], engine)

    assert states(ended) == {"A": "finished"}
    assert tried(engine) == [("A", 1, False), ("A", 2, False)]


def test_a_folder_that_takes_no_record_fails_its_job_alone(tmp_path, monkeypatch):
    def refuse(folder: Path, record: JobRecord) -> None:
        raise OSError(28, "No space left on device", str(folder / "job.json"))

    monkeypatch.setattr(run_module, "write_record", refuse)
    ended = run_sweep(jobs(tmp_path, "A", "B"), Engine({"A": die}))

    assert states(ended) == {"A": "killed", "B": "finished"}
