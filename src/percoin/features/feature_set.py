"""The features of a model: the 15 by one of two definitions, and extra columns after them.

Units, with ``price`` the quote currency of the market:

===========================================  ==============  ====================
feature                                      raw             relative
===========================================  ==============  ====================
atr_14, macd, macd_diff, macd_signal         price           fraction of the close
bb_lower, bb_middle, bb_upper                price           multiple of the close
ema_20, ema_50                               price           multiple of the close
bb_width                                     fraction of bb_middle, in both
log_returns, returns                         fraction of the bar before, in both
volume_change                                fraction        fraction, -2 to 2
rsi_14                                       0 to 100, in both
volatility                                   fraction per bar, in both
===========================================  ==============  ====================
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from percoin.bars.gaps import follows_gap
from percoin.bars.schema import COLUMNS, Bars
from percoin.bars.stacked import StackedBars
from percoin.errors import ConfigError
from percoin.features import indicators
from percoin.features.extra import GROUPS, FeatureGroup
from percoin.features.own import Extra, OwnFeature
from percoin.features.proof import prove_feature
from percoin.types import BoolArray, FloatArray, Timeframe, check_symbol

log = logging.getLogger(__name__)

# Order and count are the contract with every saved model; extra groups come after them.
FEATURE_NAMES = (
    "atr_14",
    "bb_lower",
    "bb_middle",
    "bb_upper",
    "bb_width",
    "ema_20",
    "ema_50",
    "log_returns",
    "macd",
    "macd_diff",
    "macd_signal",
    "returns",
    "rsi_14",
    "volatility",
    "volume_change",
)

PRICE_LIKE = frozenset(
    {
        "atr_14",
        "bb_lower",
        "bb_middle",
        "bb_upper",
        "ema_20",
        "ema_50",
        "macd",
        "macd_diff",
        "macd_signal",
    }
)

_FAST_EMA_BARS = 20
_SLOW_EMA_BARS = 50

# No market has such a value; its square would dominate the scaling of all other rows.
_LARGEST = 1e18

# The volatility of 20 returns looks at one close more.
_WINDOW_BARS = max(indicators.BOLLINGER_BARS - 1, indicators.VOLATILITY_BARS)

_HIGH, _LOW, _CLOSE, _VOLUME = map(COLUMNS.index, ("high", "low", "close", "volume"))

# Leading rows in which the 15 are never complete: the slow EMA starts last.
WARM_UP_BARS = _SLOW_EMA_BARS - 1


class FeatureDefinition(StrEnum):
    """How price-like features are expressed."""

    RAW = "raw"
    """In the price units of the market."""
    RELATIVE = "relative"
    """Divided by the close, so that a model is valid at other prices too; the change of volume
    is against the mean of the two bars, which avoids outliers."""


def _recursive_memory_bars() -> int:
    """Bars after which an EMA's seed weighs less than one float64 rounding error.

    Each bar multiplies the weight of everything before it by ``1 - 2 / (span + 1)``,
    (span - 1) / (span + 1). The slow EMA forgets last: Wilder's averages of ATR
    and RSI (13/14 a bar) and the averages inside MACD (at most 25/27) are quicker.
    """
    decay = (_SLOW_EMA_BARS - 1) / (_SLOW_EMA_BARS + 1)
    return math.ceil(math.log(np.finfo(np.float64).eps) / math.log(decay))


RECURSIVE_MEMORY_BARS = _recursive_memory_bars()  # 901


def history_bars(lookback: int) -> int:
    """How many bars a caller loads so that a window of the 15 features equals training's.

    The oldest row of the window must lie ``RECURSIVE_MEMORY_BARS`` after the first bar:
    961 bars for a lookback of 60. Only the RSI of a price that has stood still for hundreds
    of bars forgets more slowly: it is the ratio of two averages that fade alike.
    """
    return RECURSIVE_MEMORY_BARS + lookback


@dataclass(frozen=True)
class FeatureSet:
    """Which columns a model sees: the 15, then those of each extra group.

    Attributes:
        definition: How the 15 are expressed.
        extra: The extra groups by their names, and features of the user's own, each once, in
            the order of their columns.
        references: The markets that a group compares with; empty without such a group.

    Raises:
        ConfigError: A group is unknown or named twice, or its markets are not given.
    """

    definition: FeatureDefinition = FeatureDefinition.RELATIVE
    extra: tuple[Extra, ...] = ()
    references: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        unknown = [name for name in self.extra if isinstance(name, str) and name not in GROUPS]
        if unknown:
            raise ConfigError(
                f"features.extra names {unknown[0]!r:.60}; this percoin knows {', '.join(GROUPS)}, "
                "MODULE:FUNCTION of your own, and ta:MODULE.CLASS.METHOD"
            )
        if len(set(self.extra_names)) != len(self.extra):
            raise ConfigError(f"features.extra={list(self.extra_names)} names a group twice")
        compares = any(_group(entry).compares for entry in self.extra)
        for symbol in self.references:
            check_symbol(symbol)
        n_markets = len(set(self.references))
        if n_markets != len(self.references) or (n_markets > 1) != compares:
            raise ConfigError(
                f"features.references={list(self.references)}: name two or more markets, each "
                "once, for features.extra=[market]"
            )

    def __str__(self) -> str:
        beside = f" with {', '.join(self.extra_names)}" if self.extra else ""
        return f"{self.definition.value}{beside}"

    @property
    def extra_names(self) -> tuple[str, ...]:
        """What the entries of ``extra`` are called."""
        return tuple(entry if isinstance(entry, str) else entry.label for entry in self.extra)

    @property
    def own(self) -> tuple[OwnFeature, ...]:
        """The features of the user's own."""
        return tuple(entry for entry in self.extra if isinstance(entry, OwnFeature))

    @property
    def extra_settings(self) -> list[object]:
        """``extra`` as the setting ``features.extra`` has it."""
        return [entry if isinstance(entry, str) else entry.setting for entry in self.extra]

    @property
    def unproven(self) -> FeatureSet:
        """The same features, without what was measured on bars."""
        plain = [
            replace(entry, columns=(), memory_bars=None) if isinstance(entry, OwnFeature) else entry
            for entry in self.extra
        ]
        return replace(self, extra=tuple(plain))

    def check_code(self) -> None:
        """Refuse code that is not allowed in this process, or is not that of the training.

        Raises:
            ConfigError: Says what to allow.
        """
        for feature in self.own:
            feature.function()

    def proven(self, bars: Bars) -> FeatureSet:
        """Put the features of the user's own to the proof, and measure how far they look back.

        Args:
            bars: Of one market.

        Raises:
            OwnCodeError: A column cannot be used; the message says which and why.
        """
        if not self.own:
            return self
        key = (self.unproven, tuple(map(repr, self.own)), bars.symbol, bars.sha256())
        if key not in _proven:
            if len(_proven) >= _MOST_PROOFS_KEPT:
                _proven.clear()
            _proven[key] = _prove(self.unproven, bars)
        return _proven[key]

    def names(self, timeframe: Timeframe) -> tuple[str, ...]:
        """The names of all columns in their order, for a bar length; F of them."""
        extra = (name for entry in self.extra for name in _group(entry).names(timeframe))
        return (*FEATURE_NAMES, *extra)

    def warm_up_bars(self, timeframe: Timeframe) -> int:
        """Leading rows of a history that are never complete."""
        return max(WARM_UP_BARS, self._extra_memory_bars(timeframe))

    def history_bars(self, lookback: int, timeframe: Timeframe) -> int:
        """As ``history_bars``, with the bars that the extra groups look back at."""
        return max(RECURSIVE_MEMORY_BARS, self._extra_memory_bars(timeframe)) + lookback

    def _extra_memory_bars(self, timeframe: Timeframe) -> int:
        return max((_group(entry).memory_bars(timeframe) for entry in self.extra), default=0)


def _group(entry: Extra) -> FeatureGroup:
    return GROUPS[entry] if isinstance(entry, str) else entry.group


def _prove(features: FeatureSet, bars: Bars) -> FeatureSet:
    others = replace(features, extra=tuple(e for e in features.extra if isinstance(e, str)))
    columns = dict(zip(others.names(bars.timeframe), compute_features(bars, others).T, strict=True))
    extra: list[Extra] = []
    for entry in features.extra:
        if isinstance(entry, OwnFeature):
            entry, found = prove_feature(entry, bars, columns)
            columns |= found
        extra.append(entry)
    return replace(features, extra=tuple(extra))


def _tell(feature: OwnFeature, bars: Bars, columns: Mapping[str, FloatArray]) -> None:
    market, memory_bars = (bars.symbol, bars.timeframe.value), feature.memory_bars or 0
    log.info("%s %s: %s looks back %d bars", *market, feature.label, memory_bars)
    for name, values in columns.items():
        unknown = float(np.isnan(values[memory_bars:]).mean())
        if unknown > _MUCH_UNKNOWN:
            log.warning(
                "%s %s: %s is NaN on %.0f %% of the bars, and no window may hold one of them",
                *market,
                name,
                100 * unknown,
            )


# A search prepares the same bars for each of its trials.
_proven: dict[object, FeatureSet] = {}
_MOST_PROOFS_KEPT = 256
_MUCH_UNKNOWN = 0.05


def compute_features(bars: Bars, features: FeatureSet) -> FloatArray:
    """The features of every bar, known when that bar closes.

    Recursive indicators continue over a gap, as on every chart. A change across a gap is
    not the change of one bar, so ``returns``, ``log_returns`` and ``volume_change`` are NaN
    on the first bar after it, and ``volatility`` is NaN while that bar is among its 20.

    Args:
        bars: Closed bars of one market, checked against the schema.
        features: Which columns.

    Returns:
        Shape (n_bars, F) in the order of ``features.names``, NaN where undefined: at least
        the first ``features.warm_up_bars`` rows, after gaps, ``volume_change`` after a bar
        without volume, and values beyond 1e18.
    """
    columns: FloatArray = compute_newest_features([bars], features, len(bars))[0]
    return columns


def compute_newest_features(
    markets: Sequence[Bars],
    features: FeatureSet,
    n_rows: int,
    stacked: StackedBars | None = None,
) -> FloatArray:
    """The last rows of ``compute_features`` for several markets in one go, to the same bits.

    Args:
        markets: At least one, all with the same number of bars and the same columns; they
            need share no dates.
        features: Which columns.
        n_rows: How many of the newest bars to compute. Only the recursive indicators look
            at all bars before them, so fewer rows cost less.
        stacked: The same markets side by side, where the caller has them.

    Returns:
        Shape (n_markets, n_rows, F).
    """
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        # A market whose bars break the schema gets NaN without a warning.
        columns = _compute(stacked or StackedBars.of(markets), features.definition, n_rows)
        if features.extra:
            extra = np.stack([_newest_extra(bars, features, n_rows) for bars in markets])
            columns = np.concatenate([columns, extra], axis=-1)
    columns[np.abs(columns) > _LARGEST] = np.nan
    return columns


def _newest_extra(bars: Bars, features: FeatureSet, n_rows: int) -> FloatArray:
    """The columns of the extra groups on the last rows, shape (n_rows, n_columns)."""

    def newest(entry: Extra) -> FloatArray:
        group = _group(entry)
        n_bars = n_rows + group.memory_bars(bars.timeframe)
        columns = group.columns(bars.slice(max(0, len(bars) - n_bars)), features.references)
        return columns[len(columns) - n_rows :]

    return np.concatenate([newest(entry) for entry in features.extra], axis=1)


def _compute(markets: StackedBars, definition: FeatureDefinition, n_rows: int) -> FloatArray:
    values, recent = markets.values, markets.newest(n_rows + _WINDOW_BARS)
    columns = _recursive_columns(values)
    is_after_gap = follows_gap(recent.open_time, markets.milliseconds)
    columns |= _window_columns(recent.values, is_after_gap, definition)
    newest = {name: column[len(column) - n_rows :] for name, column in columns.items()}
    if definition is FeatureDefinition.RELATIVE:
        close = values[len(values) - n_rows :, _CLOSE]
        newest |= {name: newest[name] / close for name in PRICE_LIKE}
    return np.stack([newest[name] for name in FEATURE_NAMES], axis=-1).swapaxes(0, 1)


def _recursive_columns(values: FloatArray) -> dict[str, FloatArray]:
    """The features that remember all bars before, in price units."""
    close = values[:, _CLOSE]
    macd = indicators.macd(close)
    return {
        "atr_14": indicators.atr(values[:, _HIGH], values[:, _LOW], close),
        "ema_20": indicators.ema(close, _FAST_EMA_BARS),
        "ema_50": indicators.ema(close, _SLOW_EMA_BARS),
        "macd": macd.line,
        "macd_diff": macd.difference,
        "macd_signal": macd.signal,
        "rsi_14": indicators.rsi(close),
    }


def _window_columns(
    values: FloatArray, follows_gap: BoolArray, definition: FeatureDefinition
) -> dict[str, FloatArray]:
    """The features that look at no more than ``_WINDOW_BARS`` bars before, in price units."""

    def within_run(change: FloatArray) -> FloatArray:
        return np.where(follows_gap, np.nan, change)

    close, volume = values[:, _CLOSE], values[:, _VOLUME]
    returns = within_run(indicators.relative_change(close))
    bands = indicators.bollinger(close)
    # After a bar with hardly any volume the plain change is hundreds of standard deviations.
    is_raw = definition is FeatureDefinition.RAW
    volume_change = indicators.relative_change if is_raw else indicators.symmetric_change
    return {
        "bb_lower": bands.lower,
        "bb_middle": bands.middle,
        "bb_upper": bands.upper,
        "bb_width": bands.width,
        "log_returns": within_run(indicators.log_returns(close)),
        "returns": returns,
        "volatility": indicators.volatility(returns),
        "volume_change": within_run(volume_change(volume)),
    }
