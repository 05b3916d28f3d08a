"""The real command in real processes: killed in a trial, interrupted in another, then finished."""

import os
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest
from tune_runs import tune_arguments
from warm_processes import Process

from percoin.registry.artifact import load_artifact
from percoin.types import Timeframe

ROOT = Path(__file__).parents[2]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
# Trials long enough to be met while they run, whatever the machine.
LONG = ("experiment.epochs=6", "experiment.pruner.kind=none", "source.n_bars=2000")


def states(database: Path) -> list[str]:
    """How the trials stand, as any other program would read the file."""
    try:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
            found = connection.execute("select state from trials order by trial_id")
            return [state for (state,) in found]
    except sqlite3.OperationalError:
        return []  # not there yet, or just being written


def is_amid_a_trial(database: Path) -> bool:
    """Whether a trial runs that has reported an epoch."""
    query = """
        select count(*) from trials join trial_intermediate_values using (trial_id)
        where state = 'RUNNING'
    """
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return connection.execute(query).fetchone()[0] > 0


def until_running(process: Process, database: Path, n_complete: int) -> None:
    """Wait for a trial that runs after so many whole ones."""
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and process.poll() is None:
        if states(database).count("COMPLETE") >= n_complete and is_amid_a_trial(database):
            return
        time.sleep(0.02)
    raise AssertionError(f"no trial runs: {states(database)}, exit code {process.poll()}")


def start(folder: Path) -> Process:
    arguments = tune_arguments(folder, *LONG, "experiment.trials=4")
    return Process(["train.py", *arguments], ROOT, ENVIRONMENT)


# Three processes on a machine that may be busy.
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_search_is_killed_then_interrupted_and_then_finished(tmp_path):
    database = tmp_path / "outputs" / "BTCUSDT" / "1h" / "tune" / "study.db"
    with start(tmp_path) as process:
        until_running(process, database, n_complete=1)
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    after_kill = states(database)
    assert after_kill.count("RUNNING") == 1
    n_whole = after_kill.count("COMPLETE")

    with start(tmp_path) as process:
        until_running(process, database, n_complete=n_whole + 1)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate()
    assert process.returncode == 130
    assert "was cut off: trying it again" in stdout
    (line,) = stderr.splitlines()
    assert line.startswith("error: BTCUSDT 1h: interrupted by SIGINT after ")
    assert line.endswith(" of 4 trials; the same command goes on from there")
    # The trial that was cut off is marked, and its parameters wait to be tried again.
    assert states(database).count("FAIL") == 2
    assert states(database)[-1] == "WAITING"
    assert not (tmp_path / "models" / "per_coin").exists()

    with start(tmp_path) as process:
        stdout, stderr = process.communicate()
    assert (process.returncode, stderr) == (0, "")
    assert "best of 4 trials" in stdout
    assert states(database).count("COMPLETE") == 4
    artifact = load_artifact(tmp_path / "models", "BTCUSDT", Timeframe.H1)
    assert artifact.manifest.config["trials"] == 4
