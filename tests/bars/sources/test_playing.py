from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest

from percoin.bars.sources.playing import PlayingSource
from percoin.bars.sources.simulated import SimulatedSource
from percoin.types import Timeframe

H4 = Timeframe.H4
SIMULATED = SimulatedSource(seed=3, n_bars=300, edge=0.5)


class Clock:
    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


def at(*moment: int) -> Clock:
    return Clock(datetime(*moment, tzinfo=UTC))


@pytest.mark.parametrize(
    ("clock", "closed"),
    [
        (at(2026, 5, 6, 7, 59, 59), datetime(2026, 5, 6, 4, tzinfo=UTC)),
        (at(2026, 5, 6, 8), datetime(2026, 5, 6, 8, tzinfo=UTC)),
        (at(2026, 1, 1, 0, 0, 1), datetime(2026, 1, 1, tzinfo=UTC)),
        (at(2024, 12, 31, 23, 59), datetime(2024, 12, 31, 20, tzinfo=UTC)),
    ],
)
def test_the_newest_bar_is_the_one_that_closed_last(clock, closed):
    bars = PlayingSource(SIMULATED, clock).load("BTCUSDT", H4)
    assert bars.close_time() == closed
    assert len(bars) == 300


def test_a_bar_that_was_shown_stays_as_it_is():
    clock = at(2026, 5, 6, 7)
    playing = PlayingSource(SIMULATED, clock)
    before = playing.load("BTCUSDT", H4)
    clock.now += timedelta(hours=9)
    after = playing.load("BTCUSDT", H4)
    pd.testing.assert_frame_equal(before.frame.iloc[3:], after.frame.iloc[:-3])
    # After a restart too.
    again = PlayingSource(SIMULATED, clock).load("BTCUSDT", H4)
    pd.testing.assert_frame_equal(again.frame, after.frame)


def test_markets_and_seeds_differ_and_the_origin_says_that_they_are_simulated():
    clock = at(2026, 5, 6, 7)
    bars = PlayingSource(SIMULATED, clock).load("BTCUSDT", H4)
    other = PlayingSource(SIMULATED, clock).load("ETHUSDT", H4)
    seeded = PlayingSource(SimulatedSource(seed=4, n_bars=300), clock).load("BTCUSDT", H4)
    assert len({found.sha256() for found in (bars, other, seeded)}) == 3
    assert bars.source == "simulated"


def test_with_the_new_year_another_market_begins():
    clock = at(2026, 12, 31, 23)
    playing = PlayingSource(SIMULATED, clock)
    playing.load("BTCUSDT", H4)
    clock.now = datetime(2027, 1, 1, 5, tzinfo=UTC)
    bars = playing.load("BTCUSDT", H4)
    assert bars.close_time() == datetime(2027, 1, 1, 4, tzinfo=UTC)
    assert len(bars) == 300
