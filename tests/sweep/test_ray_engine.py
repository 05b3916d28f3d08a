"""Jobs as tasks of real Ray clusters: one that the sweep starts, and one that was there before."""

import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from models_compared import check_same_models
from running_processes import descendants, reachable_from_elsewhere, wait_until_gone
from sweep_runs import run_sweep_command, start_sweep, sweep_arguments

from percoin.errors import ConfigError, SweepError
from percoin.sweep.engines import ray_cluster
from percoin.sweep.engines.processes import usable_cores
from percoin.sweep.engines.ray_cluster import fitting_jobs
from percoin.sweep.plan import plan_sweep

pytestmark = pytest.mark.slow

N_CPUS = max(1, usable_cores() // 2)
RAY = ("hydra/launcher=ray", f"hydra.launcher.cpus_per_job={N_CPUS}")
# Enough to be caught in the middle of, on any machine.
EPOCHS = "epochs=12"


def has_trained(record: dict) -> bool:
    """Two epochs, so that the checkpoint of the first is whole."""
    return record["state"] == "running" and record["epoch"] >= 2


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """A home folder without traces of Ray."""
    # Or every job would draw up matplotlib's list of fonts again.
    monkeypatch.setenv("XDG_CACHE_HOME", str(Path.home() / ".cache"))
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    return folder


@pytest.fixture
def cluster(home, tmp_path) -> Iterator[str]:
    """Address of a running cluster with room for one job.

    It was started somewhere else, and wants the token that Ray left in the home folder.
    """
    (home / ".ray").mkdir()
    (home / ".ray" / "auth_token").write_text(secrets.token_hex(32))
    port = free_port()
    # Sockets lie below it, and their paths may not be long.
    folder = tempfile.mkdtemp(prefix="ray-")
    command = [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
        *(f"--port={port}", f"--ray-client-server-port={free_port()}", f"--temp-dir={folder}"),
        *(f"--num-cpus={N_CPUS}", "--include-dashboard=false", "--disable-usage-stats"),
        "--object-store-memory=80000000",
    ]
    log = tmp_path / "cluster.log"
    with log.open("w") as output:
        process = subprocess.Popen(command, cwd=home, stdout=output, stderr=subprocess.STDOUT)
    try:
        while "Ray runtime started" not in log.read_text():
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
        yield f"127.0.0.1:{port}"
    finally:
        family = descendants(process.pid)
        process.terminate()
        process.wait(timeout=60)
        wait_until_gone(*family)
        shutil.rmtree(folder)


def test_a_killed_worker_of_an_own_cluster_costs_its_job_one_try(home, tmp_path):
    symbols = "symbol=BTCUSDT,ETHUSDT"
    sweep = start_sweep(tmp_path / "ray", symbols, EPOCHS, *RAY)
    worker = sweep.wait_for("BTCUSDT", has_trained)["pid"]
    family = descendants(sweep.process.pid)
    assert worker in family
    assert reachable_from_elsewhere(family) == []
    os.kill(worker, signal.SIGKILL)
    sweep.wait()

    assert (sweep.code, sweep.stderr) == (0, "")
    killed = sweep.record("BTCUSDT")
    assert (killed["state"], killed["attempt"]) == ("finished", 2)
    assert killed["resumed_from"] >= 1
    assert sweep.record("ETHUSDT")["attempt"] == 1
    (told,) = [line for line in sweep.stdout.splitlines() if "BTCUSDT 1h: its process" in line]
    assert "tried once more" in told
    assert "raylet" not in sweep.stdout
    wait_until_gone(*family)
    assert not (home / ".ray").exists()
    assert not list(Path(tempfile.gettempdir(), "ray").glob(f"session_*_{sweep.process.pid}"))
    on_processes = run_sweep_command(tmp_path / "processes", symbols, EPOCHS)
    check_same_models(sweep, on_processes, "BTCUSDT", "ETHUSDT")


def test_a_running_cluster_is_used_by_its_address_and_left_as_it_was(cluster, tmp_path):
    address = (*RAY, f"hydra.launcher.address={cluster}")
    stopped = start_sweep(tmp_path, "symbol=BTCUSDT,ETHUSDT", EPOCHS, *address)
    worker = stopped.wait_for("BTCUSDT", has_trained)["pid"]
    stopped.process.terminate()
    stopped.wait()

    assert stopped.code == 143
    assert "told to stop" in (stopped.job_folder("BTCUSDT") / "train.log").read_text()
    assert stopped.record("ETHUSDT")["epoch"] == 0  # there was room for one
    wait_until_gone(worker)

    finished = run_sweep_command(tmp_path, "symbol=BTCUSDT", EPOCHS, *address)
    assert (finished.code, finished.stderr) == (0, "")
    record = finished.record("BTCUSDT")
    assert (record["state"], record["attempt"]) == ("finished", 1)
    assert record["resumed_from"] >= 2


def engine_of(folder: Path, *overrides: str):
    plan = plan_sweep(sweep_arguments(folder, "symbol=BTCUSDT", *RAY, *overrides))
    return ray_cluster.build_engine(plan.launcher, plan.settings, n_jobs=128)


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_where_nobody_listens_is_named_at_once(tmp_path, scheme):
    address = f"{scheme}127.0.0.1:{free_port()}"
    began = time.monotonic()

    with pytest.raises(SweepError, match=f"no Ray cluster answers at .*address={address} "):
        engine_of(tmp_path, f"hydra.launcher.address={address}")
    assert time.monotonic() - began < 20  # Ray by itself takes half a minute, or several


def test_without_ray_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)

    with pytest.raises(ConfigError, match=r"pip install 'percoin\[ray\]'"):
        engine_of(tmp_path)


def test_a_job_that_is_too_large_for_this_machine_starts_no_cluster(tmp_path):
    n_cpus = usable_cores() + 1

    with pytest.raises(ConfigError, match=f"cpus_per_job={n_cpus}: this machine has {n_cpus - 1}"):
        engine_of(tmp_path, f"hydra.launcher.cpus_per_job={n_cpus}", "workers=null")


@pytest.mark.parametrize(
    ("override", "found"),
    [
        ("address=nowhere", "address=nowhere must be auto, HOST:PORT, ray://HOST:PORT or null"),
        ("cpus_per_job=0", "cpus_per_job=0 must be at least 1"),
        ("gpus_per_job=1.5", "gpus_per_job=1.5 must be a share of one GPU or a whole number"),
        ("gpus_per_job=-1", "gpus_per_job=-1 must be at least 0, or null"),
    ],
)
def test_a_value_out_of_range_is_refused_before_anything_runs(tmp_path, override, found):
    with pytest.raises(ConfigError, match=re.escape(f"hydra.launcher.{found}")):
        engine_of(tmp_path, f"hydra.launcher.{override}")


@pytest.mark.parametrize(
    ("n_cpus", "n_gpus", "n_jobs"),
    [
        (1, 0, 7),
        (2, 0, 3),  # 4 and 3 CPUs are not 7: a job has one machine
        (5, 0, 0),
        (1, 1, 2),
        (1, 0.1, 4),  # of 20 that the GPUs would hold; 3 CPUs are on the machine without
        (4, 0.5, 1),
        (1, 3, 0),
    ],
)
def test_jobs_fit_into_machines_by_both_shares(n_cpus, n_gpus, n_jobs):
    nodes = [
        {"Alive": True, "Resources": {"CPU": 4.0, "GPU": 2.0, "memory": 1e9}},
        {"Alive": True, "Resources": {"CPU": 3.0}},
        {"Alive": True, "Resources": {"memory": 1e9}},
        {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}},
    ]

    assert fitting_jobs(nodes, n_cpus, n_gpus) == n_jobs


def test_ten_jobs_with_a_tenth_of_a_gpu_share_one():
    assert fitting_jobs([{"Alive": True, "Resources": {"CPU": 64.0, "GPU": 1.0}}], 1, 0.1) == 10
