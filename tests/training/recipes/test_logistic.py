"""A regression alone, and one averaged with a network: the commands, and what they leave."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import warm_processes
from train_runs import SIMULATED, Finished, run_train, train_arguments

from percoin.audit.served import rebuild
from percoin.bars.store import BarStore
from percoin.cli import compose_config
from percoin.config import PredictConfig, SimulatedConfig, typed
from percoin.errors import InvalidArtifactError
from percoin.evaluation.baselines import LOGISTIC
from percoin.evaluation.fold_forecasts import JudgingRules, forecast_last_row
from percoin.expected_move.fitting import MoveRows, choose_move
from percoin.inference import Predictor
from percoin.registry.artifact import Artifact, load_artifact
from percoin.types import Timeframe

ROOT = Path(__file__).parents[3]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}
# Something for a regression to find.
EDGE = (*SIMULATED, "source.edge=0.6")


def arguments(folder: Path, *overrides: str) -> list[str]:
    return train_arguments(folder, "model=logistic", *overrides, source=EDGE)


def served(folder: Path) -> Artifact:
    return load_artifact(folder / "models", "BTCUSDT", Timeframe.H1)


def bars_of(folder: Path):
    return BarStore(folder / "data" / "bars").load("BTCUSDT", Timeframe.H1)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory) -> tuple[Finished, Path]:
    folder = tmp_path_factory.mktemp("fitted")
    return run_train(arguments(folder)), folder


def test_the_regression_is_judged_and_served_like_any_model(fitted):
    done, folder = fitted
    assert (done.code, done.stderr) == (0, "")
    artifact = served(folder)
    manifest = artifact.manifest
    assert (manifest.model_version, manifest.model.kind) == ("logistic_v1", "logistic")
    assert {path.name for path in artifact.folder.iterdir()} == {
        *("meta.json", "metrics.json", "scaler.pkl")
    }
    dataset = rebuild(manifest, bars_of(folder))
    fold = forecast_last_row(dataset, LOGISTIC, JudgingRules(model_name=LOGISTIC))
    assert manifest.regression == fold.parts[LOGISTIC].numbers.numbers
    assert manifest.calibration.to_json() == fold.calibration
    answers = Predictor(folder / "models").predict_range(bars_of(folder), in_sample=True)
    np.testing.assert_allclose(
        answers.probabilities[dataset.rows("test")], fold.model.probabilities, rtol=0, atol=1e-9
    )
    truth = dataset.label[dataset.rows("test")]
    right = float((fold.model.probabilities.argmax(axis=1) == truth).mean())
    assert manifest.test_metrics.accuracy == pytest.approx(right, abs=1e-12)


def test_its_run_leaves_what_a_run_leaves_but_for_the_network(fitted):
    _, folder = fitted
    [run] = (folder / "outputs" / "BTCUSDT" / "1h").iterdir()
    assert {path.name for path in run.iterdir()} == {
        *(".hydra", ".lock", "evaluation.txt", "figures", "result.json", "summary.txt", "train.log")
    }
    assert len(list((run / "figures").glob("*.png"))) == 3
    result = json.loads((run / "result.json").read_text())
    assert (result["epochs"], result["is_served"]) == (0, True)
    assert result["version"] == served(folder).manifest.version_id
    assert result["verdict"] == served(folder).manifest.gate.verdict.value
    record = json.loads((served(folder).folder / "metrics.json").read_text())
    history = record["training_history"]
    assert {name: len(values) for name, values in history.items()} == dict.fromkeys(
        ("train_loss", "train_acc", "val_loss", "val_acc"), 1
    )
    assert 0.5 < history["train_loss"][0] < 1.05
    assert 0.5 < history["val_loss"][0] < 1.05
    assert record["hyperparameters"]["model"] == {}
    assert record["hyperparameters"]["choices"]["model"] == "logistic"


def test_the_expected_move_is_fitted_on_the_same_split_told_and_served(fitted):
    done, folder = fitted
    artifact = served(folder)
    dataset = rebuild(artifact.manifest, bars_of(folder))
    horizon = dataset.label_rule.horizon
    rows = MoveRows.of(dataset.bars, horizon, dataset.rows("train"), dataset.rows("validation"))
    again = choose_move(rows)
    assert artifact.move.inputs == again.inputs
    np.testing.assert_allclose(artifact.move.coefficients, again.coefficients, rtol=1e-6)
    assert dict(artifact.move.quantiles) == pytest.approx(dict(again.quantiles))
    record = json.loads((artifact.folder / "metrics.json").read_text())
    judged = record["expected_move"]["judged"]
    assert set(judged["rivals"]) == {"cascade", "garch", "last_50_bars"}
    [run] = (folder / "outputs" / "BTCUSDT" / "1h").iterdir()
    told = f"QLIKE {judged['qlike']:.4f}; lead "
    assert told in (run / "evaluation.txt").read_text()
    assert f"expected move  {told}" in done.stdout


def test_its_screen_has_no_epochs_and_shows_it_once(fitted):
    screen = fitted[0].stdout
    assert "a logistic regression, in " in screen
    assert screen.count("\n│  logistic ") == 1
    for text in ("epoch", "tensorboard", "blend"):
        assert text not in screen
    assert "tf=1h model=logistic" not in screen


def test_the_command_below_its_screen_asks_the_model_on_the_same_bars(fitted):
    done, folder = fitted
    [line] = [line for line in done.stdout.splitlines() if line.startswith("python predict.py ")]
    _, _, *words = shlex.split(line)
    asked = typed(compose_config("predict", words), PredictConfig)
    assert (asked.symbol, asked.tf.name) == ("BTCUSDT", "1h")
    assert isinstance(asked.source, SimulatedConfig)
    assert served(folder).folder.is_relative_to(asked.models_dir)


@pytest.mark.slow
def test_the_backtest_can_exit_at_the_levels_of_its_signals(fitted, tmp_path):
    # Half of the rows are a direction.
    labels = ("labels.threshold=0.001", "source.n_bars=2400")
    usual, levels = tmp_path / "usual", tmp_path / "levels"
    assert run_train(arguments(usual, *labels)).code == 0
    done = run_train(arguments(levels, *labels, "backtest.exit=levels"))
    assert (done.code, done.stderr) == (0, "")
    of_usual, of_levels = (
        json.loads((served(folder).folder / "metrics.json").read_text())
        for folder in (usual, levels)
    )

    assert "exit" not in of_usual["judging"]
    assert of_levels["judging"]["exit"] == "levels"
    # What the model says and how often its levels were reached does not depend on the exit.
    assert of_levels["levels"] == of_usual["levels"]
    assert of_levels["evaluation"]["model"] == of_usual["evaluation"]["model"]
    assert of_levels["evaluation"]["money"] != of_usual["evaluation"]["money"]
    words = "positions close at the stop or the first target"
    assert words in done.stdout
    [tables] = levels.glob("outputs/**/evaluation.txt")
    assert words in tables.read_text()
    [plain] = usual.glob("outputs/**/evaluation.txt")
    assert "positions close" not in plain.read_text()
    reached = of_usual["levels"]
    assert f"within 3 bars {reached['n_signals']:,} judged signals" in done.stdout
    assert reached["tp1"]["value"] >= reached["tp2"]["value"] >= reached["tp3"]["value"]
    in_moves = {
        name: share["value"] for name, share in of_usual["levels_bands"].items() if name[0] != "n"
    }
    assert in_moves == pytest.approx(reached_one_by_one(usual), abs=2 / reached["n_signals"])
    answer = predict(usual, "levels=bands")
    assert answer["levels_reached"]["stop_loss"]["value"] == in_moves["stop_loss"]
    unit = answer["close"] * answer["expected_move"] / 100
    assert abs(answer["stop_loss"] - answer["close"]) == pytest.approx(1.5 * unit, rel=0.02)


def reached_one_by_one(folder: Path) -> dict[str, float]:
    """Shares of the test rows' signals whose levels, in units of the expected move, came."""
    artifact, bars = served(folder), bars_of(folder)
    dataset = rebuild(artifact.manifest, bars)
    said = Predictor(folder / "models").predict_range(bars, in_sample=True)
    deviations = artifact.move.deviations(dataset.bars)
    close, high, low = (dataset.bars.column(name) for name in ("close", "high", "low"))
    came = []
    for row in dataset.rows("test"):
        side = int(said.probabilities[row].argmax()) - 1
        if side == 0:
            continue
        unit = close[row] * deviations[row]
        stop, *targets = (close[row] + side * many * unit for many in (-1.5, 1, 2, 3))
        is_stopped, is_reached = False, [False] * 3
        for bar in range(row + 1, row + 4):
            worst, best = (low[bar], high[bar])[::side]
            is_stopped |= side * (worst - stop) <= 0
            for n, target in enumerate(targets):
                is_reached[n] |= not is_stopped and side * (best - target) >= 0
        came.append((is_stopped, *is_reached))
    return dict(zip(("stop_loss", "tp1", "tp2", "tp3"), np.mean(came, axis=0), strict=True))


def test_a_walk_forward_fits_one_regression_a_fold(tmp_path):
    done = run_train(arguments(tmp_path, "evaluation=walk_forward", "folds=2"))
    assert done.code == 0
    manifest = served(tmp_path).manifest
    last = rebuild(manifest, bars_of(tmp_path))
    fold = forecast_last_row(last, LOGISTIC, JudgingRules(model_name=LOGISTIC))
    assert manifest.regression == fold.parts[LOGISTIC].numbers.numbers
    assert manifest.dataset_info.test_samples > len(last.rows("test"))


def test_a_regression_needs_no_package_of_the_network_export_and_onnx_serves_it(tmp_path):
    assert run_train(arguments(tmp_path, "export.onnx=true")).code == 0
    bars = bars_of(tmp_path)
    by_either = [
        Predictor(tmp_path / "models", backend=backend).predict(bars)
        for backend in ("torch", "onnx")
    ]
    assert by_either[0] == by_either[1]
    assert not (served(tmp_path).folder / "cnn_lstm_v1.onnx").exists()


def test_a_regression_that_cannot_be_saved_is_not_fitted(tmp_path):
    (tmp_path / "models").write_text("a file in the folder's place")
    done = run_train(arguments(tmp_path))
    assert done.code == 1
    assert "cannot write to" in done.stderr
    assert not (tmp_path / "data").exists()


def test_a_weight_file_in_a_regression_is_refused(fitted):
    _, folder = fitted
    planted = served(folder).folder / "meta.json"
    text = planted.read_text()
    try:
        planted.write_text(text.replace('"kind": "logistic"', '"kind": "cnn_lstm"'))
        with pytest.raises(InvalidArtifactError, match="model_version is logistic_v1 of a cnn"):
            served(folder)
    finally:
        planted.write_text(text)


def test_a_run_that_was_interrupted_can_be_blended_when_it_is_resumed(trained, tmp_path):
    folder = shutil.copytree(trained[1], tmp_path / "again", symlinks=True)
    before = served(folder)
    [mark] = folder.rglob("result.json")
    mark.unlink()  # as if it had been killed before the end
    kept = mark.with_name("settings.json")
    kept.write_text(kept.read_text().replace(str(trained[1]), str(folder)))
    done = run_train(train_arguments(folder, "resume=true", "blend=logistic"))
    assert (done.code, done.stderr) == (0, "")
    after = served(folder)
    assert (before.manifest.blend, after.manifest.blend is None) == (None, False)
    for name, weights in before.state_dict.items():
        assert torch.equal(weights, after.state_dict[name])


def run_fresh(*command: str) -> subprocess.CompletedProcess[str]:
    """In a Python that has loaded nothing yet."""
    return subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def predict(folder: Path, *overrides: str) -> dict:
    folders = [f"{name}_dir={folder / name}" for name in ("data", "models")]
    market = ("symbol=BTCUSDT", "tf=1h", "source=store", "output=json", "require_accepted=false")
    done = warm_processes.run(["predict.py", *market, *folders, *overrides], ROOT, ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["source"] == "ML_PER_COIN_V1"
    return answer


@pytest.mark.slow
@pytest.mark.timeout(720)
def test_the_real_command_fits_a_regression_without_lightning_and_predict_answers(tmp_path):
    code = (
        "import runpy, sys\n"
        "sys.argv = ['train.py', *sys.argv[1:]]\n"
        "try: runpy.run_path('train.py', run_name='__main__')\n"
        "except SystemExit as end: assert end.code == 0\n"
        "print('LOADED', *{'lightning', 'torchmetrics', 'tensorboard'} & set(sys.modules))"
    )
    done = run_fresh("-c", code, *arguments(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "LOADED"
    answer = predict(tmp_path, "predictor=onnx")
    assert answer["model_version"] == "logistic_v1"
    expected = Predictor(tmp_path / "models").predict(bars_of(tmp_path)).probabilities
    assert list(answer["probabilities"].values()) == pytest.approx(expected, abs=1e-12)


@pytest.mark.timeout(720)
def test_the_real_command_blends_and_predict_answers_with_the_blend(tmp_path):
    told = train_arguments(tmp_path, "blend=logistic", source=EDGE)
    done = warm_processes.run(["train.py", *told], ROOT, ENVIRONMENT)
    assert (done.returncode, done.stderr) == (0, "")
    manifest = served(tmp_path).manifest
    assert (manifest.model_version, manifest.format_version) == ("cnn_lstm_v1", 2)
    weight = manifest.blend.network_weight
    assert 0 <= weight < 1
    shares = f"{weight:.2f} network + {1 - weight:.2f} logistic regression"
    assert shares in done.stdout
    # So many rows of a planted edge that a network of two epochs is behind.
    [note] = [text for text in manifest.gate.reasons if "alone is better" in text]
    assert note.endswith(
        ": model=logistic, for BTCUSDT alone and without settings of a network, trains it"
    )
    skills = manifest.blend.skills
    assert skills["blend"].validation.value >= skills["regression"].validation.value - 1e-12
    assert skills["regression"].validation.value > skills["network"].validation.value
    answer = predict(tmp_path)
    expected = Predictor(tmp_path / "models").predict(bars_of(tmp_path)).probabilities
    assert list(answer["probabilities"].values()) == pytest.approx(expected, abs=1e-6)
