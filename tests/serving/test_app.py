from datetime import datetime
from typing import get_args

import pytest
from exported_models import export, make_dataset, random_network
from hypothesis import given, settings
from hypothesis import strategies as st
from small_servers import M15, Market, ask, bring_up_to_date, exchange_bars, make_server

from percoin.errors import FetchError
from percoin.serving import schemas
from percoin.serving.guard import Limits
from percoin.serving.offer import Offer
from percoin.types import CLASS_NAMES, Signal, Timeframe

BARS = exchange_bars()


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    export(folder, random_network(Signal.SHORT), make_dataset(BARS))
    return folder


@pytest.fixture
def market() -> Market:
    return Market(BARS, n_closed=1290)


@pytest.fixture
def server(models_dir, market):
    offer = Offer(("BTCUSDT", "ETHUSDT"), (M15, Timeframe.H1), M15)
    server = make_server(models_dir, market, offer=offer)
    bring_up_to_date(server)
    return server


def get(server, path: str):
    response = ask(server, path)
    assert response.status_code == 200, response.text
    return response.json()


def refusal(server, path: str) -> tuple[int, str, str]:
    response = ask(server, path)
    error = schemas.ProblemSchema.model_validate_json(response.content).error
    return response.status_code, error.code, error.message


def test_all_markets_are_answered_for_in_their_order(server):
    content = get(server, "/api/predictions")
    schemas.PredictionsSchema.model_validate(content)
    assert content["tf"] == "15m"
    assert [answer["symbol"] for answer in content["predictions"]] == ["BTCUSDT", "ETHUSDT"]
    assert [answer["source"] for answer in content["predictions"]] == [
        "ML_PER_COIN_V1",
        "FALLBACK_NEUTRAL",
    ]


def test_some_markets_are_answered_for_as_they_are_asked_about(server):
    content = get(server, "/api/predictions?symbols=ETHUSDT,BTCUSDT,ETHUSDT&tf=1h")
    assert content["tf"] == "1h"
    assert [answer["symbol"] for answer in content["predictions"]] == ["ETHUSDT", "BTCUSDT"]


def test_one_market_is_answered_for_by_itself(server):
    content = get(server, "/api/predictions/BTCUSDT?tf=15m")
    schemas.PredictionSchema.model_validate(content)
    assert content == server.board.answer("BTCUSDT", M15)
    assert content["pred"] == "SHORT"
    assert content["tp3"] < content["entry_price"] < content["stop_loss"]
    assert get(server, "/api/predictions/BTCUSDT") == content


def test_a_summary_has_every_timeframe(server):
    content = get(server, "/api/predictions/BTCUSDT/summary")
    schemas.SummarySchema.model_validate(content)
    assert content["predictions"]["15m"] == server.board.answer("BTCUSDT", M15)
    hourly = content["predictions"]["1h"]
    assert (hourly["pred"], hourly["ts"], hourly["stale"]) == ("NO_TRADE", None, True)
    assert "only one timeframe here" in hourly["passed"][0]["detail"]


def test_models_say_what_is_served_and_what_is_missing(server):
    content = get(server, "/api/models")
    schemas.ModelsSchema.model_validate(content)
    served, *others = content["models"]
    assert (served["status"], served["verdict"], served["lookback"]) == ("served", "accepted", 60)
    assert served["version_id"]
    assert served["trained_on"]["n_bars"] == len(BARS)
    assert {model["status"] for model in others} == {"missing"}
    assert others[0]["problem"].startswith("BTCUSDT 1h: no model exported in ")
    assert "/" not in str(content)


def test_health_is_well_while_bars_come_and_tells_when_they_do_not(models_dir, market):
    server = make_server(models_dir, market)
    response = ask(server, "/health")
    assert response.status_code == 503
    assert response.json()["status"] == "starting"
    bring_up_to_date(server)
    content = get(server, "/health")
    schemas.HealthSchema.model_validate(content)
    assert content["status"] == "ok"
    well = {"configured": 2, "with_bars": 2, "stale": 0, "failing": 0, "frozen": 0}
    assert content["markets"] == well
    assert content["oldest_renewal"] == market.now.isoformat()

    market.failure = FetchError("BTCUSDT", M15, "https://x.org/api is out of reach", "wait")
    market.pass_time(minutes=17)
    bring_up_to_date(server)
    content = get(server, "/health")
    assert content["status"] == "degraded"
    assert content["markets"] == well | {"stale": 2, "failing": 2}
    assert content["failing"][0] == {
        "renewed": market.now.isoformat(),
        "symbol": "BTCUSDT",
        "tf": "15m",
        "problem": "BTCUSDT 15m: api is out of reach; wait",
    }


def test_health_is_not_well_when_a_thread_has_gone(server, market):
    server.keeper.start(1)
    server.keeper.stop()
    for thread in server.keeper._threads:
        thread.join(5)
    assert get(server, "/health")["status"] == "degraded"


def test_metrics_count_by_route_and_know_each_markets_age(server):
    ask(server, "/api/predictions/BTCUSDT")
    ask(server, "/api/predictions/../../etc/passwd")
    ask(server, "/no/such/address")
    lines = ask(server, "/metrics").text.splitlines()
    ages = [line for line in lines if line.startswith("percoin_bar_age_seconds{")]
    assert ages == [
        'percoin_bar_age_seconds{symbol="BTCUSDT",tf="15m"} 10.0',
        'percoin_bar_age_seconds{symbol="ETHUSDT",tf="15m"} 10.0',
    ]
    signals = [line for line in lines if line.startswith("percoin_signal{")]
    assert len(signals) == 2
    assert 'percoin_answers_total{source="ML_PER_COIN_V1"} 1.0' in lines
    assert 'percoin_answers_total{source="PRO"} 0.0' in lines
    assert 'percoin_bar_loads_total{outcome="failed",tf="1h"} 2.0' in lines
    assert 'percoin_bar_loads_total{outcome="ok",tf="15m"} 2.0' in lines
    routes = {line.split('route="')[1].split('"')[0] for line in lines if 'route="' in line}
    assert routes == {"/api/predictions/{symbol}", "other"}


@pytest.mark.parametrize(
    ("path", "status", "code", "words"),
    [
        ("/api/predictions?tf=2h", 400, "unknown_tf", "served are 15m, 1h"),
        ("/api/predictions?tf=", 400, "unknown_tf", "tf='' is not served"),
        ("/api/predictions?tf=15m&tf=1h", 400, "repeated_parameter", "tf is given twice"),
        ("/api/predictions?symbol=BTCUSDT", 400, "unknown_parameter", "did you mean symbols?"),
        ("/api/predictions?x=1", 400, "unknown_parameter", "known are symbols, tf"),
        ("/api/predictions?symbols=", 400, "unknown_symbol", "a symbol is empty"),
        ("/api/predictions?symbols=BTCUSDT,", 400, "unknown_symbol", "a symbol is empty"),
        ("/api/predictions?symbols=btcusdt", 400, "unknown_symbol", "did you mean BTCUSDT?"),
        ("/api/predictions?symbols=BTCUSD", 400, "unknown_symbol", "did you mean BTCUSDT?"),
        ("/api/predictions?symbols=DOGEUSDX", 400, "unknown_symbol", "is not served"),
        ("/api/predictions/XRPEUR", 404, "unknown_symbol", "served are BTCUSDT, ETHUSDT"),
        ("/api/predictions/BTCUSDT?symbols=A", 400, "unknown_parameter", "known are tf"),
        ("/api/predictions/BTCUSDT/summary?tf=15m", 400, "unknown_parameter", "it takes none"),
        ("/api/models?x=1", 400, "unknown_parameter", "it takes none"),
        ("/health?x=1", 400, "unknown_parameter", "it takes none"),
        ("/metrics?x=1", 400, "unknown_parameter", "it takes none"),
        ("/api/predictions/", 404, "not_found", "nothing at this address"),
        ("/docs", 404, "not_found", "nothing at this address"),
        ("/?x=1", 400, "unknown_parameter", "it takes none"),
        ("/api/bars/XRPEUR", 404, "unknown_symbol", "served are BTCUSDT, ETHUSDT"),
        ("/api/bars/BTCUSDT?limit=x", 400, "invalid_limit", "no number from 1 to 1000"),
        ("/api/scores", 404, "not_found", "nothing at this address"),
    ],
)
def test_what_cannot_be_meant_is_refused_kindly(server, path, status, code, words):
    found = refusal(server, path)
    assert found[:2] == (status, code)
    assert words in found[2]


def test_there_is_a_limit_to_how_many_are_asked_about(models_dir, market):
    server = make_server(models_dir, market, limits=Limits(max_symbols=2))
    assert get(server, "/api/predictions?symbols=BTCUSDT,ETHUSDT")
    found = refusal(server, "/api/predictions?symbols=BTCUSDT,ETHUSDT,BTCUSDT")
    assert found[:2] == (400, "too_many_symbols")
    # Without naming them it is the server's own choice, and there is no limit.
    assert len(get(server, "/api/predictions")["predictions"]) == 2


@given(st.text(max_size=200))
@settings(max_examples=200, deadline=None)
def test_whatever_is_sent_comes_back_short_and_printable(text):
    from percoin.serving.questions import shown

    found = shown(text)
    assert found.isascii()
    assert found.isprintable()
    assert len(found) <= 43 * 10 + 2


def test_the_document_needs_no_other_host_and_names_every_route(server):
    response = ask(server, "/openapi.json")
    assert set(response.json()["paths"]) == {
        "/api/predictions",
        "/api/predictions/{symbol}",
        "/api/predictions/{symbol}/summary",
        "/api/bars/{symbol}",
        "/api/scoreboard",
        "/api/history/{symbol}",
        "/api/models",
        "/health",
        "/metrics",
    }
    assert "http://" not in response.text
    assert "https://" not in response.text


def test_the_names_of_the_document_are_those_of_the_package():
    assert get_args(schemas.SignalName) == CLASS_NAMES


def test_times_have_a_zone(server):
    content = get(server, "/api/predictions")
    assert datetime.fromisoformat(content["now"]).tzinfo is not None
    assert datetime.fromisoformat(content["predictions"][0]["ts"]).tzinfo is not None
