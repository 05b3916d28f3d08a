"""The whole way from a server to the store; transport faults are in test_binance_faults.py."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import warm_processes
from bars.archive_server import ArchiveServer, refusing, serving, without_proxies
from builders import drop_bars, make_bars, write_parquet

from percoin.bars.schema import Bars, check_bars
from percoin.bars.sources.binance import source as source_module
from percoin.bars.sources.binance.source import ExchangeSource
from percoin.bars.sources.binance.transfer import Patience
from percoin.bars.store import BarStore
from percoin.errors import BarsNotFoundError, ConfigError, FetchError
from percoin.types import Timeframe

H1 = Timeframe.H1
NOW = pd.Timestamp("2025-02-05 10:07", tz="UTC")
# From before 2025, when spot files began to count in microseconds, to after NOW.
TRUTH = make_bars(24 * 90, timeframe=H1, start=pd.Timestamp("2024-12-01", tz="UTC"))
CLOSED = TRUTH.slice(0, int(TRUTH.frame.index.searchsorted(NOW.floor("h"))))
N_BARS = 24 * 50

MakeSource = Callable[..., ExchangeSource]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ArchiveServer]:
    without_proxies(monkeypatch)
    with serving() as server:
        server.add(TRUTH, NOW)
        yield server


@pytest.fixture
def make_source(server: ArchiveServer, tmp_path: Path) -> MakeSource:
    def make(n_bars: int = N_BARS, **changes: object) -> ExchangeSource:
        source = ExchangeSource(
            BarStore(tmp_path / "bars"),
            n_bars,
            archive_url=server.url,
            api_url=server.url,
            patience=Patience(timeout_secs=5, sleep=lambda secs: None),
        )
        return replace(source, **changes)

    return make


def assert_same_bars(bars: Bars, truth: Bars) -> None:
    pd.testing.assert_frame_equal(bars.frame, truth.frame, check_freq=False, check_exact=True)


def test_bars_come_from_months_days_and_the_api_without_the_open_one(server, make_source):
    update = make_source().update("BTCUSDT", H1)

    assert_same_bars(update.bars, CLOSED)
    assert update.n_new == len(CLOSED)
    assert update.failure is None
    assert update.bars.origin == "binance spot: BTCUSDT"
    assert update.bars.source == "binance"
    months = [f"BTCUSDT-1h-{month}.zip" for month in ("2024-12", "2025-01")]
    days = [f"BTCUSDT-1h-2025-02-{day:02}.zip" for day in range(1, 5)]
    assert sorted(server.downloads()) == sorted(months + days)
    assert len(server.calls("/klines?")) == 1


def test_files_are_removed_once_their_bars_are_stored(make_source, tmp_path):
    make_source().load("BTCUSDT", H1)

    assert [path for path in (tmp_path / "archive").rglob("*") if path.is_file()] == []


def test_a_second_call_asks_for_the_time_alone(server, make_source):
    first = make_source().load("BTCUSDT", H1)
    server.requests.clear()
    second = make_source().update("BTCUSDT", H1)

    assert server.requests == ["/api/v3/time"]
    assert second.n_new == 0
    assert_same_bars(second.bars, first)


def test_newer_bars_cost_one_page_and_no_download(server, make_source):
    make_source().load("BTCUSDT", H1)
    server.requests.clear()
    server.add(TRUTH, NOW + pd.Timedelta(hours=30))
    update = make_source().update("BTCUSDT", H1)

    assert update.n_new == 30
    assert_same_bars(update.bars, TRUTH.slice(0, len(CLOSED) + 30))
    assert server.downloads() == []
    assert len(server.calls("/klines?")) == 1


def test_a_long_absence_is_made_up_for_from_the_archive(server, make_source):
    server.add(TRUTH, pd.Timestamp("2024-12-03 00:00", tz="UTC"))
    make_source(24).load("BTCUSDT", H1)
    server.requests.clear()
    server.add(TRUTH, NOW)
    bars = make_source(24 * 60).load("BTCUSDT", H1)

    assert_same_bars(bars, CLOSED)
    assert "BTCUSDT-1h-2025-01.zip" in server.downloads()


def pause(server, make_source, **changes) -> tuple[Bars, Bars]:
    """The stored bars before and after two months in which nobody asked."""
    server.add(TRUTH, pd.Timestamp("2024-12-03 00:00", tz="UTC"))
    before = make_source(24).load("BTCUSDT", H1)
    server.add(TRUTH, NOW)
    server.requests.clear()
    return before, make_source(48, **changes).load("BTCUSDT", H1)


@pytest.mark.parametrize(("longest", "is_whole"), [(10_000, True), (24 * 30, False)])
def test_a_pause_leaves_no_hole_before_the_newest_bars_if_it_is_not_too_long(
    longest, is_whole, server, make_source, monkeypatch, caplog
):
    monkeypatch.setattr(source_module, "_LONGEST_PAUSE_BARS", longest)
    before, bars = pause(server, make_source)

    assert bars.open_time[0] <= before.open_time[0]
    assert bars.open_time[-1] == CLOSED.open_time[-1]
    assert bool((np.diff(bars.open_time) == H1.milliseconds).all()) == is_whole
    assert (len(server.calls("/klines?")), server.downloads()) == (2 if is_whole else 1, [])
    # Nobody was asked for what is missing.
    assert "no place that was asked" not in caplog.text


def test_a_pause_is_made_up_for_while_the_archive_is_down(server, make_source):
    _, bars = pause(server, make_source, archive_url="http://127.0.0.1:9")
    assert (np.diff(bars.open_time) == H1.milliseconds).all()


def test_what_is_missing_before_is_fetched_and_the_rest_is_not(server, make_source):
    make_source(24 * 10).load("BTCUSDT", H1)
    server.requests.clear()
    bars = make_source().load("BTCUSDT", H1)

    assert_same_bars(bars, CLOSED)
    assert sorted(server.downloads()) == ["BTCUSDT-1h-2024-12.zip", "BTCUSDT-1h-2025-01.zip"]


def test_what_is_missing_between_is_fetched(server, make_source):
    store = make_source().store
    make_source().load("BTCUSDT", H1)
    bars, (segment, *later) = store.read_segments("BTCUSDT", H1)
    hole = (segment.start + 40 * 86_400_000, segment.start + 41 * 86_400_000)
    segments = [replace(segment, end=hole[0]), replace(segment, start=hole[1]), *later]
    inside = (bars.open_time >= hole[0]) & (bars.open_time < hole[1])
    with store.locked("BTCUSDT", H1):
        store.write_locked(drop_bars(bars, np.flatnonzero(inside).tolist()), segments)
    server.requests.clear()

    update = make_source().update("BTCUSDT", H1)

    assert update.n_new == 24
    assert_same_bars(update.bars, CLOSED)
    assert server.downloads() == ["BTCUSDT-1h-2025-01.zip"]


def test_pages_follow_one_another(server, make_source):
    bars = make_source(1500, archive_url=None).load("BTCUSDT", H1)

    assert_same_bars(bars, CLOSED.slice(len(CLOSED) - len(bars)))
    assert len(bars) >= 1500
    assert len(server.calls("/klines?")) == 2


def test_a_header_line_is_no_bar(server, make_source):
    server.has_header = True

    assert_same_bars(make_source().load("BTCUSDT", H1), CLOSED)


def test_perpetual_bars_have_their_own_archive_and_api(server, make_source):
    perp = make_bars(24 * 90, timeframe=H1, seed=5, start=TRUTH.frame.index[0])
    server.add(perp, NOW, "perp")
    bars = make_source(market="perp").load("BTCUSDT", H1)

    assert_same_bars(bars, perp.slice(0, len(CLOSED)))
    assert bars.origin == "binance perp: BTCUSDT"
    assert all("futures/um" in path or "/fapi/v1/" in path for path in server.requests)


def test_spot_and_perpetual_bars_are_never_joined(server, make_source, caplog):
    make_source().load("BTCUSDT", H1)
    perp = make_bars(24 * 90, timeframe=H1, seed=5, start=TRUTH.frame.index[0])
    server.add(perp, NOW, "perp")
    bars = make_source(24 * 5, market="perp").load("BTCUSDT", H1)

    assert_same_bars(bars, perp.slice(0, len(CLOSED)).slice(len(CLOSED) - len(bars)))
    assert "stored bars (binance spot: BTCUSDT) are replaced" in caplog.text


def test_gaps_of_the_exchange_stay_gaps_and_are_not_asked_for_again(server, make_source):
    halted = drop_bars(TRUTH, range(700, 706))
    server.add(halted, NOW)
    bars = make_source().load("BTCUSDT", H1)
    server.requests.clear()
    again = make_source().load("BTCUSDT", H1)

    assert_same_bars(bars, drop_bars(CLOSED, range(700, 706)))
    assert_same_bars(again, bars)
    assert server.requests == ["/api/v3/time"]


def test_a_market_younger_than_its_history_is_asked_for_once(server, make_source):
    young = TRUTH.slice(24 * 45 + 5)
    server.add(young, NOW)
    bars = make_source().load("BTCUSDT", H1)
    server.requests.clear()
    make_source().load("BTCUSDT", H1)

    assert_same_bars(bars, CLOSED.slice(24 * 45 + 5))
    assert server.requests == ["/api/v3/time"]


def test_the_newest_bar_may_come_late(server, make_source):
    server.add(CLOSED.slice(0, len(CLOSED) - 1), NOW)
    make_source().load("BTCUSDT", H1)
    server.add(TRUTH, NOW)

    assert_same_bars(make_source().load("BTCUSDT", H1), CLOSED)


@pytest.mark.parametrize("minutes", [0, 1, 59])
def test_a_bar_counts_from_the_moment_it_closes(minutes, server, make_source):
    now = NOW.floor("h") + pd.Timedelta(minutes=minutes)
    server.add(TRUTH, now)
    bars = make_source(24).load("BTCUSDT", H1)

    assert bars.close_time() == NOW.floor("h")


@pytest.mark.parametrize("secs", [-3 * 86_400, 3 * 86_400])
def test_a_wrong_local_clock_changes_nothing(secs, make_source, monkeypatch, caplog):
    monkeypatch.setattr(source_module.time, "time", lambda: NOW.timestamp() + secs)

    assert_same_bars(make_source().load("BTCUSDT", H1), CLOSED)
    assert "the clock of this machine is 3 days off that of binance" in caplog.text


def test_a_clock_that_is_right_is_not_mentioned(make_source, monkeypatch, caplog):
    monkeypatch.setattr(source_module.time, "time", NOW.timestamp)
    make_source().load("BTCUSDT", H1)

    assert caplog.messages == []


def test_an_exchange_with_a_senseless_clock_is_not_believed(server, make_source):
    server.plan("/time", lambda usual: replace(usual, body=b'{"serverTime": 1740046}'), times=99)

    with pytest.raises(FetchError, match="failed 5 times"):
        make_source(24, archive_url=None).load("BTCUSDT", H1)


def test_a_renamed_market_is_joined_where_one_name_ends(server, make_source):
    was = make_bars(24 * 50, "MATICUSDT", H1, seed=1, start=TRUTH.frame.index[0])
    # Three days without a market, as when Binance renamed it; then some bars of both names.
    now = make_bars(24 * 40, "POLUSDT", H1, seed=2, start=was.frame.index[-24])
    server.add(was, NOW)
    server.add(now, NOW)
    bars = make_source().load("POLUSDT", H1)

    truth = pd.concat([was.frame.iloc[:-24], now.frame])
    assert_same_bars(bars, replace(TRUTH, frame=truth[truth.index < NOW.floor("h")]))
    assert bars.symbol == "POLUSDT"
    assert bars.origin == "binance spot: POLUSDT, before it MATICUSDT"
    vias = [part.via for part in make_source().store.read_segments("POLUSDT", H1)[1]]
    assert vias == ["archive MATICUSDT", "archive POLUSDT", "API POLUSDT"]


def test_the_older_part_of_a_renamed_market_may_come_later(server, make_source):
    was = make_bars(24 * 50, "MATICUSDT", H1, seed=1, start=TRUTH.frame.index[0])
    now = make_bars(24 * 40, "POLUSDT", H1, seed=2, start=was.frame.index[-24])
    server.add(was, NOW)
    server.add(now, NOW)
    make_source(24 * 3).load("POLUSDT", H1)
    bars = make_source().load("POLUSDT", H1)

    assert bars.frame.index.is_unique
    assert_same_bars(bars.slice(0, 24 * 49), was.slice(0, 24 * 49))
    assert_same_bars(bars.slice(24 * 49), now.slice(0, len(bars) - 24 * 49))


def test_the_old_name_of_a_market_is_refused(make_source):
    with pytest.raises(ConfigError, match="use symbol=POLUSDT"):
        make_source().load("MATICUSDT", H1)


def test_a_market_that_does_not_exist_is_named(make_source, tmp_path):
    with pytest.raises(BarsNotFoundError, match="XYZUSDT 1h: binance has no spot market"):
        make_source().load("XYZUSDT", H1)
    assert list((tmp_path / "bars").rglob("*.parquet")) == []


def test_a_market_that_has_ended_keeps_what_the_archive_has(server, make_source):
    server.plan("exchangeInfo", refusing(400), times=9)
    server.plan("/klines?", refusing(400), times=9)
    update = make_source().update("BTCUSDT", H1)

    assert update.bars.close_time() == NOW.floor("D")
    assert update.failure is not None


def test_bars_of_another_source_are_replaced_once_the_new_ones_are_there(
    server, make_source, caplog
):
    store = make_source().store
    sample = replace(make_bars(50, timeframe=H1, seed=9), origin="sample: gym")
    store.write(sample)
    server.plan("2025-01.zip", refusing(451), times=99)
    with pytest.raises(FetchError):
        make_source().load("BTCUSDT", H1)
    assert_same_bars(store.read("BTCUSDT", H1), sample)

    server._planned.clear()
    bars = make_source().load("BTCUSDT", H1)

    assert_same_bars(bars, CLOSED)
    assert "stored bars (sample: gym) are replaced by bars of another source" in caplog.text


def test_bars_of_another_source_are_used_as_they_are_where_none_may_be_replaced(
    server, make_source, caplog
):
    caplog.set_level(logging.INFO)
    sample = replace(make_bars(50, timeframe=H1, seed=9), origin="sample: gym")
    make_source().store.write(sample)
    bars = make_source(replace=False).load("BTCUSDT", H1)

    assert_same_bars(bars, sample)
    assert server.requests == []
    assert (
        "the stored bars are of another source (sample: gym) and are used as they are"
        in caplog.text
    )


def test_a_file_of_another_program_is_used_as_it_is_where_none_may_be_replaced(
    server, make_source, caplog
):
    caplog.set_level(logging.INFO)
    own = make_bars(50, timeframe=H1, seed=9)
    path = write_parquet(own, make_source().store.path("BTCUSDT", H1))
    before = path.read_bytes()
    bars = make_source(replace=False).load("BTCUSDT", H1)

    assert_same_bars(bars, own)
    assert path.read_bytes() == before
    assert server.requests == []
    assert "(files: BTCUSDT/1h.parquet in the store) and are used as they are" in caplog.text


def test_a_damaged_file_is_fetched_again_where_none_may_be_replaced(server, make_source):
    make_source().load("BTCUSDT", H1)
    make_source().store.path("BTCUSDT", H1).write_bytes(b"PAR1")

    assert_same_bars(make_source(replace=False).load("BTCUSDT", H1), CLOSED)


def test_a_prediction_goes_on_with_the_perpetual_bars_it_finds(server, make_source):
    perp = make_bars(24 * 90, timeframe=H1, seed=5, start=TRUTH.frame.index[0])
    server.add(perp, NOW, "perp")
    make_source(market="perp").load("BTCUSDT", H1)
    server.add(perp, NOW + pd.Timedelta(hours=3), "perp")
    bars = make_source(replace=False).load("BTCUSDT", H1)

    assert_same_bars(bars, perp.slice(0, len(CLOSED) + 3))


def test_a_file_that_was_edited_is_fetched_again(server, make_source):
    make_source().load("BTCUSDT", H1)
    path = make_source().store.path("BTCUSDT", H1)
    table = pq.read_table(path).slice(0, 500)
    pq.write_table(table, path)

    assert_same_bars(make_source().load("BTCUSDT", H1), CLOSED)


def test_a_damaged_file_is_fetched_again(server, make_source, caplog):
    make_source().load("BTCUSDT", H1)
    make_source().store.path("BTCUSDT", H1).write_bytes(b"PAR1")

    assert_same_bars(make_source().load("BTCUSDT", H1), CLOSED)
    assert "they are fetched again" in caplog.text


def test_offline_without_stored_bars_names_the_other_sources(make_source):
    nowhere = {"archive_url": "http://127.0.0.1:9", "api_url": "http://127.0.0.1:9"}
    with pytest.raises(FetchError) as caught:
        make_source(**nowhere).load("BTCUSDT", H1)

    assert "cannot be reached" in str(caught.value)
    assert "\n" not in str(caught.value)
    for other in ("source=files", "source=sample", "source=simulated"):
        assert other in caught.value.action


def test_offline_the_stored_bars_are_used_and_their_age_is_said(make_source, caplog, monkeypatch):
    nowhere = {"archive_url": "http://127.0.0.1:9", "api_url": "http://127.0.0.1:9"}
    stored = make_source().load("BTCUSDT", H1)
    monkeypatch.setattr(source_module.time, "time", lambda: NOW.timestamp() + 5 * 3600)
    bars = make_source(**nowhere).load("BTCUSDT", H1)

    assert_same_bars(bars, stored)
    assert "going on with the bars stored until 2025-02-05 10:00 UTC, 5 hours ago" in caplog.text
    caplog.clear()
    assert isinstance(make_source(**nowhere).renew("BTCUSDT", H1).failure, FetchError)
    assert "going on" not in caplog.text


def test_offline_stored_bars_that_do_not_reach_back_far_enough_are_an_error(make_source):
    nowhere = {"archive_url": "http://127.0.0.1:9", "api_url": "http://127.0.0.1:9"}
    make_source(24).load("BTCUSDT", H1)

    with pytest.raises(FetchError, match="cannot be reached"):
        make_source(**nowhere).load("BTCUSDT", H1)


def test_an_exchange_that_ccxt_does_not_know_is_named(make_source):
    with pytest.raises(ConfigError, match=r"source\.exchange=binanse is no exchange"):
        make_source(exchange="binanse").load("BTCUSDT", H1)
    with pytest.raises(ConfigError, match=r"source\.api_url is for source\.exchange=binance only"):
        make_source(exchange="kraken").load("BTCUSDT", H1)


def test_another_exchange_does_without_the_archive(server, make_source, monkeypatch):
    rows = [
        [int(opened), *values]
        for opened, values in zip(TRUTH.open_time, TRUTH.frame.to_numpy().tolist(), strict=True)
    ]

    def page(self, name, timeframe, since, limit):
        assert (name, timeframe) == ("BTC/USDT", "1h")
        closed = [row for row in rows if since <= row[0] <= NOW.timestamp() * 1000]
        return closed[:720]  # as many as that exchange gives, whatever is asked for

    kind = {"spot": True, "linear": None, "base": "BTC", "quote": "USDT"}
    monkeypatch.setattr("ccxt.kraken.fetch_time", lambda self: int(NOW.timestamp() * 1000))
    monkeypatch.setattr("ccxt.kraken.load_markets", lambda self, params: {"BTC/USDT": kind})
    monkeypatch.setattr("ccxt.kraken.fetch_ohlcv", page)
    bars = make_source(exchange="kraken", api_url=None).load("BTCUSDT", H1)

    assert_same_bars(bars, CLOSED.slice(len(CLOSED) - len(bars)))
    assert len(bars) >= N_BARS
    assert bars.origin == "kraken spot: BTCUSDT"
    assert server.requests == []


def test_two_processes_on_one_market_download_it_once(server, tmp_path):
    command = [
        *("-m", "percoin.fetch", "symbol=BTCUSDT", "tf=1h", "history_days=20"),
        *(f"source.archive_url={server.url}", f"source.api_url={server.url}"),
        *(f"data_dir={tmp_path}", "output=json"),
    ]
    running = [warm_processes.Process(command) for _ in range(2)]
    answers = [json.loads(process.communicate(timeout=120)[0]) for process in running]

    assert sorted(answer[0]["result"] for answer in answers) == ["fetched", "up to date"]
    assert len(server.downloads()) == len(set(server.downloads()))
    stored = BarStore(tmp_path / "bars").read("BTCUSDT", H1)
    assert_same_bars(stored, CLOSED.slice(len(CLOSED) - len(stored)))


def test_real_bars_come_back_as_they_were(server, make_source, klines):
    table = pd.read_parquet(klines / "BTCUSDT" / "15m.parquet").set_index("open_time")
    newest = check_bars(table.iloc[-96 * 70 :], "BTCUSDT", Timeframe.M15)
    real = Bars("BTCUSDT", Timeframe.M15, newest, "files: real")
    now = real.close_time() - pd.Timedelta(hours=7, minutes=1)
    server.add(real, now, "perp")
    bars = make_source(96 * 50, market="perp").load("BTCUSDT", Timeframe.M15)

    truth = real.slice(0, len(real) - 29)
    assert_same_bars(bars, truth.slice(len(truth) - len(bars)))
    assert len(bars) >= 96 * 50


def test_bars_lie_in_the_store_with_who_answered_for_them(make_source):
    bars = make_source().load("BTCUSDT", H1)
    metadata = json.loads(
        pq.read_schema(make_source().store.path("BTCUSDT", H1)).metadata[b"percoin"]
    )

    assert [via for _, _, via in metadata["segments"]] == ["archive BTCUSDT", "API BTCUSDT"]
    assert metadata["sha256"] == bars.sha256()
    assert re.fullmatch("[0-9a-f]{64}", metadata["sha256"])
