"""``features.extra=[volatility,clock]`` with every recipe: from the command to the answers."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from train_runs import run_train, train_arguments

from percoin.audit.findings import FindingStatus
from percoin.audit.replay import replay_market
from percoin.audit.run import audit_dataset
from percoin.audit.served import audit_served, rebuild
from percoin.bars.schema import Bars
from percoin.bars.store import BarStore
from percoin.cli import compose_config
from percoin.config import RegistryConfig, TrainConfig, typed
from percoin.features.feature_set import FeatureSet
from percoin.inference import Backend, Predictor, ServedModel
from percoin.monitoring.drift import measure_drift
from percoin.registry.artifact import Artifact, load_artifact
from percoin.registry.command.reproduction import reproduce
from percoin.registry.judged import train_rows
from percoin.registry.layout import MarketFolder
from percoin.training.version_settings import overrides_of, settings_of
from percoin.types import Timeframe

EXTRA = "features.extra=[volatility,clock]"
NAMES = FeatureSet(extra=("volatility", "clock")).names(Timeframe.H1)
POOL = (
    "symbol=BTCUSDT,ETHUSDT",
    "recipe=pooled",
    *("pooled.windows_per_epoch=400", "pooled.validation_windows=100", "pooled.seeds=1"),
)
RECIPES = {
    "per_market": (("export.onnx=true",),),
    "blend": (("blend=logistic", "features=raw"),),
    "logistic": (("model=logistic",),),
    "walk_forward": (("evaluation=walk_forward", "folds=2"),),
    "tuned": (("experiment=tune", "experiment.trials=1", "experiment.epochs=1"),),
    "fleet": (("symbol=BTCUSDT,ETHUSDT", "fleet=true", "model.dropout=0"),),
    "pooled": (POOL,),
    "init_pooled": (POOL, ("init=pooled",)),
}


def train(folder: Path, *overrides: str):
    return run_train(train_arguments(folder, EXTRA, *overrides))


# Two in every run; the others are as long, and take the same paths through most of the code.
QUICK = ("per_market", "pooled")


@pytest.fixture(
    scope="module",
    params=[
        name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in RECIPES
    ],
)
def folder(request, tmp_path_factory) -> Path:
    made = tmp_path_factory.mktemp(request.param)
    for overrides in RECIPES[request.param]:
        finished = train(made, *overrides)
        assert (finished.code, finished.stderr) == (0, "")
    return made


def served(folder: Path) -> Artifact:
    return load_artifact(folder / "models", "BTCUSDT", Timeframe.H1)


def stored(folder: Path, symbol: str = "BTCUSDT") -> Bars:
    return BarStore(folder / "data" / "bars").load(symbol, Timeframe.H1)


def test_the_artifact_says_which_columns_it_takes(folder):
    manifest = served(folder).manifest
    record = json.loads((served(folder).folder / "metrics.json").read_text())
    assert manifest.features.names == NAMES
    assert manifest.features.extra == ("volatility", "clock")
    # The usual blend has a model in two stages.
    assert manifest.format_version == (3 if manifest.combination is None else 4)
    n_features = len(NAMES)
    assert (manifest.num_features, manifest.dataset_info.num_features) == (n_features, n_features)
    assert len(manifest.scaling.mean) == n_features
    assert record["dataset_info"]["feature_names"] == list(NAMES)
    assert list(record["train_rows"]["feature_bins"]) == list(NAMES)
    if manifest.has_network:
        assert served(folder).state_dict["convolution.0.weight"].shape[1] == n_features


def test_serving_gives_what_was_measured(folder):
    found = served(folder)
    dataset = rebuild(found.manifest, stored(folder))
    if found.manifest.config["evaluation"] == "walk_forward":
        # The figures are those of all folds; the served network is that of the newest.
        return
    rows, probabilities = ServedModel(found).probabilities(stored(folder))
    by_row = dict(zip(rows.tolist(), probabilities, strict=True))
    losses = [-np.log(by_row[row][dataset.label[row]]) for row in dataset.rows("test").tolist()]
    record = json.loads((found.folder / "metrics.json").read_text())
    assert np.mean(losses) == pytest.approx(record["test_metrics"]["log_loss"], abs=1e-6)


def test_a_replay_of_live_answers_differs_nowhere_and_the_audit_finds_no_leak(folder):
    bars = stored(folder)
    backends = [Backend.TORCH]
    if "cnn_lstm_v1.onnx" in served(folder).manifest.files:
        backends.append(Backend.ONNX)
    for backend in backends:
        replay = replay_market(folder / "models", bars, 25, backend)
        assert len(replay.compared) == 25
        assert replay.differing == []
    findings = audit_served(folder / "models", bars, lambda name: stored(folder, name))
    assert {finding.status for finding in findings} <= {FindingStatus.OK, FindingStatus.CONSTANT}
    by_check = {finding.check: finding.status for finding in findings}
    assert by_check["model: scaler knows train only"] is FindingStatus.OK


def test_one_market_among_many_has_the_answer_of_one_alone(folder):
    predictor, bars = Predictor(folder / "models"), stored(folder)
    alone = predictor.predict(bars)
    [together, again] = predictor.predict_many([bars, bars])
    assert together.probabilities == pytest.approx(alone.probabilities, abs=1e-6)
    assert again.probabilities == pytest.approx(alone.probabilities, abs=1e-6)


def test_drift_is_measured_in_every_column(folder):
    manifest = served(folder).manifest
    bins = train_rows(folder / "models", manifest).feature_bins
    assert tuple(bins) == NAMES
    bars = stored(folder)
    # The same bars once more, after those that the model knows.
    later = replace(
        bars, frame=bars.frame.set_index(bars.frame.index + len(bars) * Timeframe.H1.timedelta)
    )
    ready = {name: replace(known, furthest=0.2) for name, known in bins.items()}
    drift = measure_drift(manifest, ready, later)
    assert tuple(drift.shifts) == NAMES
    assert all(np.isfinite(shift.psi) for shift in drift.shifts.values())


def test_a_training_that_repeats_the_version_has_its_columns(folder):
    manifest = served(folder).manifest
    assert settings_of(manifest).features.extra == ["volatility", "clock"]
    words = [word for word in overrides_of(manifest) if not word.startswith("init=")]
    again = typed(compose_config("train", words), TrainConfig)
    assert again.features == settings_of(manifest).features


def test_a_version_is_reproduced_bit_for_bit(tmp_path, monkeypatch):
    assert train(tmp_path, "epochs=1", "blend=logistic").code == 0
    monkeypatch.chdir(tmp_path)
    source = ["source=simulated", "source.n_bars=1200"]
    wanted = typed(
        compose_config("registry", ["action=reproduce", "symbol=BTCUSDT", "tf=1h", *source]),
        RegistryConfig,
    )
    found = reproduce(wanted, MarketFolder(tmp_path / "models", "BTCUSDT", Timeframe.H1))
    assert found.is_same
    assert {entry.part for entry in found.compared} >= {"weights", "scaling", "regression"}


def test_the_audit_looks_at_the_extra_columns_too(tmp_path):
    assert train(tmp_path, "model=logistic").code == 0
    dataset = rebuild(served(tmp_path).manifest, stored(tmp_path))
    found = {finding.check: finding for finding in audit_dataset(dataset, n_cuts=5)}
    assert found["features look back only"].evidence.startswith(
        f"{len(NAMES)} features are the same"
    )
    assert FindingStatus.LEAK not in {finding.status for finding in found.values()}


@pytest.mark.parametrize("pooled", [EXTRA, "features.extra=[]"])
def test_a_pooled_model_is_not_begun_with_under_other_columns(tmp_path, pooled):
    assert train(tmp_path, *POOL, pooled, "epochs=1").code == 0
    others = {"[]", "[volatility]", "[volatility,clock]"} - {pooled.partition("=")[2]}
    for other in others:
        finished = train(tmp_path, "init=pooled", f"features.extra={other}")
        assert finished.code == 2
        [line] = finished.stderr.splitlines()
        assert " has features.extra=[" in line
        assert "repeat the settings that it was trained with" in line


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ("[moon]", "features.extra=[moon] must be one of volatility, clock"),
        ("[clock,clock]", "features.extra=['clock', 'clock'] names a group twice"),
    ],
)
def test_a_group_that_there_is_not_is_one_line_before_any_work(tmp_path, extra, words):
    finished = train(tmp_path, f"features.extra={extra}")
    assert finished.code != 0
    [line] = finished.stderr.splitlines()
    assert words in line
    assert not (tmp_path / "outputs").exists()


def test_too_few_bars_for_the_longest_span_say_how_many_it_takes(tmp_path):
    finished = train(tmp_path, "source.n_bars=170")
    assert finished.code == 1
    assert "lookback=8 takes at least " in finished.stderr
