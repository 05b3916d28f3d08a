import json

import pytest
from builders import make_bars
from small_servers import M15, Market, ask, bring_up_to_date, exchange_bars, make_server

from percoin.serving import schemas
from percoin.serving.candles import CandleTexts, candles_json

BARS = make_bars(50)


def test_the_newest_bars_come_column_by_column():
    content = json.loads(candles_json("BTCUSDT", M15, BARS, 7))
    schemas.CandlesSchema.model_validate(content)
    assert content["open_time"] == BARS.open_time[-7:].tolist()
    for name in ("open", "high", "low", "close", "volume"):
        assert content[name] == BARS.column(name)[-7:].tolist()


def test_fewer_bars_than_are_asked_for_are_all_there_are():
    assert len(json.loads(candles_json("BTCUSDT", M15, BARS, 1000))["close"]) == 50


def test_a_market_without_bars_has_empty_columns():
    content = json.loads(candles_json("BTCUSDT", M15, None, 5))
    schemas.CandlesSchema.model_validate(content)
    assert content["open_time"] == content["close"] == []


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    market = Market(exchange_bars(400), n_closed=390)
    server = make_server(tmp_path_factory.mktemp("models"), market)
    bring_up_to_date(server)
    return server


@pytest.mark.parametrize(("query", "n_bars"), [("", 300), ("?limit=2", 2), ("?limit=0005", 5)])
def test_the_address_gives_what_the_server_holds(server, query, n_bars):
    content = ask(server, f"/api/bars/BTCUSDT{query}").json()
    assert len(content["close"]) == n_bars
    newest = ask(server, "/api/predictions/BTCUSDT").json()
    assert content["close"][-1] == newest["close"]


@pytest.mark.parametrize("limit", ["0", "-1", "1001", "1e2", "", "9" * 500, "\uff15"])
def test_a_limit_that_cannot_be_meant_is_refused(server, limit):
    response = ask(server, f"/api/bars/BTCUSDT?limit={limit}")
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "invalid_limit"


def test_a_text_is_kept_until_other_bars_come():
    texts = CandleTexts()
    first = texts.text("BTCUSDT", M15, BARS, 7)
    assert texts.text("BTCUSDT", M15, BARS, 7) is first
    assert texts.text("BTCUSDT", M15, BARS, 8) == candles_json("BTCUSDT", M15, BARS, 8)
    other = BARS.slice(0, 40)
    assert texts.text("BTCUSDT", M15, other, 7) == candles_json("BTCUSDT", M15, other, 7)
    for n_wanted in range(1, 100):
        texts.text("BTCUSDT", M15, BARS, n_wanted)
    assert len(texts._texts._kept) == 64
