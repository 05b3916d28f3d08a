"""What a bar is: one schema, checked wherever bars come in."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from percoin.types import FloatArray, IntArray, Timeframe

PRICE_COLUMNS = ("open", "high", "low", "close")
COLUMNS = (*PRICE_COLUMNS, "volume")


@dataclass(frozen=True)
class Bars:
    """Closed bars of one market, oldest first.

    Attributes:
        symbol: Market under today's name, for example ``POLUSDT``.
        timeframe: Length of each bar.
        frame: Columns ``open, high, low, close, volume`` in float64; the index
            is ``open_time``, datetime64[ms, UTC], the start of each bar.
        origin: Where the bars came from, in one phrase for people, for example
            ``files: klines/BTCUSDT/15m.parquet``. Its first word is the source.
    """

    symbol: str
    timeframe: Timeframe
    frame: pd.DataFrame
    origin: str

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def open_time(self) -> IntArray:
        """Start of each bar in milliseconds since 1970-01-01 UTC, shape (n_bars,)."""
        return self.frame.index.to_numpy(dtype="datetime64[ms]").astype(np.int64)

    @property
    def source(self) -> str:
        """First word of the origin: files, sample, simulated, binance."""
        return self.origin.split(":", 1)[0].split(" ", 1)[0]

    def column(self, name: str) -> FloatArray:
        """One of ``COLUMNS`` as an array, shape (n_bars,)."""
        return self.frame[name].to_numpy(dtype=np.float64)

    def slice(self, start: int, stop: int | None = None) -> Bars:
        """The bars at positions ``start`` to ``stop``, as with a list."""
        return replace(self, frame=self.frame.iloc[start:stop])

    def close_time(self, position: int = -1) -> pd.Timestamp:
        """When the bar at ``position`` closed: the moment a decision can be made (UTC)."""
        opened: pd.Timestamp = self.frame.index[position]
        return opened + self.timeframe.timedelta

    def sha256(self) -> str:
        """Hash of the open times and the values; the file format does not matter."""
        digest = hashlib.sha256(self.open_time.astype("<i8").tobytes())
        for name in COLUMNS:
            digest.update(self.column(name).astype("<f8").tobytes())
        return digest.hexdigest()
