"""The real command in real processes: what befalls a job or the sweep costs as little as can be."""

import os
import signal
import time
from pathlib import Path

import pytest
from builders import make_bars, write_parquet
from sweep_runs import Sweep, run_sweep_command, served_version, start_sweep

from percoin.types import Timeframe

# Enough to be caught in the middle of, on any machine.
EPOCHS = "epochs=25"


def write_bars(folder: Path, *symbols: str) -> tuple[str, ...]:
    for seed, symbol in enumerate(symbols):
        bars = make_bars(700, symbol, Timeframe.H1, seed=seed)
        write_parquet(bars, folder / "bars" / symbol / "1h.parquet")
    return ("source=files", f"source.path={folder / 'bars'}")


def kill_job(sweep: Sweep, symbol: str, attempt: int) -> None:
    record = sweep.wait_for(
        symbol,
        lambda record: (
            record["state"] == "running" and record["attempt"] == attempt and record["epoch"] >= 2
        ),
    )
    os.kill(record["pid"], signal.SIGKILL)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def file_times(folder: Path) -> dict[str, int]:
    """Of what a finished run leaves; the record and the log say that it was skipped."""
    own = {"job.json", "train.log", ".lock"}
    return {
        str(path.relative_to(folder)): path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if path.is_file() and path.name not in own
    }


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_job_is_tried_once_more_and_no_failure_stops_the_others(tmp_path):
    source = write_bars(tmp_path, "BTCUSDT", "ETHUSDT", "LTCUSDT")
    sweep = start_sweep(
        tmp_path, "symbol=NOBARS,BTCUSDT,ETHUSDT,LTCUSDT", "workers=3", EPOCHS, source=source
    )
    kill_job(sweep, "BTCUSDT", attempt=1)
    kill_job(sweep, "ETHUSDT", attempt=1)
    kill_job(sweep, "ETHUSDT", attempt=2)
    sweep.wait()

    assert sweep.code == 1
    check_named(sweep)
    check_records(sweep)
    assert served_version(tmp_path, "BTCUSDT")
    assert served_version(tmp_path, "LTCUSDT")
    assert not served_version(tmp_path, "ETHUSDT")


def check_named(sweep: Sweep) -> None:
    """The failures are told when they happen and at the end, each in a line, and nothing else."""
    (line,) = sweep.stderr.splitlines()
    assert line == (
        "error: 2 of 4 jobs failed: NOBARS 1h (failed), ETHUSDT 1h (killed); "
        "the same command tries them again"
    )
    lines = sweep.stdout.splitlines()
    first = next(line for line in lines if "NOBARS" in line)
    assert "NOBARS 1h: failed: " in first
    assert "NOBARS" in first.partition("failed: ")[2]  # what was found names the market's file
    assert sum("killed by SIGKILL" in line and "tried once more" in line for line in lines) == 2
    assert not [line for line in lines if "epoch 1/" in line or "Traceback" in line]


def check_records(sweep: Sweep) -> None:
    killed_once, killed_twice = sweep.record("BTCUSDT"), sweep.record("ETHUSDT")
    assert (killed_once["state"], killed_once["attempt"]) == ("finished", 2)
    assert killed_once["resumed_from"] >= 1
    assert (killed_twice["state"], killed_twice["attempt"]) == ("killed", 2)
    assert killed_twice["error"].endswith("2 times")
    assert sweep.record("LTCUSDT")["attempt"] == 1
    log = (sweep.job_folder("BTCUSDT") / "train.log").read_text()
    assert log.count(" epoch 1/25 ") == 1  # gone on with, not begun again


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_killed_sweep_goes_on_where_it_was(tmp_path):
    # Two commands start while the third market trains, which a quick machine does in seconds.
    arguments = ("symbol=BTCUSDT,ETHUSDT,LTCUSDT", "epochs=80")
    first = start_sweep(tmp_path, *arguments)
    job = first.wait_for("LTCUSDT", lambda record: record["epoch"] >= 3)
    check_second_sweep_is_refused(tmp_path, first, *arguments)
    first.process.kill()
    first.wait()
    wait_until_gone(job["pid"])

    finished = [first.job_folder(symbol) for symbol in ("BTCUSDT", "ETHUSDT")]
    times = [file_times(folder) for folder in finished]
    versions = [served_version(tmp_path, symbol) for symbol in ("BTCUSDT", "ETHUSDT")]
    assert all(versions)
    assert not served_version(tmp_path, "LTCUSDT")
    epoch = first.record("LTCUSDT")["epoch"]

    second = start_sweep(tmp_path, *arguments)
    second.wait_for("LTCUSDT", lambda record: record["epoch"] > epoch)
    second.press_ctrl_c()
    check_interrupted(second.wait())

    third = run_sweep_command(tmp_path, *arguments)
    assert (third.code, third.stderr) == (0, "")
    assert "BTCUSDT 1h: finished before" in third.stdout
    assert third.record("LTCUSDT")["state"] == "finished"
    assert third.record("LTCUSDT")["resumed_from"] > epoch
    assert [file_times(folder) for folder in finished] == times
    assert [served_version(tmp_path, symbol) for symbol in ("BTCUSDT", "ETHUSDT")] == versions
    log = (third.job_folder("LTCUSDT") / "train.log").read_text()
    assert [log.count(f" epoch {number}/80 ") for number in (1, 2, 80)] == [1, 1, 1]


def check_second_sweep_is_refused(folder: Path, first: Sweep, *arguments: str) -> None:
    second = run_sweep_command(folder, *arguments)
    (line,) = second.stderr.splitlines()
    assert second.code == 1
    assert f"in use by process {first.process.pid} on " in line
    assert "sweep=NAME" in line
    assert first.process.poll() is None


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 60
    while is_running(pid):
        assert time.monotonic() < deadline, "a job outlived its sweep"
        time.sleep(0.1)


def check_interrupted(sweep: Sweep) -> None:
    assert sweep.code == 128 + signal.SIGINT
    (line,) = sweep.stderr.splitlines()
    assert line == "error: stopped by SIGINT with 2 of 3 jobs done; the same command goes on"
    assert sweep.record("LTCUSDT")["state"] == "interrupted"
    assert "2 of 3 jobs" in sweep.stdout.splitlines()[-2] or "LTCUSDT" in sweep.stdout
