import threading
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from builders import make_bars
from small_servers import Market, exchange_bars

from percoin.bars.sources.base import Renewed
from percoin.errors import BarsNotFoundError, FetchError
from percoin.serving.bar_keeper import BarKeeper, Rhythm, tell_missing
from percoin.types import Timeframe

M15, H1 = Timeframe.M15, Timeframe.H1
RHYTHM = Rhythm(delay_secs=2, jitter_secs=3, retry_secs=4, max_retry_secs=20)
BROKEN = FetchError("BTCUSDT", M15, "the exchange is out of reach", "wait")


@pytest.fixture
def market() -> Market:
    return Market(exchange_bars(20), n_closed=10)


def keeper_of(market: Market, **kwargs) -> BarKeeper:
    keeper = BarKeeper(market.load, ["BTCUSDT"], [M15], RHYTHM, market.clock, **kwargs)
    keeper.refresh("BTCUSDT")
    return keeper


def held(keeper: BarKeeper):
    return keeper.held("BTCUSDT")[M15]


def test_a_bar_is_asked_for_once_shortly_after_it_has_closed(market):
    keeper = keeper_of(market)
    assert len(held(keeper).bars) == 10
    market.now = market.close(11)
    keeper.refresh("BTCUSDT")
    market.pass_time(seconds=1.9)
    keeper.refresh("BTCUSDT")
    assert market.n_questions == 1
    market.pass_time(seconds=3.2)
    keeper.refresh("BTCUSDT")
    assert (market.n_questions, len(held(keeper).bars)) == (2, 11)
    market.pass_time(seconds=800)
    keeper.refresh("BTCUSDT")
    assert market.n_questions == 2


@pytest.mark.parametrize("fails", [False, True])
def test_after_the_clock_was_set_back_bars_are_loaded_at_once(market, fails):
    """It was ahead by an hour, and set right once bars had been loaded by it."""
    market.pass_time(hours=1)
    market.failure = BROKEN if fails else None
    keeper = keeper_of(market)
    market.pass_time(hours=-1)
    keeper.refresh("BTCUSDT")
    assert market.n_questions == 2
    # From then on as ever.
    keeper.refresh("BTCUSDT")
    market.pass_time(seconds=-1)
    keeper.refresh("BTCUSDT")
    assert market.n_questions == 2


def test_a_thread_does_not_wait_for_the_clock_to_be_ahead_again(market):
    market.pass_time(hours=1)
    loaded = threading.Event()
    keeper = keeper_of(market, on_change=lambda: loaded.set())
    market.pass_time(hours=-1)
    loaded.clear()
    keeper.start(1)
    assert loaded.wait(20)
    keeper.stop()


def test_symbols_are_asked_about_at_different_moments_within_the_jitter(market):
    symbols = [f"COIN{k}USDT" for k in range(20)]
    keeper = BarKeeper(market.load, symbols, [M15], RHYTHM, market.clock)
    for symbol in symbols:
        keeper.refresh(symbol)
    close = market.close(11).timestamp()
    waits = [keeper._due[symbol][M15] - close for symbol in symbols]
    assert 2 <= min(waits) < max(waits) <= 5
    assert len(set(waits)) == 20


def test_timeframes_that_close_together_are_asked_for_and_seen_together():
    now = datetime(2024, 1, 1, 12, 40, tzinfo=UTC)
    asked = []

    def load(symbol, timeframe):
        asked.append(timeframe)
        return make_bars(60, symbol, timeframe)

    keeper = BarKeeper(load, ["BTCUSDT"], [M15, H1], RHYTHM, lambda: now)
    # make_bars ends after 12:40 in both timeframes, so that nothing is late.
    keeper.refresh("BTCUSDT")
    due = keeper._due["BTCUSDT"]
    assert due[H1] - due[M15] == pytest.approx(15 * 60, abs=3)
    now = datetime(2024, 1, 1, 12, 45, 30, tzinfo=UTC)
    keeper.refresh("BTCUSDT")
    assert due[H1] == due[M15]
    assert asked == [M15, H1, M15]


def test_a_source_that_fails_keeps_the_bars_and_is_asked_less_and_less_often(market):
    keeper = keeper_of(market)
    market.now, market.failure = market.close(11), BROKEN
    waits = []
    for _ in range(6):
        market.now = datetime.fromtimestamp(keeper._due["BTCUSDT"][M15] + 0.001, UTC)
        keeper.refresh("BTCUSDT")
        waits.append(keeper._due["BTCUSDT"][M15] - market.now.timestamp())
    for wait, expected in zip(waits, [4, 8, 16, 20, 20, 20], strict=True):
        assert 0.74 * expected <= wait <= 1.26 * expected
    assert len(held(keeper).bars) == 10
    assert held(keeper).n_tries == 6
    assert "out of reach" in tell_missing("BTCUSDT", M15, held(keeper))

    market.failure = None
    market.pass_time(seconds=30)
    keeper.refresh("BTCUSDT")
    assert len(held(keeper).bars) == 11
    assert tell_missing("BTCUSDT", M15, held(keeper)) == ""


def test_a_bar_that_does_not_come_is_a_failure_only_from_the_second_question_on(market):
    market.held_back = 1
    keeper = keeper_of(market)
    assert tell_missing("BTCUSDT", M15, held(keeper)) == ""
    market.pass_time(seconds=6)
    keeper.refresh("BTCUSDT")
    found = tell_missing("BTCUSDT", M15, held(keeper))
    assert found.startswith(
        "BTCUSDT 15m: no bar has come since the one that closed 2024-01-01 02:15"
    )


def test_stored_bars_without_the_newest_are_held_and_the_try_has_failed(market, caplog):
    """An exchange that is down, with what an earlier process has stored of it."""
    failed = []
    loaded = Renewed(market.bars.slice(0, 8), BROKEN)
    keeper = BarKeeper(
        lambda symbol, timeframe: loaded,
        ["BTCUSDT"],
        [M15],
        RHYTHM,
        market.clock,
        on_load=lambda timeframe, has_failed: failed.append(has_failed),
    )
    for n_tries in (1, 2, 3):
        keeper.refresh("BTCUSDT")
        assert len(held(keeper).bars) == len(held(keeper).close_times) == 8
        assert (held(keeper).failure, held(keeper).n_tries) == (str(BROKEN), n_tries)
        assert "out of reach" in tell_missing("BTCUSDT", M15, held(keeper))
        market.pass_time(seconds=20)
    assert failed == [True, True, True]
    assert caplog.text.count("out of reach") == 1
    # Where only older bars are missing, nothing is.
    loaded = Renewed(market.bars.slice(0, 10), BROKEN)
    keeper.refresh("BTCUSDT")
    assert (len(held(keeper).bars), held(keeper).failure, failed[-1]) == (10, "", False)
    loaded = Renewed(market.bars.slice(0, 11))
    market.pass_time(minutes=15)
    keeper.refresh("BTCUSDT")
    assert (len(held(keeper).bars), held(keeper).n_tries) == (11, 0)


def test_an_unforeseen_failure_is_one_as_well_and_the_log_has_it(market, caplog):
    market.failure = ZeroDivisionError("a bug")
    keeper = keeper_of(market)
    assert held(keeper).failure == "BTCUSDT 15m: the bars cannot be loaded (ZeroDivisionError)"
    assert "a bug" in caplog.text


def test_a_failure_that_stays_is_warned_of_once(market, caplog):
    market.failure = BROKEN
    keeper = keeper_of(market)
    for _ in range(3):
        market.pass_time(minutes=10)
        keeper.refresh("BTCUSDT")
    assert [record.levelname for record in caplog.records].count("WARNING") == 1


def test_bars_that_only_rules_read_and_a_source_has_none_of_are_no_failure(market, caplog):
    absent = BarsNotFoundError("BTCUSDT", H1, "the sample has 4h bars", "use tf=4h")
    failed = []

    def load(symbol, timeframe):
        if timeframe is H1:
            raise absent
        return market.load(symbol, timeframe)

    for optional in ({H1}, set()):
        keeper = BarKeeper(
            load,
            ["BTCUSDT"],
            [M15, H1],
            RHYTHM,
            market.clock,
            on_load=lambda timeframe, is_failure: failed.append((timeframe, is_failure)),
            optional=optional,
        )
        keeper.refresh("BTCUSDT")
        with pytest.raises(BarsNotFoundError, match="the sample has 4h bars"):
            keeper.source().load("BTCUSDT", H1)
    assert failed == [(M15, False), (H1, False), (M15, False), (H1, True)]
    assert len(caplog.messages) == 1


def test_further_markets_are_loaded_in_one_timeframe_from_then_on(market):
    keeper = keeper_of(market)
    assert not keeper.keeps("ETHUSDT", M15)
    for _ in range(2):
        keeper.keep_also([("ETHUSDT", M15), ("BTCUSDT", M15)])
    keeper.refresh("ETHUSDT")
    assert keeper.keeps("ETHUSDT", M15)
    assert not keeper.keeps("ETHUSDT", H1)
    assert len(keeper.source().load("ETHUSDT", M15)) == 10
    # What was held before stays.
    assert len(held(keeper).bars) == 10
    assert market.n_questions == 2


def test_held_bars_are_a_source_for_rules(market):
    keeper = keeper_of(market)
    source = keeper.source()
    assert source.load("BTCUSDT", M15) is held(keeper).bars
    with pytest.raises(BarsNotFoundError, match="no bars have come yet"):
        source.load("BTCUSDT", H1)
    market.failure = BROKEN
    failed = BarKeeper(market.load, ["BTCUSDT"], [M15], RHYTHM, market.clock)
    failed.refresh("BTCUSDT")
    with pytest.raises(BarsNotFoundError, match="out of reach"):
        failed.source().load("BTCUSDT", M15)


def test_threads_share_the_symbols_out_and_load_none_twice_at_once():
    bars = exchange_bars(20)
    now = bars.close_time().to_pydatetime()
    symbols = [f"COIN{k}USDT" for k in range(12)]
    under_way, most, lock, seen = set(), [0], threading.Lock(), []
    first_alone = []

    def load(symbol, timeframe):
        with lock:
            assert symbol not in under_way
            under_way.add(symbol)
            most[0] = max(most[0], len(under_way))
            first_alone.append(len(under_way))
        threading.Event().wait(0.02)
        with lock:
            under_way.remove(symbol)
            seen.append(symbol)
        return replace(bars, symbol=symbol)

    keeper = BarKeeper(load, symbols, [M15], RHYTHM, lambda: now)
    keeper.start(3)
    for _ in range(500):
        if len(seen) == 12:
            break
        threading.Event().wait(0.01)
    assert keeper.is_working
    keeper.stop()
    assert sorted(seen) == sorted(symbols)
    assert most[0] == 3
    # The first question loads libraries, which several threads must not do at once.
    assert first_alone[0] == first_alone[1] == 1
    for thread in keeper._threads:
        thread.join(5)
    assert not keeper.is_working
