"""Features and labels of the user's own with every recipe: from the command to the answers."""

import json
from pathlib import Path

import numpy as np
import pytest
from own_code import features_file, labels_file
from train_runs import run_train, train_arguments

from percoin.audit.replay import replay_market
from percoin.bars.schema import Bars
from percoin.bars.store import BarStore
from percoin.cli import compose_config
from percoin.config import TrainConfig, typed
from percoin.errors import ConfigError, InvalidArtifactError
from percoin.inference import Backend, Predictor
from percoin.monitoring.drift import measure_drift
from percoin.plugins import allow_plugins
from percoin.registry.artifact import load_artifact
from percoin.registry.command.actions import main
from percoin.registry.judged import train_rows
from percoin.sweep.jobs import read_record
from percoin.training.version_settings import overrides_of, settings_of
from percoin.types import Timeframe

EXTRA = (
    "features.extra=[{name: my_features:zscore, span: 20}, my_features:several, "
    "ta:momentum.StochasticOscillator.stoch, clock]"
)
NAMES = (
    *("my_features:zscore(span=20)", "my_features:several.body", "my_features:several.of three"),
    "ta:momentum.StochasticOscillator.stoch",
)
SETTING = [
    {"name": "my_features:zscore", "span": 20},
    *("my_features:several", "ta:momentum.StochasticOscillator.stoch", "clock"),
]
POOL = ("pooled.windows_per_epoch=400", "pooled.validation_windows=100", "pooled.seeds=1")
TWO = "symbol=BTCUSDT,ETHUSDT"
RECIPES = {
    "per_market": ("export.onnx=true", "blend=logistic", "epochs=1"),
    "boosting": ("model=boosting",),
    "walk_forward": ("evaluation=walk_forward", "folds=2"),
    "tuned": ("experiment=tune", "experiment.trials=1", "experiment.epochs=1"),
    "fleet": (TWO, "fleet=true", "model.dropout=0"),
    "pooled": (TWO, "recipe=pooled", *POOL),
    "init_pooled": (TWO, "recipe=pooled", *POOL),
}
LABELS = ("labels._target_=my_labels:Scaled", "labels.share=0.5")


def train(folder: Path, *overrides: str, extra: str = EXTRA):
    return run_train(
        train_arguments(folder, extra, f"plugins=[{','.join(code_of(folder))}]", *overrides)
    )


def code_of(folder: Path) -> list[str]:
    return sorted(map(str, folder.glob("my_*.py")))


@pytest.fixture(
    scope="module",
    params=[
        name if name == "per_market" else pytest.param(name, marks=pytest.mark.slow)
        for name in RECIPES
    ],
)
def trained(request, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    features_file(folder)
    labels_file(folder)
    finished = train(folder, *RECIPES[request.param], *LABELS)
    assert (finished.code, finished.stderr) == (0, "")
    if request.param == "init_pooled":
        finished = train(folder, *LABELS, "init=pooled")
        assert (finished.code, finished.stderr) == (0, "")
    return folder


@pytest.fixture
def folder(trained):
    allow_plugins(code_of(trained))
    yield trained
    allow_plugins([])


def stored(folder: Path) -> Bars:
    return BarStore(folder / "data" / "bars").load("BTCUSDT", Timeframe.H1)


def manifest_of(folder: Path):
    return load_artifact(folder / "models", "BTCUSDT", Timeframe.H1).manifest


def test_the_artifact_records_columns_parameters_code_and_measured_memory(folder):
    manifest = manifest_of(folder)
    zscore, several, stoch = manifest.features.own
    assert manifest.format_version == 5
    assert manifest.features.names[15:19] == NAMES
    assert (zscore.source.module, zscore.source.qualname) == ("my_features", "zscore")
    assert (zscore.parameters, zscore.memory_bars) == ({"span": 20}, 19)
    assert (several.columns, several.memory_bars) == (("body", "of three"), 3)
    assert stoch.memory_bars == 13
    assert settings_of(manifest).features.extra == SETTING


def test_the_artifact_records_the_label_rule_and_what_it_learnt(folder):
    stored_rule = manifest_of(folder).label_rule
    assert (stored_rule["kind"], stored_rule["target"]) == ("own", "my_labels:Scaled")
    assert stored_rule["arguments"] == {"share": 0.5}
    assert stored_rule["learnt"]["width"] > 0
    assert (stored_rule["horizon"], stored_rule["past_bars"]) == (3, 30)


def test_live_answers_equal_those_of_the_batch(folder):
    backends = [Backend.TORCH]
    if "cnn_lstm_v1.onnx" in manifest_of(folder).files:
        backends.append(Backend.ONNX)
    for backend in backends:
        replay = replay_market(folder / "models", stored(folder), 15, backend)
        assert len(replay.compared) == 15
        assert replay.differing == []


def test_drift_is_measured_in_every_column(folder):
    manifest = manifest_of(folder)
    bins = train_rows(folder / "models", manifest).feature_bins
    assert set(NAMES) <= set(bins)
    shifts = measure_drift(manifest, bins, stored(folder)).shifts
    assert all(np.isfinite(shift.psi) for shift in shifts.values())


def test_without_its_code_a_model_is_invalid_and_says_what_to_allow(folder):
    bars = stored(folder)
    allow_plugins([])
    with pytest.raises(InvalidArtifactError, match=r"add its file, such as plugins=\[my_features"):
        Predictor(folder / "models").predict(bars)
    with pytest.raises(ConfigError, match="which plugins="):
        settings_of(manifest_of(folder))


def test_with_other_code_a_model_is_invalid(folder, tmp_path):
    bars, other = stored(folder), features_file(tmp_path)
    other.write_text(other.read_text() + "\n")
    allow_plugins([str(other), str(folder / "my_labels.py")])
    with pytest.raises(InvalidArtifactError, match="has changed since the training"):
        Predictor(folder / "models").predict(bars)


def test_a_version_is_reproduced_bit_for_bit(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    pool = manifest_of(folder).pool
    if pool is not None and pool.started_from is not None:
        pytest.skip("reproduce starts from no other weights")
    words = ["action=reproduce", "symbol=BTCUSDT", "tf=1h", "source=store"]
    assert main([*words, "plugins=[my_features.py,my_labels.py]"]) == 0
    assert "the same, bit for bit" in capsys.readouterr().out


def test_the_command_of_a_retraining_names_the_code(folder):
    words = overrides_of(manifest_of(folder))
    allow_plugins([])
    again = typed(compose_config("train", words), TrainConfig)
    assert again.features.extra == SETTING
    assert again.plugins == code_of(folder)
    assert (again.labels.arguments, again.labels.horizon) == ({"share": 0.5}, 3)


def test_a_peeking_feature_ends_the_training_in_one_line(tmp_path):
    features_file(tmp_path)
    finished = train(tmp_path, extra="features.extra=[my_features:peek]")
    [line] = finished.stderr.splitlines()
    assert finished.code == 1
    assert line.startswith("error: BTCUSDT 1h: my_features:peek looks ahead: its value at the bar")
    assert not (tmp_path / "models" / "per_coin").exists()


@pytest.mark.slow
def test_a_job_of_a_sweep_is_another_one_once_its_code_has_changed(tmp_path):
    path = features_file(tmp_path)
    sweep = ("-m", TWO, "model=logistic", "sweep=own")
    assert train(tmp_path, *sweep).code == 0
    record = tmp_path / "outputs" / "own" / "BTCUSDT" / "1h"
    first = read_record(record)
    assert train(tmp_path, *sweep).code == 0
    assert read_record(record).key == first.key
    path.write_text(path.read_text() + "\n")
    assert train(tmp_path, *sweep).code == 0
    assert read_record(record).key != first.key
    assert json.dumps(first.result) != "{}"
