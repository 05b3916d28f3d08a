"""Real servers that are killed, and a real receiver: each alert comes once."""

import signal
from pathlib import Path

import pytest
from alert_receiver import receiving
from builders import write_parquet
from exported_models import bars_to_learn_from, export, make_dataset, random_network
from small_servers import M15, RunningServer

from percoin.registry.layout import MarketFolder
from percoin.registry.publish import served_id
from percoin.registry.revision import demote
from percoin.types import Signal

SECRET = "token-nobody-may-see"
BARS = bars_to_learn_from(1300)
STALE, CHANGED, DEMOTED = "bars_stale", "signal_changed", "model_demoted"


@pytest.fixture
def folder(tmp_path) -> Path:
    write_parquet(BARS.slice(0, 1250), tmp_path / "klines" / "BTCUSDT" / "15m.parquet")
    export(tmp_path / "models", random_network(Signal.LONG), make_dataset(BARS))
    return tmp_path


def running(folder: Path, receiver, *arguments: str) -> RunningServer:
    return RunningServer(
        folder,
        *("source=files", "source.path=klines", "chain=[ml,hold]", "symbol=BTCUSDT", "tf=15m"),
        *("check_secs=0.1", "alerts.retry_secs=0.1", "alerts.max_retry_secs=0.2", *arguments),
        PERCOIN_ALERT_WEBHOOK=f"{receiver.url}/hook/{SECRET}",
        PERCOIN_ALERT_MESSAGES=f"{receiver.url.replace('http', 'json')}/{SECRET}",
        NO_PROXY="127.0.0.1",
    )


def says(server: RunningServer, pred: str) -> bool:
    return server.get("/api/predictions/BTCUSDT").json()["pred"] == pred


def counted(server: RunningServer, event: str) -> int:
    lines = server.get("/metrics").body.decode().splitlines()
    found = next(line for line in lines if line.startswith(f'percoin_alerts_total{{event="{event}'))
    return int(float(found.rpartition(" ")[2]))


def test_each_alert_comes_once_whatever_is_killed(folder):
    pytest.importorskip("apprise")
    with receiving() as receiver:
        with running(folder, receiver) as server:
            # These bars ended long ago.
            server.wait_for(lambda: receiver.alerts and receiver.messages)

            # The receiver refuses; answers go on.
            receiver.status = 503
            export(folder / "models", random_network(Signal.SHORT), make_dataset(BARS))
            server.wait_for(lambda: says(server, "SHORT"))
            server.wait_for(lambda: counted(server, "failed") >= 2)
            server.stop(signal.SIGKILL)
        assert receiver.kinds == [STALE]

        # While nobody looks, the model is demoted.
        served = served_id(MarketFolder(folder / "models", "BTCUSDT", M15))
        demote(folder / "models", "BTCUSDT", M15, served, "its live skill is gone")
        receiver.status = 0
        with running(folder, receiver, "alerts.timeout_secs=0.3") as server:
            # The receiver hangs; answers go on.
            server.wait_for(lambda: says(server, "NO_TRADE"))
            server.wait_for(lambda: counted(server, "raised") == 2)
            receiver.status = 200
            server.wait_for(lambda: counted(server, "sent") == 2 * 3)
            server.stop(signal.SIGKILL)

        with running(folder, receiver) as server:
            server.wait_for(lambda: says(server, "NO_TRADE"))
            export(folder / "models", random_network(Signal.LONG), make_dataset(BARS))
            server.wait_for(lambda: says(server, "LONG"))
            server.wait_for(lambda: len(receiver.alerts) == 5)
            shown = [server.get(path).body.decode() for path in ("/metrics", "/health")]
            shown += [server.get(f"/api/{name}").body.decode() for name in ("models", "scoreboard")]
            assert server.stop() == 0
            shown += [server.log(), (folder / "data" / "alerts.json").read_text()]

    # Which of two changes of one moment is seen first is not said.
    assert receiver.kinds[:2] == [STALE, CHANGED]
    assert sorted(receiver.kinds[2:4]) == [DEMOTED, CHANGED]
    assert receiver.kinds[4:] == [CHANGED]
    assert len({alert["id"] for alert in receiver.alerts}) == 5
    texts = [line for one in receiver.messages for line in one["message"].splitlines()]
    assert sorted(texts) == sorted(alert["text"] for alert in receiver.alerts)
    assert SECRET not in "".join(shown)


def test_of_two_servers_on_one_folder_one_tells(folder):
    with receiving() as receiver, running(folder, receiver) as first:
        first.wait_for(lambda: receiver.alerts)
        with running(folder, receiver, "record=false") as second:
            second.wait_until_started()
            second.wait_for(lambda: "ALERTS failed" in second.log())
            export(folder / "models", random_network(Signal.SHORT), make_dataset(BARS))
            second.wait_for(lambda: says(second, "SHORT"))
            first.wait_for(lambda: len(receiver.alerts) == 2)
            assert counted(second, "raised") == 0
    assert receiver.kinds == [STALE, CHANGED]
