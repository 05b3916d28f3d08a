"""An attempt is sent with all that must be the same at its other end, and says so if it is not."""

import pickle
import shutil
from pathlib import Path

import pytest
from sweep_runs import sweep_arguments

from percoin.cli import compose_config
from percoin.config import TrainConfig, typed
from percoin.errors import ConfigError
from percoin.sweep.engine import Attempt
from percoin.sweep.engines.remote_attempt import RemoteAttempt, gpus_of_a_job
from percoin.sweep.jobs import Job


def settings_in(folder: Path, *overrides: str) -> TrainConfig:
    arguments = sweep_arguments(folder, "symbol=BTCUSDT", *overrides)
    return typed(compose_config("train", arguments), TrainConfig)


def attempt_in(folder: Path) -> Attempt:
    return Attempt(Job("BTCUSDT", "1h", folder / "outputs" / "s" / "BTCUSDT" / "1h", ()))


def test_a_remote_attempt_survives_its_way_and_carries_threads_and_home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    remote = RemoteAttempt.prepare(attempt_in(tmp_path), settings_in(tmp_path), n_threads=3)

    assert pickle.loads(pickle.dumps(remote)) == remote
    assert remote.attempt.n_threads == 3
    assert remote.home == tmp_path
    assert remote.attempt.job.folder.is_dir()


@pytest.mark.parametrize("missing", ["outputs", "models", "data"])
def test_a_machine_that_lacks_a_folder_is_named_with_it_and_trains_nothing(tmp_path, missing):
    for name in ("data", "models"):
        (tmp_path / name).mkdir()
    remote = RemoteAttempt.prepare(attempt_in(tmp_path), settings_in(tmp_path), n_threads=1)
    shutil.rmtree(tmp_path / missing)  # as on a machine that mounts nothing there

    words = remote()

    assert words is not None
    assert f"does not see {tmp_path / missing}" in words
    assert "storage that all machines share" in words
    assert not (tmp_path / missing).exists()
    assert not list(tmp_path.rglob("job.json"))


@pytest.mark.parametrize(
    ("asked", "trainer", "gpus"), [(None, "cpu", 0), (None, "gpu", 1), (0.25, "gpu", 0.25)]
)
def test_a_job_gets_the_gpus_that_are_asked_or_those_it_needs(tmp_path, asked, trainer, gpus):
    assert gpus_of_a_job(asked, settings_in(tmp_path, f"trainer={trainer}")) == gpus


def test_training_on_a_gpu_without_asking_for_one_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"trainer=gpu needs hydra\.launcher\.gpus_per_job"):
        gpus_of_a_job(0, settings_in(tmp_path, "trainer=gpu"))
