"""The rules that make labels: which answer later bars show to have been right."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from percoin.bars.gaps import contiguous_run
from percoin.bars.panel import MarketPanel
from percoin.bars.schema import Bars
from percoin.errors import BarsNotFoundError, ConfigError, MissingClassError
from percoin.types import UNKNOWN_LABEL, BoolArray, FloatArray, IntArray, Signal, is_symbol

_FEWEST_MARKETS = 2
_MOST_MARKETS = 10_000
_SHOWN = 3


@dataclass(frozen=True, eq=False)
class Labels:
    """One answer a bar.

    Attributes:
        label: ``Signal`` as an integer, ``UNKNOWN_LABEL`` (-1) where later bars
            are missing, shape (n_bars,).
        forward_return: Close ``horizon`` bars later over this close, minus 1: the return
            of holding the market for the horizon, as a fraction. NaN where those bars are
            missing, shape (n_bars,).
    """

    label: IntArray
    forward_return: FloatArray


@dataclass(frozen=True)
class LabelRule(ABC):
    """A rule that names the right answer at the close of each bar.

    Attributes:
        horizon: How many bars the rule looks ahead; at least 1.
    """

    kind: ClassVar[str]

    horizon: int

    def __post_init__(self) -> None:
        if self.horizon < 1:
            raise ConfigError(f"labels.horizon={self.horizon}: look at least 1 bar ahead")

    @property
    def past_bars(self) -> int:
        """How many bars before a bar the rule needs to label it."""
        return 0

    @abstractmethod
    def label(self, bars: Bars) -> Labels:
        """Label every bar; unknown where one of the next ``horizon`` bars is missing."""

    def knows(self, bars: Bars) -> BoolArray:
        """Where ``label`` has an answer, shape (n_bars,); works before the rule is fitted."""
        known: BoolArray = self.label(bars).label != UNKNOWN_LABEL
        return known

    def fitted(self, bars: Bars, train_rows: IntArray) -> LabelRule:
        """The rule with the numbers that it takes from the train rows; most take none.

        Args:
            bars: Bars of the market.
            train_rows: Positions of bars whose labels may be learnt from, shape (n_rows,).
        """
        return self

    @property
    def unproven(self) -> LabelRule:
        """The rule without what was measured on bars."""
        return self

    def proven(self, bars: Bars) -> LabelRule:
        """The rule after a proof of what it looks at; those of percoin need none."""
        return self

    @property
    def compared_with(self) -> tuple[str, ...]:
        """The markets whose bars the rule takes from ``Bars.panel``; most take none."""
        return ()

    def among(self, symbols: Sequence[str]) -> LabelRule:
        """The rule for the markets of a pool; only a rule that compares markets is another."""
        return self

    def barrier_distance(self, bars: Bars) -> FloatArray | None:
        """Distance of price barriers from each close as a fraction of it, shape (n_bars,).

        None for a rule without barriers.
        """
        return None

    def to_json(self) -> dict[str, Any]:
        """Kind and parameters; ``label_rule_from_json`` is the inverse."""
        return {"kind": self.kind, **asdict(self)}


@dataclass(frozen=True)
class FixedHorizon(LabelRule):
    """LONG or SHORT if the return after ``horizon`` bars exceeds a threshold.

    Attributes:
        threshold: Fraction, 0.0025 for 0.25 %; a return equal to it is NO_TRADE.
    """

    kind: ClassVar[str] = "fixed_horizon"

    threshold: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.threshold < 1:
            raise ConfigError(
                f"labels.threshold={self.threshold}: give a fraction between 0 and 1, 0.0025 for "
                "0.25 %"
            )

    def label(self, bars: Bars) -> Labels:
        """Compare the close ``horizon`` bars later with this one."""
        forward_return = return_ahead(bars, self.horizon)
        label = np.full(len(bars), Signal.NO_TRADE, dtype=np.int64)
        label[forward_return > self.threshold] = Signal.LONG
        label[forward_return < -self.threshold] = Signal.SHORT
        label[np.isnan(forward_return)] = UNKNOWN_LABEL
        return Labels(label, forward_return)


@dataclass(frozen=True)
class VolatilityScaled(LabelRule):
    """LONG or SHORT if the return after ``horizon`` bars is large for the recent volatility.

    The threshold is ``width * sigma * sqrt(horizon)``: sigma is the sample standard
    deviation of the last ``volatility_bars`` returns, known at the close of the bar,
    and the square root scales it from one bar to the horizon. So quiet and wild times, and
    short and long bars, have about the same shares of the three classes, and knowing the
    volatility alone is not enough for a model.

    Attributes:
        no_trade_share: Share of the train rows that ``fitted`` makes NO_TRADE.
        volatility_bars: How many returns sigma is measured on; at least 2.
        width: The threshold in standard deviations of the return over the horizon;
            None until it is fitted on train rows. A return equal to it is NO_TRADE.
    """

    kind: ClassVar[str] = "volatility_scaled"

    no_trade_share: float
    volatility_bars: int
    width: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.no_trade_share < 1:
            raise ConfigError(
                f"labels.no_trade_share={self.no_trade_share}: give a share between 0 and 1"
            )
        _check_volatility_bars(self.volatility_bars)
        if self.width is not None and not (self.width > 0 and math.isfinite(self.width)):
            raise ConfigError(
                f"labels.width={self.width}: give a positive number of standard deviations, or "
                "null to have it fitted on the train rows"
            )

    @property
    def past_bars(self) -> int:
        """The bars whose returns make up sigma."""
        return self.volatility_bars

    def label(self, bars: Bars) -> Labels:
        """Compare the close ``horizon`` bars later with this one, in units of volatility.

        Also unknown where sigma is: at the first ``volatility_bars`` bars, while a gap
        lies within them, and where the price did not move at all.

        Raises:
            ValueError: The width is neither given nor fitted.
        """
        if self.width is None:
            raise ValueError("the width is not known yet: fit the rule on train rows")
        ratio = self._ratio(bars)
        label = np.full(len(bars), Signal.NO_TRADE, dtype=np.int64)
        label[ratio > self.width] = Signal.LONG
        label[ratio < -self.width] = Signal.SHORT
        label[np.isnan(ratio)] = UNKNOWN_LABEL
        return Labels(label, return_ahead(bars, self.horizon))

    def knows(self, bars: Bars) -> BoolArray:
        """Where the return and sigma are known, whatever the width."""
        known: BoolArray = ~np.isnan(self._ratio(bars))
        return known

    def fitted(self, bars: Bars, train_rows: IntArray) -> VolatilityScaled:
        """The width that makes ``no_trade_share`` of the train rows NO_TRADE, if none was given."""
        if self.width is not None:
            return self
        sizes = np.abs(self._ratio(bars)[train_rows])
        width = float(np.quantile(sizes, self.no_trade_share))
        if width > 0:
            return replace(self, width=width)
        raise MissingClassError(
            bars.symbol,
            bars.timeframe.value,
            f"{np.mean(sizes == 0):.0%} of the train rows have the same price {self.horizon} bars "
            f"later, so that no threshold makes {self.no_trade_share:.0%} of them NO_TRADE",
            "use a larger labels.no_trade_share, a longer labels.horizon or another tf",
        )

    def _ratio(self, bars: Bars) -> FloatArray:
        """Forward return over its expected size, shape (n_bars,), NaN where unknown."""
        expected = _volatility(self._returns(bars), self.volatility_bars) * math.sqrt(self.horizon)
        forward_return = self._forward(bars)
        return _finite_quotient(forward_return, np.where(expected > 0, expected, np.nan))

    def _forward(self, bars: Bars) -> FloatArray:
        """The return over the horizon that is labelled, shape (n_bars,)."""
        return return_ahead(bars, self.horizon)

    def _returns(self, bars: Bars) -> pd.Series:
        """The same of the one bar that ends on each bar."""
        return _one_bar_returns(bars)


@dataclass(frozen=True)
class Relative(VolatilityScaled):
    """LONG or SHORT if the market does better or worse than the mean of its pool by enough.

    As ``VolatilityScaled``, with the return of the market less the mean return of ``markets``
    over the same bars, the market itself among them, and sigma of that difference. So it is
    the label of a position in the market against an equal one in the basket of all of them.
    A market counts in the mean of a bar if it has that bar and each of the next ``horizon``.
    ``Labels.forward_return`` stays that of the market.

    Attributes:
        min_share: Share of ``markets`` that must count; with fewer, or fewer than two, the label
            is unknown.
        markets: Symbols of the markets that form the mean; empty until ``among`` names them.
    """

    kind: ClassVar[str] = "relative"

    min_share: float = 0.5
    markets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.min_share <= 1:
            raise ConfigError(
                f"labels.min_share={self.min_share}: give a share above 0, and 1 at most"
            )
        markets = tuple(self.markets)
        if len(markets) > _MOST_MARKETS or not all(map(is_symbol, markets)):
            raise ConfigError(f"labels.markets={str(markets)[:60]} are no markets")
        object.__setattr__(self, "markets", markets)

    @property
    def compared_with(self) -> tuple[str, ...]:
        """The markets of the basket."""
        return self.markets

    def among(self, symbols: Sequence[str]) -> Relative:
        """The same rule with these markets in the mean."""
        return replace(self, markets=tuple(symbols))

    def to_json(self) -> dict[str, Any]:
        """As ``LabelRule.to_json``, the markets as a list."""
        return super().to_json() | {"markets": list(self.markets)}

    def _forward(self, bars: Bars) -> FloatArray:
        return super()._forward(bars) - self._mean(bars, self.horizon, bars.open_time)

    def _returns(self, bars: Bars) -> pd.Series:
        before = bars.open_time - bars.timeframe.milliseconds
        return super()._returns(bars) - self._mean(bars, 1, before)

    def _mean(self, bars: Bars, n_bars: int, open_time: IntArray) -> FloatArray:
        """Mean return of the basket over ``n_bars`` from the close of the bars at these times."""
        panel = self._panel(bars)

        def mean() -> FloatArray:
            close = panel.column("close", self.markets)
            later, counts = np.full_like(close, np.nan), np.isfinite(close)
            if n_bars < len(close):
                later[:-n_bars] = close[n_bars:]
            # A halt within the horizon leaves the market out, as its own label is unknown then.
            for ahead in range(1, n_bars + 1):
                counts[: max(0, len(close) - ahead)] &= np.isfinite(close[ahead:])
            returns = np.where(counts & np.isfinite(later), later / close - 1, 0.0)
            n_counted = (counts & np.isfinite(later)).sum(axis=1)
            enough = max(_FEWEST_MARKETS, math.ceil(self.min_share * len(self.markets)))
            means: FloatArray = returns.sum(axis=1) / n_counted
            return np.where(n_counted >= enough, means, np.nan)

        key = ("mean return", self.markets, self.min_share, n_bars)
        with np.errstate(divide="ignore", invalid="ignore"):
            return panel.rows_at(panel.computed(key, mean), open_time)

    def _panel(self, bars: Bars) -> MarketPanel:
        missing = self.markets if bars.panel is None else bars.panel.lacks(self.markets)
        if bars.panel is not None and self.markets and not missing:
            return bars.panel
        if not self.markets:
            raise ConfigError(
                "labels=relative compares a market with the mean of its pool: use it with "
                "recipe=pooled symbol=A,B,C"
            )
        raise BarsNotFoundError(
            bars.symbol,
            bars.timeframe,
            f"its label compares it with {len(self.markets)} markets, and {missing[0]} is missing",
            f"bring the {bars.timeframe} bars of {', '.join(missing[:_SHOWN])} to the same source",
        )


@dataclass(frozen=True)
class TripleBarrier(LabelRule):
    """LONG or SHORT by the first of two price barriers that the next bars touch.

    After Lopez de Prado, Advances in Financial Machine Learning (2018), chapter
    3: symmetric barriers at ``close * (1 +- barrier_width * sigma * sqrt(horizon))``
    and a vertical one after ``horizon`` bars, which means NO_TRADE. Sigma is the
    sample standard deviation of the last ``volatility_bars`` returns (he weights
    them exponentially), known at the close of the bar; the square root scales it
    from one bar to the horizon. A barrier is touched by a bar's high or low. If the
    first bar to touch one touches both, their order is unknown: NO_TRADE.

    Attributes:
        barrier_width: Distance of a barrier in standard deviations of the return
            over the horizon.
        volatility_bars: How many returns sigma is measured on; at least 2.
    """

    kind: ClassVar[str] = "triple_barrier"

    barrier_width: float
    volatility_bars: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.barrier_width > 0 and math.isfinite(self.barrier_width)):
            raise ConfigError(
                f"labels.barrier_width={self.barrier_width}: give a positive number of "
                "standard deviations"
            )
        _check_volatility_bars(self.volatility_bars)

    @property
    def past_bars(self) -> int:
        """The bars whose returns make up sigma."""
        return self.volatility_bars

    def label(self, bars: Bars) -> Labels:
        """Follow the next ``horizon`` bars of every bar until a barrier is touched.

        Also unknown where sigma is: at the first ``volatility_bars`` bars, while a
        gap lies within them, and where the price did not move at all.
        """
        forward_return = return_ahead(bars, self.horizon)
        width = self.barrier_distance(bars)
        label = self._first_touch(bars, width)
        label[np.isnan(forward_return) | ~(width > 0)] = UNKNOWN_LABEL
        return Labels(label, forward_return)

    def barrier_distance(self, bars: Bars) -> FloatArray:
        """Distance of the barriers from each close, as a fraction of it, NaN where unknown."""
        return (
            self.barrier_width
            * _volatility(_one_bar_returns(bars), self.volatility_bars)
            * math.sqrt(self.horizon)
        )

    def _first_touch(self, bars: Bars, width: FloatArray) -> IntArray:
        """Class by the first barrier touched, one later bar at a time."""
        close = bars.column("close")
        upper, lower = close * (1 + width), close * (1 - width)
        high, low = bars.column("high"), bars.column("low")
        label = np.full(len(bars), Signal.NO_TRADE, dtype=np.int64)
        is_open = np.ones(len(bars), dtype=np.bool_)
        for ahead in range(1, self.horizon + 1):
            touches_upper = is_open & (_later(high, ahead) >= upper)
            touches_lower = is_open & (_later(low, ahead) <= lower)
            label[touches_upper & ~touches_lower] = Signal.LONG
            label[touches_lower & ~touches_upper] = Signal.SHORT
            is_open &= ~(touches_upper | touches_lower)
        return label


def _check_volatility_bars(volatility_bars: int) -> None:
    if volatility_bars < 2:
        raise ConfigError(
            f"labels.volatility_bars={volatility_bars}: a standard deviation takes at least 2 bars"
        )


def _volatility(returns: pd.Series, n_bars: int) -> FloatArray:
    """Standard deviation of one bar's return over the last ``n_bars``, known at each close.

    Shape (n_bars of ``returns``,), NaN where one of the returns is unknown.
    """
    return returns.rolling(n_bars).std().to_numpy(dtype=np.float64)


def _one_bar_returns(bars: Bars) -> pd.Series:
    """Return of each bar over the one before it, NaN after a gap."""
    follows_gap = contiguous_run(bars.open_time, bars.timeframe) == 1
    with np.errstate(over="ignore"):
        return bars.frame["close"].pct_change().mask(follows_gap)


def _later(values: FloatArray, n_bars: int) -> FloatArray:
    """Each bar's value ``n_bars`` later, NaN beyond the end."""
    result = np.full(len(values), np.nan)
    if n_bars < len(values):
        result[: len(values) - n_bars] = values[n_bars:]
    return result


def return_ahead(bars: Bars, horizon: int) -> FloatArray:
    """Return from each close to the one ``horizon`` bars later, NaN if any bar is missing."""
    close = bars.column("close")
    forward_return = _finite_quotient(_later(close, horizon), close) - 1
    # All of the next bars are there if the last of them ends a run that includes this one.
    run_length = contiguous_run(bars.open_time, bars.timeframe).astype(np.float64)
    return np.where(_later(run_length, horizon) > horizon, forward_return, np.nan)


def _finite_quotient(values: FloatArray, divisor: FloatArray) -> FloatArray:
    """The quotient; NaN where it overflows."""
    with np.errstate(over="ignore"):
        quotient = values / divisor
    return np.where(np.isfinite(quotient), quotient, np.nan)
