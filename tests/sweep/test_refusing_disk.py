"""File systems that are full or cannot be written to, made for a test by the kernel."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from sweep_runs import ROOT, run_sweep_command, sweep_arguments

pytestmark = pytest.mark.slow

# A file system of its own, seen by the command alone.
IN_A_NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount", "bash", "-c")


@pytest.fixture(scope="module", autouse=True)
def _namespaces() -> None:
    try:
        made = subprocess.run([*IN_A_NAMESPACE, "mount -t tmpfs none /mnt"], check=False)
    except FileNotFoundError:
        pytest.skip("unshare is not installed")
    if made.returncode != 0:
        pytest.skip("this system lets nobody but root mount a file system of their own")


def wrapped(mount: str) -> tuple[str, ...]:
    return (*IN_A_NAMESPACE, f'{mount} && exec "$@"', "bash")


def mount_tiny(folder: Path, size: str) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    return f"mount -t tmpfs -o size={size} tmpfs {folder}"


def mount_read_only(folder: Path) -> str:
    return f"mount --bind {folder} {folder} && mount -o remount,ro,bind {folder}"


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.timeout(900)
def test_a_sweep_on_a_models_folder_that_cannot_be_written_leaves_every_model_as_it_was(tmp_path):
    assert run_sweep_command(tmp_path, "symbol=BTCUSDT").code == 0
    models = tmp_path / "models"
    before = contents(models)
    sweep = run_sweep_command(
        tmp_path, "symbol=BTCUSDT,ETHUSDT", "force=true", wrapper=wrapped(mount_read_only(models))
    )

    assert sweep.code == 1
    assert sweep.stderr == (
        "error: 2 of 2 jobs failed: BTCUSDT 1h (failed), ETHUSDT 1h (failed); "
        "the same command tries them again\n"
    )
    assert "Traceback" not in sweep.stdout
    for symbol in ("BTCUSDT", "ETHUSDT"):
        error = sweep.record(symbol)["error"]
        assert error.startswith(f"cannot write to {models}")
        assert "Read-only file system; make it writable or choose another" in error
    assert contents(models) == before
    # What had finished was not begun, so nothing is lost of it either.
    again = run_sweep_command(tmp_path, "symbol=BTCUSDT,ETHUSDT")
    assert (again.code, again.stderr) == (0, "")
    assert "BTCUSDT 1h: finished before" in again.stdout


@pytest.mark.timeout(900)
def test_a_sweep_whose_disk_is_full_says_so_for_each_job(tmp_path):
    sweep = run_sweep_command(
        tmp_path,
        "symbol=BTCUSDT,ETHUSDT",
        wrapper=wrapped(mount_tiny(tmp_path / "outputs", "200k")),
    )

    assert sweep.code == 1
    (line,) = sweep.stderr.splitlines()
    assert line.startswith("error: 2 of 2 jobs failed: BTCUSDT 1h (")
    lines = sweep.stdout.splitlines()
    for symbol in ("BTCUSDT", "ETHUSDT"):
        ending = next(
            each
            for each in lines
            if f"{symbol} 1h: failed" in each or f"{symbol} 1h: killed" in each
        )
        assert "No space left on device" in ending
    assert "Traceback" not in sweep.stdout
    assert not list((tmp_path / "models").rglob("meta.json"))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("logger", ["csv", "tensorboard"])
def test_a_run_whose_disk_is_full_ends_in_one_line(tmp_path, logger):
    arguments = [
        text
        for text in sweep_arguments(tmp_path, "symbol=BTCUSDT", "epochs=3", f"logger={logger}")
        if not text.startswith("sweep=")
    ]
    ended = subprocess.run(
        [
            *wrapped(mount_tiny(tmp_path / "outputs", "200k")),
            sys.executable,
            "train.py",
            *arguments,
        ],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"error: BTCUSDT 1h: cannot write to {tmp_path / 'outputs'}")
    assert "No space left on device; free some space" in line
    assert "Traceback" not in ended.stdout
    assert not (tmp_path / "models").exists()
