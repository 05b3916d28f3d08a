from dataclasses import replace
from pathlib import Path

import pytest

from percoin.sweep.jobs import Job, JobRecord, JobState
from percoin.sweep.progress import SweepProgress, SweepStanding, describe_ending, remaining_secs

NOW = 10_000.0


def job(symbol: str, tf: str = "1h") -> Job:
    return Job(symbol, tf, Path(symbol) / tf, ())


def finished(secs: float) -> JobRecord:
    return JobRecord(state=JobState.FINISHED, started_at=NOW - secs, ended_at=NOW)


def running(secs: float, epoch: int = 0, max_epochs: int = 10, resumed_from: int = 0) -> JobRecord:
    return JobRecord(
        state=JobState.RUNNING,
        started_at=NOW - secs,
        epoch=epoch,
        max_epochs=max_epochs,
        resumed_from=resumed_from,
    )


def standing(ended=(), running=(), waiting=(), n_slots=2) -> SweepStanding:
    return SweepStanding(ended, running, waiting, n_slots, NOW)


def test_nothing_is_said_before_anything_tells():
    assert remaining_secs(standing(running=[(job("A"), running(5))], waiting=[job("B")])) is None
    skipped = JobRecord(state=JobState.SKIPPED, started_at=0.0, ended_at=9.0)
    assert remaining_secs(standing(ended=[(job("A"), skipped)], waiting=[job("B")])) is None


def test_waiting_jobs_take_as_long_as_finished_ones_shared_among_the_slots():
    known = standing(ended=[(job("A"), finished(60))], waiting=[job(name) for name in "BCDE"])
    assert remaining_secs(known) == pytest.approx(4 * 60 / 2)


def test_running_jobs_have_a_part_behind_them():
    known = standing(ended=[(job("A"), finished(60))], running=[(job("B"), running(45))])
    assert remaining_secs(known) == pytest.approx(15)
    late = standing(ended=[(job("A"), finished(60))], running=[(job("B"), running(90))])
    assert remaining_secs(late) == 0


def test_the_first_jobs_are_judged_by_their_epochs():
    first = standing(running=[(job("A"), running(20, epoch=2))], waiting=[job("B")], n_slots=1)
    assert remaining_secs(first) == pytest.approx(80 + 100)


def test_a_resumed_job_is_judged_by_the_epochs_of_this_attempt():
    resumed = standing(running=[(job("A"), running(20, epoch=8, resumed_from=6))])
    assert remaining_secs(resumed) == pytest.approx(20)


def test_what_a_resumed_job_took_is_not_expected_of_whole_ones():
    resumed = replace(finished(5), resumed_from=9)
    known = standing(
        ended=[(job("A"), finished(60)), (job("B"), resumed)], waiting=[job("C")], n_slots=1
    )
    assert remaining_secs(known) == pytest.approx(60)


def test_a_resumed_job_takes_its_share_of_what_whole_ones_took():
    resumed = running(10, epoch=5, max_epochs=10, resumed_from=5)
    known = standing(ended=[(job("A"), finished(60))], running=[(job("B"), resumed)])
    assert remaining_secs(known) == pytest.approx(20)


def test_each_timeframe_takes_its_own_time():
    ended = [(job("A", "15m"), finished(100)), (job("A", "4h"), finished(10))]
    assert remaining_secs(
        standing(ended=ended, waiting=[job("B", "4h")], n_slots=1)
    ) == pytest.approx(10)
    assert remaining_secs(
        standing(ended=ended, waiting=[job("B", "1d")], n_slots=1)
    ) == pytest.approx(55)


def test_no_job_ends_sooner_than_it_can_alone():
    known = standing(ended=[(job("A"), finished(60))], running=[(job("B"), running(0))], n_slots=8)
    assert remaining_secs(known) == pytest.approx(60)


def test_only_what_went_wrong_counts_as_failed():
    states = (JobState.FAILED, JobState.KILLED, JobState.INTERRUPTED, JobState.SKIPPED)
    ended = [(job("A"), JobRecord(state=state)) for state in states]
    assert standing(ended=ended).n_failed == 2


def test_an_ending_is_one_line():
    record = JobRecord(
        state=JobState.FINISHED,
        started_at=0.0,
        ended_at=151.0,
        result={"epochs": 12, "verdict": "accepted"},
    )
    assert describe_ending(job("A"), record) == "A 1h: finished, 12 epochs in 02:31, accepted"
    one, none = (replace(record, result=record.result | {"epochs": n}) for n in (1, 0))
    assert describe_ending(job("A"), one) == "A 1h: finished, 1 epoch in 02:31, accepted"
    assert describe_ending(job("A"), none) == "A 1h: finished in 02:31, accepted"
    resumed = replace(record, resumed_from=9)
    assert describe_ending(job("A"), resumed) == (
        "A 1h: finished, 12 epochs in 02:31 since it was resumed, accepted"
    )
    failed = JobRecord(state=JobState.FAILED, error="no bars; fetch some")
    assert describe_ending(job("A"), failed) == "A 1h: failed: no bars; fetch some"
    skipped = JobRecord(state=JobState.SKIPPED)
    assert describe_ending(job("A"), skipped) == "A 1h: finished before"


def show(progress: SweepProgress) -> None:
    failed = JobRecord(state=JobState.FAILED, error="no bars")
    ended = [(job("A"), finished(60)), (job("B"), failed)]
    going_on = standing(ended=ended, running=[(job("C"), running(30, epoch=3))])
    progress.ended(*ended[0], standing(ended=ended[:1]))
    progress.update(going_on)
    progress.ended(*ended[1], going_on)
    progress.update(going_on)
    progress.close()


def test_without_a_terminal_each_ended_job_has_a_line_on_stdout(capfd):
    show(SweepProgress(3))

    out, err = capfd.readouterr()
    first, second = out.splitlines()
    assert first.endswith("A 1h: finished in 01:00,   [1/1, about 00:00 left]")
    assert second.endswith("B 1h: failed: no bars  [2/3, 1 failed, about 00:30 left]")
    assert err == ""


def test_on_a_terminal_there_is_one_bar_and_bad_news_above_it(capfd, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "100")
    show(SweepProgress(3))

    out, err = capfd.readouterr()
    assert out == ""
    shown = [line.strip() for line in err.replace("\n", "\r").split("\r") if line.strip()]
    assert shown.count("B 1h: failed: no bars") == 1
    assert not [line for line in shown if line.startswith("A 1h")]
    bars = [line for line in shown if "jobs |" in line]
    assert bars[-1].startswith("2/3 jobs |")
    assert "1 failed, about 00:30 left  C 1h 3/10" in bars[-1]
