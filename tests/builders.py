"""Data that tests of several packages are built from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from percoin.bars.schema import Bars
from percoin.types import Timeframe

START = pd.Timestamp("2024-01-01", tz="UTC")


def make_index(n_bars: int, timeframe: Timeframe, start: pd.Timestamp = START) -> pd.DatetimeIndex:
    """Open times without a gap."""
    first = int(start.timestamp() * 1000)
    open_time = first + np.arange(n_bars) * timeframe.milliseconds
    index = pd.DatetimeIndex(open_time.astype("datetime64[ms]"), name="open_time")
    return index.tz_localize("UTC")


def make_bars(
    n_bars: int,
    symbol: str = "BTCUSDT",
    timeframe: Timeframe = Timeframe.M15,
    seed: int = 0,
    start: pd.Timestamp = START,
) -> Bars:
    """A valid random walk without gaps: 0.4 % a bar, each open at the last close."""
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.004, n_bars)))
    opened = np.concatenate([[100.0], close[:-1]])
    frame = pd.DataFrame(
        {
            "open": opened,
            "high": np.maximum(opened, close) * (1 + rng.uniform(0, 0.002, n_bars)),
            "low": np.minimum(opened, close) * (1 - rng.uniform(0, 0.002, n_bars)),
            "close": close,
            "volume": rng.lognormal(3, 0.5, n_bars),
        },
        index=make_index(n_bars, timeframe, start),
    )
    return Bars(symbol, timeframe, frame, "test: builders")


def bars_from_closes(
    closes: Sequence[float], symbol: str = "BTCUSDT", timeframe: Timeframe = Timeframe.M15
) -> Bars:
    """Bars with these closes, each open at the last close, no wicks, volume 1."""
    close = np.asarray(closes, dtype=np.float64)
    opened = np.concatenate([close[:1], close[:-1]])
    frame = pd.DataFrame(
        {
            "open": opened,
            "high": np.maximum(opened, close),
            "low": np.minimum(opened, close),
            "close": close,
            "volume": np.ones(len(close)),
        },
        index=make_index(len(close), timeframe),
    )
    return Bars(symbol, timeframe, frame, "test: builders")


def drop_bars(bars: Bars, positions: Sequence[int]) -> Bars:
    """The same bars with a gap where ``positions`` were."""
    frame = bars.frame.drop(bars.frame.index[list(positions)])
    return Bars(bars.symbol, bars.timeframe, frame, bars.origin)


def write_parquet(bars: Bars, path: Path) -> Path:
    """Bars as a plain Parquet file of somebody else's: no metadata, open_time a column."""
    path.parent.mkdir(parents=True, exist_ok=True)
    bars.frame.reset_index().to_parquet(path)
    return path
