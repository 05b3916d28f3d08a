"""Wrong settings are refused before the libraries that take seconds are imported."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from percoin.bars.sources.simulated import SimulatedSource
from percoin.bars.store import BarStore
from percoin.cli import compose_config
from percoin.config import TrainConfig, typed
from percoin.errors import BarsNotFoundError, ConfigError, FetchError
from percoin.sweep.launcher import launch
from percoin.training.early import check_device, check_network, may_have_gpu
from percoin.types import Timeframe

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "lightning", "sklearn", "scipy.stats", "ccxt", "requests", "pandera", "optuna")
# Runs each command line in one process; prints what was said and which libraries were loaded.
SEVERAL_COMMANDS = f"""
import contextlib, io, json, runpy, sys
found = []
for words in json.loads(sys.argv[1]):
    sys.argv = ["train.py", *words]
    with contextlib.redirect_stderr(io.StringIO()) as errors:
        try:
            runpy.run_path("train.py", run_name="__main__")
        except SystemExit as ending:
            code = ending.code
    found.append((code, errors.getvalue(), [n for n in {HEAVY} if n in sys.modules]))
print(json.dumps(found))
"""


def closed_port() -> str:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


def settings(folder: Path, *words: str) -> TrainConfig:
    told = ["symbol=BTCUSDT", "tf=1h", f"data_dir={folder}", *words]
    return typed(compose_config("train", told), TrainConfig)


def ask(made: TrainConfig) -> None:
    check_network(made, [("BTCUSDT", Timeframe.H1)], "BTCUSDT", "1h")


@pytest.fixture
def nowhere(monkeypatch) -> tuple[str, str]:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return f"source.api_url={closed_port()}", f"source.archive_url={closed_port()}"


def test_mistakes_end_in_one_line_before_any_large_library_is_loaded(tmp_path, nowhere):
    folders = [f"{kind}_dir={tmp_path / kind}" for kind in ("data", "models", "outputs")]
    markets = "symbol=BTCUSDT,ETHUSDT,SOLUSDT"
    files = tmp_path / "bars"
    files.mkdir()
    (files / "BTCUSDT-15m.csv").touch()
    expected = {
        ("symbol=BTCUSDT", "source=simulated", "trainer=gpu"): (2, "trainer=gpu needs a GPU"),
        ("symbol=BTCUSDT", "source.exchange=krakn"): (2, "ccxt knows; did you mean kraken?"),
        ("symbol=BTCUSDT", "tf=1h", *nowhere): (1, "BTCUSDT 1h: 127.0.0.1 cannot be reached"),
        ("-m", markets, *nowhere): (1, "all 3 jobs of the sweep: 127.0.0.1 cannot be reached"),
        ("symbol=DOGEUSDT", "source=sample", "tf=1h"): (1, "DOGEUSDT 1h: the sample has only BTC"),
        ("-m", "symbol=DOGEUSDT,BNBUSDT", "source=sample", "tf=1h"): (1, "the sample has only"),
        ("symbol=ETHUSDT", "source=store"): (1, "ETHUSDT 15m: no bars are stored in"),
        ("symbol=ETHUSDT", "source=files", f"source.path={files}"): (1, "holds ETHUSDT, there is"),
        ("symbol=ETHUSDT", "source=files", f"source.path={files}.csv"): (1, "does not exist"),
        ("recipe=pooled", markets, "source=sample", "tf=1h"): (1, "1 of 3 markets have no bars"),
    }
    lines = json.dumps([[*words, *folders] for words in expected])
    done = subprocess.run(
        [sys.executable, "-c", SEVERAL_COMMANDS, lines],
        cwd=ROOT,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    for (code, words), (ended, text, heavy) in zip(
        expected.values(), json.loads(done.stdout.splitlines()[-1]), strict=True
    ):
        (line,) = text.splitlines()
        assert words in line
        assert (ended, heavy) == (code, [])
    assert not list(tmp_path.rglob("job.json"))


def test_a_sweep_over_several_sources_is_not_refused_for_the_first(tmp_path, monkeypatch):
    class HasBegun(Exception):  # noqa: N818 - no error
        pass

    def begin(plan):
        raise HasBegun

    monkeypatch.setattr("percoin.sweep.launcher._run", begin)
    words = ["symbol=DOGEUSDT", "tf=1h", f"outputs_dir={tmp_path}", f"data_dir={tmp_path}"]
    with pytest.raises(BarsNotFoundError, match="the sample has only"):
        launch([*words, "source=sample"])
    with pytest.raises(HasBegun):
        launch([*words, "source=sample,simulated"])


def test_a_gpu_shows_by_its_device_files(tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("percoin.training.early._can_load", lambda name: False)
    (tmp_path / "nvidiactl").touch()
    assert not may_have_gpu(tmp_path)
    (tmp_path / "nvidia0").touch()
    assert may_have_gpu(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert not may_have_gpu(tmp_path)


def test_what_has_no_network_to_train_needs_no_gpu(tmp_path, monkeypatch):
    monkeypatch.setattr("percoin.training.early.may_have_gpu", lambda: False)
    with pytest.raises(ConfigError, match="needs a GPU"):
        check_device(settings(tmp_path, "trainer=gpu"))
    check_device(settings(tmp_path))
    check_device(settings(tmp_path, "model=logistic"))


def test_stored_bars_a_proxy_or_one_server_are_reason_to_go_on(tmp_path, nowhere, monkeypatch):
    with pytest.raises(FetchError, match=r"cannot be reached .* check the connection"):
        ask(settings(tmp_path, *nowhere))
    with socket.create_server(("127.0.0.1", 0)) as server:
        archive = f"source.archive_url=http://127.0.0.1:{server.getsockname()[1]}"
        ask(settings(tmp_path, nowhere[0], archive))
    ask(settings(tmp_path, "source=store"))
    ask(settings(tmp_path, "resume=true", *nowhere))
    with monkeypatch.context() as patch:
        patch.setenv("https_proxy", "http://127.0.0.1:3128")
        ask(settings(tmp_path, *nowhere))
    BarStore(tmp_path / "bars").write(SimulatedSource(0, 300, 0.0).load("BTCUSDT", Timeframe.H1))
    ask(settings(tmp_path, *nowhere))


def test_a_server_that_is_only_slow_is_given_time(tmp_path, nowhere, monkeypatch):
    def silent(address, timeout):
        assert timeout == 3.0
        raise TimeoutError

    monkeypatch.setattr("percoin.training.early.socket.create_connection", silent)
    ask(settings(tmp_path, *nowhere))
