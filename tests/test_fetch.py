from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from bars.archive_server import Answer, ArchiveServer, refusing, serving, without_proxies
from builders import make_bars

from percoin.bars.store import BarStore
from percoin.cli import compose_config
from percoin.cli.overrides import split_lists
from percoin.config import PredictConfig, TrainConfig, typed
from percoin.fetch import main
from percoin.types import Timeframe

H1 = Timeframe.H1
NOW = pd.Timestamp("2024-03-10 10:07", tz="UTC")
START = pd.Timestamp("2023-12-01", tz="UTC")

Fetch = Callable[..., int]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ArchiveServer]:
    without_proxies(monkeypatch)
    with serving() as server:
        for seed, symbol in enumerate(("BTCUSDT", "ETHUSDT", "LTCUSDT")):
            server.add(make_bars(24 * 101, symbol, H1, seed, START), NOW)
        yield server


@pytest.fixture
def run(server: ArchiveServer, tmp_path: Path) -> Fetch:
    def run(*arguments: str) -> int:
        urls = (f"source.archive_url={server.url}", f"source.api_url={server.url}")
        return main([*arguments, *urls, "source.attempts=1", f"data_dir={tmp_path}"])

    return run


@pytest.mark.parametrize(
    ("arguments", "symbols"),
    [
        (["symbol=BTCUSDT"], ["BTCUSDT"]),
        (["symbol=BTCUSDT,ETHUSDT"], ["BTCUSDT", "ETHUSDT"]),
        (["symbol=BTCUSDT, ETHUSDT,\nLTCUSDT,\r\n"], ["BTCUSDT", "ETHUSDT", "LTCUSDT"]),
        (["symbol=BTCUSDT,", "ETHUSDT", "LTCUSDT"], ["BTCUSDT", "ETHUSDT", "LTCUSDT"]),
        (["symbol=[BTCUSDT,ETHUSDT]"], ["BTCUSDT", "ETHUSDT"]),
        (["symbol=BTCUSDT", "symbol=ETHUSDT,BTCUSDT"], ["BTCUSDT", "ETHUSDT"]),
        (["symbol="], []),
        ([], []),
    ],
)
def test_several_symbols_are_understood_however_they_are_separated(arguments, symbols):
    lists, others = split_lists([*arguments, "tf=1h", "history_days=3"])

    assert lists == {"symbol": symbols, "tf": ["1h"]}
    assert others == ["history_days=3"]


def test_what_a_file_has_more_than_the_store_is_new(tmp_path, capsys):
    bars = make_bars(300, timeframe=H1)
    place = tmp_path / "BTCUSDT-1h.csv"
    source = ("source=files", f"source.path={place}", f"data_dir={tmp_path / 'data'}")
    words = ["symbol=BTCUSDT", "tf=1h", *source, "output=json"]
    found = []
    for n_bars in (299, 300, 300):
        bars.slice(0, n_bars).frame.to_csv(place)
        assert main(words) == 0
        (market,) = json.loads(capsys.readouterr().out)
        found.append((market["result"], market["n_new"]))
    assert found == [("fetched", 299), ("fetched", 1), ("up to date", 0)]


def test_all_symbols_of_the_file_are_understood():
    text = (Path(__file__).parents[1] / "symbols").read_text()

    assert len(split_lists([f"symbol={text}"])[0]["symbol"]) == 32


def test_several_markets_and_timeframes_are_fetched(server, run, tmp_path, capsys):
    assert run("symbol=BTCUSDT,ETHUSDT", "tf=1h", "history_days=5") == 0

    store = BarStore(tmp_path / "bars")
    assert store.markets() == [("BTCUSDT", H1), ("ETHUSDT", H1)]
    assert store.read("BTCUSDT", H1).close_time() == NOW.floor("h")
    # The bars before the first window are fetched too, so that training needs no more.
    assert len(store.read("BTCUSDT", H1)) >= 5 * 24 + 961
    answer = capsys.readouterr().out
    assert "BTCUSDT  1h  fetched" in answer
    assert "good" in answer


def test_the_second_time_nothing_is_new(server, run, capsys):
    run("symbol=BTCUSDT", "tf=1h", "history_days=5", "output=json")
    first = json.loads(capsys.readouterr().out)
    server.requests.clear()
    assert run("symbol=BTCUSDT", "tf=1h", "history_days=5", "output=json") == 0

    (second,) = json.loads(capsys.readouterr().out)
    assert (first[0]["result"], second["result"]) == ("fetched", "up to date")
    assert second["n_new"] == 0
    assert second["report"] == first[0]["report"]
    assert server.requests == ["/api/v3/time"]


def test_a_market_that_fails_does_not_stop_the_others(server, run, tmp_path, capsys):
    server.plan("/LTCUSDT/", refusing(451), times=99)
    code = run("symbol=LTCUSDT,XYZUSDT,BTCUSDT", "tf=1h", "history_days=50", "output=json")

    assert code == 1
    results = {entry["symbol"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert {name: entry["result"] for name, entry in results.items()} == {
        "LTCUSDT": "failed",
        "XYZUSDT": "failed",
        "BTCUSDT": "fetched",
    }
    assert "451" in results["LTCUSDT"]["note"]
    assert results["LTCUSDT"]["report"] is None
    assert BarStore(tmp_path / "bars").markets() == [("BTCUSDT", H1)]


def test_failures_are_told_to_people_too(server, run, capsys):
    assert run("symbol=XYZUSDT", "tf=1h", "history_days=50") == 1

    answer = capsys.readouterr().out
    assert "XYZUSDT  1h  failed" in answer
    assert "failed: XYZUSDT 1h: binance has no spot market of that name" in answer


def test_bars_that_lack_the_newest_are_incomplete(server, run, capsys, monkeypatch):
    monkeypatch.setattr("time.time", NOW.timestamp)
    server.plan("/api/v3/", refusing(451), times=99)

    assert run("symbol=BTCUSDT", "tf=1h", "history_days=20", "output=json") == 1
    (entry,) = json.loads(capsys.readouterr().out)
    assert entry["result"] == "incomplete"
    assert entry["report"]["last"] == "2024-03-10T00:00:00+00:00"


def test_other_sources_fill_the_store_as_well(tmp_path, capsys):
    arguments = ["symbol=BTCUSDT", "tf=1h,4h", "source=simulated", f"data_dir={tmp_path}"]
    assert main(arguments) == 0
    assert main(arguments) == 0

    assert [tf.value for _, tf in BarStore(tmp_path / "bars").markets()] == ["1h", "4h"]
    assert capsys.readouterr().out.count("up to date") == 2


def test_the_report_shows_all_that_is_stored_and_fetches_nothing(server, run, tmp_path, capsys):
    run("symbol=BTCUSDT,ETHUSDT", "tf=1h", "history_days=5")
    store = BarStore(tmp_path / "bars")
    store.write(make_bars(60, "LTCUSDT", Timeframe.H4))
    capsys.readouterr()
    server.requests.clear()
    assert run("report=true") == 0

    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [
        ["BTCUSDT", "1h"],
        ["ETHUSDT", "1h"],
        ["LTCUSDT", "4h"],
    ]
    assert server.requests == []

    assert run("report=true", "tf=1h", "symbol=ETHUSDT", "output=json") == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert (entry["symbol"], entry["quality"]) == ("ETHUSDT", "good")
    assert entry["sha256"] == store.read("ETHUSDT", H1).sha256()
    assert [stretch["via"] for stretch in entry["stretches"]] == ["archive ETHUSDT", "API ETHUSDT"]


def test_the_report_on_a_named_market_shows_who_answered_for_what(server, run, capsys):
    run("symbol=BTCUSDT", "tf=1h", "history_days=5")
    capsys.readouterr()
    assert run("report=true", "symbol=BTCUSDT") == 0

    assert "2024-01-01 00:00 to 2024-03-10 00:00  archive BTCUSDT" in capsys.readouterr().out


def test_a_damaged_file_is_reported_beside_the_others(server, run, tmp_path, capsys):
    run("symbol=BTCUSDT,ETHUSDT", "tf=1h", "history_days=5")
    BarStore(tmp_path / "bars").path("BTCUSDT", H1).write_bytes(b"PAR1")
    capsys.readouterr()
    assert run("report=true") == 1

    answer = capsys.readouterr()
    assert "ETHUSDT  1h" in answer.out
    assert "error: BTCUSDT 1h: " in answer.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["tf=1h"], "symbol has no value"),
        (["symbol=BTC-USDT"], "did you mean symbol=BTCUSDT"),
        (["symbol=BTCUSDT,MATICUSDT"], "use symbol=POLUSDT"),
        (["symbol=BTCUSDT", "tf=7m"], "tf=7m is not an option"),
        (["symbol=BTCUSDT", "tf=1h", "history_days=0"], "history_days=0"),
        (["symbol=BTCUSDT", "histroy_days=5"], "did you mean history_days"),
        (["symbol=BTCUSDT", "source.market=swap"], "must be one of spot, perp"),
        (["symbol=BTCUSDT", "source.archive_url=ftp://x"], "must begin with http"),
        (["symbol=BTCUSDT", "source.archive_url='http://['"], "and name a host"),
        (["symbol=BTCUSDT", "source.api_url=http://x:99999"], "and name a host"),
        (["symbol=BTCUSDT", "source.exchange=Binance"], "is not a name as ccxt spells it"),
        (["report=true"], "fetch some: python -m percoin.fetch symbol=BTCUSDT"),
        (["report=true", "tf=1d,15m,4h"], "symbol=BTCUSDT tf=15m,4h,1d"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line(arguments, words, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["fetch", *arguments])
    assert main([*arguments, f"data_dir={tmp_path}"]) == 2

    error = capsys.readouterr().err
    assert words in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "bars").exists()


def test_training_and_predicting_fetch_by_default():
    for name, schema in (("train", TrainConfig), ("predict", PredictConfig)):
        settings = typed(compose_config(name, ["symbol=BTCUSDT"]), schema)
        assert (settings.source.exchange, settings.source.market) == ("binance", "spot")


def test_training_loads_what_fetching_brought_without_a_download(server, run, tmp_path):
    from percoin.training.folds import load_bars

    run("symbol=BTCUSDT", "tf=1h", "history_days=20")
    server.requests.clear()
    urls = [f"source.archive_url={server.url}", f"source.api_url={server.url}"]
    chosen = ["symbol=BTCUSDT", "tf=1h", "history_days=20", f"data_dir={tmp_path}", *urls]
    bars = load_bars(typed(compose_config("train", chosen), TrainConfig))

    assert server.requests == ["/api/v3/time"]
    # The hash of the report is the one that a manifest has of the bars that were used.
    stored, segments = BarStore(tmp_path / "bars").read_segments("BTCUSDT", H1)
    assert bars.sha256() == stored.sha256()
    assert segments


def test_a_resumed_run_goes_on_with_the_bars_that_are_stored(server, run, tmp_path):
    from percoin.training.folds import load_bars

    run("symbol=BTCUSDT", "tf=1h", "history_days=20")
    server.requests.clear()
    chosen = ["symbol=BTCUSDT", "tf=1h", "resume=true", f"data_dir={tmp_path}"]
    bars = load_bars(typed(compose_config("train", chosen), TrainConfig))

    assert server.requests == []
    assert bars.close_time() == NOW.floor("h")


def test_a_prediction_fetches_the_newest_bars_alone(server, tmp_path, capsys):
    from percoin.predict import answer

    urls = [f"source.archive_url={server.url}", f"source.api_url={server.url}"]
    folders = [f"data_dir={tmp_path}", f"models_dir={tmp_path / 'models'}"]
    chosen = ["symbol=BTCUSDT", "tf=1h", "output=json", "chain=[ml,hold]", *folders, *urls]
    answer(typed(compose_config("predict", chosen), PredictConfig))

    content = json.loads(capsys.readouterr().out)
    assert content["ts"] == NOW.floor("h").isoformat()
    assert content["bars"] == "binance spot: BTCUSDT"
    assert [path.split("?")[0] for path in server.requests] == [
        "/api/v3/time",
        "/api/v3/exchangeInfo",
        "/api/v3/klines",
    ]


def test_a_prediction_from_sample_bars_needs_no_network(tmp_path, capsys):
    from percoin.predict import answer

    assert main(["symbol=BTCUSDT", "tf=1h", "source=sample", f"data_dir={tmp_path}"]) == 0
    capsys.readouterr()
    chosen = ["symbol=BTCUSDT", "tf=1h", "output=json", f"data_dir={tmp_path}"]
    settings = typed(compose_config("predict", [*chosen, f"models_dir={tmp_path}"]), PredictConfig)
    answer(settings)

    assert json.loads(capsys.readouterr().out)["bars"].startswith("sample: ")


def test_a_market_that_has_ended_is_fetched_and_said(server, run, capsys):
    server.add(make_bars(24 * 60, "OMGUSDT", H1, start=START), NOW)
    server.ended.add("OMGUSDT")

    assert run("symbol=OMGUSDT", "tf=1h", "history_days=20") == 0
    note = "OMGUSDT 1h: no bars since 2024-01-30 00:00 UTC (ended?)"
    assert f"fetched: {note}" in capsys.readouterr().out
    assert run("symbol=OMGUSDT", "tf=1h", "history_days=20", "output=json") == 0
    assert json.loads(capsys.readouterr().out)[0]["note"] == note


def test_bars_that_begin_later_than_asked_for_are_said(server, run, capsys):
    assert run("symbol=BTCUSDT", "tf=1h", "history_days=365") == 0

    assert "fetched: BTCUSDT 1h: no bars before 2023-12-01 00:00 UTC" in capsys.readouterr().out


def test_an_exchange_that_answers_nothing_leaves_no_complete_market(server, run, capsys):
    server.plan("/klines?", lambda usual: Answer(b"[]"), times=99)

    assert run("symbol=BTCUSDT", "tf=1h", "history_days=20") == 1
    assert "incomplete: BTCUSDT 1h: binance failed 1 times" in capsys.readouterr().out


def test_an_origin_that_a_terminal_would_obey_is_escaped(tmp_path, capsys, run):
    store = BarStore(tmp_path / "bars")
    store.write(replace(make_bars(60, "LTCUSDT", H1), origin="files: a\x1b]0;b\nc.csv"))

    assert run("report=true", "symbol=LTCUSDT") == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "a\\x1b]0;b\\nc.csv" in shown


def test_a_store_file_that_is_none_stops_no_other_market(tmp_path, capsys, run):
    store = BarStore(tmp_path / "bars")
    store.write(make_bars(60, "LTCUSDT", H1))
    (store.root / "AAVEUSDT").mkdir()
    os.mkfifo(store.root / "AAVEUSDT" / "1h.parquet")

    assert run("report=true") == 1
    shown = capsys.readouterr()
    assert "LTCUSDT" in shown.out
    assert "AAVEUSDT 1h: " in shown.err
    assert "is no regular file" in shown.err
