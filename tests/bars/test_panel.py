"""Bars of several markets side by side."""

import numpy as np
import pytest
from builders import drop_bars, make_bars

from percoin.bars.panel import MarketPanel, load_panel, with_panel
from percoin.errors import BarsNotFoundError

BTC, ETH = make_bars(50, "BTCUSDT"), drop_bars(make_bars(60, "ETHUSDT", seed=1), [20])
STEP = BTC.timeframe.milliseconds


def test_a_row_is_a_moment_and_a_market_without_a_bar_is_nan():
    panel = MarketPanel.of([BTC, ETH.slice(5)])
    close = panel.column("close", ["ETHUSDT", "BTCUSDT"])
    assert close.shape == (60, 2)
    assert np.flatnonzero(np.isnan(close[:, 0])).tolist() == [0, 1, 2, 3, 4, 20]
    assert np.flatnonzero(np.isnan(close[:, 1])).tolist() == list(range(50, 60))
    np.testing.assert_array_equal(panel.rows_at(close, BTC.open_time)[:, 1], BTC.column("close"))
    assert np.isnan(panel.rows_at(close, BTC.open_time[:1] - STEP)).all()
    assert panel.newest("BTCUSDT") == BTC.open_time[-1]
    assert panel.lacks(["BTCUSDT", "SOLUSDT"]) == ["SOLUSDT"]


def test_bars_that_are_cut_know_nothing_later_of_other_markets():
    bars = with_panel(BTC, [ETH])
    assert len(bars.slice(3).panel) == 60
    part = bars.slice(3, 30)
    assert part.panel.first_time == BTC.open_time[3]
    assert len(part.panel) == 27
    assert len(bars.slice(0, 0)) == 0
    assert BTC.slice(0, 5).panel is None


def test_a_hash_is_that_of_the_prices_in_a_time_whatever_lies_around_it():
    long, short = MarketPanel.of([ETH, BTC]), MarketPanel.of([BTC, ETH.slice(8, 55)])
    first, last = int(BTC.open_time[10]), int(BTC.open_time[45])
    assert long.sha256("ETHUSDT", first, last) == short.sha256("ETHUSDT", first, last)
    assert long.sha256("ETHUSDT", first, last) != long.sha256("BTCUSDT", first, last)
    assert long.sha256("ETHUSDT", first, last) != long.sha256("ETHUSDT", first, last - STEP)


def test_what_is_computed_once_is_not_computed_again_but_for_a_part():
    panel, calls = MarketPanel.of([BTC, ETH]), []

    def make():
        calls.append(1)
        return np.zeros(1)

    for part in (panel, panel, panel.between(0, int(BTC.open_time[9]))):
        part.computed("key", make)
    assert len(calls) == 2


def test_bars_of_another_source_or_of_none_are_refused_by_name():
    other = type(ETH)(ETH.symbol, ETH.timeframe, ETH.frame, "files: elsewhere")
    with pytest.raises(BarsNotFoundError, match=r"BTCUSDT 15m: the market ETHUSDT, .* 59 bars are"):
        load_panel(BTC, ["ETHUSDT"], lambda symbol: other)

    def none(symbol):
        raise BarsNotFoundError(symbol, "15m", "no bars at all", "load some")

    with pytest.raises(BarsNotFoundError, match=r"the market ETHUSDT, .* missing: no bars at all"):
        load_panel(BTC, ["BTCUSDT", "ETHUSDT"], none)
    assert load_panel(BTC, [], none) is BTC
