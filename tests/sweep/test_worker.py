import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from builders import make_bars
from sweep_runs import SIMULATED, sweep_arguments

from percoin.bars.schema import Bars
from percoin.cli import compose_config
from percoin.config import TrainConfig, typed
from percoin.errors import ConfigError, DataError, DivergedError, InUseError, ResumeError
from percoin.file_lock import claimed
from percoin.network import CnnLstm
from percoin.registry.layout import MarketFolder
from percoin.sweep import worker
from percoin.sweep.engine import Attempt
from percoin.sweep.jobs import Job, JobRecord, JobState, read_record, write_record
from percoin.sweep.worker import job_key, run_attempt
from percoin.training.lit_module import SignalClassifier
from percoin.training.pipeline import prepare
from percoin.training.recipes.network import network_kwargs
from percoin.training.recipes.pooled import Pooled
from percoin.types import Timeframe


def make_attempt(folder: Path, *overrides: str, **changes) -> Attempt:
    place = folder / "outputs" / "trial" / "BTCUSDT" / "1h"
    told = (*sweep_arguments(folder, *overrides), "symbol=BTCUSDT", "logger=csv")
    return Attempt(Job("BTCUSDT", "1h", place, told), n_threads=1, **changes)


def run(attempt: Attempt) -> JobRecord:
    run_attempt(attempt)
    record = read_record(attempt.job.folder)
    assert record is not None
    return record


@dataclass
class Trainings:
    """Stands in for ``train``, for what does not depend on how a network is trained."""

    begun: list[bool] = field(default_factory=list)
    """Of each training, whether it went on from a checkpoint."""
    befalls: Callable[[TrainConfig, Path], None] = lambda _settings, _folder: None

    def __call__(self, settings, recipe, run, callbacks) -> None:
        self.begun.append(settings.resume)
        (run.folder / "checkpoints").mkdir(exist_ok=True)
        (run.folder / "checkpoints" / "last.ckpt").write_text("weights")
        self.befalls(settings, run.folder)
        market = MarketFolder(Path(settings.models_dir), settings.symbol, Timeframe.H1)
        version = f"version-{len(self.begun)}"
        market.version(version).mkdir(parents=True)
        result = {"version": version, "epochs": 1, "verdict": "rejected"}
        (run.folder / "result.json").write_text(json.dumps(result))


@pytest.fixture
def trainings(monkeypatch) -> Trainings:
    trainings = Trainings()
    monkeypatch.setattr(worker, "train", trainings)
    return trainings


def failing_with(error: BaseException) -> Callable[[TrainConfig, Path], None]:
    def befall(_settings, _folder) -> None:
        raise error

    return befall


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[Path, JobRecord]:
    """The folder of a sweep whose one job has really been trained, and the job's record."""
    folder = tmp_path_factory.mktemp("finished")
    return folder, run(make_attempt(folder, "epochs=2"))


def test_a_job_leaves_its_record_and_what_a_run_leaves(finished):
    folder, record = finished
    job = make_attempt(folder, "epochs=2").job

    assert record.state == JobState.FINISHED
    assert (record.epoch, record.max_epochs, record.resumed_from) == (2, 2, 0)
    assert (record.attempt, record.pid, record.error) == (1, os.getpid(), None)
    assert 0 < record.training_secs < record.secs
    assert record.val_loss is not None
    market = MarketFolder(folder / "models", "BTCUSDT", Timeframe.H1)
    assert market.version(record.result["version"]).is_dir()
    assert {"result.json", "settings.json", "checkpoints", "figures", "csv"} <= {
        path.name for path in job.folder.iterdir()
    }
    assert not list(job.folder.rglob("events.*"))


def test_all_that_a_job_says_lies_in_its_log(finished):
    folder, _ = finished
    lines = (make_attempt(folder, "epochs=2").job.folder / "train.log").read_text().splitlines()

    assert sum(" epoch 1/2 " in line for line in lines) == 1
    assert sum(" epoch 2/2 " in line for line in lines) == 1


def test_what_has_finished_is_skipped_and_left_as_it_is(finished, tmp_path):
    folder, record = finished
    # Elsewhere it is the same job: neither its key nor its files name its folders.
    shutil.copytree(folder, tmp_path, symlinks=True, dirs_exist_ok=True)
    attempt = make_attempt(tmp_path, "epochs=2")
    again = run(attempt)

    assert again == replace(record, state=JobState.SKIPPED)
    for path in (folder / "outputs").rglob("*.*"):
        if path.name not in {"job.json", "train.log", ".lock"}:
            copied = tmp_path / path.relative_to(folder)
            assert copied.stat().st_mtime_ns == path.stat().st_mtime_ns
    assert run(attempt) == again


def test_what_was_killed_between_its_result_and_its_record_is_skipped_with_both(
    trainings, tmp_path
):
    attempt = make_attempt(tmp_path)
    record = run(attempt)
    write_record(attempt.job.folder, replace(record, state=JobState.RUNNING, result={}))
    half_written = attempt.job.folder / f".job.json.{'0' * 32}.tmp"
    half_written.write_text("{")

    again = run(attempt)
    assert (again.state, again.result) == (JobState.SKIPPED, record.result)
    assert len(trainings.begun) == 1
    assert not half_written.exists()


@pytest.mark.parametrize("damage", ["", "[]", "{}", '{"version": 1}', '{"version": "gone"}'])
def test_a_result_that_names_no_model_is_not_skipped(trainings, tmp_path, damage):
    attempt = make_attempt(tmp_path)
    run(attempt)
    (attempt.job.folder / "result.json").write_text(damage)

    assert run(attempt).state == JobState.FINISHED
    assert len(trainings.begun) == 2


def test_a_skipped_job_is_trained_again_by_force_or_for_other_settings(trainings, tmp_path):
    assert run(make_attempt(tmp_path)).state == JobState.FINISHED
    assert run(make_attempt(tmp_path)).state == JobState.SKIPPED
    assert run(make_attempt(tmp_path, force=True)).result["version"] == "version-2"
    assert run(make_attempt(tmp_path, "lr=0.01")).result["version"] == "version-3"
    assert run(make_attempt(tmp_path)).result["version"] == "version-4"
    assert trainings.begun == [False] * 4


def test_a_job_whose_model_is_gone_is_trained_again(trainings, tmp_path):
    run(make_attempt(tmp_path))
    shutil.rmtree(tmp_path / "models")

    assert run(make_attempt(tmp_path)).result["version"] == "version-2"


def test_beginning_afresh_clears_what_the_last_run_left_and_nothing_else(trainings, tmp_path):
    attempt = make_attempt(tmp_path)
    run(attempt)
    folder = attempt.job.folder
    (folder / "csv" / "version_0").mkdir(parents=True)
    (folder / "events.out.tfevents.1").touch()
    (folder / "fold-1").mkdir()
    (folder / "lr=0.1").mkdir()  # a job of its own
    (folder / "notes.txt").touch()
    run(replace(attempt, force=True))

    assert {path.name for path in folder.iterdir()} == {
        ".lock",
        "checkpoints",
        "job.json",
        "lr=0.1",
        "notes.txt",
        "result.json",
        "train.log",
    }


def test_an_interrupted_job_goes_on_from_its_checkpoint(trainings, tmp_path):
    trainings.befalls = failing_with(KeyboardInterrupt())
    assert run(make_attempt(tmp_path)).state == JobState.INTERRUPTED
    trainings.befalls = Trainings.befalls

    assert run(make_attempt(tmp_path)).state == JobState.FINISHED
    assert trainings.begun == [False, True]


def test_what_a_dead_process_left_running_goes_on_from_its_checkpoint(trainings, tmp_path):
    attempt = make_attempt(tmp_path)
    trainings.befalls = failing_with(KeyboardInterrupt())
    record = run(attempt)
    write_record(attempt.job.folder, replace(record, state=JobState.RUNNING, error=None))
    trainings.befalls = Trainings.befalls
    run(replace(attempt, number=2))

    assert trainings.begun == [False, True]


def test_a_failed_job_goes_on_once_and_then_begins_afresh(trainings, tmp_path):
    attempt = make_attempt(tmp_path)
    trainings.befalls = failing_with(OSError(28, "No space left on device", "file"))
    run(attempt)
    record = run(attempt)
    assert record.error == "file: No space left on device"
    # As the callbacks of a real training note it.
    write_record(attempt.job.folder, replace(record, resumed_from=1))
    run(attempt)

    assert trainings.begun == [False, True, False]


def test_a_diverged_job_begins_afresh(trainings, tmp_path):
    def diverge(_settings, folder: Path) -> None:
        (folder / "diverged.txt").touch()
        raise DivergedError("BTCUSDT", "1h", "the train loss became nan", "lower lr")

    trainings.befalls = diverge
    assert run(make_attempt(tmp_path)).error == "the train loss became nan; lower lr"
    run(make_attempt(tmp_path))

    assert trainings.begun == [False, False]


def test_a_checkpoint_that_cannot_be_resumed_begins_afresh(trainings, tmp_path):
    trainings.befalls = failing_with(KeyboardInterrupt())
    run(make_attempt(tmp_path))

    def damaged(settings, _folder) -> None:
        if settings.resume:
            raise ResumeError("BTCUSDT", "1h", "last.ckpt cannot be read", "start afresh")

    trainings.befalls = damaged

    assert run(make_attempt(tmp_path)).state == JobState.FINISHED
    assert trainings.begun == [False, True, False]


def test_a_killed_attempt_of_a_forced_sweep_goes_on(trainings, tmp_path):
    run(make_attempt(tmp_path))
    trainings.befalls = failing_with(KeyboardInterrupt())
    run(make_attempt(tmp_path, force=True))
    trainings.befalls = Trainings.befalls
    run(make_attempt(tmp_path, number=2))  # as the sweep asks for it, without force

    assert trainings.begun == [False, False, True]


def test_an_error_that_nobody_foresaw_is_one_line_and_a_traceback_in_the_log(
    trainings, tmp_path, capfd
):
    trainings.befalls = failing_with(ZeroDivisionError("a bug\nin two lines"))
    attempt = make_attempt(tmp_path)
    record = run(attempt)

    log = attempt.job.folder / "train.log"
    assert record.state == JobState.FAILED
    assert record.error == f"ZeroDivisionError: a bug; its traceback is in {log}"
    assert "Traceback (most recent call last)" in log.read_text()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (DataError("BTCUSDT", "1h", "no bars", "fetch some"), "no bars; fetch some"),
        (ConfigError("trainer=gpu needs a GPU"), "trainer=gpu needs a GPU"),
    ],
)
def test_an_error_of_the_job_is_its_line(trainings, tmp_path, error, line):
    trainings.befalls = failing_with(error)
    record = run(make_attempt(tmp_path))

    assert (record.state, record.error) == (JobState.FAILED, line)
    assert record.ended_at is not None


def test_nothing_that_a_job_does_reaches_the_terminal(trainings, tmp_path, capfd):
    def speak(_settings, _folder) -> None:
        print("printed")
        logging.getLogger("somewhere").info("logged")
        subprocess.run([sys.executable, "-c", "print('of another program')"], check=True)
        os.write(2, b"of a C library\n")

    trainings.befalls = speak
    attempt = make_attempt(tmp_path)
    run(attempt)

    log = (attempt.job.folder / "train.log").read_text()
    for words in ("printed", "logged", "of another program", "of a C library"):
        assert words in log
    assert capfd.readouterr() == ("", "")
    print("heard again")
    assert capfd.readouterr().out == "heard again\n"


def test_sigterm_before_training_interrupts_and_a_finished_job_stays_finished(
    trainings, tmp_path, monkeypatch
):
    def load(*_arguments) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)

    before = run(make_attempt(tmp_path))
    handler = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        patch.setattr(worker, "bars_of_job", load)
        record = run(make_attempt(tmp_path))

    assert record.state == JobState.INTERRUPTED
    assert (record.key, record.result) == (before.key, before.result)
    assert signal.getsignal(signal.SIGTERM) == handler
    assert run(make_attempt(tmp_path)).state == JobState.SKIPPED


def test_two_processes_do_not_train_one_job(trainings, tmp_path):
    attempt = make_attempt(tmp_path)
    attempt.job.folder.mkdir(parents=True)
    with (
        claimed(attempt.job.folder),
        pytest.raises(InUseError, match=f"is in use by process {os.getpid()} on "),
    ):
        run_attempt(attempt)
    assert read_record(attempt.job.folder) is None
    assert trainings.begun == []


def settings_of(*overrides: str, source: tuple[str, ...] = SIMULATED) -> TrainConfig:
    arguments = [*sweep_arguments(Path("here"), *overrides, source=source), "symbol=BTCUSDT"]
    return typed(compose_config("train", arguments), TrainConfig)


def key_of(*overrides: str, bars: Bars | None = None, **options: tuple[str, ...]) -> str:
    bars = bars or make_bars(700, timeframe=Timeframe.H1)
    settings = settings_of(*overrides, **options)
    return job_key(settings, prepare(settings, lambda _: bars))


def test_the_key_is_made_of_settings_bars_and_code_alone(monkeypatch):
    key = key_of()

    elsewhere = [f"{name}_dir=there" for name in ("data", "models", "outputs")]
    assert key_of(*elsewhere, "workers=7", "logger=csv", "force=true", "sweep=other") == key
    assert key_of(source=("source=sample",)) == key  # the bars count, as they are
    assert key_of("lr=0.01") != key
    assert key_of("model.dropout=0.1") != key
    assert key_of("evaluation=walk_forward", "folds=2") != key
    assert key_of(bars=make_bars(700, timeframe=Timeframe.H1, seed=1)) != key
    monkeypatch.setattr(worker, "code_version", lambda: "0.1.0+later")
    assert key_of() != key


def test_the_bars_of_the_markets_that_the_features_compare_with_are_part_of_the_key():
    words = ("features.extra=[market]", "features.references=[BTCUSDT,ETHUSDT]")

    def key(seed: int, *overrides: str) -> str:
        seeds = {"BTCUSDT": 0, "ETHUSDT": seed}
        made = {
            symbol: replace(make_bars(700, timeframe=Timeframe.H1, seed=each), symbol=symbol)
            for symbol, each in seeds.items()
        }
        settings = settings_of(*overrides)
        return job_key(settings, prepare(settings, lambda own: made[own.symbol]))

    assert key(1, *words) == key(1, *words)
    assert key(1, *words) != key(2, *words)
    assert key(1) == key(2) == key_of()


def test_a_record_survives_a_half_written_one(tmp_path):
    record = JobRecord(state=JobState.RUNNING, epoch=3)
    write_record(tmp_path, record)
    (tmp_path / ".job.json.1").write_text("{")

    assert read_record(tmp_path) == record
    (tmp_path / "job.json").write_text('{"state": "running"')
    assert read_record(tmp_path) is None
    assert read_record(tmp_path / "nowhere") is None


def test_jobs_on_one_market_share_its_folder():
    job = Job("BTCUSDT", "1h", Path("/s/BTCUSDT/1h/lr=0.1"), (), "lr=0.1")
    assert job.market_folder == Path("/s/BTCUSDT/1h")
    assert job.name == "BTCUSDT 1h lr=0.1"


def test_the_epochs_of_all_seeds_of_a_pool_are_expected():
    words = ("recipe=pooled", "symbol='BTCUSDT,ETHUSDT'", "epochs=4", "pooled.seeds=3")
    settings = typed(compose_config("train", words), TrainConfig)
    assert Pooled(pool=SimpleNamespace()).max_epochs(settings) == 12


def diarist(folder: Path) -> tuple[worker._Diarist, worker._Diary]:
    diary = worker._Diary(folder, JobRecord())
    return worker._Diarist(diary), diary


def test_a_fold_that_was_over_before_counts_as_before_whatever_it_left_out(tmp_path):
    callback, diary = diarist(tmp_path)
    trainer = SimpleNamespace(max_epochs=5, current_epoch=0)
    # Stopped early after two of five epochs, before the interruption.
    callback.on_load_checkpoint(trainer, None, {"epoch": 1})
    assert (diary.record.epoch, diary.record.resumed_from) == (2, 2)
    callback.on_fit_end(trainer, None)
    # The next fold begins afresh.
    settings = typed(compose_config("train", ["symbol=BTCUSDT"]), TrainConfig)
    network = CnnLstm(15, **network_kwargs(settings.model))
    module = SignalClassifier(network, lr=0.1)
    module.history["val_loss"].append(1.0)
    callback.on_train_epoch_end(trainer, module)
    assert (diary.record.epoch, diary.record.resumed_from) == (6, 5)
