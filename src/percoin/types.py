"""Types that every other module uses: timeframes, signals, sources and predictions."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum, StrEnum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from percoin.errors import ConfigError
from percoin.intervals import KnownInterval
from percoin.printable import printable

FloatArray = NDArray[np.float64]
Float32Array = NDArray[np.float32]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

DAY_MILLISECONDS = 86_400_000

# What code of the user's own takes as an argument: what JSON, YAML and a command line all can say.
Plain = bool | int | float | str | None

_SYMBOL_PATTERN = re.compile(r"[A-Z0-9]{2,20}")
# Dated contracts, as exchanges and ccxt write them: BTCUSDT_260626, BTC/USDT:USDT-260626.
_DATED = re.compile(r"[A-Z0-9]+([-/_][A-Z0-9]+)?(:[A-Z0-9]+)?[-_]\d{6}(-\d+-[CP])?")
_CCXT_CONTRACT = re.compile(r"([A-Z0-9]+)/([A-Z0-9]+):([A-Z0-9]+)")
_PERPETUAL = re.compile(r"(?:[A-Z]+:)?([A-Z0-9]+(?:[-_/][A-Z0-9]+)?)(?:\.P|[-_]PERP|[-_]SWAP)")
_NO_MARKETS = frozenset({"null", "true", "false"})
_MOST_SHOWN = 60


def is_plain(value: object) -> bool:
    """Whether it is a ``Plain``, and finite if it is a number, as JSON takes no other."""
    return isinstance(value, Plain) and not (isinstance(value, float) and not math.isfinite(value))


class BarLength(Protocol):
    """Length of a bar: a ``Timeframe``, or another length found in a file."""

    @property
    def milliseconds(self) -> int:
        """Length in milliseconds."""
        ...


class Timeframe(StrEnum):
    """Length of one bar; the value is the exchange's spelling."""

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
        """Bars in a day of 24 hours: crypto markets never close."""
        return 1440 / _MINUTES[self]


# Models are trained and served on these, each with an option tf=... Another one takes a file of the
# user's own in conf/tf/.
OFFERED_TIMEFRAMES = (
    Timeframe.M5,
    Timeframe.M15,
    Timeframe.M30,
    Timeframe.H1,
    Timeframe.H4,
    Timeframe.D1,
)

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
    """The three decisions; labels, probabilities and responses all use this class order."""

    SHORT = 0
    NO_TRADE = 1
    LONG = 2


CLASS_NAMES = tuple(signal.name for signal in Signal)

# The label of a row whose class is unknown.
UNKNOWN_LABEL = -1

# Of an expected move: squares of such sizes, and their ratios, are still numbers.
_LEAST_SIZE, _MOST_SIZE = 1e-20, 1e20


class Source(StrEnum):
    """Who gives an answer, in the default order of the chain; the value is used in responses."""

    MODEL = "ML_PER_COIN_V1"
    PRO = "PRO"
    RSI_MA = "FALLBACK_RSI_MA"
    MOMENTUM = "FALLBACK_MOMENTUM"
    HOLD = "FALLBACK_NEUTRAL"

    @property
    def option(self) -> str:
        """Name in settings, as in ``chain=[ml,hold]``."""
        return _OPTIONS[self]

    @classmethod
    def of_option(cls, name: str) -> Source:
        """Return the source with this name in settings.

        Raises:
            ValueError: No source has this name.
        """
        for source, option in _OPTIONS.items():
            if option == name:
                return source
        raise ValueError(f"{name!r} is not a source")


_OPTIONS = {
    Source.MODEL: "ml",
    Source.PRO: "pro",
    Source.RSI_MA: "rsi_ma",
    Source.MOMENTUM: "momentum",
    Source.HOLD: "hold",
}


@dataclass(frozen=True)
class Levels:
    """Entry, stop loss and take-profit prices of a LONG or SHORT signal."""

    entry_price: float
    stop_loss: float
    tp1: float
    tp2: float
    tp3: float


@dataclass(frozen=True)
class Band:
    """Two prices that the close at the horizon lies between in ``level`` of 100 cases."""

    level: int
    lower: float
    upper: float


@dataclass(frozen=True)
class ExpectedMove:
    """How far the price is expected to move, whichever way.

    Attributes:
        percent: Forecast standard deviation of the log return over the horizon, in percent.
        horizon_bars: Bars from the close to the close that is forecast.
        bands: For the close at the horizon, narrowest first.
        range_factor: Variance of such a return over the sum of its bars' range variances
            (Parkinson, 1980); the forecast is scored by these.
    """

    percent: float
    horizon_bars: int
    bands: tuple[Band, ...]
    range_factor: float

    @property
    def can_be_scored(self) -> bool:
        """Whether its variance, and what that comes to, are numbers that can be compared."""
        sizes = (self.percent, self.range_factor)
        return all(_LEAST_SIZE <= size <= _MOST_SIZE for size in sizes)


@dataclass(frozen=True)
class LevelsReached:
    """How often the levels of past LONG and SHORT signals were reached within the horizon.

    A bar that touches the stop and a target counts for the stop alone.

    Attributes:
        n_signals: Number of signals.
        stop_loss: Share whose stop was reached, whatever was reached before it.
        tp1: Share whose first target was reached, and not the stop before it.
        tp2: Same for the second target.
        tp3: Same for the third target.
    """

    n_signals: int
    stop_loss: KnownInterval
    tp1: KnownInterval
    tp2: KnownInterval
    tp3: KnownInterval

    def __post_init__(self) -> None:
        for share in (self.stop_loss, self.tp1, self.tp2, self.tp3):
            if not 0 <= share.lower <= share.value <= share.upper <= 1:
                raise ValueError(f"{share} is no share with its interval")


@dataclass(frozen=True)
class Passed:
    """A source without an answer.

    Attributes:
        source: The source.
        reason: A word for programs.
        detail: For people.
        expected_move: What the market's model still says of how far the price moves.
    """

    source: Source
    reason: str
    detail: str
    expected_move: ExpectedMove | None = None


# With this threshold a model never trades: no threshold made a profit on validation rows.
NO_TRADES = 1.0

# The verdict on a source that was never measured on the market.
UNJUDGED = "unjudged"


@dataclass(frozen=True)
class Worth:
    """The measured quality of a source on one market.

    Attributes:
        verdict: One word: the gate's verdict for a model, a ``SourceVerdict`` for a rule,
            else ``UNJUDGED``.
        hit_rate: Share of right directions among the LONG and SHORT answers that a move
            followed; None if not measured or too few.
        n_moves: Number of answers behind ``hit_rate``; None if not measured.
        until: Close of the newest measured bar; None if not measured.
        threshold: Minimum confidence that the backtest traded with; 1 is no trades at all.
            None for a rule, which has none, and if not known.
        reached: How often stop and targets were reached; None if not measured or too few.
        refit: Says that the model is the refit of the judged one; None otherwise.
    """

    verdict: str = UNJUDGED
    hit_rate: KnownInterval | None = None
    n_moves: int | None = None
    until: datetime | None = None
    threshold: float | None = None
    reached: LevelsReached | None = None
    refit: str | None = None


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """One answer for one market.

    Attributes:
        signal: The decision.
        confidence: For a model, the probability of the signal. For a rule, its score from
            0 to 1, which is not a probability. 0 for holding.
        probabilities: In the order of ``Signal``, or None.
        source: Who answered.
        model_version: Version of the model that answered, or None.
        version_id: The exported version that answered, or None.
        worth: Measured quality of the source on this market; None for holding.
        horizon_bars: Number of bars after ``ts`` that such answers were judged on; None if
            never judged.
        ts: Close of the bar that the answer is made on (UTC). A trader can act on the
            answer from this moment.
        levels: Entry, stop and targets; only with LONG or SHORT.
        detail: Why a rule gave this answer, in one phrase; empty for other sources.
        passed: The sources asked before that had no answer, in order.
        expected_move: How far the price is expected to move, by the market's model whoever
            answered; None without one, or with too few bars.
        labels: The kind of label rule that the model's signals mean, as in ``labels=``; None
            for an answer without a model.
        compared_with: The markets whose mean a relative signal compares the market with: LONG
            says that it does better than they do, whatever its price does. Empty otherwise.
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
    worth: Worth | None = None
    expected_move: ExpectedMove | None = None
    horizon_bars: int | None = None
    labels: str | None = None
    compared_with: tuple[str, ...] = ()

    @property
    def valid_until(self) -> datetime | None:
        """Close of the last bar of the horizon (UTC); None without a horizon."""
        if self.horizon_bars is None:
            return None
        return horizon_end(self.ts, self.horizon_bars, self.timeframe)

    @property
    def would_trade(self) -> bool | None:
        """Whether the judged backtest would have traded this; None without a known threshold."""
        threshold = None if self.worth is None else self.worth.threshold
        if threshold is None:
            return None
        is_direction = self.signal is not Signal.NO_TRADE
        return is_direction and threshold < NO_TRADES and self.confidence >= threshold


def horizon_end(ts: datetime, n_bars: int, timeframe: Timeframe) -> datetime | None:
    """Close of the last of the next bars; None after the year 9999.

    Args:
        ts: Close of the bar before them.
        n_bars: How many.
        timeframe: Length of each.
    """
    try:
        return ts + n_bars * timeframe.timedelta
    except OverflowError:
        return None


def is_symbol(value: object) -> bool:
    """Whether ``value`` has the spelling of an exchange symbol."""
    return isinstance(value, str) and _SYMBOL_PATTERN.fullmatch(value) is not None


def market_spelling(text: str) -> str:
    """A market as the exchange spells it, from how people and ccxt write it; else the same text.

    ``btcusdt`` and ``BTC/USDT`` are BTCUSDT. Spellings that could mean another market, such as
    that of a contract, stay as they are, and so do words for no value.
    """
    if text.lower() in _NO_MARKETS:
        return text
    meant = re.sub(r"\A(\s*)([A-Za-z0-9]+)/([A-Za-z0-9]+)(\s*)\Z", r"\1\2\3\4", text).upper()
    return meant if is_symbol(meant.strip()) else text


def check_symbol(symbol: str) -> str:
    """Return ``symbol`` if it has the spelling of an exchange symbol.

    Raises:
        ConfigError: It is not 2 to 20 upper-case letters and digits. The check also keeps
            ``..`` and path separators out of every path built from a symbol.
    """
    if is_symbol(symbol):
        return symbol
    # A nested list in the settings is not text, whatever its type says.
    text = str(symbol)
    shown = printable(text, _MOST_SHOWN)
    raise ConfigError(f"symbol={shown!r} is not a market; {_meant(text.strip())}")


def _meant(text: str) -> str:
    """Advice: what to write instead of a wrong market name."""
    if re.search(r"[\[\]\"'{}]", text):
        return "write names with commas alone, without brackets or quotes: symbol=BTCUSDT,ETHUSDT"
    words = re.split(r"[,;\s]+", text)
    if len(words) > 1:
        return f"{len(words)} names where one belongs; give one, for example symbol=BTCUSDT"
    upper = text.upper()
    if _DATED.fullmatch(upper):
        return (
            "dated contracts are not supported; source.market=perp has the perpetual ones, "
            "for example symbol=BTCUSDT source.market=perp"
        )
    if ccxt := _CCXT_CONTRACT.fullmatch(upper):
        base, quote, margin = ccxt.groups()
        if margin != quote:
            return f"contracts margined in {margin} are not supported; give one margined in USDT"
        return f"did you mean symbol={base}{quote} source.market=perp?"
    if perpetual := _PERPETUAL.fullmatch(upper):
        return f"did you mean symbol={re.sub('[-_/]', '', perpetual[1])} source.market=perp?"
    # TradingView, ccxt, freqtrade and others write markets like this.
    joined = re.sub(r"[-_/]", "", upper.rpartition(":")[2])
    if _SYMBOL_PATTERN.fullmatch(joined):
        return f"did you mean symbol={joined}?"
    if not text.isascii():
        return (
            "percoin knows markets of the letters A-Z and digits alone, even if the exchange has "
            "others; give one of those, for example symbol=BTCUSDT"
        )
    return "give 2 to 20 letters A-Z and digits, for example symbol=BTCUSDT"


def check_timeframe(text: str) -> Timeframe:
    """Return the timeframe with this spelling.

    Raises:
        ConfigError: There is no such timeframe.
    """
    try:
        return Timeframe(text)
    except ValueError:
        known = ", ".join(timeframe.value for timeframe in Timeframe)
        raise ConfigError(f"tf={text} is not a timeframe; known are {known}") from None
