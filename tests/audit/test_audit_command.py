import json
import sys
from pathlib import Path

import pandas as pd
import pytest
import warm_processes
from bars.archive_server import serving, without_proxies
from builders import make_bars, write_parquet
from cheats import LEAKS, leak
from exported_models import bars_to_learn_from, export, make_dataset, random_network

from percoin.audit import run
from percoin.audit.__main__ import EXIT_FOUND, main
from percoin.audit.findings import FindingStatus
from percoin.audit.run import audit_dataset
from percoin.bars.store import BarStore
from percoin.cli import EXIT_USAGE, compose_config
from percoin.config import AuditConfig, TrainConfig, typed
from percoin.inference import Predictor
from percoin.types import Timeframe

ROOT = Path(__file__).parents[2]
CONSTANT = {"accuracy": 0.9778, "precision": 0.9560, "recall": 0.9778, "f1": 0.9668}


@pytest.fixture
def call(monkeypatch, tmp_path):
    """Runs the command in a folder of its own, as a shell would."""
    monkeypatch.chdir(tmp_path)

    def run_main(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["percoin.audit", *arguments])
        return main(arguments)

    return run_main


@pytest.fixture
def old_metrics(tmp_path):
    path = tmp_path / "old.json"
    path.write_text(json.dumps({"test_metrics": CONSTANT, "dataset_info": {"test_samples": 90}}))
    return path


SIMULATED = ("symbol=BTCUSDT", "tf=15m", "source=simulated", "source.n_bars=1500", "lookback=8")


def test_an_honest_market_passes_and_nothing_is_written(call, tmp_path, capsys):
    assert call(*SIMULATED, "cuts=3") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 12
    assert all(line.startswith("ok ") for line in lines[:-1])
    assert lines[-1] == "11 ok"
    assert list(tmp_path.iterdir()) == []


def test_the_old_scores_are_a_constant_and_the_exit_code_says_so(call, old_metrics, capsys):
    assert call(f"metrics={old_metrics}") == EXIT_FOUND
    out = capsys.readouterr().out
    assert out.startswith("CONSTANT ")
    assert "97.78% of the rows have one label; 88 of 90 rows" in out


def test_a_leaky_feature_function_turns_the_command_red(call, monkeypatch, capsys):
    monkeypatch.setattr("percoin.dataset.compute_features", leaky := leak(*LEAKS["centred mean"]))
    monkeypatch.setattr(
        run, "audit_dataset", lambda dataset, n, seed: audit_dataset(dataset, n, seed, leaky)
    )
    assert call(*SIMULATED, "cuts=3") == EXIT_FOUND
    assert "LEAK         features look back only" in capsys.readouterr().out


def test_json_says_the_same_in_one_object(call, old_metrics, capsys):
    assert call(*SIMULATED, "cuts=3", f"metrics={old_metrics}", "output=json") == EXIT_FOUND
    content = json.loads(capsys.readouterr().out)
    assert content["symbol"] == "BTCUSDT"
    assert content["tf"] == "15m"
    assert content["is_bad"] is True
    assert content["findings"][0]["status"] == FindingStatus.CONSTANT
    assert [finding["status"] for finding in content["findings"][1:]] == ["ok"] * 11


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "there is nothing to check; give symbol=BTCUSDT or metrics=FILE"),
        (("symbol=BTC-USDT",), "did you mean symbol=BTCUSDT"),
        (("symbol=BTCUSDT", "cuts=0"), "cuts=0 must be at least 1"),
        (("symbol=BTCUSDT", "output=xml"), "output=xml must be one of text, json"),
        (("metrics=none.json",), "metrics=none.json cannot be read"),
        (("symbol=BTCUSDT", "cut=3"), "cuts"),
        (("replay=true",), "replay=true needs a market; give symbol=BTCUSDT"),
        (("metrics=old.json", "replay=true"), "replay=true needs a market"),
        (("symbol=BTCUSDT", "predictor=jax"), "predictor=jax must be one of torch, onnx"),
        (("symbol=BTCUSDT", "replay_bars=0"), "replay_bars=0 must be at least 1, or null"),
    ],
)
def test_a_mistake_is_one_line_and_a_usage_error(call, capsys, arguments, message):
    assert call(*arguments) == EXIT_USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert len(err.splitlines()) == 1


def test_without_bars_the_error_is_theirs(call, capsys):
    assert call("symbol=BTCUSDT", "tf=15m") == 1
    assert "BTCUSDT 15m" in capsys.readouterr().err


def test_stored_bars_are_the_default(call, tmp_path, capsys):
    BarStore(tmp_path / "data" / "bars").write(make_bars(1500))
    assert call("symbol=BTCUSDT", "tf=15m", "lookback=8", "cuts=3") == 0


def test_it_runs_as_a_module(tmp_path):
    write_parquet(make_bars(1500), tmp_path / "BTCUSDT" / "15m.parquet")
    market = ("symbol=BTCUSDT", "tf=15m", "lookback=8", "source=files", f"source.path={tmp_path}")
    result = warm_processes.run(["-m", "percoin.audit", *market, "cuts=3", "output=json"], tmp_path)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["is_bad"] is False


def test_the_settings_are_those_of_a_training():
    # The audit must look at the dataset that train.py would make.
    audit = typed(compose_config("audit", ["symbol=BTCUSDT"]), AuditConfig)
    train = typed(compose_config("train", ["symbol=BTCUSDT"]), TrainConfig)
    for name in ("tf", "features", "labels", "lookback", "history_days", "split"):
        assert getattr(audit, name) == getattr(train, name), name


def test_an_exchange_is_asked_for_as_much_as_a_training_would_load(tmp_path, monkeypatch):
    without_proxies(monkeypatch)
    now = pd.Timestamp("2024-03-10 10:07", tz="UTC")
    start = pd.Timestamp("2023-12-01", tz="UTC")
    with serving() as server:
        server.add(make_bars(24 * 101, timeframe=Timeframe.H1, start=start), now)
        urls = (f"source.archive_url={server.url}", f"source.api_url={server.url}")
        chosen = ("symbol=BTCUSDT", "tf=1h", "source=binance", "history_days=20", *urls)
        settings = typed(compose_config("audit", [*chosen, f"data_dir={tmp_path}"]), AuditConfig)
        bars = run.load_bars(settings, "BTCUSDT")

    # 480 hours of rows, before the first of them a window of 60 and what indicators remember.
    assert len(bars) >= 480 + 960
    assert bars.close_time() == now.floor("h")


@pytest.fixture
def market(tmp_path):
    """Stored bars and a served model of them."""
    bars = bars_to_learn_from(1200)
    BarStore(tmp_path / "data" / "bars").write(bars)
    export(tmp_path / "models", random_network(), make_dataset(bars))


REPLAY = ("symbol=BTCUSDT", "tf=15m", "replay=true", "replay_bars=20")


@pytest.mark.usefixtures("market")
def test_a_replay_that_differs_nowhere_passes(call, capsys):
    assert call(*REPLAY) == 0
    out, err = capsys.readouterr()
    answers, silences, scaler, total = out.splitlines()
    assert answers.startswith("ok           live says what the batch says")
    assert "20 of 20 bars from 2024-01-13 07:15 to 2024-01-13 12:00 UTC compared" in answers
    assert silences.endswith("through 0 gaps and 0 bars without volume")
    assert scaler.startswith("cannot tell  model: dataset can be rebuilt")
    assert total == "2 ok, 1 cannot tell"
    assert err == ""


@pytest.mark.usefixtures("market")
def test_a_replay_that_differs_turns_the_command_red(call, monkeypatch, capsys):
    honest = Predictor.predict
    monkeypatch.setattr(
        Predictor, "predict", lambda self, bars: honest(self, bars.slice(0, len(bars) - 1))
    )
    assert call(*REPLAY, "output=json") == EXIT_FOUND
    content = json.loads(capsys.readouterr().out)
    assert content["is_bad"] is True
    assert content["findings"][0]["status"] == FindingStatus.DIFFERS
    replayed = content["replay"]
    assert (replayed["n_bars"], replayed["n_compared"], replayed["n_differing"]) == (20, 20, 20)
    assert replayed["largest_difference"] > replayed["tolerance"] == 1e-5
    assert replayed["first_differing"]["ts"] == replayed["first"] == "2024-01-13T07:15:00+00:00"
    sides = [replayed["first_differing"][side]["probabilities"] for side in ("live", "batch")]
    assert [sum(shares.values()) for shares in sides] == pytest.approx([1, 1])


def test_a_replay_without_a_model_says_how_to_make_one(call, tmp_path, capsys):
    BarStore(tmp_path / "data" / "bars").write(make_bars(1200))
    assert call(*REPLAY) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: BTCUSDT 15m: no model exported")


@pytest.mark.usefixtures("market")
def test_a_replay_by_onnx_takes_a_model_that_was_exported_for_it(call, capsys):
    assert call(*REPLAY, "predictor=onnx") == 1
    assert "train with export.onnx=true" in capsys.readouterr().err


@pytest.mark.usefixtures("market")
@pytest.mark.parametrize(
    ("words", "n_bars", "first", "last"),
    [
        (("end=2024-01-12",), 20, "2024-01-11T19:15:00+00:00", "2024-01-12T00:00:00+00:00"),
        (
            ("start=2024-01-11", "end=2024-01-12", "replay_bars=null"),
            96,
            "2024-01-11T00:15:00+00:00",
            "2024-01-12T00:00:00+00:00",
        ),
        (("start=2024-01-13 10:00",), 8, "2024-01-13T10:15:00+00:00", "2024-01-13T12:00:00+00:00"),
    ],
)
def test_dates_choose_the_bars_of_a_replay(call, capsys, words, n_bars, first, last):
    assert call(*REPLAY, "output=json", *words) == 0
    content = json.loads(capsys.readouterr().out)
    replayed = content["replay"]
    assert (replayed["n_bars"], replayed["n_compared"]) == (n_bars, n_bars)
    assert (replayed["first"], replayed["last"]) == (first, last)


@pytest.mark.usefixtures("market")
def test_dates_without_a_bar_to_replay_are_an_error(call, capsys):
    assert call(*REPLAY, "end=2023-06-01") == 1
    assert "no bars before 2023-06-01" in capsys.readouterr().err


def test_null_replays_every_bar(call, tmp_path, capsys):
    bars = bars_to_learn_from(300)
    BarStore(tmp_path / "data" / "bars").write(bars)
    export(tmp_path / "models", random_network(), make_dataset(bars))
    assert call(*REPLAY[:3], "replay_bars=null", "output=json") == 0
    replayed = json.loads(capsys.readouterr().out)["replay"]
    assert (replayed["n_bars"], replayed["n_compared"]) == (300, 300 - 108)
    [silence] = replayed["silences"]
    assert (silence["answered_by"], silence["n_bars"], silence["differs"]) == ("nobody", 108, False)
