from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from builders import START, drop_bars, make_bars
from hypothesis import given
from hypothesis import strategies as st

from percoin.bars.resample import resample
from percoin.bars.schema import Bars
from percoin.errors import BarsNotFoundError, DataError, FetchError, NotEnoughBarsError
from percoin.signals.market import SourcedBars, close_times, newest_closed
from percoin.types import Timeframe

M15, H1, H4, D1 = Timeframe.M15, Timeframe.H1, Timeframe.H4, Timeframe.D1
QUARTERS = make_bars(2000)


class Shelf:
    """A source that holds what it is given, and counts what it is asked."""

    def __init__(self, *bars: Bars) -> None:
        self.bars = {each.timeframe: each for each in bars}
        self.asked: list[Timeframe] = []

    def load(self, symbol: str, timeframe: Timeframe) -> Bars:
        self.asked.append(timeframe)
        if timeframe not in self.bars:
            raise BarsNotFoundError(symbol, timeframe, "not on the shelf", "put it there")
        return self.bars[timeframe]


def test_the_asked_bars_are_theirs():
    assert SourcedBars(QUARTERS).of(M15, 1) is QUARTERS


def test_longer_bars_are_made_from_the_asked_ones():
    shelf = Shelf()
    made = SourcedBars(QUARTERS, shelf).of(H4, 100)
    assert made.frame.equals(resample(QUARTERS, H4).frame)
    assert shelf.asked == []


def test_a_timeframe_is_loaded_once():
    shelf = Shelf(QUARTERS)
    market = SourcedBars(resample(QUARTERS, H1), shelf)
    assert market.of(M15, 10) is market.of(M15, 20)
    assert shelf.asked == [M15]


def test_too_few_longer_bars_are_loaded_where_there_are_more():
    shelf = Shelf(resample(QUARTERS, H4))
    market = SourcedBars(QUARTERS.slice(1600), shelf)
    assert len(market.of(H4, 100)) == 125
    assert shelf.asked == [H4]


def test_loaded_bars_that_end_earlier_do_not_take_the_place_of_newer_ones():
    old = resample(QUARTERS, H4).slice(0, 120)
    made = SourcedBars(QUARTERS.slice(1600), Shelf(old)).of(H4, 100)
    assert len(made) == 25
    assert made.open_time[-1] > old.open_time[-1]


@pytest.mark.parametrize("error", [BarsNotFoundError, FetchError])
def test_what_the_asked_bars_make_is_used_where_no_more_can_be_had(error):
    class Broken:
        def load(self, symbol: str, timeframe: Timeframe) -> Bars:
            raise error(symbol, timeframe, "not today", "wait")

    assert len(SourcedBars(QUARTERS, Broken()).of(H4, 1000)) == 125


def test_a_shorter_timeframe_that_nobody_has_is_an_error():
    with pytest.raises(BarsNotFoundError, match="not on the shelf"):
        SourcedBars(QUARTERS, Shelf()).of(Timeframe.M5, 1)
    with pytest.raises(BarsNotFoundError, match="2,000 15m bars do not make up 5m; load more"):
        SourcedBars(QUARTERS).of(Timeframe.M5, 1)


def test_simulated_bars_of_another_timeframe_are_another_market():
    simulated = replace(resample(QUARTERS, H1), origin="simulated: seed=0")
    shelf = Shelf(QUARTERS)
    with pytest.raises(BarsNotFoundError, match="a market of their own"):
        SourcedBars(simulated, shelf).of(M15, 1)
    assert shelf.asked == []
    assert len(SourcedBars(simulated, shelf).of(H4, 1)) == 125


@pytest.mark.parametrize("origin", ["simulated: seed=0", "binance spot: BTCUSDT"])
def test_bars_of_another_source_do_not_come_beside_the_asked_ones(origin):
    hours = replace(resample(QUARTERS, H1), origin="binance perp: BTCUSDT")
    other = Shelf(replace(QUARTERS, origin=origin))
    with pytest.raises(BarsNotFoundError, match="load bars of one source"):
        SourcedBars(hours, other).of(M15, 1)
    same = Shelf(replace(QUARTERS, origin="binance perp: BTCUSDT, before it MATICUSDT"))
    assert len(SourcedBars(hours, same).of(M15, 1)) == 2000


def test_bars_that_all_close_later_are_none():
    hours = resample(QUARTERS, H1)
    with pytest.raises(NotEnoughBarsError, match="opens at 2024-01-06 00:00 UTC, after the moment"):
        SourcedBars(hours.slice(0, 100), Shelf(QUARTERS.slice(480))).of(M15, 1)


@given(
    asked=st.sampled_from([M15, H1, H4, D1]),
    wanted=st.sampled_from([M15, H1, H4, D1]),
    n_bars=st.integers(1, 20),
    n_wanted=st.integers(1, 400),
    missing=st.sets(st.integers(0, 1999), max_size=30),
)
def test_nothing_is_known_that_closed_later(asked, wanted, n_bars, n_wanted, missing):
    everything = drop_bars(QUARTERS, sorted(missing))
    all_asked, all_wanted = resample(everything, asked), resample(everything, wanted)
    bars = all_asked.slice(0, min(n_bars * 20, len(all_asked)))
    moment = close_times(bars)[-1]
    try:
        found = SourcedBars(bars, Shelf(all_wanted)).of(wanted, n_wanted)
    except DataError:
        # Not one had closed.
        assert close_times(all_wanted)[0] > moment
        return
    assert close_times(found)[-1] <= moment
    # The same as if what came later had never been there.
    closed = int((close_times(all_wanted) <= moment).sum())
    alone = SourcedBars(bars, Shelf(all_wanted.slice(0, max(closed, 1)))).of(wanted, n_wanted)
    assert found.frame.equals(alone.frame)


def test_every_bar_is_complete_at_a_moment_within_it():
    made = SourcedBars(QUARTERS.slice(0, 97)).of(H1, 1)
    assert len(made) == 24
    assert made.close_time() == START + pd.Timedelta(days=1)


@given(
    n_bars=st.integers(2, 40),
    missing=st.sets(st.integers(0, 39), max_size=20),
    minutes=st.integers(-30, 700),
)
def test_the_newest_closed_bar_is_the_one_that_is_due(n_bars, missing, minutes):
    bars = drop_bars(make_bars(41, timeframe=M15), sorted(missing)).slice(0, n_bars)
    moment = int(START.timestamp() * 1000) + minutes * 60_000
    row = int(newest_closed(bars, np.array([moment]))[0])
    closes = close_times(bars)
    expected = [k for k in range(len(bars)) if closes[k] <= moment < closes[k] + M15.milliseconds]
    assert ([row] if row >= 0 else []) == expected
