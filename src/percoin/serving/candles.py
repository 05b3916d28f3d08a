"""The newest bars of a market as JSON text, column by column."""

from __future__ import annotations

import json

from percoin.bars.schema import COLUMNS, Bars
from percoin.types import Timeframe

MAX_CANDLES = 1000


def candles_json(symbol: str, timeframe: Timeframe, bars: Bars | None, n_wanted: int) -> str:
    """The last bars, oldest first.

    Args:
        symbol: The market.
        timeframe: Length of the bars.
        bars: What is held of it; None if none have come.
        n_wanted: At most so many.
    """
    content: dict[str, object] = {"symbol": symbol, "tf": timeframe.value}
    if bars is None:
        return json.dumps(content | {"open_time": []} | {name: [] for name in COLUMNS})
    newest = bars.slice(max(0, len(bars) - n_wanted))
    content["open_time"] = newest.open_time.tolist()
    content |= {name: newest.column(name).tolist() for name in COLUMNS}
    return json.dumps(content, allow_nan=False)
