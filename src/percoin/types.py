"""The words every other module speaks: markets, timeframes and signals."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum, StrEnum

import numpy as np
from numpy.typing import NDArray

from percoin.errors import ConfigError

FloatArray = NDArray[np.float64]
Float32Array = NDArray[np.float32]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

_SYMBOL_PATTERN = re.compile(r"[A-Z0-9]{2,20}")


class Timeframe(StrEnum):
    """Length of one bar; the value is the exchange's own spelling."""

    M1 = "1m"
    M5 = "5m"
    M15 = "15m"
    M30 = "30m"
    H1 = "1h"
    H4 = "4h"
    D1 = "1d"

    @property
    def milliseconds(self) -> int:
        """Length in milliseconds."""
        return _MINUTES[self] * 60_000

    @property
    def timedelta(self) -> timedelta:
        """Length as a time span."""
        return timedelta(minutes=_MINUTES[self])

    @property
    def bars_per_day(self) -> float:
        """How many bars make a day; crypto markets do not close."""
        return 1440 / _MINUTES[self]


_MINUTES = {
    Timeframe.M1: 1,
    Timeframe.M5: 5,
    Timeframe.M15: 15,
    Timeframe.M30: 30,
    Timeframe.H1: 60,
    Timeframe.H4: 240,
    Timeframe.D1: 1440,
}


class Signal(IntEnum):
    """The three answers, in the one class order used from label to response."""

    SHORT = 0
    NO_TRADE = 1
    LONG = 2


CLASS_NAMES = tuple(signal.name for signal in Signal)

# In place of a class where the right answer is not known.
UNKNOWN_LABEL = -1


class Source(StrEnum):
    """Who gave an answer."""

    MODEL = "ML_PER_COIN_V1"
    PRO = "PRO"
    RSI_MA = "FALLBACK_RSI_MA"
    MOMENTUM = "FALLBACK_MOMENTUM"
    HOLD = "FALLBACK_NEUTRAL"


class Rung(StrEnum):
    """The rungs of the chain as settings name them, in their usual order."""

    ML = "ml"
    PRO = "pro"
    RSI_MA = "rsi_ma"
    MOMENTUM = "momentum"
    HOLD = "hold"


@dataclass(frozen=True)
class Levels:
    """Where a directional signal enters, gives up, and takes profit; prices."""

    entry_price: float
    stop_loss: float
    tp1: float
    tp2: float
    tp3: float


@dataclass(frozen=True)
class Passed:
    """A source that had no answer, and why: one word for programs, a phrase for people."""

    source: Source
    reason: str
    detail: str


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """One answer for one market.

    Attributes:
        signal: The decision.
        confidence: With probabilities, that of the signal. Without, the score that the
            rule gives its answer, 0 to 1, which is no probability; 0 for holding.
        probabilities: In the order of ``Signal``, or None.
        source: Who answered.
        model_version: Version of the model that answered, or None.
        version_id: The exported version that answered, or None.
        ts: Close of the bar that the answer is made on (UTC): the moment from
            which it could have been acted on.
        levels: With a direction only.
        detail: What the answer of a rule rests on, in one phrase; empty for others.
        passed: The sources asked before, in order.
    """

    symbol: str
    timeframe: Timeframe
    signal: Signal
    confidence: float
    probabilities: tuple[float, float, float] | None
    source: Source
    model_version: str | None
    ts: datetime
    levels: Levels | None = None
    detail: str = ""
    passed: tuple[Passed, ...] = ()
    version_id: str | None = None


def is_symbol(value: object) -> bool:
    """Whether ``value`` is spelt like a market of the exchange."""
    return isinstance(value, str) and _SYMBOL_PATTERN.fullmatch(value) is not None


def check_symbol(symbol: str) -> str:
    """Return ``symbol`` if it is spelt like a market of the exchange.

    Raises:
        ConfigError: Not 2 to 20 upper-case letters and digits. This also keeps
            ``..`` and path separators out of every path built from a symbol.
    """
    if is_symbol(symbol):
        return symbol
    found = f"symbol={symbol!r} is not a market"
    if _SYMBOL_PATTERN.fullmatch(symbol.strip().upper()):
        raise ConfigError(f"{found}; did you mean symbol={symbol.strip().upper()}?")
    raise ConfigError(f"{found}; write it as the exchange does, for example symbol=BTCUSDT")


def check_timeframe(text: str) -> Timeframe:
    """Return the timeframe spelt ``text``.

    Raises:
        ConfigError: No such timeframe.
    """
    try:
        return Timeframe(text)
    except ValueError:
        known = ", ".join(timeframe.value for timeframe in Timeframe)
        raise ConfigError(f"tf={text} is not a timeframe; known are {known}") from None
