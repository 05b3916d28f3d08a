"""The newest bars of a market as JSON text, column by column."""

from __future__ import annotations

import json
from collections import OrderedDict

from percoin.bars.schema import COLUMNS, Bars
from percoin.types import Timeframe

MAX_CANDLES = 1000
# Each text has at most about 100 kB.
_TEXTS_KEPT = 64


class CandleTexts:
    """Caches the texts of ``candles_json``; new bars make a new text.

    Many requests ask for the same text, and making it takes longer than sending it.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, Timeframe, int], tuple[Bars | None, str]] = OrderedDict()

    def text(self, symbol: str, timeframe: Timeframe, bars: Bars | None, n_wanted: int) -> str:
        """See ``candles_json``."""
        key = symbol, timeframe, n_wanted
        kept = self._kept.pop(key, None)
        if kept is None or kept[0] is not bars:
            kept = bars, candles_json(symbol, timeframe, bars, n_wanted)
        self._kept[key] = kept
        if len(self._kept) > _TEXTS_KEPT:
            self._kept.popitem(last=False)
        return kept[1]


def candles_json(symbol: str, timeframe: Timeframe, bars: Bars | None, n_wanted: int) -> str:
    """Write the newest bars as JSON text, oldest first.

    Args:
        symbol: Symbol of the market.
        timeframe: Length of the bars.
        bars: The market's bars; None if none are loaded yet.
        n_wanted: Maximum number of bars.
    """
    content: dict[str, object] = {"symbol": symbol, "tf": timeframe.value}
    if bars is None:
        return json.dumps(content | {"open_time": []} | {name: [] for name in COLUMNS})
    newest = bars.slice(max(0, len(bars) - n_wanted))
    content["open_time"] = newest.open_time.tolist()
    content |= {name: newest.column(name).tolist() for name in COLUMNS}
    return json.dumps(content, allow_nan=False)
