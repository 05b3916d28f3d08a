"""What the backtest takes of a market: its prices, its exits, the bars of a year."""

from __future__ import annotations

import numpy as np

from percoin.bars.schema import PRICE_COLUMNS, Bars
from percoin.dataset import MarketDataset
from percoin.evaluation.backtest import Basket, Brackets, Exit, ExitRule, Prices
from percoin.features.levels import FIRST_TARGET, STOP, levels_along
from percoin.labels import LabelRule
from percoin.types import IntArray, Signal, Timeframe

_DAYS_PER_YEAR = 365.0


def prices_of(dataset: MarketDataset, first: int, last: int) -> Prices:
    """Prices at positions ``first`` to ``last - 1``, with the basket that a label compares with."""
    bars = dataset.bars
    opened, high, low, close = (bars.column(name)[first:last] for name in PRICE_COLUMNS)
    basket = _basket_of(bars, dataset.label_rule, slice(first, last))
    return Prices(opened, high, low, close, basket)


def exit_rule_of(
    dataset: MarketDataset, first: int, last: int, where: Exit = Exit.HORIZON
) -> ExitRule:
    """The exit rule for bars ``first`` to ``last - 1``.

    Args:
        dataset: Has the label rule and the bars.
        first: Position of the first bar.
        last: Position after the last bar.
        where: Where positions close before the horizon ends.
    """
    horizon = dataset.label_rule.horizon
    if where is Exit.LEVELS:
        return ExitRule(horizon, brackets=_brackets(dataset.bars, np.arange(first, last)))
    distance = dataset.label_rule.barrier_distance(dataset.bars)
    return ExitRule(horizon, None if distance is None else distance[first:last])


def _basket_of(bars: Bars, rule: LabelRule, part: slice) -> Basket | None:
    """The other leg of a label that compares markets."""
    panel, markets = bars.panel, rule.compared_with
    if panel is None or not markets:
        return None
    opened = bars.open_time[part]
    columns = (panel.rows_at(panel.column(name, markets), opened) for name in ("open", "close"))
    return Basket(*columns)


def bars_per_year(timeframe: Timeframe) -> float:
    """Bars in a year; crypto markets do not close."""
    return timeframe.bars_per_day * _DAYS_PER_YEAR


def _brackets(bars: Bars, rows: IntArray) -> Brackets:
    """Stop and first target of a LONG and of a SHORT at each bar.

    The nearest target: with the usual horizons the others are seldom reached.
    """
    long, short = (
        levels_along(bars, rows, np.full(len(rows), signal)).prices
        for signal in (Signal.LONG, Signal.SHORT)
    )
    return Brackets(long[:, [STOP, FIRST_TARGET]], short[:, [FIRST_TARGET, STOP]])
