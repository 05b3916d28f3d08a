"""Each run has a folder of its own, also when two begin at the same moment."""

import sys
from pathlib import Path

import pytest
from hydra.core.hydra_config import HydraConfig

from percoin import run_folder
from percoin.cli import run_jobs
from percoin.config import TrainConfig
from percoin.file_lock import claimed, is_claimed
from percoin.run_folder import run_dir


def run(task, outputs: Path, *overrides: str) -> int:
    """``train.py`` with this task in the place of a training."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            sys, "argv", ["train.py", "symbol=BTCUSDT", f"outputs_dir={outputs}", *overrides]
        )
        return run_jobs(task, TrainConfig, "train", sweep=lambda overrides: None)


def its_folder(_settings: TrainConfig) -> Path:
    return Path(HydraConfig.get().runtime.output_dir)


def make_interrupted_run(outputs: Path, name: str = "20250101-000000") -> Path:
    folder = outputs / "BTCUSDT" / "15m" / name
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "last.ckpt").touch()
    return folder


def test_runs_of_one_moment_get_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(run_folder, "_new_run_name", lambda parent: "20250101-000000")
    folders = []
    for _ in range(3):
        assert run(lambda settings: folders.append(its_folder(settings)), tmp_path) == 0
    parent = tmp_path / "BTCUSDT" / "15m"
    assert folders == [parent / f"20250101-000000{end}" for end in ("", "-2", "-3")]
    # Hydra writes nowhere else.
    assert sorted(parent.iterdir()) == folders
    assert all((folder / "train.log").is_file() for folder in folders)


def test_a_run_holds_its_folder_as_long_as_it_trains(tmp_path):
    held = []
    assert run(lambda settings: held.append(is_claimed(its_folder(settings))), tmp_path) == 0
    assert held == [True]
    (folder,) = (tmp_path / "BTCUSDT" / "15m").iterdir()
    assert not is_claimed(folder)


def test_a_run_that_is_still_training_is_not_resumed(tmp_path, capsys):
    folder = make_interrupted_run(tmp_path)
    begun = []
    with claimed(folder):
        assert run(begun.append, tmp_path, "resume=true") == 1
    error = capsys.readouterr().err
    assert error.startswith("error: BTCUSDT 15m: no run under ")
    assert f"{folder} is still training; wait until it has ended, or stop it" in error
    assert error.count("\n") == 1
    assert begun == []
    assert run(lambda settings: begun.append(its_folder(settings)), tmp_path, "resume=true") == 0
    assert begun == [folder]


def test_the_newest_interrupted_run_is_resumed_beside_one_that_lives(tmp_path):
    interrupted = make_interrupted_run(tmp_path, "20250101-000000")
    with claimed(make_interrupted_run(tmp_path, "20250102-000000")):
        assert run_dir(str(tmp_path), "BTCUSDT", "15m", resume=True) == str(interrupted)


def test_two_processes_cannot_go_on_with_one_run(tmp_path, capsys, monkeypatch):
    folder = make_interrupted_run(tmp_path)
    # Both have looked before either of them has begun.
    monkeypatch.setattr(run_folder, "is_claimed", lambda folder: False)
    begun = []
    with claimed(folder):
        assert run(begun.append, tmp_path, "resume=true") == 1
    assert f"{folder} is in use by process " in capsys.readouterr().err
    assert begun == []


def test_a_resumption_with_nothing_to_go_on_with_leaves_no_folder(tmp_path, capsys):
    assert run(lambda settings: None, tmp_path, "resume=true") == 1
    assert "no interrupted run with a finished epoch under" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_the_command_names_is_used_as_it_is(tmp_path):
    folder = tmp_path / "mine"
    for _ in range(2):
        used = []
        task = lambda settings, used=used: used.append(its_folder(settings))  # noqa: E731
        assert run(task, tmp_path, f"hydra.run.dir={folder}") == 0
        assert used == [folder]
