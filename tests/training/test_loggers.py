"""Trainings that log to MLflow and Weights & Biases: real stores, no network."""

import sqlite3
from importlib.util import find_spec
from pathlib import Path

import pytest
from train_runs import run_train, train_arguments

from percoin.training.recipes import last_row, per_market

PICTURES = ("confusion_matrix", "label_distribution", "reliability")


def needs(package: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(
        find_spec(package) is None, reason=f"{package} is not installed: percoin[{package}]"
    )


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("GIT_PYTHON_REFRESH", "quiet")
    monkeypatch.setenv("WANDB_SILENT", "true")
    # Lightning sets it; it must not stay for other tests.
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in ("MLFLOW_TRACKING_URI", "WANDB_PROJECT", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def logged(folder: Path, *overrides: str) -> Path:
    finished = run_train(train_arguments(folder, *overrides))
    assert finished.code == 0, finished.stderr
    (result,) = (folder / "outputs").rglob("result.json")
    return result.parent


@needs("mlflow")
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_mlflow_and_tensorboard_get_the_same_training(tmp_path):
    run = logged(tmp_path, "logger=[tensorboard,mlflow]")

    assert list(run.glob("events.out.tfevents.*"))
    with sqlite3.connect(tmp_path / "outputs" / "mlflow.db") as store:
        (name, status), *others = store.execute("SELECT name, status FROM runs")
        parameters = dict(store.execute("SELECT key, value FROM params"))
        steps = store.execute("SELECT step FROM metrics WHERE key = 'loss/val' ORDER BY step")
        n_epochs = len(list(steps))
        results = {key for (key,) in store.execute("SELECT key FROM latest_metrics")}
    assert not others
    assert (name, status) == (str(run.relative_to(tmp_path / "outputs")), "FINISHED")
    assert (parameters["lr"], parameters["symbol"]) == ("0.001", "BTCUSDT")
    assert parameters["verdict"] in {"accepted", "rejected", "untestable"}
    assert n_epochs == 2
    assert {"result/test_log_loss_skill", "result/test_mcc"} <= results
    pictures = (tmp_path / "outputs" / "mlflow").glob("*/artifacts/figures/*.png")
    assert sorted(path.stem for path in pictures) == list(PICTURES)


@needs("wandb")
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_runs_of_two_markets_are_kept_apart_offline_by_wandb(tmp_path):
    symbols = "symbol=BTCUSDT,ETHUSDT"
    finished = run_train(
        train_arguments(
            tmp_path, symbols, "fleet=true", "logger=[wandb]", "logger.wandb.offline=true"
        )
    )
    assert finished.code == 0, finished.stderr
    files = {
        path.parents[2].name: path
        for path in (tmp_path / "outputs").rglob("offline-run-*/run-*.wandb")
    }
    assert set(files) == {"BTCUSDT", "ETHUSDT"}
    for symbol, path in files.items():
        content = path.read_bytes()
        for text in ("loss/val", "result/test_log_loss_skill", "verdict", symbol):
            assert text.encode() in content
        pictures = {file.name.partition("_0_")[0] for file in path.parent.rglob("*.png")}
        assert len(pictures) == len(PICTURES)


@needs("mlflow")
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_logger_that_cannot_begin_ends_the_command_in_one_line(tmp_path):
    uri = f"logger.mlflow.tracking_uri=sqlite:///{tmp_path}/missing/mlflow.db"
    finished = run_train(train_arguments(tmp_path, "logger=mlflow", uri))
    assert finished.code == 2
    (line,) = finished.stderr.splitlines()
    assert line.startswith("error: logger=mlflow cannot begin a run: ")
    assert not (tmp_path / "models").exists()


@needs("mlflow")
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_model_without_a_network_reports_to_a_store_of_runs_and_draws_no_curves(tmp_path):
    run = logged(tmp_path, "model=volatility", "logger=[tensorboard,mlflow]", "tags=[first]")

    assert not list(run.glob("events.out.tfevents.*"))
    with sqlite3.connect(tmp_path / "outputs" / "mlflow.db") as store:
        ((name, status),) = store.execute("SELECT name, status FROM runs")
        parameters = dict(store.execute("SELECT key, value FROM params"))
        results = {key for (key,) in store.execute("SELECT key FROM latest_metrics")}
        tags = dict(store.execute("SELECT key, value FROM tags"))
    assert (name, status) == (str(run.relative_to(tmp_path / "outputs")), "FINISHED")
    assert (parameters["model"], parameters["symbol"]) == ("volatility", "BTCUSDT")
    assert parameters["verdict"] in {"accepted", "rejected", "untestable"}
    assert {"result/test_log_loss_skill", "result/test_mcc"} <= results
    assert tags["tags"] == "first"
    pictures = (tmp_path / "outputs" / "mlflow").glob("*/artifacts/figures/*.png")
    assert sorted(path.stem for path in pictures) == list(PICTURES)


@needs("mlflow")
@pytest.mark.parametrize("words", [("model=volatility",), ("evaluation=walk_forward", "folds=2")])
@pytest.mark.filterwarnings("ignore")
def test_a_logger_that_cannot_begin_fails_before_anything_is_trained(tmp_path, words, monkeypatch):
    for module, name in ((last_row, "forecast_last_row"), (per_market, "train")):
        monkeypatch.setattr(module, name, lambda *_, **__: pytest.fail("it was trained"))
    uri = f"logger.mlflow.tracking_uri=sqlite:///{tmp_path}/missing/mlflow.db"
    finished = run_train(train_arguments(tmp_path, "logger=mlflow", uri, *words))
    assert finished.code == 2
    (line,) = finished.stderr.splitlines()
    assert line.startswith("error: logger=mlflow cannot begin a run: ")
