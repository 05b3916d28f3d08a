import json
from dataclasses import replace

import pytest
from exported_models import export, make_dataset, random_network
from small_servers import M15, Market, bring_up_to_date, exchange_bars, make_server
from small_servers import ask as ask_server

from percoin.bars.panel import with_panel
from percoin.bars.sources.base import Renewed
from percoin.dataset import build_dataset
from percoin.errors import FetchError
from percoin.labels import Relative
from percoin.monitoring.record import TrackRecord, sqlite_url
from percoin.registry.manifest import StoredVerdict
from percoin.serving.alert_book import AlertBook
from percoin.serving.alerting import ALERTS_FILE, AlertSettings
from percoin.signals.chain import Chain, ask, build_chain
from percoin.signals.market import SourcedBars
from percoin.signals.response import to_json
from percoin.types import Signal, Source

BARS = exchange_bars()
BROKEN = FetchError("BTCUSDT", M15, "the exchange is out of reach", "wait")


@pytest.fixture
def market() -> Market:
    return Market(BARS, n_closed=1290)


@pytest.fixture
def models_dir(tmp_path):
    export(tmp_path / "models", random_network(Signal.LONG), make_dataset(BARS))
    return tmp_path / "models"


def test_the_answer_is_that_of_the_command(models_dir, market):
    server = make_server(models_dir, market, sources=list(Source))
    assert bring_up_to_date(server) == 2
    bars = market.load("BTCUSDT", M15)
    chain = build_chain(list(Source), server._setup.model)
    expected = to_json(ask(chain, SourcedBars(bars), None, market.now), bars, market.now)

    answer = server.board.answer("BTCUSDT", M15)
    assert answer == expected
    assert list(answer) == list(expected)
    assert (answer["pred"], answer["age_secs"], answer["stale"]) == ("LONG", 10.0, False)
    # Written before, but for its age.
    assert server.board.text("BTCUSDT", M15) == json.dumps(expected)
    market.pass_time(minutes=20)
    assert server.board.text("BTCUSDT", M15) == json.dumps(server.board.answer("BTCUSDT", M15))
    assert json.loads(server.board.text("BTCUSDT", M15))["stale"] is True


def test_the_markets_of_relative_labels_are_loaded_beside_those_that_are_served(tmp_path, market):
    other = replace(BARS, symbol="SOLUSDT", frame=BARS.frame.iloc[::-1].set_axis(BARS.frame.index))
    rule = Relative(3, 0.4, 50, None, 0.5, ("BTCUSDT", "SOLUSDT"))
    spec = replace(make_dataset(BARS).spec, label_rule=rule)
    dataset = build_dataset(with_panel(BARS, [BARS, other]), spec)
    export(tmp_path / "models", random_network(Signal.LONG), dataset)
    server = make_server(tmp_path / "models", market)
    bring_up_to_date(server)
    assert server.keeper.keeps("SOLUSDT", M15)
    assert not server.keeper.keeps("LTCUSDT", M15)


class Compared:
    """A server of a model that compares BTCUSDT with ETHUSDT, with its record and alerts."""

    def __init__(self, folder) -> None:
        both = with_panel(BARS, [replace(BARS, symbol="ETHUSDT")])
        dataset = make_dataset(both, extra=("market",), references=("BTCUSDT", "ETHUSDT"))
        n_features = len(dataset.feature_names)
        export(folder / "models", random_network(Signal.LONG, n_features=n_features), dataset)
        self.market = Market(BARS, n_closed=1290)
        self.record = TrackRecord(sqlite_url(folder / "record.sqlite"))
        self.server = make_server(
            folder / "models",
            self.market,
            ("BTCUSDT",),
            record=self.record,
            alerts=AlertSettings({"webhook": lambda alerts: ""}, folder),
        )
        self.book = AlertBook(folder / ALERTS_FILE, ["webhook"])

    def load(self, symbol: str) -> int:
        """Load the bars of one market alone; return how many answers that makes."""
        self.server.keeper.refresh(symbol)
        n_made = self.server.board.update()
        self.server.alerting.look(self.book)
        return n_made

    def answer(self):
        return self.server.board.answer("BTCUSDT", M15)


def test_an_answer_waits_for_the_bars_that_its_model_compares_with(tmp_path):
    compared = Compared(tmp_path)
    assert compared.load("BTCUSDT") == 0
    assert "the first answer is being made" in compared.answer()["passed"][0]["detail"]
    assert compared.load("ETHUSDT") == 1
    before = compared.answer()
    assert (before["source"], before["pred"]) == ("ML_PER_COIN_V1", "LONG")

    compared.market.pass_time(minutes=15)
    assert compared.load("BTCUSDT") == 0
    assert compared.answer()["ts"] == before["ts"]
    compared.market.pass_time(seconds=1)
    assert compared.load("ETHUSDT") == 1
    after = compared.answer()
    assert (after["source"], after["passed"]) == ("ML_PER_COIN_V1", [])
    assert after["ts"] > before["ts"]
    assert [row.source for row in compared.record.predictions()] == ["ML_PER_COIN_V1"] * 2
    assert not compared.book.waiting("webhook")


@pytest.mark.parametrize("failure", [BROKEN, None])
def test_an_answer_waits_for_one_try_to_load_what_its_model_compares_with(tmp_path, failure):
    compared = Compared(tmp_path)
    compared.load("BTCUSDT")
    compared.load("ETHUSDT")
    compared.market.pass_time(minutes=15)
    assert compared.load("BTCUSDT") == 0
    compared.market.failure, compared.market.held_back = failure, 1
    assert compared.load("ETHUSDT") == 1
    [passed] = compared.answer()["passed"]
    assert passed["reason"] == "insufficient_data"
    assert "ETHUSDT, which the model compares it with, has no bar" in passed["detail"]

    compared.market.failure, compared.market.held_back = None, 0
    compared.market.pass_time(seconds=10)
    assert compared.load("ETHUSDT") == 1
    assert compared.answer()["source"] == "ML_PER_COIN_V1"


def test_an_answer_is_made_once_a_bar(models_dir, market):
    server = make_server(models_dir, market)
    assert [bring_up_to_date(server) for _ in range(3)] == [2, 0, 0]
    before = server.board.answer("BTCUSDT", M15)
    market.pass_time(minutes=15)
    after = server.board.answer("BTCUSDT", M15)
    assert after["age_secs"] == before["age_secs"] + 900
    assert {**after, "age_secs": 0} == {**before, "age_secs": 0}
    assert [bring_up_to_date(server) for _ in range(3)] == [2, 0, 0]
    assert server.board.answer("BTCUSDT", M15)["ts"] > before["ts"]


def test_a_corrected_newest_bar_makes_another_answer(models_dir, market):
    """With the same times and counts; a file may have held the bar before it was whole."""
    server = make_server(models_dir, market)
    bring_up_to_date(server)
    before = server.board.answer("BTCUSDT", M15)
    frame = market.bars.frame.copy()
    frame.iloc[1289, :4] *= 1.001
    market.bars = replace(market.bars, frame=frame)
    assert bring_up_to_date(server) == 0  # nothing has been loaded
    for symbol in ("BTCUSDT", "ETHUSDT"):
        server.keeper._due[symbol] = dict.fromkeys(server.keeper._due[symbol], 0.0)
    assert bring_up_to_date(server) == 2
    after = server.board.answer("BTCUSDT", M15)
    assert after["ts"] == before["ts"]
    assert after["close"] != before["close"]


def test_another_model_makes_another_answer_at_once(models_dir, market):
    server = make_server(models_dir, market)
    bring_up_to_date(server)
    assert server.board.answer("BTCUSDT", M15)["pred"] == "LONG"
    export(models_dir, random_network(Signal.SHORT), make_dataset(BARS))
    assert bring_up_to_date(server) == 1
    assert server.board.answer("BTCUSDT", M15)["pred"] == "SHORT"


def test_a_model_that_appears_takes_over_from_holding(tmp_path, market):
    server = make_server(tmp_path, market)
    bring_up_to_date(server)
    answer = server.board.answer("BTCUSDT", M15)
    assert (answer["source"], answer["passed"][0]["reason"]) == (
        "FALLBACK_NEUTRAL",
        "model_missing",
    )
    export(tmp_path, random_network(Signal.LONG), make_dataset(BARS))
    assert bring_up_to_date(server) == 1
    assert server.board.answer("BTCUSDT", M15)["source"] == "ML_PER_COIN_V1"


def test_a_source_that_fails_keeps_the_answer_until_it_is_too_old_to_act_on(models_dir, market):
    server = make_server(models_dir, market)
    bring_up_to_date(server)
    market.failure = BROKEN
    market.pass_time(minutes=17)
    assert bring_up_to_date(server) == 0
    answer = server.board.answer("BTCUSDT", M15)
    assert (answer["pred"], answer["stale"]) == ("LONG", True)

    market.pass_time(minutes=15)
    assert bring_up_to_date(server) == 2
    answer = server.board.answer("BTCUSDT", M15)
    assert (answer["pred"], answer["source"]) == ("NO_TRADE", "FALLBACK_NEUTRAL")
    assert [source["reason"] for source in answer["passed"]] == ["stale_data"]
    assert answer["stale"] is True

    market.failure = None
    market.pass_time(minutes=10)
    assert bring_up_to_date(server) == 2
    answer = server.board.answer("BTCUSDT", M15)
    assert (answer["pred"], answer["stale"]) == ("LONG", False)


def test_an_exchange_that_is_down_is_told_while_its_stored_bars_are_answered_on(models_dir):
    class Exchange(Market):
        def renew(self, symbol, timeframe):
            return Renewed(self.load(symbol, timeframe), BROKEN if self.held_back else None)

    exchange = Exchange(BARS, n_closed=1290)
    exchange.held_back = 1
    server = make_server(models_dir, exchange)
    assert bring_up_to_date(server) == 2
    assert server.board.answer("BTCUSDT", M15)["pred"] == "LONG"
    health = ask_server(server, "/health").json()
    assert health["status"] == "degraded"
    assert "out of reach" in health["failing"][0]["problem"]
    metrics = ask_server(server, "/metrics").text
    assert 'percoin_bar_loads_total{outcome="failed",tf="15m"} 2.0' in metrics
    exchange.held_back = 0
    exchange.pass_time(minutes=15)
    bring_up_to_date(server)
    assert ask_server(server, "/health").json()["status"] == "ok"


def test_without_a_bar_the_answer_is_to_hold_and_says_why(models_dir, market):
    server = make_server(models_dir, market, sources=list(Source))
    answer = server.board.answer("BTCUSDT", M15)
    assert (answer["pred"], answer["ts"], answer["stale"]) == ("NO_TRADE", None, True)
    assert "no bars have come yet" in answer["passed"][0]["detail"]
    market.failure = BROKEN
    assert bring_up_to_date(server) == 0
    answer = server.board.answer("BTCUSDT", M15)
    assert [source["source"] for source in answer["passed"]] == [
        "ML_PER_COIN_V1",
        "PRO",
        "FALLBACK_RSI_MA",
        "FALLBACK_MOMENTUM",
    ]
    assert "out of reach" in answer["passed"][0]["detail"]
    market.failure = None
    market.pass_time(minutes=5)
    bring_up_to_date(server)
    whole = server.board.answer("BTCUSDT", M15)
    assert list(whole)[: len(answer)] == list(answer)


class BrokenSource:
    def __init__(self) -> None:
        self.n_asked = 0

    def answer(self, market):
        self.n_asked += 1
        if market.asked.symbol == "BTCUSDT":
            raise ZeroDivisionError("a bug")
        return Signal  # no prediction either, which is another bug


def test_a_market_that_cannot_be_answered_for_is_said_and_left_alone(models_dir, market, caplog):
    server = make_server(models_dir, market)
    bring_up_to_date(server)
    before = server.board.answer("BTCUSDT", M15)
    broken = BrokenSource()
    server.board._chain = Chain([broken], ())
    market.pass_time(minutes=15)
    assert [bring_up_to_date(server) for _ in range(3)] == [0, 0, 0]
    assert broken.n_asked == 2
    assert "a bug" in caplog.text
    assert server.board.failure(("BTCUSDT", M15)) == (
        "BTCUSDT 15m: no answer can be made (ZeroDivisionError)"
    )
    assert server.board.answer("BTCUSDT", M15)["ts"] == before["ts"]
    sources = build_chain([Source.MODEL, Source.HOLD], server._setup.model)
    server.board._chain = Chain(sources, ())
    market.pass_time(minutes=15)
    assert bring_up_to_date(server) == 2
    assert server.board.failure(("BTCUSDT", M15)) == ""


def test_a_failed_answer_is_tried_again_with_growing_pauses_until_it_works(models_dir, market):
    server = make_server(models_dir, market)
    broken = BrokenSource()
    working, server.board._chain = server.board._chain, Chain([broken], ())
    bring_up_to_date(server)
    asked = []
    for _ in range(30):
        market.pass_time(seconds=1)
        bring_up_to_date(server)
        asked.append(broken.n_asked)
    # Two markets, after 1, 2, 4, 8 and 16 seconds: not a second more often.
    assert asked == [4 + 2 * sum(k >= wait for wait in (3, 7, 15)) for k in range(1, 31)]
    server.board._chain = working
    market.pass_time(seconds=16)
    assert bring_up_to_date(server) == 2
    assert server.board.failure(("BTCUSDT", M15)) == ""
    assert server.board.answer("BTCUSDT", M15)["pred"] == "LONG"


def test_a_rejected_model_is_passed_over_with_the_gates_reason(tmp_path, market):
    export(tmp_path, random_network(), make_dataset(BARS), StoredVerdict.REJECTED)
    server = make_server(tmp_path, market)
    bring_up_to_date(server)
    [passed] = server.board.answer("BTCUSDT", M15)["passed"]
    assert passed["reason"] == "model_rejected"
    assert "made for a test" in passed["detail"]


def test_simulated_bars_are_no_food_for_a_model_of_real_ones(tmp_path):
    learnt_from = replace(BARS, origin="files: klines/BTCUSDT-15m.csv")
    export(tmp_path, random_network(), make_dataset(learnt_from))
    market = Market(replace(BARS, origin="simulated: seed=0"), n_closed=1290)
    server = make_server(tmp_path, market)
    bring_up_to_date(server)
    [passed] = server.board.answer("BTCUSDT", M15)["passed"]
    assert passed["reason"] == "other_data"
    # The origin of the model's bars is a path below a folder.
    assert "BTCUSDT-15m.csv" in passed["detail"]
    assert "/" not in passed["detail"]
