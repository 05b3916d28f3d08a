"""What the signals would have earned after costs, one position at a time.

A decision is made at the close of a bar, the position is opened at the next bar's
open, and it is closed by the rule that made the labels. No new decision is taken
until the bar in which the position closes. Every trade puts in the whole equity,
long or short, without leverage.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from percoin.evaluation.sharpe import ReturnMoments, return_moments, sharpe_ratio
from percoin.types import FloatArray, IntArray, Signal


@dataclass(frozen=True)
class Costs:
    """What each side of a trade costs, in basis points of the traded value.

    Attributes:
        fee_bps: Commission; 5 is what the exchange takes from a regular taker of
            USDT-margined perpetuals, 10 on spot.
        slippage_bps: How much worse than the quoted price an order is filled.
    """

    fee_bps: float = 5.0
    slippage_bps: float = 2.0

    @property
    def fraction(self) -> float:
        """Both together as a fraction of the traded value, for one side."""
        return (self.fee_bps + self.slippage_bps) / 10_000


@dataclass(frozen=True)
class Prices:
    """Bars without gaps between them, each field of shape (n_bars,)."""

    open: FloatArray
    high: FloatArray
    low: FloatArray
    close: FloatArray

    def __len__(self) -> int:
        return len(self.close)


@dataclass(frozen=True)
class ExitRule:
    """When a position is closed: as the label says.

    Attributes:
        horizon: At the latest at the close of the bar this many bars after the
            decision; with barriers that is the vertical one.
        barrier_width: Distance of the barriers above and below the close of each
            bar, as a fraction of it, shape (n_bars,); None for a fixed horizon.
    """

    horizon: int
    barrier_width: FloatArray | None = None


@dataclass(frozen=True)
class Trade:
    """One round trip.

    Attributes:
        decided: Position of the bar at whose close the signal came.
        closed: Position of the bar in which the position was closed.
        side: 1 for LONG, -1 for SHORT.
        entry_price: Open of bar ``decided + 1``.
        exit_price: Before slippage.
    """

    decided: int
    closed: int
    side: int
    entry_price: float
    exit_price: float

    @property
    def gross_return(self) -> float:
        """Return on the entry value before costs, as a fraction."""
        return self.side * (self.exit_price / self.entry_price - 1.0)

    def cost(self, costs: Costs) -> float:
        """Costs of both sides on the entry value, as a fraction."""
        return costs.fraction * (1.0 + self.exit_price / self.entry_price)


@dataclass(frozen=True)
class BacktestResult:
    """The money view of one forecaster; fractions, not percent.

    Attributes:
        name: Who decided.
        net_return: Final equity minus one.
        n_trades: Round trips.
        hit_rate: Share of trades with a gain before costs; None without trades.
        break_even_hit_rate: Hit rate at which gains of this size, losses of this size
            and these costs cancel out; the mean net return of a trade is positive
            exactly when ``hit_rate`` is above. It may exceed 1. None without trades.
        profit_factor: Net gains over net losses; None without losses.
        max_drawdown: Largest fall from a peak of the equity, 0 to 1.
        exposure: Share of bars with an open position.
        sharpe: Annualised, of the returns of all bars; None if there were none.
        deflated_sharpe: Probability that the Sharpe ratio is more than the luck of
            ``n_trials`` tries; None as above.
        n_trials: Models and settings tried.
        fee_bps: For each side.
        slippage_bps: For each side.
        equity: At the close of each bar, starting from one, shape (n_bars,).
        moments: Of the returns of all bars; None if there were none, or in documents from
            before they were kept.
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

    def shown_among(self, n_models: int) -> BacktestResult:
        """The same with a deflated Sharpe ratio that pays for all models it is shown with."""
        if self.moments is None or n_models == 1:
            return self
        n_trials = self.n_trials * n_models
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
    """Trade the signals of one forecaster on the bars they were made for.

    Args:
        name: Who decided.
        prices: Bars of the test period, shape (n_bars,) each.
        signals: Decision at the close of each bar, shape (n_bars,); NO_TRADE where
            nothing was decided. A decision whose horizon reaches past the last bar
            is left out.
        exit_rule: When positions close.
        costs: Of each side.
        bars_per_year: To annualise the Sharpe ratio.
        n_trials: Models and settings tried, for the deflated Sharpe ratio.
    """
    trades = find_trades(prices, signals, exit_rule)
    return _summarise(name, prices, trades, costs, bars_per_year, n_trials)


def buy_and_hold(prices: Prices, costs: Costs, *, bars_per_year: float) -> BacktestResult:
    """Buy at the second bar's open, when a first signal could, and sell at the last close."""
    trade = Trade(0, len(prices) - 1, 1, float(prices.open[1]), float(prices.close[-1]))
    result = _summarise("buy_and_hold", prices, [trade], costs, bars_per_year, 1)
    # One trade has no rate.
    return replace(result, hit_rate=None, break_even_hit_rate=None, profit_factor=None)


def find_trades(prices: Prices, signals: IntArray, exit_rule: ExitRule) -> list[Trade]:
    """The round trips that the signals lead to, in order and without overlap.

    Args:
        prices: Shape (n_bars,) each.
        signals: Shape (n_bars,).
        exit_rule: When positions close.

    Raises:
        ValueError: Signals of another length than the bars, or that are no signal.
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
        trades.append(Trade(decided, closed, side, float(prices.open[decided + 1]), exit_price))
        free_from = closed
    return trades


def _find_exit(prices: Prices, decided: int, side: int, rule: ExitRule) -> tuple[int, float]:
    """Bar and price of the exit.

    A bar that opens beyond a barrier is left at its open. Where one bar touches both
    barriers, nobody knows which came first: the loss is taken.
    """
    last = decided + rule.horizon
    if rule.barrier_width is None:
        return last, float(prices.close[last])
    base, width = prices.close[decided], rule.barrier_width[decided]
    above, below = base * (1 + width), base * (1 - width)
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
    )


def _equity(prices: Prices, trades: list[Trade], costs: Costs) -> FloatArray:
    """Equity at each close with open positions valued there, shape (n_bars,).

    A short position that loses everything ends at zero, not below.
    """
    equity = np.ones(len(prices))
    capital = 1.0
    for trade in trades:
        held = slice(trade.decided + 1, trade.closed)
        move = trade.side * (prices.close[held] / trade.entry_price - 1.0)
        # When one trade opens in the bar after another closed in it, nothing overlaps.
        equity[held] = capital * np.maximum(1.0 + move - costs.fraction, 0.0)
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
