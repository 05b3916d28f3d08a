"""Real servers: started, asked, starved of bars, given other models, and stopped."""

import http.client
import json
import os
import signal
import socket
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import warm_processes
from builders import write_parquet
from exported_models import bars_to_learn_from, export, make_dataset, random_network
from small_servers import RunningServer

from percoin.bars.panel import with_panel
from percoin.types import Signal

KEY = "a-secret-of-the-tests"
BARS = bars_to_learn_from(1300)
FILES = ("source=files", "source.path=klines", "chain=[ml,hold]", "check_secs=0.1")
QUICK = ("refresh.retry_secs=0.1", "refresh.max_retry_secs=0.3")


@pytest.fixture
def folder(tmp_path) -> Path:
    """Bars of two markets, and a model of one that always says LONG."""
    for symbol in ("BTCUSDT", "ETHUSDT"):
        write_parquet(BARS.slice(0, 1250), tmp_path / "klines" / symbol / "15m.parquet")
    export(tmp_path / "models", random_network(Signal.LONG), make_dataset(BARS))
    return tmp_path


def running(folder: Path, *arguments: str, **environment: str) -> RunningServer:
    markets = ("symbol=BTCUSDT,ETHUSDT", "tf=15m")
    return RunningServer(folder, *FILES, *markets, *arguments, **environment)


def refused(folder: Path, *arguments: str, **environment: str) -> str:
    """The one line that a server says that does not start."""
    result = warm_processes.run(
        ["-m", "percoin.serve", *FILES, "tf=15m", *arguments],
        folder,
        {**os.environ, "PERCOIN_API_KEY": "", **environment},
    )
    assert result.returncode in {1, 2}
    assert result.stdout == ""
    [line] = result.stderr.splitlines()
    return line


def test_a_server_follows_its_bars_and_its_models_until_it_is_stopped(folder):
    with running(folder, *QUICK) as server:
        server.wait_until_started()
        answer = server.get("/api/predictions/BTCUSDT").json()
        assert (answer["pred"], answer["stale"]) == ("LONG", True)
        assert answer["ts"] == BARS.close_time(1249).isoformat()
        assert server.get("/api/predictions/ETHUSDT").json()["source"] == "FALLBACK_NEUTRAL"
        assert server.get("/health").json()["status"] == "degraded"

        # A newer bar.
        write_parquet(BARS.slice(0, 1260), folder / "klines" / "BTCUSDT" / "15m.parquet")
        newer = BARS.close_time(1259).isoformat()
        server.wait_for(lambda: server.get("/api/predictions/BTCUSDT").json()["ts"] == newer)

        # Another model.
        export(folder / "models", random_network(Signal.SHORT), make_dataset(BARS))
        server.wait_for(lambda: server.get("/api/predictions/BTCUSDT").json()["pred"] == "SHORT")

        # No bars at all any more: the answer stays, and it is told.
        (folder / "klines" / "BTCUSDT" / "15m.parquet").write_bytes(b"broken")
        problem = server.wait_for(
            lambda: [
                entry["problem"]
                for entry in server.get("/health").json()["failing"]
                if "no bar has come" not in entry["problem"]
            ]
        )
        assert problem[0].startswith("BTCUSDT 15m: ")
        assert str(folder) not in problem[0]
        assert server.get("/api/predictions/BTCUSDT").json()["ts"] == newer
        assert server.stop(signal.SIGTERM) == 0
        assert "Traceback" not in server.log()


def test_markets_that_a_model_compares_with_are_loaded_and_not_served(folder):
    compared = with_panel(BARS, [replace(BARS, symbol="ETHUSDT")])
    dataset = make_dataset(compared, extra=("market",), references=("BTCUSDT", "ETHUSDT"))
    network = random_network(Signal.SHORT, n_features=len(dataset.feature_names))
    with RunningServer(folder, *FILES, "symbol=BTCUSDT", "tf=15m", *QUICK) as server:
        server.wait_until_started()
        assert server.get("/api/predictions/BTCUSDT").json()["pred"] == "LONG"
        export(folder / "models", network, dataset)
        server.wait_for(lambda: server.get("/api/predictions/BTCUSDT").json()["pred"] == "SHORT")
        assert server.get("/api/predictions/BTCUSDT").json()["source"] == "ML_PER_COIN_V1"
        assert server.get("/api/predictions/ETHUSDT").status == 404
        assert server.get("/health").json()["markets"]["configured"] == 1
        assert server.stop(signal.SIGTERM) == 0


def test_the_answer_is_the_commands_but_for_the_folders(folder):
    with running(folder) as server:
        server.wait_until_started()
        answer = server.get("/api/predictions/BTCUSDT").json()
    told = warm_processes.run(
        [
            str(Path(__file__).parents[2] / "predict.py"),
            *("symbol=BTCUSDT", "output=json", "chain=[ml,hold]", *FILES[:2]),
        ],
        folder,
        timeout=120,
    )
    assert told.returncode == 0, told.stderr
    expected = json.loads(told.stdout)
    assert expected.pop("bars") == "files: klines/BTCUSDT/15m.parquet"
    assert answer.pop("bars") == "files: 15m.parquet"
    assert expected.pop("age_secs") == pytest.approx(answer.pop("age_secs"), abs=60)
    assert answer.pop("probabilities") == pytest.approx(expected.pop("probabilities"), abs=1e-6)
    assert answer.pop("confidence") == pytest.approx(expected.pop("confidence"), abs=1e-6)
    assert answer == expected


def test_no_response_is_cut_off_when_it_is_stopped_in_the_middle(folder):
    with running(folder, "limits.requests_per_sec=100000") as server:
        server.wait_until_started()
        whole, broken, has_begun = [0], [], threading.Barrier(5)

        def keep_asking() -> None:
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
            has_begun.wait(20)
            while True:
                try:
                    connection.request("GET", "/api/predictions")
                    response = connection.getresponse()
                except (ConnectionError, http.client.RemoteDisconnected):
                    return  # between two responses
                try:
                    assert response.status == 200
                    assert len(json.loads(response.read())["predictions"]) == 2
                    whole[0] += 1
                except (AssertionError, OSError, ValueError, http.client.HTTPException) as error:
                    broken.append(error)
                    return

        clients = [threading.Thread(target=keep_asking) for _ in range(4)]
        for client in clients:
            client.start()
        has_begun.wait(20)
        server.wait_for(lambda: whole[0] > 100)
        assert server.stop(signal.SIGTERM) == 0
        for client in clients:
            client.join(20)
        assert broken == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_half_sent_request_does_not_keep_it_from_stopping(folder, number):
    with running(folder) as server:
        server.wait_until_started()
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(b"GET /api/predictions HTTP/1.1\r\nHost: loc")
            began = time.monotonic()
            assert server.stop(number) == 0
            assert time.monotonic() - began < 8
            assert client.recv(100) == b""


def test_it_stops_while_it_still_starts(folder):
    with running(folder) as server:
        assert server.stop(signal.SIGTERM) in {0, 128 + signal.SIGTERM}
        assert "Traceback" not in server.log()


@pytest.mark.slow
def test_a_client_that_never_finishes_its_request_is_let_go(folder):
    with running(folder) as server:
        server.wait_until_started()
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.settimeout(20)
            client.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert client.recv(10_000).startswith(b"HTTP/1.1 ")
            client.sendall(b"GET /he")
            began = time.monotonic()
            assert client.recv(100) == b""
            assert 3 < time.monotonic() - began < 15
        assert server.get("/health").status == 200


def test_what_is_no_http_gets_no_traceback(folder):
    with running(folder) as server:
        for sent in (
            b"\x16\x03\x01\x02\x00\x01\xfc",
            b"GET\r\n\r\n",
            b"GET /%ff%00 HTTP/1.1\r\n\r\n",
        ):
            with socket.create_connection(("127.0.0.1", server.port)) as client:
                client.settimeout(20)
                client.sendall(sent)
                assert client.recv(10_000).startswith(b"HTTP/1.1 400 ")
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.settimeout(20)
            client.sendall(b"GET / HTTP/1.1\r\nX: " + b"x" * 100_000)
            assert client.recv(10_000)[:12] in {b"HTTP/1.1 400", b""}
        assert "Traceback" not in server.log()


def test_opened_to_others_it_demands_the_key(folder):
    with running(folder, "host=0.0.0.0", PERCOIN_API_KEY=KEY) as server:
        assert server.url.startswith("http://0.0.0.0:")
        assert server.get("/health").status in {200, 503}
        for headers in ({}, {"X-API-Key": "wrong"}):
            assert server.get("/api/predictions", headers).status == 401
        assert server.get("/api/predictions", {"X-API-Key": KEY}).status == 200
        assert server.get("/api/predictions", {"Authorization": f"Bearer {KEY}"}).status == 200
        assert KEY not in server.log()


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_without_a_key_it_does_not_open_to_others(folder, host):
    line = refused(folder, f"host='{host}'", "port=0")
    assert line.startswith(
        f"error: host={host} can be reached from other machines: set PERCOIN_API"
    )


@pytest.mark.parametrize("key", ["short", "with spaces in it, long enough", "ä" * 20])
def test_a_key_that_protects_nothing_is_refused(folder, key):
    line = refused(folder, "host=0.0.0.0", PERCOIN_API_KEY=key)
    assert line.startswith("error: PERCOIN_API_KEY must be 16 characters or more")
    assert key not in line


def test_a_port_in_use_is_one_line(folder):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = refused(folder, f"port={port}")
    assert line.startswith(f"error: host=127.0.0.1 port={port}: Address already in use; give anoth")


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("host=no.such.host.invalid", "is no name or address; try host=127.0.0.1"),
        ("host=192.0.2.1", "can be reached from other machines"),
        ("port=70000", "port=70000 must be at most 65535"),
        ("symbol=BTC-USDT", "did you mean symbol=BTCUSDT?"),
        ("tf=2h", "tf=2h is not a timeframe"),
        ("prot=1", "did you mean port?"),
        ("chain=[ml]", "must end with hold"),
        ("limits.requests_per_sec=0", "must be above 0"),
        ("symbols_file=nowhere", "cannot be read"),
    ],
)
def test_a_setting_that_cannot_be_meant_is_one_line(folder, argument, words):
    assert words in refused(folder, argument)


def test_simulated_bars_play_live(tmp_path):
    arguments = ("source=simulated", "source.n_bars=1200", "symbol=BTCUSDT", "tf=15m")
    with RunningServer(tmp_path, *arguments) as server:
        server.wait_until_started()
        answer = server.get("/api/predictions/BTCUSDT").json()
        assert 0 <= answer["age_secs"] < 960
        assert answer["stale"] is False
        assert answer["bars"].startswith("simulated: seed=0")
        assert server.get("/health").json()["status"] == "ok"
