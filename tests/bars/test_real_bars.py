from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from percoin.bars.gaps import contiguous_run, describe_gaps, find_gaps
from percoin.bars.resample import resample
from percoin.bars.sources.files import FilesSource
from percoin.bars.store import BarStore
from percoin.types import Timeframe


def test_every_file_is_read_under_todays_name(klines: Path) -> None:
    source = FilesSource(klines)
    symbols = (Path(__file__).parents[2] / "symbols").read_text().strip().split(",")
    for symbol in symbols:
        bars = source.load(symbol, Timeframe.M15)
        assert bars.symbol == symbol
        assert len(bars) >= 24_000
        assert "resampled" not in bars.origin


def test_the_exchange_halt_of_march_2023_stays_a_gap(klines: Path) -> None:
    """5m bars end at 12:35 and go on at 14:00, so the 15m bars of 12:30 to 13:45 are incomplete."""
    shorter = FilesSource(klines).load("POLUSDT", Timeframe.M5)
    (gap,) = find_gaps(shorter)
    assert gap.n_missing == 16
    assert describe_gaps(shorter, (gap,)) == (
        "POLUSDT 5m: 1 gap, 16 of 121,762 bars missing: "
        "16 between 2023-03-24 12:35 and 2023-03-24 14:00 UTC"
    )
    bars = resample(shorter, Timeframe.M15)
    (gap,) = find_gaps(bars)
    assert str(gap.last_before) == "2023-03-24 12:15:00+00:00"
    assert str(gap.first_after) == "2023-03-24 14:00:00+00:00"
    assert gap.n_missing == 6
    run = contiguous_run(bars.open_time, bars.timeframe)
    assert run[bars.frame.index.get_loc(gap.first_after)] == 1
    assert run[-1] == len(bars) - bars.frame.index.get_loc(gap.first_after)


def test_hours_of_30m_and_of_15m_bars_agree(klines: Path) -> None:
    """Two downloads of the same market; their README counts at most 2 closes that differ."""
    link = FilesSource(klines)
    from_30m = resample(link.load("LINKUSDT", Timeframe.M30), Timeframe.H1).frame
    from_15m = resample(link.load("LINKUSDT", Timeframe.M15), Timeframe.H1).frame
    both = from_30m.index.intersection(from_15m.index)
    assert len(both) > 7_500
    differs = ~np.isclose(from_30m.loc[both], from_15m.loc[both], rtol=1e-9)
    assert differs[:, 3].sum() <= 2
    assert differs.any(axis=1).sum() <= 5


def test_the_flat_fills_of_october_2024_are_valid_bars(klines: Path) -> None:
    frame = FilesSource(klines).load("BTCUSDT", Timeframe.M15).frame
    flat = frame[frame["volume"] == 0]
    assert [str(moment) for moment in flat.index] == [
        f"2024-10-28 20:{minute:02}:00+00:00" for minute in (0, 15, 30, 45)
    ]


def test_real_bars_pass_through_the_store_bit_for_bit(klines: Path, tmp_path: Path) -> None:
    store = BarStore(tmp_path)
    bars = FilesSource(klines).load("BTCUSDT", Timeframe.H1)
    assert store.write(bars)
    stored = store.read("BTCUSDT", Timeframe.H1)
    pd.testing.assert_frame_equal(stored.frame, bars.frame, check_exact=True)
    assert stored.origin == bars.origin
