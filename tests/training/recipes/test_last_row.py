"""A regression on volatility and boosted trees as the model: the commands, and what they leave."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from exported_models import bars_to_learn_from, make_dataset
from train_runs import SIMULATED, Finished, run_train, train_arguments

from percoin.audit.served import rebuild
from percoin.bars.store import BarStore
from percoin.cli import compose_config
from percoin.config import TrainConfig, typed
from percoin.evaluation.baselines import BOOSTING, MOVES, VOLATILITY
from percoin.evaluation.fold_forecasts import JudgingRules, forecast_last_row
from percoin.expected_move.fitting import (
    TREES_WEIGHT,
    MoveRows,
    average_with_trees,
    choose_move,
)
from percoin.expected_move.judging import move_losses
from percoin.inference import Predictor
from percoin.registry.artifact import Artifact, load_artifact
from percoin.training.publishing import judge
from percoin.training.version_settings import overrides_of, settings_of
from percoin.types import Timeframe

KINDS = (VOLATILITY, BOOSTING, MOVES)
# Something to find.
EDGE = (*SIMULATED, "source.edge=0.6")
TITLES = {
    VOLATILITY: "a regression on volatility",
    BOOSTING: "boosted trees",
    MOVES: "how far first, then which class",
}


def arguments(folder: Path, name: str, *overrides: str) -> list[str]:
    return train_arguments(folder, f"model={name}", *overrides, source=EDGE)


def served(folder: Path) -> Artifact:
    return load_artifact(folder / "models", "BTCUSDT", Timeframe.H1)


def bars_of(folder: Path):
    return BarStore(folder / "data" / "bars").load("BTCUSDT", Timeframe.H1)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory) -> dict[str, tuple[Finished, Path]]:
    folders = {name: tmp_path_factory.mktemp(name) for name in KINDS}
    return {name: (run_train(arguments(at, name)), at) for name, at in folders.items()}


@pytest.mark.parametrize("name", KINDS)
def test_it_is_judged_and_served_like_any_model(fitted, name):
    done, folder = fitted[name]
    assert (done.code, done.stderr) == (0, "")
    artifact = served(folder)
    manifest = artifact.manifest
    assert (manifest.model_version, manifest.model.kind) == (f"{name}_v1", name)
    files = {path.name for path in artifact.folder.iterdir()}
    trees = set() if name == VOLATILITY else {f"{name}.json"}
    assert files == {"meta.json", "metrics.json", "scaler.pkl", *trees}
    dataset = rebuild(manifest, bars_of(folder))
    fold = forecast_last_row(dataset, name, JudgingRules(model_name=name))
    assert manifest.calibration.to_json() == fold.calibration
    answers = Predictor(folder / "models").predict_range(bars_of(folder), in_sample=True)
    np.testing.assert_allclose(
        answers.probabilities[dataset.rows("test")], fold.model.probabilities, rtol=0, atol=1e-9
    )
    assert name not in [line.name for line in fold.baselines]


@pytest.mark.parametrize("name", KINDS)
def test_its_screen_says_what_was_fitted_and_its_record_has_one_entry_a_curve(fitted, name):
    done, folder = fitted[name]
    assert f"{TITLES[name]}, in " in done.stdout
    for text in ("epoch", "tensorboard", "blend", "trains it"):
        assert text not in done.stdout
    record = json.loads((served(folder).folder / "metrics.json").read_text())
    history = record["training_history"]
    assert {len(values) for values in history.values()} == {1}
    assert 0.3 < history["train_loss"][0] < 1.1
    assert record["hyperparameters"]["choices"]["model"] == name


@pytest.mark.parametrize("name", KINDS)
def test_its_manifest_says_the_command_that_trains_it_again(fitted, name):
    manifest = served(fitted[name][1]).manifest
    assert settings_of(manifest).model.option == name
    again = typed(compose_config("train", overrides_of(manifest)), TrainConfig)
    assert (again.model.option, again.blended) == (name, ())


def test_the_trees_of_a_model_are_offered_to_its_expected_move(monkeypatch):
    dataset = make_dataset(bars_to_learn_from(1600))
    rules = JudgingRules(model_name=MOVES, repetitions=50)
    fold = forecast_last_row(dataset, MOVES, rules)
    [log_range] = fold.log_ranges().values()
    rows = MoveRows.of(dataset.bars, 3, dataset.rows("train"), dataset.rows("validation"))
    # Trees that know what comes are surely preferred.
    told = np.where(np.isfinite(log_range), np.log(rows.realized) / 2, np.nan)
    monkeypatch.setattr(type(fold), "log_ranges", lambda _fold: {MOVES: told})
    fitted = SimpleNamespace(dataset=dataset, forecast=lambda _rules: (fold,))
    judged = judge(fitted, rules)
    forecast = judged.move.model.range_forecast
    assert (forecast.part, forecast.weight) == (MOVES, TREES_WEIGHT)
    alone = average_with_trees(rows, choose_move(rows))
    assert judged.move.judged.qlike < move_losses(alone, rows, dataset.rows("test")).model.mean()


def test_a_walk_forward_fits_one_model_a_fold_and_onnx_needs_no_network(tmp_path):
    done = run_train(
        arguments(tmp_path, BOOSTING, "evaluation=walk_forward", "folds=2", "export.onnx=true")
    )
    assert done.code == 0
    manifest = served(tmp_path).manifest
    last = rebuild(manifest, bars_of(tmp_path))
    fold = forecast_last_row(last, BOOSTING, JudgingRules(model_name=BOOSTING))
    trees = served(tmp_path).trees["boosting.json"]
    assert trees.numbers == fold.parts[BOOSTING].numbers.numbers.numbers
    assert manifest.dataset_info.test_samples > len(last.rows("test"))
    bars = bars_of(tmp_path)
    torch, onnx = (
        Predictor(tmp_path / "models", backend=backend).predict(bars)
        for backend in ("torch", "onnx")
    )
    assert torch == onnx


# A week of 15m is 672 bars.
FEW = ("source=simulated", "source.n_bars=600")


def in_minutes(word: str) -> str:
    return word.replace("tf=1h", "tf=15m")


def test_too_few_bars_for_the_volatility_are_told_in_one_line(tmp_path):
    words = train_arguments(tmp_path, "model=volatility", source=FEW)
    done = run_train([in_minutes(word) for word in words])
    assert done.code == 1
    [line] = done.stderr.splitlines()
    assert line.startswith("error: BTCUSDT 15m: ")
    assert "are too few for model=volatility: " in line
    assert line.endswith("load more bars or use a longer history_days")


def test_a_blend_goes_without_a_part_that_has_too_few_bars(tmp_path):
    done = run_train([in_minutes(word) for word in train_arguments(tmp_path, source=FEW)])
    assert done.code == 0
    for name in ("volatility", "volatility_clock", "moves"):
        assert f"BTCUSDT 15m: {name} takes no part in the blend: " in done.stdout
    manifest = load_artifact(tmp_path / "models", "BTCUSDT", Timeframe.M15).manifest
    assert set(manifest.weights) == {"network", "logistic", "boosting"}
