"""What the money of a judgement's backtests became."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from percoin.errors import ConfigError
from percoin.evaluation.backtest import BUY_AND_HOLD, BacktestResult
from percoin.evaluation.evaluate import Evaluation
from percoin.plot.picture import BLUE, GREY, ORANGE, date_axis, new_picture


def equity(
    evaluation: Evaluation, close_time: pd.DatetimeIndex | None = None, title: str = ""
) -> Figure:
    """Draw the equity of the model after costs, beside its rival's and that of buying and holding.

    Args:
        evaluation: With backtests; a rival that never trades is left out.
        close_time: Close of each bar of the backtests (UTC), shape (n_bars,); None counts bars.
        title: Title; the costs if empty.

    Raises:
        ConfigError: The evaluation has no backtest, or times and bars differ in number.
    """
    shown = _shown(evaluation)
    n_bars = len(shown[0][0].equity)
    if close_time is not None and len(close_time) != n_bars:
        raise ConfigError(
            f"close_time has {len(close_time)} times and the backtest {n_bars} bars: give the "
            "close of each bar of the test, or none"
        )
    figure = new_picture(10, 4, title or f"Equity after {shown[0][0].costs_text}")
    axes = figure.add_subplot()
    bars = np.arange(n_bars) if close_time is None else close_time.tz_localize(None).to_numpy()
    for result, colour, style in shown:
        change = 100 * (result.equity - 1)
        axes.plot(bars, change, style, color=colour, linewidth=1.5, label=_told(result))
    axes.axhline(0, color="black", linewidth=0.8, linestyle=":")
    axes.yaxis.set_major_formatter("{x:+.0f} %")
    axes.set_ylabel("change of equity")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(framealpha=0.8)
    if close_time is None:
        axes.set_xlabel("bars of the test")
    else:
        date_axis(axes)
    return figure


def _shown(evaluation: Evaluation) -> list[tuple[BacktestResult, str, str]]:
    """Each backtest that is drawn, with its colour and line; the model's first."""
    by_name = {result.name: result for result in evaluation.money}
    styles = {
        evaluation.model.name: (BLUE, "-"),
        evaluation.rival_name: (GREY, "-."),
        BUY_AND_HOLD: (ORANGE, "--"),
    }
    shown = [(by_name[name], *style) for name, style in styles.items() if name in by_name]
    if not shown:
        raise ConfigError("the evaluation has no backtest to draw")
    return shown


def _told(result: BacktestResult) -> str:
    name, trades = result.name.replace("_", " "), f"{result.n_trades:,} trades"
    if result.name == BUY_AND_HOLD:
        return f"{name}: {result.net_return:+.1%}"
    return (
        f"{name}: {result.net_return:+.1%}, {trades}" if result.n_trades else f"{name}: no trades"
    )
