"""The loop of examples/ccxt_loop.py against an exchange on this machine."""

import importlib.util
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import ccxt
import pandas as pd
import pytest
from bars.archive_server import refusing, serving, without_proxies
from builders import make_bars
from exported_models import export, make_dataset, random_network

from percoin import Predictor
from percoin.bars.schema import Bars
from percoin.errors import ConfigError, NotEnoughBarsError
from percoin.types import Signal

FILE = Path(__file__).parents[1] / "examples" / "ccxt_loop.py"
BARS = make_bars(1200)
SIMULATED = replace(BARS, origin="simulated: seed=0")


class EnoughError(Exception):
    """Ends the loop."""


@pytest.fixture
def loop():
    spec = importlib.util.spec_from_file_location("ccxt_loop", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_loop_answers_after_each_close_and_sends_no_order(
    loop, tmp_path, monkeypatch, capsys, caplog
):
    without_proxies(monkeypatch)
    now = pd.Timestamp.now("UTC")
    # The last bar still runs.
    bars = make_bars(1100, start=now.floor("15min") - 1099 * pd.Timedelta(minutes=15))
    dataset = make_dataset(bars.slice(0, 1050))
    export(tmp_path, random_network(Signal.LONG), dataset)
    expected = Predictor(tmp_path).predict(bars.slice(0, 1099))
    signals = [Signal.LONG, Signal.SHORT]
    slept = []

    def sleep(secs: float) -> None:
        slept.append(secs)
        if not signals:
            raise EnoughError
        export(tmp_path, random_network(signals.pop()), dataset)

    with serving() as exchange:
        exchange.add(bars, now)
        exchange.plan("klines", refusing(503))
        client = ccxt.binance({"options": {"fetchMarkets": {"types": ["spot"]}}})
        client.urls["api"]["public"] = f"{exchange.url}/api/v3"
        monkeypatch.setattr(ccxt, "binance", lambda: client)
        # Its own alone: ccxt sleeps too, to keep the rate limit.
        monkeypatch.setattr(loop, "time", SimpleNamespace(time=time.time, sleep=sleep))
        with pytest.raises(EnoughError):
            loop.main("binance", "BTC/USDT", "15m", str(tmp_path))
        assert {path.split("?")[0] for path in exchange.requests} == {
            "/api/v3/exchangeInfo",
            "/api/v3/klines",
        }

    assert not caplog.records
    told, errors = capsys.readouterr()
    first, acted, second, turned = told.splitlines()
    assert errors.startswith("no answer: ")
    assert first == f"{expected.ts:%Y-%m-%d %H:%M} BTC/USDT SHORT 1.00"
    assert acted.startswith("dry run: NO_TRADE -> SHORT at ")
    assert second.endswith(" BTC/USDT LONG 1.00")
    assert turned.startswith("dry run: SHORT -> LONG at ")
    assert all(3 <= secs <= 903 for secs in slept)


def test_a_model_of_simulated_bars_is_not_asked(loop, tmp_path):
    export(tmp_path, random_network(Signal.LONG), make_dataset(SIMULATED))
    words = "BTC/USDT 15m: its model learnt from 'simulated.*': train it on real bars"
    with pytest.raises(ConfigError, match=words):
        loop.step(None, Predictor(tmp_path), "BTC/USDT", "15m", "LONG")


class Capped:
    """An exchange that gives at most 300 bars a call; the last one still runs."""

    def __init__(self, bars: Bars) -> None:
        times = bars.open_time.tolist()
        self.rows = [[time, *row] for time, row in zip(times, bars.values.tolist(), strict=True)]
        self.n_calls = 0

    def milliseconds(self) -> int:
        return self.rows[-1][0] + 60_000

    def fetch_ohlcv(self, pair, tf, since=None, limit=None):
        self.n_calls += 1
        n_rows = min(limit, 300)
        if since is None:
            return self.rows[-n_rows:]
        return [row for row in self.rows if row[0] >= since][:n_rows]


@pytest.fixture
def predictor(tmp_path) -> Predictor:
    export(tmp_path, random_network(Signal.LONG), make_dataset(BARS.slice(0, 1100)))
    return Predictor(tmp_path)


@pytest.mark.parametrize("pair", ["BTC/USDT", "BTC/USDT:USDT"])
def test_an_exchange_that_limits_a_call_is_asked_page_by_page(loop, predictor, capsys, pair):
    client = Capped(BARS.slice(150))
    assert loop.step(client, predictor, pair, "15m", "LONG") == "LONG"
    assert client.n_calls == 4
    expected = predictor.predict(BARS.slice(0, 1199))
    assert capsys.readouterr().out == f"{expected.ts:%Y-%m-%d %H:%M} {pair} LONG 1.00\n"
    assert loop.newest_rows(client, pair, "15m", 1000) == client.rows[-1050:]


def test_an_exchange_that_keeps_too_few_bars_is_told(loop, predictor):
    with pytest.raises(NotEnoughBarsError, match=r"699 bars are too few .*load 961 bars or more"):
        loop.step(Capped(BARS.slice(500)), predictor, "BTC/USDT", "15m", "LONG")
    with pytest.raises(NotEnoughBarsError, match="no rows were given"):
        loop.step(Capped(BARS.slice(1199)), predictor, "BTC/USDT", "15m", "LONG")
