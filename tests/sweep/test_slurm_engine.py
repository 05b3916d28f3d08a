"""Jobs handed in by submitit: its own processes of this machine, and a Slurm made for the test."""

import os
import re
import signal
import sys
from pathlib import Path

import pytest
from models_compared import check_same_models
from running_processes import is_running, wait_until_gone
from small_slurm import small_slurm
from sweep_runs import Sweep, run_sweep_command, start_sweep, sweep_arguments

from percoin.errors import ConfigError
from percoin.sweep.engine import Attempt
from percoin.sweep.engines import slurm
from percoin.sweep.engines.processes import usable_cores
from percoin.sweep.jobs import Job
from percoin.sweep.plan import plan_sweep

pytestmark = pytest.mark.slow

SLURM = ("hydra/launcher=slurm", f"hydra.launcher.cpus_per_job={max(1, usable_cores() // 2)}")
LOCAL = (*SLURM, "hydra.launcher.cluster=local")
# Enough to be caught in the middle of, on any machine.
EPOCHS = "epochs=12"


def has_trained(record: dict) -> bool:
    """Two epochs, so that the checkpoint of the first is whole."""
    return record["state"] == "running" and record["epoch"] >= 2


def submissions(sweep: Sweep, symbol: str) -> list[Path]:
    return sorted((sweep.job_folder(symbol) / "slurm").glob("*_submitted.pkl"))


def test_a_killed_job_is_tried_again_and_a_preempted_one_queued_again(tmp_path):
    symbols = "symbol=BTCUSDT,ETHUSDT"
    sweep = start_sweep(tmp_path / "slurm", symbols, EPOCHS, *LOCAL)
    os.kill(sweep.wait_for("BTCUSDT", has_trained)["pid"], signal.SIGKILL)
    os.kill(sweep.wait_for("ETHUSDT", has_trained)["pid"], signal.SIGUSR2)
    sweep.wait()

    assert (sweep.code, sweep.stderr) == (0, "")
    killed, preempted = sweep.record("BTCUSDT"), sweep.record("ETHUSDT")
    assert (killed["state"], killed["attempt"]) == ("finished", 2)
    assert (preempted["state"], preempted["attempt"]) == ("finished", 1)
    assert min(killed["resumed_from"], preempted["resumed_from"]) >= 1
    assert [len(submissions(sweep, symbol)) for symbol in ("BTCUSDT", "ETHUSDT")] == [2, 1]
    (told,) = [line for line in sweep.stdout.splitlines() if "tried once more" in line]
    assert "BTCUSDT 1h: its process was killed" in told
    on_processes = run_sweep_command(tmp_path / "processes", symbols, EPOCHS)
    check_same_models(sweep, on_processes, "BTCUSDT", "ETHUSDT")


def test_a_sweep_that_is_stopped_lets_its_jobs_stop_between_batches(tmp_path):
    arguments = ("symbol=BTCUSDT,ETHUSDT", "workers=1", "epochs=100", *LOCAL)
    sweep = start_sweep(tmp_path, *arguments)
    pid = sweep.wait_for("BTCUSDT", has_trained)["pid"]
    # As a terminal does on Ctrl-C: to the sweep and all that it has started.
    os.killpg(sweep.process.pid, signal.SIGINT)
    sweep.wait()

    assert sweep.code == 130
    assert sweep.record("BTCUSDT")["state"] == "interrupted"
    # By itself, and not because its process was ended.
    assert "told to stop" in (sweep.job_folder("BTCUSDT") / "train.log").read_text()
    assert sweep.record("ETHUSDT")["state"] == "waiting"  # local starts no more than workers
    assert "Traceback" not in sweep.stderr
    wait_until_gone(pid)


def test_the_jobs_of_a_killed_sweep_live_on_in_slurm_and_are_taken_over(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{small_slurm(tmp_path)}:{os.environ['PATH']}")
    arguments = ("symbol=BTCUSDT", "epochs=40", *SLURM)
    first = start_sweep(tmp_path, *arguments)
    job = first.wait_for("BTCUSDT", has_trained)
    first.process.kill()
    first.wait()
    assert is_running(job["pid"])

    second = run_sweep_command(tmp_path, *arguments)

    assert (second.code, second.stderr) == (0, "")
    record = second.record("BTCUSDT")
    assert (record["state"], record["pid"], record["attempt"]) == ("finished", job["pid"], 1)
    assert len(submissions(second, "BTCUSDT")) == 1
    assert (second.job_folder("BTCUSDT") / "train.log").read_text().count(" epoch 1/40 ") == 1


def test_a_stopped_sweep_stops_its_jobs_in_slurm(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{small_slurm(tmp_path)}:{os.environ['PATH']}")
    sweep = start_sweep(tmp_path, "symbol=BTCUSDT", "epochs=100", *SLURM)
    pid = sweep.wait_for("BTCUSDT", has_trained)["pid"]
    sweep.process.terminate()
    sweep.wait()

    assert sweep.code == 143
    assert "told to stop" in (sweep.job_folder("BTCUSDT") / "train.log").read_text()
    wait_until_gone(pid)


def test_a_refused_job_ends_the_sweep_in_slurms_words(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{small_slurm(tmp_path)}:{os.environ['PATH']}")
    sweep = run_sweep_command(
        tmp_path, "symbol=BTCUSDT,ETHUSDT", "hydra.launcher.partition=nowhere", *SLURM
    )

    assert sweep.code == 1
    assert sweep.stderr.splitlines()[-1] == (
        "error: BTCUSDT 1h: Slurm refuses the job: "
        "sbatch: error: invalid partition specified: nowhere"
    )


def engine_of(folder: Path, *overrides: str):
    plan = plan_sweep(sweep_arguments(folder, "symbol=BTCUSDT", *SLURM, *overrides))
    return slurm.build_engine(plan.launcher, plan.settings, n_jobs=128)


def test_slurm_is_handed_all_jobs_and_this_machine_as_many_as_it_has_cores(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{small_slurm(tmp_path)}:{os.environ['PATH']}")
    local = ("hydra.launcher.cluster=local", "hydra.launcher.cpus_per_job=1", "workers=null")

    assert engine_of(tmp_path, "workers=null").n_slots == 128
    assert engine_of(tmp_path, "workers=5").n_slots == 5
    assert engine_of(tmp_path, *local).n_slots == usable_cores()


def test_what_another_version_of_percoin_has_handed_in_is_not_taken_over(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{small_slurm(tmp_path)}:{os.environ['PATH']}")
    job = Job("BTCUSDT", "1h", tmp_path / "BTCUSDT" / "1h", ())
    (job.folder / slurm.FOLDER).mkdir(parents=True)
    # An object of a module that is no longer there.
    (job.folder / slurm.FOLDER / "100_submitted.pkl").write_bytes(b"cpercoin.gone\nErrand\n.")

    assert not engine_of(tmp_path).keeps(Attempt(job))


def test_a_machine_without_slurm_is_told_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(ConfigError, match=r"finds no sbatch here: .*hydra.launcher.cluster=local"):
        engine_of(tmp_path)


def test_without_submitit_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)

    with pytest.raises(ConfigError, match=r"pip install 'percoin\[slurm\]'"):
        engine_of(tmp_path)


@pytest.mark.parametrize(
    ("override", "found"),
    [
        ("cluster=moon", "cluster=moon must be one of slurm, local"),
        ("time_limit_min=0", "time_limit_min=0 must be at least 1"),
        ("timeouts=-1", "timeouts=-1 must be at least 0"),
        ("cpus_per_job=0", "cpus_per_job=0 must be at least 1"),
        ("gpus_per_job=-1", "gpus_per_job=-1 must be at least 0"),
        ("memory_gb=0", "memory_gb=0 must be above 0"),
    ],
)
def test_a_value_out_of_range_is_refused_before_anything_runs(tmp_path, override, found):
    with pytest.raises(ConfigError, match=re.escape(f"hydra.launcher.{found}")):
        engine_of(tmp_path, f"hydra.launcher.{override}")
