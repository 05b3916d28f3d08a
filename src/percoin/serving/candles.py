"""The newest bars of a market as JSON text, column by column."""

from __future__ import annotations

import json
import operator

from percoin.bars.schema import COLUMNS, Bars
from percoin.serving.texts import Texts
from percoin.types import Timeframe

MAX_CANDLES = 1000


class CandleTexts:
    """Caches the texts of ``candles_json``; new bars make a new text.

    Many requests ask for the same text, and making it takes longer than sending it.
    """

    def __init__(self) -> None:
        self._texts = Texts(operator.is_)

    def text(self, symbol: str, timeframe: Timeframe, bars: Bars | None, n_wanted: int) -> str:
        """See ``candles_json``."""
        return self._texts.text(
            (symbol, timeframe, n_wanted),
            bars,
            lambda: candles_json(symbol, timeframe, bars, n_wanted),
        )


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
