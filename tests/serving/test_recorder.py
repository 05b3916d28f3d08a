"""A server in this process, its record, and a clock of their own."""

import signal
import sqlite3
import subprocess
import sys
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import pytest
from exported_models import export, make_dataset, random_network
from small_servers import (
    M15,
    Market,
    RunningServer,
    ask,
    bring_up_to_date,
    exchange_bars,
    make_server,
)

from percoin.assembly import newest_bars
from percoin.bars.schema import Bars
from percoin.errors import RecordError
from percoin.features.drift import bin_features
from percoin.features.feature_set import FEATURE_NAMES
from percoin.labels import FixedHorizon
from percoin.monitoring.record import TrackRecord, sqlite_url
from percoin.registry.judged import TRAIN_ROWS, TrainRows
from percoin.serving import schemas
from percoin.types import CLASS_NAMES, Signal, Timeframe

BARS = exchange_bars()
RULES = {M15: FixedHorizon(3, 0.0025)}


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    export(folder, random_network(Signal.SHORT), make_dataset(BARS.slice(0, 1200)))
    return folder


@pytest.fixture
def market():
    return Market(BARS, n_closed=1200)


@pytest.fixture
def record(tmp_path):
    return TrackRecord(sqlite_url(tmp_path / "data" / "record.sqlite"))


def start(models_dir, market, record, **setup):
    return make_server(models_dir, market, record=record, default_rules=RULES, **setup)


def test_a_prediction_on_a_bar_before_the_last_that_its_model_knows_is_not_live(models_dir, record):
    """Such a machine boots a day behind: by its clock the outcome is still unknown."""
    behind = Market(BARS, n_closed=1199)
    server = start(models_dir, behind, record)
    for is_live in (False, True, True):
        bring_up_to_date(server)
        (newest,) = record.predictions(["BTCUSDT"])[-1:]
        assert (newest.source, newest.is_live) == ("ML_PER_COIN_V1", is_live)
        behind.pass_time(minutes=15)


def test_the_whole_loop_from_served_to_scored(models_dir, market, record):
    server = start(models_dir, market, record)
    for _ in range(40):
        bring_up_to_date(server)
        served = [server.board.answer(symbol, M15) for symbol in ("BTCUSDT", "ETHUSDT")]
        newest = [record.predictions([symbol])[-1] for symbol in ("BTCUSDT", "ETHUSDT")]
        # What is said has been written.
        assert [a["pred"] for a in served] == [CLASS_NAMES[k.signal] for k in newest]
        assert all(kept.is_live for kept in newest)
        market.pass_time(minutes=15)
    assert record.revision() == (80, 74)
    labels = dict(zip(BARS.open_time + 900_000, RULES[M15].label(BARS).label, strict=True))
    for kept in record.predictions(["ETHUSDT"]):
        assert kept.label is None or kept.label == labels[kept.ts]

    content = ask(server, "/api/scoreboard?tf=15m").json()
    schemas.ScoreboardSchema.model_validate(content)
    model, hold = content["standings"]
    assert (model["source"], model["n_written"], model["n_resolved"]) == ("ML_PER_COIN_V1", 40, 37)
    assert (hold["source"], hold["skill"], hold["n_resolved"]) == ("FALLBACK_NEUTRAL", None, 37)
    assert model["skill"]["lower"] < model["skill"]["value"] < model["skill"]["upper"]
    [hold_alone] = ask(server, "/api/scoreboard?symbols=ETHUSDT").json()["standings"]
    assert hold_alone == hold

    content = ask(server, "/api/history/BTCUSDT?tf=15m&limit=10").json()
    schemas.HistorySchema.model_validate(content)
    times = [entry["ts"] for entry in content["predictions"]]
    assert times == sorted(times)
    assert len(times) == 10
    assert times[-1] == served[0]["ts"]
    for entry in content["predictions"]:
        stands = datetime.fromisoformat(entry["valid_until"]) - datetime.fromisoformat(entry["ts"])
        assert (entry["horizon_bars"], stands) == (3, timedelta(minutes=45))
    assert [entry["label"] is None for entry in content["predictions"]] == [False] * 7 + [True] * 3
    lines = ask(server, "/metrics").text.splitlines()
    assert 'percoin_record_total{event="written"} 80.0' in lines
    assert 'percoin_record_total{event="resolved"} 74.0' in lines


def test_a_model_is_held_against_its_train_rows(tmp_path, record):
    """Its prior is theirs, and so are the bins that drift is measured from."""
    bars = exchange_bars(7000)
    dataset = make_dataset(bars.slice(0, 6400))
    rows = dataset.features[dataset.rows("train")]
    told = TrainRows((0.7, 0.2, 0.1), bin_features(FEATURE_NAMES, rows))
    export(tmp_path, random_network(), dataset, sections={TRAIN_ROWS: told})
    market = Market(bars, n_closed=6440)
    server = start(tmp_path, market, record)
    bring_up_to_date(server)
    own, other = (record.predictions([symbol])[-1] for symbol in ("BTCUSDT", "ETHUSDT"))
    assert own.baselines["prior"].probabilities == told.class_shares
    assert other.baselines["prior"].probabilities != told.class_shares

    content = ask(server, "/api/scoreboard").json()
    [drift] = schemas.ScoreboardSchema.model_validate(content).drift
    assert (drift.symbol, drift.n_bars, drift.shifts) == ("BTCUSDT", 40, {})
    assert drift.unknown == "40 bars since then, 500 are needed"
    market.pass_time(minutes=15 * 500)
    bring_up_to_date(server)
    [drift] = ask(server, "/api/scoreboard").json()["drift"]
    assert (drift["n_bars"], drift["unknown"]) == (540, "")
    assert list(drift["shifts"]) == list(FEATURE_NAMES)
    ratios = {name: shift["ratio"] for name, shift in drift["shifts"].items()}
    assert ratios[drift["worst"]] == max(ratios.values()) > 0


@dataclass
class Newest:
    """A source that gives no more than the newest bars of a market, as an exchange does."""

    market: Market
    n_bars: int

    def load(self, symbol: str, timeframe: Timeframe) -> Bars:
        bars = self.market.load(symbol, timeframe)
        return bars.slice(max(0, len(bars) - self.n_bars))


def test_a_server_holds_enough_bars_for_the_answers_and_the_drift_of_extra_columns(
    tmp_path, record
):
    bars = exchange_bars(7400)
    dataset = make_dataset(bars.slice(0, 6800), extra=("volatility", "clock"))
    rows, names = dataset.features[dataset.rows("train")], dataset.feature_names
    told = TrainRows((0.7, 0.2, 0.1), bin_features(names, rows))
    network = random_network(n_features=len(names))
    export(tmp_path, network, dataset, sections={TRAIN_ROWS: told})
    market = Market(bars, n_closed=7340)
    server = start(
        tmp_path, market, record, make_source=lambda n_bars: Newest(market, newest_bars(n_bars))
    )
    bring_up_to_date(server)

    said = ask(server, "/api/predictions/BTCUSDT?tf=15m").json()
    assert said["source"] == "ML_PER_COIN_V1"
    [model, _] = ask(server, "/api/models").json()["models"]
    assert (model["features"], model["extra_features"]) == ("relative", ["volatility", "clock"])
    [drift] = ask(server, "/api/scoreboard").json()["drift"]
    assert drift["unknown"] == ""
    assert list(drift["shifts"]) == list(names)


def test_a_model_that_does_not_tell_of_its_train_rows_is_said_to(models_dir, market, record):
    server = start(models_dir, market, record)
    bring_up_to_date(server)
    [drift] = ask(server, "/api/scoreboard?symbols=BTCUSDT").json()["drift"]
    assert drift["unknown"] == "the model does not say where its train rows were"


def test_a_restart_and_a_second_server_double_nothing(models_dir, market, record):
    url = str(record)
    for _ in range(3):
        bring_up_to_date(start(models_dir, market, record))
    bring_up_to_date(start(models_dir, market, TrackRecord(url)))
    assert record.revision() == (2, 0)


def test_answers_on_simulated_bars_are_never_shown_beside_real_ones(models_dir, market, record):
    origins = {"real": BARS.origin, "simulated": "simulated: seed=1 n_bars=9 edge=0.4 end=2026"}
    servers = {}
    for kind, origin in origins.items():
        market.bars = replace(BARS, origin=origin)
        servers[kind] = start(models_dir, market, record)
        bring_up_to_date(servers[kind])
    # One record holds all of them, also one that an older percoin filled.
    assert record.revision() == (4, 0)
    for kind, server in servers.items():
        shown = ask(server, "/api/scoreboard").json()["standings"]
        past = ask(server, "/api/history/BTCUSDT?limit=1").json()["predictions"]
        kinds = {entry["bars"] for entry in (*shown, *past)}
        assert len(shown) == 2
        assert len(past) == 1
        assert kinds == {origins[kind].partition(": BTC")[0]}


def test_bars_that_ended_long_ago_are_late(models_dir, market, record):
    market.pass_time(days=400)
    market.bars = BARS.slice(0, 1200)
    server = start(models_dir, market, record, max_age_bars=1e9)
    bring_up_to_date(server)
    assert [kept.is_live for kept in record.predictions()] == [False, False]
    assert [entry["n_late"] for entry in ask(server, "/api/scoreboard").json()["standings"]] == [
        1,
        1,
    ]


def test_a_database_that_fails_keeps_no_answer_back_and_is_made_up_for(
    models_dir, market, record, tmp_path, monkeypatch
):
    monkeypatch.setattr("percoin.serving.recorder._FIRST_PAUSE_SECS", 0.0)
    (tmp_path / "data").write_text("a file where the folder belongs")
    server = start(models_dir, market, record)
    bring_up_to_date(server)
    assert server.board.answer("BTCUSDT", M15)["pred"] == "SHORT"
    health = ask(server, "/health").json()
    assert (health["status"], health["record"]) == ("degraded", "failing")
    refused = ask(server, "/api/scoreboard")
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "record_unavailable")
    assert str(tmp_path) not in refused.text

    (tmp_path / "data").unlink()
    server.board.update()
    assert ask(server, "/health").json()["record"] == "ok"
    assert [kept.is_live for kept in record.predictions()] == [True, True]


def test_a_record_that_can_be_written_and_not_read_is_failing(
    models_dir, market, record, monkeypatch
):
    server = start(models_dir, market, record)
    bring_up_to_date(server)
    assert ask(server, "/health").json()["record"] == "ok"
    away = RecordError("the record", "it is away")
    monkeypatch.setattr(TrackRecord, "after", lambda *_: (_ for _ in ()).throw(away))
    board = server.recorder.scoreboard
    board.start(every_secs=60)
    try:
        assert ask(server, "/api/scoreboard").status_code == 503
        health = ask(server, "/health").json()
        assert (health["status"], health["record"]) == ("degraded", "failing")
    finally:
        board.stop()


def test_what_waits_past_its_outcome_is_late(models_dir, market, record, tmp_path, monkeypatch):
    monkeypatch.setattr("percoin.serving.recorder._FIRST_PAUSE_SECS", 0.0)
    (tmp_path / "data").write_text("")
    server = start(models_dir, market, record)
    bring_up_to_date(server)
    (tmp_path / "data").unlink()
    market.pass_time(minutes=45)
    server.board.update()
    assert [kept.is_live for kept in record.predictions()][:2] == [False, False]


def test_a_history_is_read_and_written_as_text_once_for_many_requests(
    models_dir, market, record, monkeypatch
):
    server = start(models_dir, market, record)
    read = []
    predictions = TrackRecord.predictions
    monkeypatch.setattr(
        TrackRecord, "predictions", lambda *a: read.append(a[1:]) or predictions(*a)
    )
    address = "/api/history/BTCUSDT?limit=1000"
    assert ask(server, address).json()["predictions"] == []
    for n_written in range(1, 7):
        bring_up_to_date(server)
        read.clear()
        shown = [ask(server, address).json()["predictions"] for _ in range(3)]
        assert [len(each) for each in shown] == [n_written] * 3
        assert shown[0] == shown[1] == shown[2]
        assert len(read) == 1
        assert [each["label"] for each in shown[0]].count(None) == min(n_written, 3)
        market.pass_time(minutes=15)
    assert len(ask(server, "/api/history/BTCUSDT?limit=2").json()["predictions"]) == 2
    assert record.market_revision("BTCUSDT", M15) == (6, 3)
    assert record.market_revision("BTCUSDT", Timeframe.H1) == (0, 0)


def test_switched_off_it_says_so(models_dir, market):
    server = make_server(models_dir, market)
    bring_up_to_date(server)
    assert ask(server, "/health").json()["record"] == "off"
    assert ask(server, "/api/scoreboard").json()["recording"] is False
    assert ask(server, "/api/history/BTCUSDT").json()["predictions"] == []


@pytest.mark.parametrize("limit", ["0", "1001", "ten", "-1", "1.5", "%C2%B2", ""])
def test_a_limit_that_cannot_be_meant_is_refused(models_dir, market, record, limit):
    answer = ask(start(models_dir, market, record), f"/api/history/BTCUSDT?limit={limit}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_limit")


def test_two_real_servers_on_one_record_and_kill_9_lose_and_double_nothing(tmp_path):
    arguments = ("source=simulated", "source.n_bars=1200", "symbol=BTCUSDT,ETHUSDT", "tf=15m")
    address = "/api/predictions"
    (tmp_path / "second").mkdir()
    data = f"data_dir={tmp_path / 'data'}"
    with (
        RunningServer(tmp_path, *arguments, data) as first,
        RunningServer(tmp_path / "second", *arguments, data) as second,
    ):
        for server in (first, second):
            server.wait_until_started()
        served = {
            (answer["symbol"], answer["ts"], answer["source"])
            for server in (first, second)
            for answer in server.get(address).json()["predictions"]
        }
        first.process.send_signal(signal.SIGKILL)
        first.process.wait(10)
        history = second.get("/api/history/BTCUSDT").json()["predictions"]
        assert all(entry["is_live"] for entry in history)
        assert second.get("/health").json()["record"] == "ok"
        assert second.stop() == 0
    with sqlite3.connect(tmp_path / "data" / "record.sqlite") as database:
        rows = database.execute(
            "SELECT symbol, strftime('%Y-%m-%dT%H:%M:%S+00:00', ts / 1000, 'unixepoch'), source "
            "FROM percoin_predictions"
        ).fetchall()
    database.close()
    assert served <= set(rows)
    assert len(rows) == len(set(rows))
    assert not list((tmp_path / "data").glob("*-wal"))


def test_a_newer_record_is_refused_in_one_line(tmp_path, record):

    record.open()
    record.close()
    with sqlite3.connect(tmp_path / "data" / "record.sqlite") as database:
        database.execute("UPDATE percoin_record SET version = 7")
    database.close()
    ended = subprocess.run(
        [sys.executable, "-m", "percoin.serve", "source=simulated", "port=0"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 2
    assert "version 7, newer than 1: upgrade percoin" in ended.stderr
    assert "Traceback" not in ended.stderr
