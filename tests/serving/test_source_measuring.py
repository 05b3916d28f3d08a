"""What a server knows of the worth of its rules: measured in the background, told with answers."""

import json
from dataclasses import replace

import numpy as np
from builders import bars_from_closes
from small_servers import FROM_EXCHANGE, Market, ask, bring_up_to_date, make_server

from percoin.errors import BarsNotFoundError
from percoin.labels import FixedHorizon
from percoin.signals.worth import WorthFiles
from percoin.types import Source, Timeframe

RULES = {Timeframe.M15: FixedHorizon(3, 0.0025)}


def swinging(n_up: int):
    """Prices that rise for some bars and fall for as many; the last bars rise."""
    noise = np.random.default_rng(0).normal(0, 0.0005, 4000)
    moves = np.where(np.arange(4000) // n_up % 2 == 0, 0.003, -0.003) + noise
    moves[-14:] = 0.003
    bars = bars_from_closes(100 * np.exp(np.cumsum(moves)))
    return replace(bars, origin=FROM_EXCHANGE)


class Stored:
    """The bars on this machine; no market but the first has any."""

    def __init__(self, bars):
        self.bars = bars

    def load(self, symbol, timeframe):
        if symbol != "BTCUSDT" or timeframe is not self.bars.timeframe:
            raise BarsNotFoundError(symbol, timeframe, "none are stored", "fetch them")
        return self.bars


def served(tmp_path, bars, **setup):
    return make_server(
        tmp_path / "models",
        Market(bars, len(bars)),
        sources=[Source.MODEL, Source.MOMENTUM, Source.HOLD],
        worths=WorthFiles(tmp_path),
        measured_bars=Stored(bars),
        default_rules=RULES,
        **setup,
    )


def said(server, symbol="BTCUSDT"):
    return ask(server, f"/api/predictions/{symbol}?tf=15m").json()


def test_the_first_answer_waits_for_no_measurement_and_the_next_one_has_it(tmp_path):
    server = served(tmp_path, swinging(60))
    bring_up_to_date(server)
    first = said(server)
    assert (first["source"], first["verdict"]) == ("FALLBACK_MOMENTUM", "unjudged")
    assert server.measuring.measure_all() == 1
    assert server.board.update() == 1
    answer = said(server)
    assert (answer["source"], answer["verdict"]) == ("FALLBACK_MOMENTUM", "better_than_coin")
    rate = answer["hit_rate"]
    assert 0.5 < rate["lower"] < rate["value"] < rate["upper"]
    assert rate["until"] == answer["ts"]
    # What has not changed is not measured again, and makes no answer anew.
    assert server.measuring.measure_all() == 0
    assert server.board.update() == 0


def test_a_rule_that_is_found_worse_than_a_coin_is_passed_over_from_then_on(tmp_path):
    server = served(tmp_path, swinging(14))
    bring_up_to_date(server)
    assert said(server)["source"] == "FALLBACK_MOMENTUM"
    server.measuring.measure_all()
    server.board.update()
    answer = said(server)
    assert (answer["source"], answer["verdict"]) == ("FALLBACK_NEUTRAL", None)
    assert [each["reason"] for each in answer["passed"]] == ["model_missing", "source_rejected"]
    assert answer["passed"][1]["detail"].startswith("worse than a coin; where the price moved")


def test_who_asks_for_what_was_not_accepted_gets_it_with_its_worth(tmp_path):
    server = served(tmp_path, swinging(14), require_accepted=False)
    bring_up_to_date(server)
    server.measuring.measure_all()
    server.board.update()
    answer = said(server)
    assert (answer["source"], answer["verdict"]) == ("FALLBACK_MOMENTUM", "worse_than_coin")


def test_a_server_on_other_bars_leaves_the_verdicts_of_these(tmp_path):
    server = served(tmp_path, swinging(60))
    bring_up_to_date(server)
    server.measuring.measure_all()
    of_files = served(tmp_path, replace(swinging(14), origin="files: BTCUSDT-15m.csv"))
    bring_up_to_date(of_files)
    assert said(of_files)["verdict"] == "unjudged"
    assert of_files.measuring.measure_all() == 1
    of_files.board.update()
    assert said(of_files)["source"] == "FALLBACK_NEUTRAL"
    assert server.board.update() == 1
    assert said(server)["verdict"] == "better_than_coin"


def test_a_market_without_stored_bars_stays_unjudged_and_says_nothing(tmp_path, caplog):
    server = served(tmp_path, swinging(60))
    bring_up_to_date(server)
    server.measuring.measure_all()
    server.board.update()
    assert said(server, "ETHUSDT")["verdict"] == "unjudged"
    assert "WORTH" not in caplog.text


def test_one_market_that_cannot_be_measured_stops_no_other(tmp_path, caplog):
    bars = swinging(60)
    server = served(tmp_path, bars)
    (tmp_path / "source_worth").mkdir()
    (tmp_path / "source_worth" / "BTCUSDT").write_text("a file in the place of a folder")
    server.measuring._source.load = lambda symbol, timeframe: replace(bars, symbol=symbol)
    assert server.measuring.measure_all() == 1
    assert "WORTH" in caplog.text
    assert (tmp_path / "source_worth" / "ETHUSDT" / "15m-binance-spot.json").exists()


def test_a_server_without_rules_measures_nothing(tmp_path):
    server = served(tmp_path, swinging(60))
    assert server.measuring is not None
    bars = swinging(60)
    without = make_server(
        tmp_path / "models",
        Market(bars, len(bars)),
        worths=WorthFiles(tmp_path),
        measured_bars=Stored(bars),
    )
    assert without.measuring is None


def test_it_measures_in_a_thread_of_its_own_once_answers_are_there(tmp_path):
    server = served(tmp_path, swinging(60))
    bring_up_to_date(server)
    server.measuring.start()
    server.measuring._thread.join(60)
    file = tmp_path / "source_worth" / "BTCUSDT" / "15m-binance-spot.json"
    kept = json.loads(file.read_text())
    assert kept["sources"]["momentum"]["verdict"] == "better_than_coin"
