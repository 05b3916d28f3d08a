import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from bars.archive_server import ArchiveServer, ms, serving, without_proxies
from builders import make_bars
from sweep_runs import sweep_arguments

from percoin.assembly import bar_source
from percoin.bars.sources.simulated import SimulatedSource
from percoin.bars.store import BarStore
from percoin.cli import compose_config
from percoin.config import TrainConfig, typed
from percoin.errors import FetchError
from percoin.sweep.bars import bars_of_job
from percoin.types import Timeframe

H1 = Timeframe.H1
NOW = pd.Timestamp("2025-02-05 10:07", tz="UTC")
TRUTH = make_bars(24 * 180, timeframe=H1, start=pd.Timestamp("2024-09-01", tz="UTC"))
LATER = NOW + pd.Timedelta(hours=5)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ArchiveServer]:
    without_proxies(monkeypatch)
    with serving() as server:
        server.add(TRUTH, NOW)
        yield server


@pytest.fixture
def settings(server: ArchiveServer, tmp_path: Path) -> TrainConfig:
    urls = (f"source.archive_url={server.url}", f"source.api_url={server.url}")
    source = ("source=binance", "history_days=20", "source.attempts=1", *urls)
    arguments = [*sweep_arguments(tmp_path, source=source), "symbol=BTCUSDT"]
    return typed(compose_config("train", arguments), TrainConfig)


@pytest.fixture
def market(tmp_path: Path) -> Path:
    folder = tmp_path / "outputs" / "trial" / "BTCUSDT" / "1h"
    folder.mkdir(parents=True)
    return folder


def a_day_ago() -> float:
    return time.time() - 86_400


def sha256(asked) -> str:
    return asked.bars.sha256()


def test_jobs_on_one_market_ask_the_exchange_once(server, settings, market):
    first = bars_of_job(settings, market, a_day_ago())
    server.requests.clear()
    second = bars_of_job(settings, market, a_day_ago())

    assert server.requests == []
    assert sha256(second) == sha256(first)
    assert second.asked_at == first.asked_at
    assert time.time() - 60 < first.asked_at <= time.time()


@pytest.mark.parametrize("dates", [{}, {"start": "2024-12-20"}, {"end": "2025-01-25"}])
def test_they_are_asked_once_though_bars_close_meanwhile(
    dates, server, settings, market, monkeypatch
):
    settings = replace(settings, **dates)
    first = bars_of_job(settings, market, a_day_ago())
    server.requests.clear()
    later = time.time() + 3 * 3600
    monkeypatch.setattr(time, "time", lambda: later)
    second = bars_of_job(settings, market, a_day_ago())

    assert server.requests == []
    assert sha256(second) == sha256(first)


def test_what_came_into_the_store_meanwhile_is_left_out(server, settings, market, tmp_path):
    first = bars_of_job(settings, market, a_day_ago())
    server.now_ms = ms(LATER)
    bar_source(settings.source, BarStore(tmp_path / "data" / "bars"), 2000, replace=True).load(
        "BTCUSDT", H1
    )
    again = bars_of_job(settings, market, a_day_ago())

    stored = BarStore(tmp_path / "data" / "bars").read("BTCUSDT", H1)
    assert len(stored) > len(first.bars)
    assert sha256(again) == sha256(first)


def test_an_old_answer_is_asked_for_again(server, settings, market):
    first = bars_of_job(settings, market, a_day_ago())
    server.now_ms = ms(LATER)
    again = bars_of_job(settings, market, reuse_since=time.time() + 1)

    assert again.bars.close_time() == first.bars.close_time() + pd.Timedelta(hours=5)
    assert again.asked_at > first.asked_at


def test_a_longer_history_is_asked_for(server, settings, market):
    first = bars_of_job(settings, market, a_day_ago())
    again = bars_of_job(replace(settings, history_days=60), market, a_day_ago())

    assert again.bars.open_time[0] < first.bars.open_time[0]


def test_another_market_of_the_exchange_is_asked_for(server, settings, market):
    bars_of_job(settings, market, a_day_ago())
    server.add(TRUTH, NOW, market="perp")
    perp = replace(settings, source=replace(settings.source, market="perp"))

    assert bars_of_job(perp, market, a_day_ago()).bars.origin.startswith("binance perp:")


NOTE = '{"asked_at": %s, "n_bars_wanted": 1, "first_open_time": %s, "last_open_time": 5}'


@pytest.mark.parametrize(
    "note",
    [
        *("", "{}", '{"asked_at": 1}', "[" * 100_000),
        *(
            NOTE % values
            for values in (('"now"', 1), ("1e999", 1), ("9e9", 10**30), ("9e9", '"x"'))
        ),
    ],
)
def test_without_a_note_that_can_be_read_the_exchange_is_asked(server, settings, market, note):
    bars_of_job(settings, market, a_day_ago())
    (market / "bars.json").write_text(note)
    server.requests.clear()
    bars_of_job(settings, market, a_day_ago())

    assert server.requests != []


def test_without_stored_bars_the_exchange_is_asked(server, settings, market, tmp_path):
    first = bars_of_job(settings, market, a_day_ago())
    BarStore(tmp_path / "data" / "bars").path("BTCUSDT", H1).unlink()

    assert sha256(bars_of_job(settings, market, a_day_ago())) == sha256(first)


def test_an_exchange_out_of_reach_leaves_no_note(server, settings, market):
    nowhere = replace(
        settings.source, api_url="http://127.0.0.1:9", archive_url="http://127.0.0.1:9"
    )
    with pytest.raises(FetchError):
        bars_of_job(replace(settings, source=nowhere), market, a_day_ago())
    assert not (market / "bars.json").exists()


def test_other_sources_are_read_each_time(tmp_path, market):
    arguments = [*sweep_arguments(tmp_path), "symbol=BTCUSDT"]
    settings = typed(compose_config("train", arguments), TrainConfig)
    asked = bars_of_job(settings, market, a_day_ago())

    assert sha256(asked) == SimulatedSource(seed=0, n_bars=900).load("BTCUSDT", H1).sha256()
    assert not (market / "bars.json").exists()


def test_jobs_with_other_dates_share_one_download(server, settings, market):
    ends = ("2025-02-01", "2025-02-03")
    asked = [bars_of_job(replace(settings, end=end), market, a_day_ago()) for end in ends]
    n_requests = len(server.requests)

    assert [each.bars.close_time() for each in asked] == [
        pd.Timestamp(end, tz="UTC") for end in ends
    ]
    newest = bars_of_job(settings, market, a_day_ago())
    assert newest.bars.close_time() > pd.Timestamp(ends[1], tz="UTC")
    assert len(server.requests) == n_requests
