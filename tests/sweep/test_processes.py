"""The engine that sweeps use on one machine, with real processes and real, tiny trainings."""

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sweep_runs import sweep_arguments

from percoin.cli import compose_config
from percoin.config import ProcessesConfig, TrainConfig, typed
from percoin.sweep.engine import Attempt, Ending
from percoin.sweep.engines import processes
from percoin.sweep.engines.processes import ProcessEngine, build_engine, usable_cores
from percoin.sweep.jobs import Job, JobRecord, JobState, read_record
from percoin.sweep.run import run_sweep

DEADLINE_SECS = 300
LONG = "epochs=100000"


def make_job(folder: Path, symbol: str, *overrides: str) -> Job:
    told = (*sweep_arguments(folder, *overrides), f"symbol={symbol}", "logger=csv")
    return Job(symbol, "1h", folder / symbol, told)


@pytest.fixture
def engine() -> Iterator[ProcessEngine]:
    engine = ProcessEngine(n_slots=2, n_threads=1)
    yield engine
    engine.close()


def wait_for_epoch(job: Job, epoch: int) -> JobRecord:
    deadline = time.monotonic() + DEADLINE_SECS
    while (record := read_record(job.folder)) is None or record.epoch < epoch:
        assert time.monotonic() < deadline, record
        time.sleep(0.02)
    return record


def wait_for_endings(engine: ProcessEngine, n_endings: int) -> list[Ending]:
    endings: list[Ending] = []
    deadline = time.monotonic() + DEADLINE_SECS
    while len(endings) < n_endings:
        endings += engine.wait(0.5)
        assert time.monotonic() < deadline
    return endings


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def n_threads(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def is_running(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def blocked_signals(pid: int) -> set[int]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    mask = int(next(line for line in lines if line.startswith("SigBlk:")).split()[1], 16)
    return {number for number in range(1, 65) if mask >> (number - 1) & 1}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_each_job_has_a_process_forked_from_a_server_that_has_no_threads(tmp_path, engine):
    jobs = [make_job(tmp_path, symbol, LONG) for symbol in ("BTCUSDT", "ETHUSDT")]
    for job in jobs:
        engine.start(Attempt(job))
    pids = [wait_for_epoch(job, 1).pid for job in jobs]
    (server,) = {parent_of(pid) for pid in pids}
    environment = Path(f"/proc/{server}/environ").read_bytes().split(b"\0")

    assert len({*pids, os.getpid(), server}) == 4
    assert n_threads(server) == 1
    assert b"OMP_NUM_THREADS=1" in environment
    assert "OMP_NUM_THREADS" not in os.environ or os.environ["OMP_NUM_THREADS"] == "1"
    # A terminal's Ctrl-C must not reach them; SIGTERM reaches the jobs alone.
    assert {signal.SIGINT, signal.SIGTERM} <= blocked_signals(server)
    assert all(signal.SIGINT in blocked_signals(pid) for pid in pids)
    check_interrupt(engine, jobs)


def check_interrupt(engine: ProcessEngine, jobs: list[Job]) -> None:
    engine.interrupt()
    endings = wait_for_endings(engine, 2)

    assert [ending.death for ending in endings] == [None, None]
    records = [read_record(job.folder) for job in jobs]
    assert [record and record.state for record in records] == [JobState.INTERRUPTED] * 2


@pytest.mark.timeout(900)
def test_closing_leaves_nobody_behind(tmp_path, engine):
    job = make_job(tmp_path, "BTCUSDT", LONG)
    engine.start(Attempt(job))
    pid = wait_for_epoch(job, 1).pid
    engine.close()

    assert not is_running(pid)
    assert engine.wait(0) == []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_sweep_survives_the_server_that_starts_its_jobs(tmp_path, engine, capfd):
    job = make_job(tmp_path, "BTCUSDT", "epochs=40")
    other = make_job(tmp_path, "ETHUSDT")
    killed: list[int] = []
    usual_wait = engine.wait

    def wait(timeout_secs: float) -> list[Ending]:
        record = read_record(job.folder)
        if not killed and record is not None and record.epoch >= 2:
            killed.extend((record.pid, parent_of(record.pid)))
            os.kill(killed[1], signal.SIGKILL)
        return usual_wait(timeout_secs)

    engine.wait = wait  # the moment to strike
    ended = run_sweep([job, other], engine)

    assert [record.state for _, record in ended.jobs] == [JobState.FINISHED] * 2
    record = ended.jobs[0][1]
    assert record.attempt == 2
    assert record.resumed_from >= 2
    assert not is_running(killed[0])
    assert "lost: the process that starts the jobs was killed" in capfd.readouterr().out


@pytest.mark.timeout(900)
def test_a_job_that_cannot_write_anything_down_says_why_all_the_same(tmp_path, engine, capfd):
    (tmp_path / "BTCUSDT").write_text("in the way")
    engine.start(Attempt(make_job(tmp_path, "BTCUSDT")))
    (ending,) = wait_for_endings(engine, 1)

    assert ending.death is not None
    assert ending.death.startswith("it could not record its result: ")
    assert str(tmp_path / "BTCUSDT") in ending.death
    assert capfd.readouterr() == ("", "")


@pytest.fixture(scope="module")
def settings() -> TrainConfig:
    return typed(compose_config("train", ["symbol=BTCUSDT"]), TrainConfig)


@pytest.mark.parametrize(
    ("n_cores", "workers", "n_jobs", "slots", "threads"),
    [
        (8, None, 100, 8, 1),
        (8, 4, 100, 4, 2),
        (8, 3, 100, 3, 2),
        (8, None, 2, 2, 4),
        (2, 5, 100, 5, 1),
        (1, None, 1, 1, 1),
    ],
)
def test_jobs_share_the_cores(monkeypatch, settings, n_cores, workers, n_jobs, slots, threads):
    monkeypatch.setattr(processes, "usable_cores", lambda: n_cores)
    monkeypatch.setattr(processes, "ProcessEngine", lambda *args, **kwargs: (args, kwargs))

    made = build_engine(ProcessesConfig(), replace(settings, workers=workers), n_jobs)
    assert made == ((slots,), {"n_threads": threads})


@pytest.mark.parametrize(
    ("quota", "n_cores"),
    [("max 100000", 4), ("200000 100000", 2), ("50000 100000", 1), ("900000 100000", 4), ("?", 4)],
)
def test_a_container_has_the_cores_of_its_quota(tmp_path, monkeypatch, quota, n_cores):
    (tmp_path / "cpu.max").write_text(f"{quota}\n")
    monkeypatch.setattr(processes, "_CPU_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 2, 4, 6})

    assert usable_cores() == n_cores
