"""Jobs that differ in nothing but the network fit the baselines once, and get the same numbers."""

import json
import logging
import os
import signal
import threading
import time
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import make_bars
from sweep_runs import sweep_arguments
from warm_processes import Process

from percoin.bars.schema import Bars
from percoin.dataset import DatasetSpec, MarketDataset, SplitSpec, build_dataset
from percoin.evaluation import fold_forecasts
from percoin.evaluation.baselines import BESIDE, BOOSTING, LOGISTIC, MOVES, VOLATILITY
from percoin.evaluation.fold_forecasts import BaselineFitter
from percoin.evaluation.moves import Moves
from percoin.evaluation.trees import Trees
from percoin.features.feature_set import FeatureDefinition, FeatureSet
from percoin.labels.rules import FixedHorizon
from percoin.registry.layout import MarketFolder
from percoin.sweep import baselines
from percoin.sweep.baselines import SharedBaselineFitter, result_key
from percoin.sweep.engine import Attempt
from percoin.sweep.jobs import Job, JobState, read_record
from percoin.sweep.worker import run_attempt
from percoin.types import Timeframe

N_BARS = 1800
BARS = make_bars(N_BARS)
SPEC = DatasetSpec(FixedHorizon(3, 0.002), FeatureSet(), 8)
DATASET = build_dataset(BARS, SPEC)
# Of metrics.json: when it was written, and settings, folders among them.
_OF_THE_RUN = {"created_at", "hyperparameters"}


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.msgpack"))


def same(value, other) -> bool:
    """Whether two results are equal to the last bit, the order of axes in memory included."""
    if isinstance(value, np.ndarray):
        return value.tobytes("A") == other.tobytes("A") and value.strides == other.strides
    if is_dataclass(value):
        names = [entry.name for entry in fields(value)]
        return all(same(getattr(value, name), getattr(other, name)) for name in names)
    if isinstance(value, Trees):
        return same(value.numbers, other.numbers)
    if isinstance(value, dict):
        return list(value) == list(other) and all(same(value[key], other[key]) for key in value)
    if isinstance(value, list | tuple):
        return len(value) == len(other) and all(map(same, value, other))
    return type(value) is type(other) and value == other


@pytest.fixture
def fits(monkeypatch) -> list[str]:
    """One entry for each time that baselines are really fitted."""
    begun = []
    fit = fold_forecasts._fit_baselines

    def counted(*arguments, **others):
        begun.append("fit")
        return fit(*arguments, **others)

    monkeypatch.setattr(fold_forecasts, "_fit_baselines", counted)
    return begun


def test_a_second_job_takes_the_numbers_of_the_first_to_the_last_bit(tmp_path, fits):
    alone = BaselineFitter().ask(DATASET, 0, BESIDE)
    first, second = (SharedBaselineFitter(tmp_path).ask(DATASET, 0, BESIDE) for _ in range(2))

    assert len(fits) == 2
    assert set(alone.parts) == set(BESIDE)
    assert isinstance(alone.parts[MOVES].numbers.numbers, Moves)
    assert same(first, alone)
    assert same(second, alone)


def test_the_parts_of_a_refit_are_shared_as_well(tmp_path, fits):
    names = (LOGISTIC, BOOSTING, MOVES)
    alone = BaselineFitter().fit_parts(DATASET, 0, names)
    first, second = (SharedBaselineFitter(tmp_path).fit_parts(DATASET, 0, names) for _ in range(2))

    assert len(fits) == 2
    assert list(alone) == list(names)
    assert same(first, alone)
    assert same(second, alone)


def test_why_a_baseline_is_no_part_is_kept_too(tmp_path, fits):
    few = build_dataset(BARS.slice(0, 500), SPEC)
    first, second = (SharedBaselineFitter(tmp_path).ask(few, 0, (MOVES,)) for _ in range(2))

    assert len(fits) == 1
    assert "needs 5 blocks of train rows" in first.refusals[MOVES]
    assert second.refusals == first.refusals
    assert second.parts == {}


def with_other_price() -> Bars:
    frame = BARS.frame.copy()
    frame.iloc[-300, frame.columns.get_loc("volume")] *= 1.0000001
    return replace(BARS, frame=frame)


def made(bars: Bars = BARS, **changes) -> MarketDataset:
    return build_dataset(bars, replace(SPEC, **changes))


def keys_of_changes(monkeypatch) -> dict[str, str]:
    """The key after each change of one thing that baselines depend on."""
    split = SplitSpec(purge_bars=3, embargo_bars=4)
    relabelled = replace(DATASET, label=np.where(DATASET.label == 2, 0, DATASET.label))
    found = {
        name: result_key("asked", dataset, 0, BESIDE)
        for name, dataset in {
            "nothing": DATASET,
            "a bar": made(with_other_price()),
            "another market": made(replace(BARS, symbol="ETHUSDT")),
            "fewer bars": made(BARS.slice(1, N_BARS)),
            "threshold": made(label_rule=FixedHorizon(3, 0.0021)),
            "horizon": made(label_rule=FixedHorizon(4, 0.002)),
            "labels": relabelled,
            "features": made(feature_set=FeatureSet(FeatureDefinition.RAW)),
            "more features": made(feature_set=FeatureSet(extra=("clock",))),
            "lookback": made(lookback=9),
            "history": made(history_days=15.0),
            "split": made(split=split),
            "purge": replace(DATASET, spec=replace(SPEC, split=replace(split, purge_bars=5))),
        }.items()
    }
    found["seed"] = result_key("asked", DATASET, 1, BESIDE)
    found["parts"] = result_key("asked", DATASET, 0, BESIDE[:-1])
    found["what is asked"] = result_key("parts", DATASET, 0, BESIDE)
    for name, value in (
        ("code_version", lambda: "0.1.0+other"),
        ("library_versions", lambda: {"scikit-learn": "9"}),
        ("machine_facts", lambda: {"cpu": "another"}),
        ("version", lambda name: "9"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(baselines, name, value)
            found[name] = result_key("asked", DATASET, 0, BESIDE)
    return found


def test_a_change_of_anything_that_baselines_depend_on_is_another_key(monkeypatch):
    found = keys_of_changes(monkeypatch)

    assert len(set(found.values())) == len(found)
    assert found["nothing"] == result_key("asked", made(), 0, BESIDE)


def test_a_result_under_the_name_of_another_is_not_taken(tmp_path, fits, caplog):
    other = made(label_rule=FixedHorizon(3, 0.004))
    shared = SharedBaselineFitter(tmp_path)
    shared.ask(other, 0, (VOLATILITY,))
    [path] = files(tmp_path)
    place = tmp_path / f"{result_key('asked', DATASET, 0, (VOLATILITY,))}.msgpack"
    path.rename(place)
    found = shared.ask(DATASET, 0, (VOLATILITY,))

    assert len(fits) == 2
    assert f"{place} is damaged" in caplog.text
    assert same(found, BaselineFitter().ask(DATASET, 0, (VOLATILITY,)))


@pytest.mark.parametrize("left", [0, 32, -1])
def test_a_file_that_is_not_whole_is_written_again(tmp_path, fits, left):
    shared = SharedBaselineFitter(tmp_path)
    first = shared.ask(DATASET, 0, ())
    [path] = files(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[:left])
    second, third = (shared.ask(DATASET, 0, ()) for _ in range(2))

    assert len(fits) == 2
    assert path.read_bytes() == whole
    assert same(first, second)
    assert same(first, third)


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = {paths}
import torch
torch.set_num_threads({threads})  # which the key of the result names
from percoin import whole_file
from percoin.sweep.baselines import SharedBaselineFitter
from test_shared_baselines import DATASET

def half(path, content, is_synced, permissions):
    path.write_bytes(content[: len(content) // 2])
    os.kill(os.getpid(), signal.SIGKILL)

whole_file.write_new = half
SharedBaselineFitter(Path({folder!r})).ask(DATASET, 0, ())
"""


def test_a_job_that_is_killed_while_it_writes_leaves_nothing_that_is_taken(tmp_path, fits):
    script = tmp_path / "killed.py"
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    script.write_text(
        KILLED.format(threads=torch.get_num_threads(), paths=paths, folder=str(tmp_path))
    )
    killed = Process([str(script)])
    killed.communicate()
    left = list(tmp_path.glob(".*.tmp"))
    found = SharedBaselineFitter(tmp_path).ask(DATASET, 0, ())

    assert killed.returncode == -signal.SIGKILL
    assert len(left) == 1
    assert len(fits) == 1
    assert not left[0].exists()
    assert len(files(tmp_path)) == 1
    assert same(found, BaselineFitter().ask(DATASET, 0, ()))


def test_of_two_jobs_at_once_one_waits_for_the_other(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    both, begun, found = threading.Barrier(2), [], {}
    fit = fold_forecasts._fit_baselines

    def slow(*arguments, **others):
        begun.append(time.monotonic())
        time.sleep(0.3)
        return fit(*arguments, **others)

    def job(name: str) -> None:
        both.wait()
        found[name] = SharedBaselineFitter(tmp_path).ask(DATASET, 0, ())

    monkeypatch.setattr(fold_forecasts, "_fit_baselines", slow)
    threads = [threading.Thread(target=job, args=(name,)) for name in ("one", "other")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(begun) == 1
    assert "waiting for another job of this sweep" in caplog.text
    assert same(found["one"], found["other"])


def test_the_folder_is_bounded_and_keeps_what_was_used_last(tmp_path, monkeypatch, fits):
    shared = SharedBaselineFitter(tmp_path)
    datasets = [made(label_rule=FixedHorizon(3, 0.001 * (k + 1))) for k in range(3)]
    keys = [result_key("asked", dataset, 0, ()) for dataset in datasets]
    for k in range(2):
        shared.ask(datasets[k], 0, ())
        os.utime(tmp_path / f"{keys[k]}.msgpack", (k, k))
    size = files(tmp_path)[0].stat().st_size
    monkeypatch.setattr(baselines, "_MOST_BYTES", int(2.5 * size))
    shared.ask(datasets[0], 0, ())
    shared.ask(datasets[2], 0, ())

    assert {path.stem for path in files(tmp_path)} == {keys[0], keys[2]}
    assert len(fits) == 3


def test_without_a_folder_each_job_fits_its_own(tmp_path, fits, caplog):
    place = tmp_path / "baselines"
    place.write_text("no folder")
    found = [SharedBaselineFitter(place).ask(DATASET, 0, ()) for _ in range(2)]

    assert len(fits) == 2
    assert "baselines are not shared" in caplog.text
    assert same(found[0], found[1])
    assert place.read_text() == "no folder"


def metrics_of(attempt: Attempt) -> dict:
    run_attempt(attempt)
    record = read_record(attempt.job.folder)
    assert record is not None
    assert record.state == JobState.FINISHED, record.error
    models = next(w.partition("=")[2] for w in attempt.job.overrides if w.startswith("models_dir"))
    market = MarketFolder(Path(models), "BTCUSDT", Timeframe.H1)
    version = market.version(record.result["version"])
    found = json.loads((version / "metrics.json").read_text())
    return {name: value for name, value in found.items() if name not in _OF_THE_RUN}


@pytest.mark.slow
def test_a_sweep_over_learning_rates_fits_its_baselines_once_and_judges_the_same(tmp_path, fits):
    def attempt(folder: Path, lr: str, variant: str) -> Attempt:
        place = folder / "outputs" / "trial" / "BTCUSDT" / "1h" / variant
        told = (*sweep_arguments(folder, f"lr={lr}"), "symbol=BTCUSDT", "logger=csv")
        return Attempt(Job("BTCUSDT", "1h", place, told, variant), n_threads=1)

    rates = ("0.001", "0.002")
    shared = [metrics_of(attempt(tmp_path / "shared", lr, f"lr={lr}")) for lr in rates]
    assert len(fits) == 1
    alone = [metrics_of(attempt(tmp_path / lr, lr, "")) for lr in rates]

    assert len(fits) == 3
    assert shared == alone
    assert shared[0] != shared[1]
    assert len(files(tmp_path / "shared/outputs/trial/BTCUSDT/1h/baselines")) == 1
    assert not list(tmp_path.glob("0.*/outputs/trial/BTCUSDT/1h/baselines"))
