"""Bars that somebody leaves out: found elsewhere, or told as a gap, never taken as answered."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import requests
from bars.archive_server import (
    HEADER,
    Answer,
    ArchiveServer,
    as_json,
    checksum,
    kline_lines,
    ms,
    refusing,
    serving,
    without_proxies,
    zipped,
)
from builders import drop_bars, make_bars

from percoin.bars.schema import Bars
from percoin.bars.sources.binance import source as source_module
from percoin.bars.sources.binance.source import ExchangeSource
from percoin.bars.sources.binance.transfer import Patience
from percoin.bars.store import BarStore
from percoin.bars.update import Segment
from percoin.errors import BarsNotFoundError, DataError, FetchError, InvalidBarsError
from percoin.types import Timeframe

H1 = Timeframe.H1
STEP = H1.milliseconds
NOW = pd.Timestamp("2024-05-02 10:07", tz="UTC")
TRUTH = make_bars(24 * 130, timeframe=H1, start=pd.Timestamp("2024-01-01", tz="UTC"))
CLOSED = TRUTH.slice(0, int(TRUTH.frame.index.searchsorted(NOW.floor("h"))))
N_BARS = 24 * 110
MONTH = "BTCUSDT-1h-2024-03"
DAY = "BTCUSDT-1h-2024-03-07"

MakeSource = Callable[..., ExchangeSource]
Lines = list[str]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ArchiveServer]:
    without_proxies(monkeypatch)
    monkeypatch.setattr(source_module.time, "time", NOW.timestamp)
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
            patience=Patience(timeout_secs=5, attempts=2, sleep=lambda secs: None),
        )
        return replace(source, **changes)

    return make


def assert_same_bars(bars: Bars, truth: Bars) -> None:
    pd.testing.assert_frame_equal(bars.frame, truth.frame, check_freq=False, check_exact=True)


def lines_of(bars: Bars, label: str) -> Lines:
    start = pd.Timestamp(label, tz="UTC")
    is_month = len(label) == len("2024-03")
    end = start + (pd.offsets.MonthBegin(1) if is_month else pd.Timedelta(days=1))
    return kline_lines(bars, ms(start), ms(end), "spot")


def publish(server: ArchiveServer, name: str, text: str) -> None:
    """Put a file, with its checksum, in the place of one of the archive."""
    body = zipped(name, text)
    server.plan(f"{name}.zip.CHECKSUM", lambda usual: Answer(checksum(body, f"{name}.zip")), 99)
    server.plan(f"{name}.zip", lambda usual: Answer(body), 99)


def of_day(lines: Lines, day: int) -> Lines:
    return lines[24 * (day - 1) : 24 * day]


def without_a_day(lines: Lines) -> Lines:
    return [line for line in lines if line not in of_day(lines, 7)]


@pytest.mark.parametrize(
    "keep",
    [
        without_a_day,
        lambda lines: lines[: 24 * 7],
        lambda lines: lines[24 * 7 :],
        lambda lines: lines[::2],
        lambda lines: lines[:-1],
        lambda lines: [HEADER],
    ],
    ids=["a day", "ends on the 7th", "begins on the 8th", "half", "last bar", "header"],
)
def test_what_a_month_lacks_comes_from_its_days(keep, server, make_source):
    publish(server, MONTH, "".join(keep(lines_of(TRUTH, "2024-03"))))
    update = make_source().update("BTCUSDT", H1)

    assert_same_bars(update.bars, CLOSED)
    assert update.failure is None
    days = [name for name in server.downloads() if name.startswith("BTCUSDT-1h-2024-03-")]
    assert days
    assert len(days) == len(set(days))
    server.requests.clear()
    make_source().update("BTCUSDT", H1)
    assert server.requests == ["/api/v3/time"]


def test_only_the_days_that_a_month_lacks_are_asked_for(server, make_source):
    publish(server, MONTH, "".join(without_a_day(lines_of(TRUTH, "2024-03"))))
    make_source().update("BTCUSDT", H1)

    assert [name for name in server.downloads() if name.startswith(f"{MONTH}-")] == [f"{DAY}.zip"]


def test_what_month_and_day_lack_comes_from_the_exchange(server, make_source, caplog):
    publish(server, MONTH, "".join(without_a_day(lines_of(TRUTH, "2024-03"))))
    publish(server, DAY, "".join(lines_of(TRUTH, "2024-03-07")[:12]))
    bars = make_source().load("BTCUSDT", H1)

    assert_same_bars(bars, CLOSED)
    assert "gap" not in caplog.text
    vias = [part.via for part in make_source().store.read_segments("BTCUSDT", H1)[1]]
    assert vias[:3] == ["archive BTCUSDT", "API BTCUSDT", "archive BTCUSDT"]


def test_what_all_lack_is_a_gap_that_is_named_once(server, make_source, caplog):
    first = 24 * (31 + 29 + 6)  # 2024-03-07 00:00
    halted = drop_bars(TRUTH, range(first, first + 30))
    server.add(halted, NOW)
    bars = make_source().load("BTCUSDT", H1)

    assert_same_bars(bars, drop_bars(CLOSED, range(first, first + 30)))
    said = [message for message in caplog.messages if "gap" in message]
    assert len(said) == 1
    assert "30 between 2024-03-06 23:00 and 2024-03-08 06:00 UTC" in said[0]
    assert f"{DAY}.zip.CHECKSUM" in " ".join(server.requests)
    caplog.clear()
    server.requests.clear()
    make_source().load("BTCUSDT", H1)
    assert server.requests == ["/api/v3/time"]
    assert caplog.messages == []


def test_what_the_archive_lacks_is_asked_of_the_exchange_once_that_can_be_reached(
    server, make_source
):
    for name in (MONTH, DAY):
        label = name.removeprefix("BTCUSDT-1h-")
        lines = lines_of(TRUTH, label)
        publish(server, name, "".join(lines[:5] if name == DAY else without_a_day(lines)))
    server.plan("/api/v3/", refusing(451), times=99)
    # What is stored will do for a training, although the exchange refuses.
    bars = make_source().load("BTCUSDT", H1)
    missing = 19
    until = int(TRUTH.frame.index.searchsorted(NOW.floor("D")))
    assert len(bars) == until - missing
    server.requests.clear()
    make_source().load("BTCUSDT", H1)
    assert server.downloads() == []

    server._planned = [plan for plan in server._planned if plan.pattern != "/api/v3/"]
    assert_same_bars(make_source().load("BTCUSDT", H1), CLOSED)
    assert server.downloads() == []


def test_holes_that_were_taken_as_answered_before_are_asked_for_once(server, make_source):
    first = 24 * (31 + 29 + 6)
    stored = drop_bars(CLOSED, [*range(first, first + 24), 5, 6])
    whole = Segment(int(CLOSED.open_time[0]), ms(NOW.floor("h")), "archive BTCUSDT")
    store = make_source().store
    with store.locked("BTCUSDT", H1):
        store.write_locked(replace(stored, origin="binance spot: BTCUSDT"), [whole])
    server.add(drop_bars(TRUTH, [5, 6]), NOW)

    source = make_source(len(CLOSED))
    assert_same_bars(source.load("BTCUSDT", H1), drop_bars(CLOSED, [5, 6]))
    server.requests.clear()
    source.load("BTCUSDT", H1)
    assert server.requests == ["/api/v3/time"]


def test_a_month_that_is_absent_between_others_comes_by_days(server, make_source):
    server.plan(f"{MONTH}.zip", refusing(404), times=99)
    server.plan("/api/v3/klines", refusing(451), times=99)
    # Of before the first month that is there nobody expects days.
    server.add(TRUTH.slice(24 * 31), NOW)
    bars = make_source(24 * 120).load("BTCUSDT", H1)

    until = int(TRUTH.frame.index.searchsorted(NOW.floor("D")))
    assert_same_bars(bars, TRUTH.slice(24 * 31, until))
    assert server.calls("2024-01-") == []


def shifted(lines: Lines, chosen: range) -> Lines:
    minutes = 28 * 60_000 + 15_000
    moved = list(lines)
    for place in chosen:
        opened, *rest = lines[place].split(",")
        moved[place] = ",".join([str(int(opened) + minutes), *rest])
    return moved


def test_bars_off_the_grid_are_left_out_and_named(server, make_source, caplog):
    chosen = range(100, 140)
    publish(server, MONTH, "".join(shifted(lines_of(TRUTH, "2024-03"), chosen)))
    first = 24 * (31 + 29)
    halted = drop_bars(TRUTH, [first + place for place in chosen])
    server.add(halted, NOW)
    bars = make_source().load("BTCUSDT", H1)

    assert_same_bars(bars, drop_bars(CLOSED, [first + place for place in chosen]))
    assert f"{MONTH}.zip has 40 of 744 bars off the 1h grid" in caplog.text
    assert "from 2024-03-05 04:28:15 to 2024-03-06 19:28:15 UTC" in caplog.text
    assert "40 of 2,938 bars missing" in caplog.text or "40 between" in caplog.text


def test_bars_off_the_grid_that_others_have_on_it_are_no_gap(server, make_source):
    publish(server, MONTH, "".join(shifted(lines_of(TRUTH, "2024-03"), range(100, 140))))

    assert_same_bars(make_source().load("BTCUSDT", H1), CLOSED)


def test_a_month_that_is_mostly_off_the_grid_is_refused(server, make_source):
    publish(server, MONTH, "".join(shifted(lines_of(TRUTH, "2024-03"), range(100, 700))))

    with pytest.raises(InvalidBarsError, match="600 of 744 bars off the 1h grid") as caught:
        make_source().load("BTCUSDT", H1)
    assert "source.archive_url=null" in caught.value.action


def test_a_gap_of_the_last_days_is_asked_for_again(server, make_source):
    newest = len(CLOSED)
    halted = drop_bars(TRUTH, [newest - 40, newest - 39, newest - 5])
    server.add(halted, NOW)
    first = make_source().load("BTCUSDT", H1)
    assert len(first) == len(CLOSED) - 3
    server.add(TRUTH, NOW)

    assert_same_bars(make_source().load("BTCUSDT", H1), CLOSED)


def test_a_gap_of_the_last_days_stays_answered_where_nobody_can_be_asked(server, make_source):
    newest = len(CLOSED)
    server.add(drop_bars(TRUTH, [newest - 40]), NOW)
    first = make_source().load("BTCUSDT", H1)
    server.plan("", refusing(451), times=999)

    update = make_source().update("BTCUSDT", H1)
    assert_same_bars(update.bars, first)
    assert update.failure is not None


def test_what_the_newest_page_lacks_may_lie_in_the_archive(server, make_source):
    before = NOW - pd.Timedelta(days=4)
    server.add(TRUTH, before)
    make_source().load("BTCUSDT", H1)
    server.add(TRUTH, NOW)
    hole = {ms(NOW.floor("h")) - 30 * STEP, ms(NOW.floor("h")) - 31 * STEP}

    def lacking(usual: Answer) -> Answer:
        return as_json([row for row in json.loads(usual.body) if row[0] not in hole])

    server.plan("/klines?", lacking, times=99)
    assert_same_bars(make_source().load("BTCUSDT", H1), CLOSED)


def changed(change: Callable[[list[list[object]]], object]) -> Callable[[Answer], Answer]:
    return lambda usual: as_json(change(json.loads(usual.body)))


def moved(rows: list[list[object]], days: int) -> list[list[object]]:
    return [[int(str(row[0])) + days * 86_400_000, *row[1:]] for row in rows]


SENSELESS = {
    "truncated": lambda usual: replace(usual, body=usual.body[: len(usual.body) // 2]),
    "nothing": lambda usual: replace(usual, body=b""),
    "empty list": changed(lambda rows: []),
    "empty object": changed(lambda rows: {}),
    "object": changed(lambda rows: {"data": rows}),
    "null": changed(lambda rows: None),
    "seconds": changed(lambda rows: [[int(str(row[0])) // 1000, *row[1:]] for row in rows]),
    "past": changed(lambda rows: moved(rows, -30)),
    "future": changed(lambda rows: moved(rows, 30)),
    "every second": changed(lambda rows: rows[::2]),
    "without the first": changed(lambda rows: rows[3:]),
    "the first alone": changed(lambda rows: rows[:1]),
    "the newest alone": changed(lambda rows: rows[-2:]),
    "huge": changed(lambda rows: [[row[0], *["1e308"] * 5, *row[6:]] for row in rows]),
    "huge volume": changed(lambda rows: [[*row[:5], "1e308", *row[6:]] for row in rows]),
}


@pytest.mark.parametrize("fault", SENSELESS.values(), ids=SENSELESS)
def test_an_answer_that_is_none_is_an_error_and_counts_for_nothing(fault, server, make_source):
    before = NOW - pd.Timedelta(hours=30)
    server.add(TRUTH, before)
    stored = make_source().load("BTCUSDT", H1)
    server.add(TRUTH, NOW)
    server.plan("/klines?", fault, times=999)
    try:
        failure: DataError | None = make_source().update("BTCUSDT", H1).failure
    except DataError as error:
        failure = error
    assert failure is not None
    assert "\n" not in str(failure)
    kept = make_source().store.read("BTCUSDT", H1)
    assert_same_bars(kept.slice(0, len(stored)), stored)
    assert_same_bars(kept, CLOSED.slice(0, len(kept)))

    server._planned.clear()
    assert_same_bars(make_source().load("BTCUSDT", H1), CLOSED)


def test_an_answer_that_is_none_for_a_moment_is_asked_for_again(server, make_source):
    before = NOW - pd.Timedelta(hours=30)
    server.add(TRUTH, before)
    make_source().load("BTCUSDT", H1)
    server.add(TRUTH, NOW)
    server.plan("/klines?", changed(lambda rows: rows[::2]), times=1)

    update = make_source().update("BTCUSDT", H1)
    assert update.failure is None
    assert_same_bars(update.bars, CLOSED)


def test_an_exchange_that_gives_few_bars_at_a_time_is_given_up(server, make_source):
    server.plan("/klines?", changed(lambda rows: rows[:2]), times=9999)

    with pytest.raises(FetchError, match="gives only a few bars at a time"):
        make_source(500, archive_url=None).load("BTCUSDT", H1)
    assert len(server.calls("/klines?")) < 100


def test_a_market_that_has_ended_is_said(server, make_source, caplog):
    source_module._warn_once.cache_clear()
    ended = TRUTH.slice(0, 24 * 70)
    server.add(ended, NOW)
    server.ended.add("BTCUSDT")
    update = make_source().update("BTCUSDT", H1)

    assert update.failure is None
    assert_same_bars(update.bars, ended.slice(len(ended) - len(update.bars)))
    assert update.ended_note == "no bars since 2024-03-11 00:00 UTC (ended?)"
    for _ in range(2):
        make_source().load("BTCUSDT", H1)
    said = [record for record in caplog.records if "ended?" in record.message]
    assert [record.message for record in said] == [f"BTCUSDT 1h: {update.ended_note}"]


def test_a_market_that_is_no_longer_listed_is_told_from_an_exchange_out_of_reach(
    server, make_source
):
    stored = make_source().load("BTCUSDT", H1)
    server.bars.pop(("spot", "BTCUSDT"))
    server.now_ms += 3 * 24 * 3_600_000
    update = make_source().update("BTCUSDT", H1)

    assert isinstance(update.failure, BarsNotFoundError)
    assert update.failure.found == "binance has no spot market of that name"
    assert_same_bars(update.bars, stored)
    # Too few bars are stored for this one.
    with pytest.raises(BarsNotFoundError, match="binance has no spot market of that name"):
        make_source(5000, archive_url=None).update("BTCUSDT", H1)

    server.plan("exchangeInfo", refusing(503), times=99)
    assert isinstance(make_source().update("BTCUSDT", H1).failure, FetchError)


def test_a_market_that_is_traded_but_silent_is_incomplete(server, make_source):
    server.add(TRUTH.slice(0, 24 * 70), NOW)
    update = make_source().update("BTCUSDT", H1)

    assert update.failure is not None
    assert "binance gives no bars since 2024-03-11 00:00 UTC" in update.failure.found
    server.add(TRUTH, NOW)
    assert_same_bars(make_source().load("BTCUSDT", H1), CLOSED)


def test_a_market_that_is_young_is_said(server, make_source):
    server.add(TRUTH.slice(24 * 60), NOW)
    update = make_source().update("BTCUSDT", H1)

    assert update.young_note.startswith("no bars before 2024-03-01 00:00 UTC; if the market was")
    assert make_source(24 * 30).update("BTCUSDT", H1).young_note == ""


def test_a_history_longer_than_that_of_bitcoin_is_cut(server, make_source):
    server.add(TRUTH.slice(24 * 120), NOW)
    bars = make_source(10**15).load("BTCUSDT", H1)

    assert_same_bars(bars, CLOSED.slice(24 * 120))
    assert "2009-01" in " ".join(server.requests)
    assert "2008-12" not in " ".join(server.requests)


Page = Callable[[int | None], list[list[float]]]


@pytest.fixture
def other_exchange(monkeypatch: pytest.MonkeyPatch) -> Callable[[Page], None]:
    """Put a stub in the place of an exchange that is not Binance."""

    def stub(page: Page) -> None:
        market = {"spot": True, "linear": None, "base": "BTC", "quote": "USDT", "active": True}
        changes = {
            "fetch_time": lambda self: ms(NOW),
            "load_markets": lambda self, params: {"BTC/USDT": market},
            "fetch_ohlcv": lambda self, name, tf, since, limit: page(since),
        }
        for name, change in changes.items():
            monkeypatch.setattr(f"ccxt.kraken.{name}", change)

    return stub


ROWS = [
    [int(opened), *values]
    for opened, values in zip(TRUTH.open_time, TRUTH.frame.to_numpy().tolist(), strict=True)
]
SO_FAR = [row for row in ROWS if row[0] <= ms(NOW)]


def test_what_an_exchange_no_longer_keeps_is_not_answered(make_source, other_exchange):
    asked: list[int | None] = []

    def newest(since: int | None) -> list[list[float]]:
        asked.append(since)
        return [row for row in SO_FAR[-720:] if since is None or row[0] >= since]

    other_exchange(newest)
    source = make_source(exchange="kraken", api_url=None)
    update = source.update("BTCUSDT", H1)
    assert_same_bars(update.bars, CLOSED.slice(len(SO_FAR) - 720))
    assert update.failure is None
    assert "some exchanges give the newest bars alone" in update.young_note
    (segment,) = source.store.read_segments("BTCUSDT", H1)[1]
    assert segment.start == SO_FAR[-720][0]
    asked.clear()
    source.update("BTCUSDT", H1)
    assert len(asked) == 1

    other_exchange(lambda since: [row for row in SO_FAR if row[0] >= (since or 0)][:1000])
    bars = source.load("BTCUSDT", H1)
    assert_same_bars(bars, CLOSED.slice(len(CLOSED) - len(bars)))
    assert len(bars) >= N_BARS


def windowed(rows: list[list[float]], n_bars: int) -> Page:
    def page(since: int | None) -> list[list[float]]:
        start = ms(NOW) - n_bars * STEP if since is None else since
        return [row for row in rows if start <= row[0] < start + n_bars * STEP]

    return page


def test_bars_without_trades_are_gaps_and_no_fault(make_source, other_exchange, caplog):
    traded = [row for place, row in enumerate(SO_FAR) if place % 9 != 3 and place != 2500]
    # For longer than an answer reaches nothing was traded.
    traded = [row for row in traded if not 1200 <= SO_FAR.index(row) < 1700]
    other_exchange(windowed(traded, 300))
    source = make_source(exchange="kraken", api_url=None)
    update = source.update("BTCUSDT", H1)

    start = ms(NOW.floor("h")) - N_BARS * STEP
    assert update.failure is None
    assert update.bars.open_time.tolist() == [row[0] for row in traded if start <= row[0]][:-1]
    assert "bars missing" in caplog.text
    assert len([message for message in caplog.messages if "gap" in message]) == 1


def test_a_market_that_is_young_ends_the_walk_back(make_source, other_exchange):
    asked: list[int | None] = []
    page = windowed(SO_FAR[-400:], 300)
    other_exchange(lambda since: asked.append(since) or page(since))
    update = make_source(24 * 365 * 10, exchange="kraken", api_url=None).update("BTCUSDT", H1)

    assert_same_bars(update.bars, CLOSED.slice(len(SO_FAR) - 400))
    assert len(asked) < 30


def test_another_exchange_that_leaves_out_rows_is_found_out(make_source, other_exchange):
    other_exchange(lambda since: [row for row in SO_FAR if row[0] >= (since or 0)][:1000][::2])

    with pytest.raises(FetchError, match="leaves out bars that it has when asked again"):
        make_source(exchange="kraken", api_url=None).load("BTCUSDT", H1)


def test_bars_without_any_value_are_left_out_and_said(make_source, other_exchange, caplog):
    rows = [[row[0], *[None] * 5] if place == 2000 else row for place, row in enumerate(SO_FAR)]
    other_exchange(windowed(rows, 300))
    bars = make_source(exchange="kraken", api_url=None).load("BTCUSDT", H1)

    assert_same_bars(bars, drop_bars(CLOSED, [2000]).slice(len(CLOSED) - N_BARS))
    assert "kraken gives 1 bars without any value; they are left out" in caplog.text


def test_a_perpetual_in_thousands_is_named(server, make_source):
    server.add(make_bars(50, "1000SHIBUSDT", H1), NOW, "perp")

    with pytest.raises(BarsNotFoundError, match=r"did you mean symbol=1000SHIBUSDT\?"):
        make_source(24, market="perp").load("SHIBUSDT", H1)


@pytest.mark.parametrize(
    ("date", "ahead_secs", "n_lacking"),
    [
        # This machine's clock is ahead, and the bar of 10:00 still runs.
        ("Thu, 02 May 2024 10:07:00 GMT", 3600, 0),
        ("Thu, 02 May 2024 10:07:00 -0000", 3600, 0),
        ("Thu, 02 May 2024 10:00:00 GMT", 0, 0),
        ("Thu, 02 May 2024 09:59:59 GMT", 0, 1),
        # Without a date that can be read, a bar has to be closed for a minute.
        (None, 0, 0),
        ("today", -360, 0),
        ("today", -361, 1),
        ("Thu, 01 Jan 1970 00:00:00 GMT", -361, 1),
    ],
)
def test_a_running_bar_is_left_out_where_the_exchange_tells_no_time(
    date, ahead_secs, n_lacking, make_source, monkeypatch
):
    """Of 30 exchanges ccxt cannot ask the clock: the date of their answers tells it."""
    market = {"spot": True, "linear": None, "base": "BTC", "quote": "USDT", "active": True}

    def load_markets(self, params):
        answer = requests.Response()
        answer.status_code, answer._content = 200, b""
        if date is not None:
            answer.headers["Date"] = date
        for hook in self.session.hooks["response"]:
            hook(answer)
        return {"BTC/USDT": market}

    monkeypatch.setattr("ccxt.bitstamp.load_markets", load_markets)
    monkeypatch.setattr(
        "ccxt.bitstamp.fetch_ohlcv",
        lambda self, name, tf, since, limit: [r for r in SO_FAR if r[0] >= (since or 0)][:1000],
    )
    local = NOW.timestamp() + ahead_secs
    monkeypatch.setattr(source_module.time, "time", lambda: local)
    bars = make_source(50, exchange="bitstamp", api_url=None).load("BTCUSDT", H1)
    assert bars.close_time() == CLOSED.close_time() - n_lacking * H1.timedelta
