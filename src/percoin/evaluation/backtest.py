"""Backtest of signals after costs, one position at a time.

A decision is made at the close of a bar. The position opens at the next bar's open and closes
by the rule that made the labels, or at the stop or first target of the signal. The next decision
is made at the earliest in the bar in which the position closes. Every trade uses the whole
equity, long or short, without leverage.

A relative position has a second leg on the other side, of the same value: equal parts of every
market of a basket, opened and closed with the first. Each leg pays its costs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from percoin.evaluation.sharpe import ReturnMoments, return_moments, sharpe_ratio
from percoin.types import FloatArray, IntArray, Signal

BUY_AND_HOLD = "buy_and_hold"


@dataclass(frozen=True)
class Costs:
    """What each side of a trade costs, in basis points of the traded value.

    Attributes:
        fee_bps: Commission. The exchange's regular taker fee is 5 for USDT-margined
            perpetuals, 10 on spot.
        slippage_bps: Difference between the quoted price and the worse price of the fill.
    """

    fee_bps: float = 5.0
    slippage_bps: float = 2.0

    @property
    def fraction(self) -> float:
        """Fee plus slippage of one side, as a fraction of the traded value."""
        return (self.fee_bps + self.slippage_bps) / 10_000


@dataclass(frozen=True, eq=False)
class Basket:
    """Prices of the markets of a basket at the bars of ``Prices``, NaN where one has no bar.

    Attributes:
        open: Shape (n_bars, K).
        close: Shape (n_bars, K).
    """

    open: FloatArray
    close: FloatArray

    def path(self, decided: int, last: int) -> FloatArray:
        """Value of the basket at each close from ``decided + 1`` to ``last``, 1 when it is bought.

        It is bought in equal parts at the open of bar ``decided + 1``: the markets that have
        each bar from ``decided`` to ``last``, as in the label. Shape (last - decided,).
        """
        is_held = np.isfinite(self.close[decided : last + 1]).all(axis=0)
        held = slice(decided + 1, last + 1)
        path: FloatArray = self.close[held, is_held] / self.open[decided + 1, is_held]
        mean: FloatArray = path.mean(axis=1)
        return mean


@dataclass(frozen=True)
class Prices:
    """Bars without gaps between them, each field of shape (n_bars,).

    Attributes:
        basket: The other leg of each position; None without one.
    """

    open: FloatArray
    high: FloatArray
    low: FloatArray
    close: FloatArray
    basket: Basket | None = None

    def __len__(self) -> int:
        return len(self.close)


class Exit(StrEnum):
    """Where a position closes before the horizon ends."""

    HORIZON = "horizon"
    """Where the rule of the labels ends: at a barrier if it has barriers, else at the horizon."""
    LEVELS = "levels"
    """At the stop or the first target that the signal was served with."""

    @property
    def words(self) -> str:
        """The exit for people."""
        if self is Exit.LEVELS:
            return "positions close at the stop or the first target, at the horizon at the latest"
        return "positions close where the label ends"


@dataclass(frozen=True, eq=False)
class Brackets:
    """Two prices that close a position opened after each bar, shape (n_bars, 2) for each side.

    The lower price comes first: the stop of a LONG, the target of a SHORT. A bar with NaN has
    no such prices.
    """

    long: FloatArray
    short: FloatArray


@dataclass(frozen=True)
class ExitRule:
    """When a position closes.

    Attributes:
        horizon: Number of bars after the decision. The position closes at the close of that
            bar at the latest; with barriers this is the vertical barrier.
        barrier_width: Distance of the barriers above and below the close of each
            bar, as a fraction of that close, shape (n_bars,); None for a fixed horizon.
        brackets: Prices that take the place of the barriers; None without them.
    """

    horizon: int
    barrier_width: FloatArray | None = None
    brackets: Brackets | None = None

    def ends(self, decided: int, close: float, side: int) -> tuple[float, float] | None:
        """Lower and upper price that close the position; None if only the horizon does.

        Args:
            decided: Index of the bar of the decision.
            close: Its close.
            side: 1 for LONG, -1 for SHORT.
        """
        if self.brackets is not None:
            below, above = (self.brackets.long if side > 0 else self.brackets.short)[decided]
            return float(below), float(above)
        if self.barrier_width is None:
            return None
        width = self.barrier_width[decided]
        return close * (1 - width), close * (1 + width)


@dataclass(frozen=True)
class Trade:
    """One round trip.

    Attributes:
        decided: Index of the bar at whose close the signal is made.
        closed: Index of the bar in which the position closes.
        side: 1 for LONG, -1 for SHORT.
        entry_price: Open of bar ``decided + 1``.
        exit_price: Exit price before slippage.
        basket: Value of the other leg at each close while it is open, 1 when it is opened;
            None without one.
    """

    decided: int
    closed: int
    side: int
    entry_price: float
    exit_price: float
    basket: tuple[float, ...] | None = None

    @property
    def gross_return(self) -> float:
        """Return on the entry value of the first leg before costs, as a fraction."""
        other = 1.0 if self.basket is None else self.basket[-1]
        return self.side * (self.exit_price / self.entry_price - other)

    def entry_cost(self, costs: Costs) -> float:
        """Costs of opening all legs, as a fraction of the value of the first."""
        return costs.fraction * (1.0 if self.basket is None else 2.0)

    def cost(self, costs: Costs) -> float:
        """Costs of both sides of all legs on the entry value of the first, as a fraction."""
        other = 0.0 if self.basket is None else self.basket[-1]
        return self.entry_cost(costs) + costs.fraction * (
            self.exit_price / self.entry_price + other
        )


@dataclass(frozen=True)
class BacktestResult:
    """Backtest result of one forecaster; fractions, not percent.

    Attributes:
        name: Name of the forecaster.
        net_return: Final equity minus one.
        n_trades: Number of round trips.
        hit_rate: Share of trades with a gain before costs; None without trades.
        break_even_hit_rate: Hit rate at which mean gain, mean loss and costs of these trades
            cancel out. The mean net return of a trade is positive exactly if ``hit_rate`` is
            above it. It can exceed 1. None without trades.
        profit_factor: Net gains over net losses; None without losses.
        max_drawdown: Largest fall from a peak of the equity, 0 to 1.
        exposure: Share of bars with an open position.
        sharpe: Annualised Sharpe ratio of the returns of all bars; None if they never vary.
        deflated_sharpe: Probability that the Sharpe ratio is more than the luck of
            ``n_trials`` tries; None if the returns never vary.
        n_trials: Number of models and settings tried.
        fee_bps: Fee of each side.
        slippage_bps: Slippage of each side.
        equity: Equity at the close of each bar, starting from one, shape (n_bars,).
        moments: Moments of the returns of all bars; None if they never vary, or in older
            documents.
        n_legs: 2 if each position has a basket on the other side, else 1.
    """

    name: str
    net_return: float
    n_trades: int
    hit_rate: float | None
    break_even_hit_rate: float | None
    profit_factor: float | None
    max_drawdown: float
    exposure: float
    sharpe: float | None
    deflated_sharpe: float | None
    n_trials: int
    fee_bps: float
    slippage_bps: float
    equity: FloatArray
    moments: ReturnMoments | None = None
    n_legs: int = 1

    @property
    def costs_text(self) -> str:
        """The costs for people."""
        legs = "" if self.n_legs == 1 else ", of the market's leg and of the basket's"
        return f"{self.fee_bps:g} bps fee and {self.slippage_bps:g} bps slippage a side{legs}"

    def shown_among(self, n_models: int) -> BacktestResult:
        """The same result; its deflated Sharpe ratio corrects for all models shown together."""
        return self.tried(self.n_trials * n_models)

    def tried(self, n_trials: int) -> BacktestResult:
        """The same result; its deflated Sharpe ratio corrects for that many tries in all."""
        if self.moments is None or n_trials == self.n_trials:
            return self
        return replace(self, n_trials=n_trials, deflated_sharpe=self.moments.deflated(n_trials))


def backtest(
    name: str,
    prices: Prices,
    signals: IntArray,
    exit_rule: ExitRule,
    costs: Costs,
    *,
    bars_per_year: float,
    n_trials: int = 1,
) -> BacktestResult:
    """Trade the signals of one forecaster on their bars.

    Args:
        name: Name of the forecaster.
        prices: Bars of the test period, shape (n_bars,) each.
        signals: Decision at the close of each bar, shape (n_bars,); NO_TRADE without a
            decision. A decision is skipped if its horizon reaches past the last bar.
        exit_rule: When positions close.
        costs: Costs of each side.
        bars_per_year: To annualise the Sharpe ratio.
        n_trials: Number of models and settings tried, for the deflated Sharpe ratio.
    """
    trades = find_trades(prices, signals, exit_rule)
    return _summarise(name, prices, trades, costs, bars_per_year, n_trials)


def buy_and_hold(prices: Prices, costs: Costs, *, bars_per_year: float) -> BacktestResult:
    """Buy at the second bar's open (the first possible entry) and sell at the last close."""
    trade = Trade(0, len(prices) - 1, 1, float(prices.open[1]), float(prices.close[-1]))
    result = _summarise(BUY_AND_HOLD, prices, [trade], costs, bars_per_year, 1)
    # Rates make no sense for a single trade, and it has no basket on the other side.
    return replace(result, hit_rate=None, break_even_hit_rate=None, profit_factor=None, n_legs=1)


def find_trades(prices: Prices, signals: IntArray, exit_rule: ExitRule) -> list[Trade]:
    """Turn signals into round trips, in time order and without overlap.

    Args:
        prices: Shape (n_bars,) each.
        signals: Shape (n_bars,).
        exit_rule: When positions close.

    Raises:
        ValueError: Signals and bars differ in length, or a value is no signal.
    """
    if len(signals) != len(prices) or not np.isin(signals, list(Signal)).all():
        raise ValueError("expected one signal per bar; NO_TRADE where nothing was decided")
    trades: list[Trade] = []
    free_from = 0
    for decided in np.flatnonzero(signals != Signal.NO_TRADE).tolist():
        if decided < free_from or decided + exit_rule.horizon >= len(prices):
            continue
        side = 1 if signals[decided] == Signal.LONG else -1
        closed, exit_price = _find_exit(prices, decided, side, exit_rule)
        basket = prices.basket
        path = None if basket is None else tuple(basket.path(decided, closed).tolist())
        opened = float(prices.open[decided + 1])
        trades.append(Trade(decided, closed, side, opened, exit_price, path))
        free_from = closed
    return trades


def _find_exit(prices: Prices, decided: int, side: int, rule: ExitRule) -> tuple[int, float]:
    """Bar and price of the exit.

    If a bar opens beyond a barrier, the exit price is its open. If one bar touches both
    barriers, the order is unknown, so the exit takes the loss.
    """
    last = decided + rule.horizon
    ends = rule.ends(decided, prices.close[decided], side)
    if ends is None:
        return last, float(prices.close[last])
    below, above = ends
    for bar in range(decided + 1, last + 1):
        opened = float(prices.open[bar])
        if opened >= above or opened <= below:
            return bar, opened
        touched = [
            level
            for level, is_touched in (
                (above, prices.high[bar] >= above),
                (below, prices.low[bar] <= below),
            )
            if is_touched
        ]
        if touched:
            return bar, float(min(touched) if side > 0 else max(touched))
    return last, float(prices.close[last])


def _summarise(
    name: str,
    prices: Prices,
    trades: list[Trade],
    costs: Costs,
    bars_per_year: float,
    n_trials: int,
) -> BacktestResult:
    equity = _equity(prices, trades, costs)
    before = np.concatenate([[1.0], equity[:-1]])
    returns = np.divide(equity, before, out=np.ones_like(equity), where=before > 0) - 1.0
    moments = return_moments(returns)
    gross = np.array([trade.gross_return for trade in trades])
    paid = np.array([trade.cost(costs) for trade in trades])
    net = gross - paid
    losses = float(-net[net < 0].sum())
    peaks = np.maximum.accumulate(np.concatenate([[1.0], equity]))[1:]
    bars_held = sum(trade.closed - trade.decided for trade in trades)
    return BacktestResult(
        name=name,
        net_return=float(equity[-1] - 1.0),
        n_trades=len(trades),
        hit_rate=float((gross > 0).mean()) if trades else None,
        break_even_hit_rate=_break_even_hit_rate(gross, paid),
        profit_factor=float(net[net > 0].sum()) / losses if losses > 0 else None,
        max_drawdown=float((1.0 - equity / peaks).max()),
        exposure=bars_held / len(prices),
        sharpe=sharpe_ratio(returns, bars_per_year),
        deflated_sharpe=None if moments is None else moments.deflated(n_trials),
        n_trials=n_trials,
        fee_bps=costs.fee_bps,
        slippage_bps=costs.slippage_bps,
        equity=equity,
        moments=moments,
        n_legs=1 if prices.basket is None else 2,
    )


def _equity(prices: Prices, trades: list[Trade], costs: Costs) -> FloatArray:
    """Equity at each close, with open positions valued at that close, shape (n_bars,).

    Equity never falls below zero, even if a short position loses more than everything.
    """
    equity = np.ones(len(prices))
    capital = 1.0
    for trade in trades:
        held = slice(trade.decided + 1, trade.closed)
        other = 1.0 if trade.basket is None else np.array(trade.basket[:-1])
        move = trade.side * (prices.close[held] / trade.entry_price - other)
        # A trade opens in the bar after the previous trade closed, so they do not overlap.
        equity[held] = capital * np.maximum(1.0 + move - trade.entry_cost(costs), 0.0)
        capital *= max(1.0 + trade.gross_return - trade.cost(costs), 0.0)
        equity[trade.closed :] = capital
    return equity


def _break_even_hit_rate(gross: FloatArray, paid: FloatArray) -> float | None:
    """Share of winners p with p * gain - (1 - p) * loss = cost, all means over trades."""
    if len(gross) == 0:
        return None
    wins, losses = gross[gross > 0], -gross[gross <= 0]
    gain = float(wins.mean()) if len(wins) else 0.0
    loss = float(losses.mean()) if len(losses) else 0.0
    return (loss + float(paid.mean())) / (gain + loss) if gain + loss > 0 else None
