import json
import os
import re
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from builders import make_bars, write_parquet
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from train_runs import run_train, train_arguments

from percoin.bars.sources.simulated import SimulatedSource
from percoin.bars.store import BarStore
from percoin.cli import compose_config
from percoin.config import TrainConfig, typed
from percoin.config.model import LogisticConfig, VolatilityConfig
from percoin.dataset import DatasetSpec, SplitSpec, build_dataset
from percoin.errors import ConfigError, DataError, InterruptedRunError
from percoin.evaluation.baselines import LOGISTIC
from percoin.evaluation.blend import BLEND
from percoin.features.feature_set import FEATURE_NAMES, FeatureSet
from percoin.inference import ServedModel
from percoin.labels import FixedHorizon
from percoin.network import CnnLstm
from percoin.registry.artifact import load_artifact
from percoin.training import loggers
from percoin.training.folds import load_bars, load_until
from percoin.training.markets import judging_rules
from percoin.training.recipes import network, per_market
from percoin.training.run_files import last_bars
from percoin.types import CLASS_NAMES, Timeframe

LOG_LINE = re.compile(r"\d\d:\d\d:\d\d \S.*")


def run_folder(folder: Path) -> Path:
    """The oldest run; a refused one leaves a folder with its log."""
    return min((folder / "outputs" / "BTCUSDT" / "1h").iterdir())


def train(folder: Path, *overrides: str, **source: tuple[str, ...]):
    return run_train(train_arguments(folder, *overrides, **source))


def served(folder: Path) -> Path:
    return load_artifact(folder / "models", "BTCUSDT", Timeframe.H1).folder


def only_error(finished) -> str:
    (line,) = finished.stderr.splitlines()
    return line


def test_one_training_from_the_command_to_the_registry(trained):
    finished, folder = trained
    assert (finished.code, finished.stderr) == (0, "")
    check_console(finished.stdout)
    check_files(folder)
    check_manifest(folder)
    check_record(folder)
    check_tensorboard(run_folder(folder))
    check_pictures(run_folder(folder) / "figures")


def check_console(stdout: str) -> None:
    log, _, screen = stdout.partition("╭")
    lines = log.splitlines()
    assert all(LOG_LINE.fullmatch(line) for line in lines), lines
    messages = [line.partition(" ")[2] for line in lines]
    assert len(set(messages)) == len(messages)
    assert [message[:9] for message in messages if message.startswith("epoch")] == [
        "epoch 1/2",
        "epoch 2/2",
    ]
    for text in ("BTCUSDT 1h", "train", "validation", "test", "accuracy", "predict.py symbol="):
        assert text in screen


def check_files(folder: Path) -> None:
    run = run_folder(folder)
    names = {path.name for path in run.iterdir()}
    events = {name for name in names if name.startswith("events.out.tfevents.")}
    assert names - events == {
        ".hydra",
        ".lock",
        "checkpoints",
        "evaluation.txt",
        "figures",
        "hparams.yaml",
        "result.json",
        "settings.json",
        "summary.txt",
        "train.log",
    }
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    assert {path.name for path in folder.iterdir()} == {"data", "models", "outputs"}


def expected_dataset():
    bars = SimulatedSource(seed=0, n_bars=1200).load("BTCUSDT", Timeframe.H1)
    rule = FixedHorizon(horizon=3, threshold=0.005)
    split = SplitSpec(purge_bars=3, embargo_bars=3)
    return build_dataset(bars, DatasetSpec(rule, FeatureSet(), 8, split, 1095))


def check_manifest(folder: Path) -> None:
    artifact = load_artifact(folder / "models", "BTCUSDT", Timeframe.H1)
    dataset = expected_dataset()
    meta = json.loads((artifact.folder / "meta.json").read_text())
    original = {
        "symbol",
        "timeframe",
        "model_version",
        "lookback",
        "num_features",
        "dataset_info",
        "test_metrics",
    }
    assert original <= meta.keys()
    assert meta["dataset_info"] == {
        "num_features": 15,
        "train_samples": len(dataset.split.train),
        "val_samples": len(dataset.split.validation),
        "test_samples": len(dataset.split.test),
    }
    assert {"accuracy", "precision", "recall", "f1", "confusion_matrix"} <= meta[
        "test_metrics"
    ].keys()
    matrix = torch.tensor(meta["test_metrics"]["confusion_matrix"])
    assert matrix.sum(dim=1).tolist() == dataset.class_counts("test").tolist()
    accuracy = float(matrix.trace() / matrix.sum())
    assert meta["test_metrics"]["accuracy"] == pytest.approx(accuracy, abs=1e-6)
    manifest = artifact.manifest
    assert manifest.bars.sha256 == dataset.bars.sha256()
    assert manifest.bars.splits["test"].rows == len(dataset.split.test)
    assert manifest.label_rule == dataset.label_rule.to_json()
    assert list(manifest.scaling.mean) == dataset.scaling.mean_.tolist()
    assert (manifest.lookback, manifest.seed) == (8, 0)
    check_served(artifact, dataset, matrix)


def check_served(artifact, dataset, matrix: torch.Tensor) -> None:
    """The served model gives the answers that were measured."""
    best = torch.load(artifact.folder / "cnn_lstm_best.pth", weights_only=True)
    assert best.keys() == artifact.state_dict.keys()
    # Calibration leaves the order of a row's probabilities as it is.
    rows, probabilities = ServedModel(artifact).probabilities(dataset.bars)
    answers = dict(zip(rows.tolist(), probabilities.argmax(axis=1).tolist(), strict=True))
    found = torch.zeros(3, 3, dtype=torch.long)
    for row in dataset.split.test.tolist():
        found[dataset.label[row], answers[row]] += 1
    assert torch.equal(found, matrix)


def check_record(folder: Path) -> None:
    artifact = load_artifact(folder / "models", "BTCUSDT", Timeframe.H1)
    record = json.loads((artifact.folder / "metrics.json").read_text())
    original = {
        "symbol",
        "timeframe",
        "created_at",
        "hyperparameters",
        "training_history",
        "test_metrics",
        "dataset_info",
    }
    assert original <= record.keys()
    assert record["dataset_info"]["feature_names"] == list(FEATURE_NAMES)
    history = record["training_history"]
    assert {name: len(values) for name, values in history.items()} == {
        "train_loss": 2,
        "train_acc": 2,
        "val_loss": 2,
        "val_acc": 2,
    }
    assert record["hyperparameters"]["epochs"] == 2
    assert sum(record["daily_losses"]["n_rows"]) == record["dataset_info"]["test_samples"]
    measured = {"log_loss", "mcc", "brier", "calibration_error", "f1_macro"}
    assert measured | {f"f1_{name}" for name in CLASS_NAMES} <= record["test_metrics"].keys()
    result = json.loads((run_folder(folder) / "result.json").read_text())
    assert result["test_log_loss"] == record["test_metrics"]["log_loss"]
    assert result["version"] == served(folder).name
    assert (
        result["verdict"]
        == json.loads((served(folder) / "meta.json").read_text())["gate"]["verdict"]
    )


def check_tensorboard(run: Path) -> None:
    events = EventAccumulator(str(run))
    events.Reload()
    scalars = set(events.Tags()["scalars"])
    per_class = {f"{part}/f1_{name}" for part in ("val", "test") for name in CLASS_NAMES}
    assert per_class | {"loss/train", "loss/val", "loss/test"} <= scalars
    assert {"accuracy/train", "val/accuracy", "test/mcc", "lr-AdamW"} <= scalars
    assert len(events.Scalars("loss/val")) == len(events.Scalars("lr-AdamW")) == 2
    assert events.Scalars("lr-AdamW")[0].value == pytest.approx(0.001)
    assert any(name.startswith("result/") for name in scalars)
    assert set(events.Tags()["images"]) == {
        "confusion_matrix",
        "label_distribution",
        "reliability",
    }
    hparams = [name for name in events.summary_metadata if name.startswith("_hparams_")]
    assert "_hparams_/session_start_info" in hparams


def check_pictures(folder: Path) -> None:
    names = {"confusion_matrix.png", "label_distribution.png", "reliability.png"}
    assert {path.name for path in folder.iterdir()} == names
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in folder.iterdir())


def test_the_csv_logger_numbers_its_files(tmp_path):
    finished = train(tmp_path, "logger=csv", "epochs=1")
    assert (finished.code, finished.stderr) == (0, "")
    run = run_folder(tmp_path)
    assert not list(run.rglob("events.*"))
    (path,) = run.rglob("metrics.csv")
    assert path.parent == run / "csv" / "version_0"
    columns = path.read_text().splitlines()[0]
    assert "loss/val" in columns
    assert "result/test_log_loss_skill" in columns
    assert "\nverdict: " in path.with_name("hparams.yaml").read_text()


def test_resume_without_an_interrupted_run_is_refused(tmp_path):
    finished = train(tmp_path, "resume=true")
    assert finished.code == 1
    assert only_error(finished).startswith(
        "error: BTCUSDT 1h: no interrupted run with a finished epoch under "
    )
    assert not (tmp_path / "models").exists()


def test_a_finished_run_is_not_resumed(trained):
    _, folder = trained
    before = served(folder)
    finished = train(folder, "resume=true", "epochs=9")
    assert finished.code == 1
    assert "no interrupted run" in only_error(finished)
    assert served(folder) == before


def test_resuming_with_other_settings_is_refused(trained):
    _, folder = trained
    before = served(folder)
    mark = run_folder(folder) / "result.json"
    content = mark.read_bytes()
    mark.unlink()  # as if it had been killed before the end
    try:
        for override, named in (
            ("lr=0.002", "lr"),
            ("model.dropout=0.1", "model.dropout"),
            ("source.seed=1", "source.seed, the bars"),
        ):
            finished = train(folder, "resume=true", "epochs=9", override)
            assert finished.code == 1
            assert only_error(finished).startswith(f"error: BTCUSDT 1h: {named} changed since ")
    finally:
        mark.write_bytes(content)
    assert served(folder) == before


@pytest.mark.parametrize(("n_bars", "is_told"), [(502, True), (908, True), (909, False)])
def test_too_few_bars_to_predict_from_alone_are_told(tmp_path, caplog, n_bars, is_told):
    bars = write_parquet(make_bars(n_bars, timeframe=Timeframe.H1), tmp_path / "BTCUSDT-1h.parquet")
    told = ("source=files", f"source.path={bars}")
    arguments = train_arguments(tmp_path, source=told)
    settings = typed(compose_config("train", arguments), TrainConfig)
    with caplog.at_level("WARNING"):
        load_bars(settings)
    words = (
        f"BTCUSDT 1h: {n_bars} bars are fewer than the 909 that a prediction takes: until there "
        "are so many, predict with bars that begin where these begin, at 2024-01-01 00:00"
    )
    assert (words in caplog.messages) == is_told


def test_the_judgement_takes_for_granted_what_the_settings_say(tmp_path):
    words = ("looks=3", "trials=7", "costs.fee_bps=4", "costs.slippage_bps=3", "seed=5")
    settings = typed(compose_config("train", train_arguments(tmp_path, *words)), TrainConfig)
    rules = judging_rules(settings)
    assert (rules.n_looks, rules.n_trials, rules.seed) == (3, 7, 5)
    assert (rules.costs.fee_bps, rules.costs.slippage_bps) == (4, 3)
    assert rules.blend == ("logistic", "volatility", "volatility_clock", "boosting", "moves")
    assert rules.model_name == BLEND
    alone = judging_rules(replace(settings, blend="none"))
    assert (alone.blend, alone.model_name) == ((), "cnn_lstm")
    for kind, name in ((LogisticConfig(), LOGISTIC), (VolatilityConfig(), "volatility")):
        made = judging_rules(replace(settings, model=kind, blend="none"))
        assert (made.blend, made.model_name) == ((), name)


def test_a_resumed_run_asks_an_exchange_for_no_newer_bars(tmp_path):
    nobody = "http://127.0.0.1:9"
    told = ("source=binance", f"source.archive_url={nobody}", f"source.api_url={nobody}")
    arguments = train_arguments(tmp_path, source=(*told, "source.attempts=1"))
    settings = typed(compose_config("train", arguments), TrainConfig)
    stored = make_bars(1200, timeframe=Timeframe.H1)
    BarStore(tmp_path / "data" / "bars").write(stored)
    bars = load_bars(replace(settings, resume=True))
    assert bars.open_time.tolist() == stored.open_time.tolist()
    with pytest.raises(DataError):
        load_bars(settings)


def interrupt_after_an_epoch(folder: Path, *words: str, source: tuple[str, ...]) -> None:
    """A training that ends by SIGTERM when it has kept one epoch."""
    original = per_market.train

    def interrupted(dataset, network, plan, *arguments, **further):
        original(dataset, network, replace(plan, epochs=1), *arguments, **further)
        raise InterruptedRunError("BTCUSDT", "1h", "interrupted", "", signal_number=15)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(per_market, "train", interrupted)
        assert train(folder, *words, source=source).code == 143


@pytest.mark.slow
def test_a_resumed_run_goes_on_with_its_bars_although_newer_ones_have_come(tmp_path):
    bars = make_bars(1210, timeframe=Timeframe.H1)
    known = bars.slice(0, 1200)
    words = ("epochs=2", "logger=csv", "history_days=45")
    left, whole = tmp_path / "left", tmp_path / "whole"
    file = write_parquet(known, tmp_path / "BTCUSDT_1h.parquet")
    source = ("source=files", f"source.path={file}")
    interrupt_after_an_epoch(left, *words, source=source)
    assert train(whole, *words, source=source).code == 0
    write_parquet(bars, file)
    finished = train(left, *words, "resume=true", source=source)
    assert (finished.code, finished.stderr) == (0, "")
    resumed, uninterrupted = (
        load_artifact(folder / "models", "BTCUSDT", Timeframe.H1) for folder in (left, whole)
    )
    assert resumed.manifest.bars == uninterrupted.manifest.bars
    weights, expected = (
        torch.load(artifact.folder / "cnn_lstm_best.pth", weights_only=True)
        for artifact in (resumed, uninterrupted)
    )
    torch.testing.assert_close(weights, expected, rtol=0, atol=0)
    stored = BarStore(left / "data" / "bars").read("BTCUSDT", Timeframe.H1)
    assert stored.open_time[-1] == bars.open_time[-1]


def test_markets_that_a_resumed_run_did_not_note_end_with_the_latest_noted(tmp_path):
    bars = make_bars(300, timeframe=Timeframe.H1)
    source = ("source=files", f"source.path={tmp_path}")
    write_parquet(bars, tmp_path / "BTCUSDT_1h.parquet")
    settings = typed(compose_config("train", train_arguments(tmp_path, source=source)), TrainConfig)
    early, late = bars.open_time[[99, 199]].tolist()
    assert len(load_until({"BTCUSDT": early, "ETHUSDT": late})(settings)) == 100
    assert len(load_until({"ETHUSDT": early, "SOLUSDT": late})(settings)) == 200
    assert len(load_until({})(settings)) == 300


@pytest.mark.parametrize("note", [None, 7, {"BTCUSDT": "x"}, {"BTCUSDT": 2**70}, {}])
def test_a_run_of_an_older_version_did_not_note_where_its_bars_end(tmp_path, note):
    (tmp_path / "settings.json").write_text(json.dumps({"bars": "x", "last_bars": note}))
    assert last_bars(tmp_path) == {}


def test_an_interrupted_run_goes_on_where_all_of_its_folders_were_moved(tmp_path):
    before, after = tmp_path / "before", tmp_path / "after"
    bars = write_parquet(
        make_bars(1200, timeframe=Timeframe.H1), before / "bars" / "BTCUSDT_1h.parquet"
    )
    words = ("epochs=3", "logger=csv")
    source = ("source=files", f"source.path={bars}")
    interrupt_after_an_epoch(before, *words, source=source)
    before.rename(after)
    source = ("source=files", f"source.path={after / bars.relative_to(before)}")
    finished = train(after, *words, "resume=true", source=source)
    assert finished.code == 0, finished.stderr
    assert "epoch 2/3" in finished.stdout
    assert "epoch 1/3" not in finished.stdout
    assert not before.exists()
    (last,) = run_folder(after).rglob("last.ckpt")
    assert str(before).encode() not in last.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("parts", [(), ("evaluation=walk_forward", "folds=2")], ids=["", "folds"])
def test_a_run_in_a_used_folder_is_never_taken_for_the_earlier_run(tmp_path, monkeypatch, parts):
    place = tmp_path / "mine"
    words = ("epochs=1", f"hydra.run.dir={place}", *parts)
    assert train(tmp_path, *words, "seed=5").code == 0
    of_the_user = [place / name for name in ("notes.txt", "checkpoints/kept.ckpt", "markets/a.csv")]
    for path in of_the_user:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    before = served(tmp_path)

    def interrupted(dataset, network, plan, folder, *arguments, **further):
        del dataset, network, plan, folder, arguments
        os.kill(os.getpid(), signal.SIGINT)
        further["interruption"].end_if_received()

    with monkeypatch.context() as patch:
        patch.setattr(per_market, "train", interrupted)
        stopped = train(tmp_path, *words, "seed=9")
    assert stopped.code == 130
    assert only_error(stopped).endswith("no finished epoch is kept; start again")
    refused = train(tmp_path, *words, "seed=9", "resume=true")
    assert refused.code == 1
    assert "no interrupted run with a finished epoch" in only_error(refused)
    assert served(tmp_path) == before
    assert not (place / "result.json").exists()
    assert all(path.read_text() == "mine" for path in of_the_user)


HOSTILE_SETTINGS = (
    "[]",
    "7",
    '{"bars": 1, "config": 7}',
    '{"bars": 1, "config": {"choices": [[]]}}',
    "[" * 100_000,
    "9" * 5000,
)


@pytest.mark.parametrize("content", [None, "{", '{"bars": "x"}', *HOSTILE_SETTINGS])
def test_a_run_that_lost_its_settings_is_not_resumed(trained, content):
    _, folder = trained
    before = served(folder)
    mark, kept = run_folder(folder) / "result.json", run_folder(folder) / "settings.json"
    result, settings = mark.read_bytes(), kept.read_bytes()
    mark.unlink()
    kept.unlink()
    if content is not None:
        kept.write_text(content)
    try:
        finished = train(folder, "resume=true", "epochs=9")
        assert finished.code == 1
        assert "settings.json cannot be read" in only_error(finished)
    finally:
        mark.write_bytes(result)
        kept.write_bytes(settings)
    assert served(folder) == before


def test_an_outputs_folder_that_is_a_file_is_one_line(tmp_path):
    (tmp_path / "outputs").write_text("in the way")
    finished = train(tmp_path)
    assert finished.code == 1
    assert "outputs" in only_error(finished)
    assert not (tmp_path / "models").exists()


def test_a_models_folder_that_is_a_file_fails_before_training(tmp_path):
    (tmp_path / "models").write_text("in the way")
    finished = train(tmp_path)
    assert finished.code == 1
    assert only_error(finished).startswith("error: BTCUSDT 1h: cannot write to ")
    assert "epoch" not in finished.stdout
    assert (tmp_path / "models").read_text() == "in the way"


def test_a_class_without_train_rows_fails_before_training(tmp_path):
    finished = train(tmp_path, "labels.threshold=0.9")
    assert finished.code == 1
    line = only_error(finished)
    assert line.startswith("error: BTCUSDT 1h: the train rows lack a class (SHORT 0, NO_TRADE ")
    assert "epoch" not in finished.stdout
    assert not (tmp_path / "models").exists()


def test_a_diverged_run_leaves_the_served_model_alone(trained, tmp_path, monkeypatch):
    _, folder = trained
    before = served(folder)

    class Spoilt(CnnLstm):
        def __init__(self, *args, **kwargs) -> None:
            super().__init__(*args, **kwargs)
            torch.nn.init.constant_(self.head[0].weight, torch.nan)

    monkeypatch.setattr(network, "CnnLstm", Spoilt)
    finished = train(folder, f"outputs_dir={tmp_path}")
    assert finished.code == 1
    assert only_error(finished) == (
        "error: BTCUSDT 1h: the train loss became nan in epoch 1; "
        "nothing was saved; try a smaller learning rate than lr=0.001"
    )
    assert served(folder) == before


def test_too_few_bars_fail_in_one_line(tmp_path):
    finished = train(tmp_path, "source.n_bars=60")
    assert finished.code == 1
    assert only_error(finished).startswith("error: BTCUSDT 1h: ")
    assert not (tmp_path / "models").exists()


def test_bars_with_a_negative_price_fail_in_one_line(tmp_path):
    bars = make_bars(900, timeframe=Timeframe.H1)
    frame = bars.frame.copy()
    frame.iloc[500] = -1.0
    write_parquet(replace(bars, frame=frame), tmp_path / "bars" / "BTCUSDT" / "1h.parquet")
    finished = train(tmp_path, source=("source=files", f"source.path={tmp_path / 'bars'}"))
    assert finished.code == 1
    assert only_error(finished).startswith("error: BTCUSDT 1h: ")
    assert "open not above zero in 1 bar (2024-01-21 20:00)" in only_error(finished)
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    "logger",
    [
        {"_target_": "pandas.read_pickle", "filepath_or_buffer": "models/planted"},
        {"_target_": "lightning.pytorch.loggers.os.system", "command": "true"},
        {"_target_": "lightning.pytorch.loggers.CSVLogger.os.FileLogger"},
        {"name": "no target"},
        {"_target_": "lightning.pytorch.loggers.CSVLogger", "name": {"_target_": "os.getcwd"}},
        {"_target_": "lightning.pytorch.loggers.CSVLogger", "n": [[{"_target_": "os.getcwd"}]]},
        {"csv": {"_target_": "lightning.pytorch.loggers.CSVLogger"}, "b": {"_target_": "os.abort"}},
    ],
)
def test_nothing_but_a_logger_is_made_of_what_a_config_names(tmp_path, monkeypatch, logger):
    settings = typed(compose_config("train", ["symbol=BTCUSDT"]), TrainConfig)
    monkeypatch.setattr(loggers, "instantiate", lambda *_, **__: pytest.fail("it was called"))
    with pytest.raises(ConfigError, match=r"logger.*_target_"):
        loggers.make_loggers(replace(settings, logger=logger), tmp_path)


@pytest.mark.parametrize("name", ["csv", "tensorboard"])
def test_the_loggers_of_the_options_are_made(tmp_path, name):
    settings = typed(compose_config("train", ["symbol=BTCUSDT", f"logger={name}"]), TrainConfig)
    [logger] = loggers.make_loggers(settings, tmp_path)
    assert type(logger).__name__.lower() == f"{name}logger"
    assert loggers.make_loggers(replace(settings, logger=settings.logger[name]), tmp_path)
