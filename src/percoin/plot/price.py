"""A market's bars as candles, with the signals that were given at their closes."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import date2num
from matplotlib.figure import Figure

from percoin.bars.schema import Bars
from percoin.errors import ConfigError
from percoin.inference.results import RangeAnswers
from percoin.plot.picture import BLUE, ORANGE, date_axis, new_picture
from percoin.types import DAY_MILLISECONDS, BoolArray, FloatArray, Signal

_RISING, _INK = "white", "#5c646d"


def candles(
    bars: Bars, answers: RangeAnswers | None = None, threshold: float = 0.0, title: str = ""
) -> Figure:
    """Draw bars as candles, hollow if they closed higher, and each LONG and SHORT beside its bar.

    A triangle stands at the bar at whose close the signal was given: a trade can open with the
    next bar at the earliest. NO_TRADE and bars without an answer have no mark.

    Args:
        bars: Some 30 to 300 of one market, such as ``bars.slice(-120)``.
        answers: From ``Predictor.predict_range``; bars outside of ``bars`` are left out.
        threshold: Lowest confidence of a signal that is drawn.
        title: Title; the market if empty.

    Raises:
        ConfigError: No bars, or the answers are of another market.
    """
    market = f"{bars.symbol} {bars.timeframe.value}"
    if not len(bars):
        raise ConfigError(f"{market}: there are no bars to draw")
    figure = new_picture(10, 4.5, title or market)
    axes = figure.add_subplot()
    width = bars.timeframe.milliseconds / DAY_MILLISECONDS
    times: FloatArray = date2num(bars.open_time.astype("datetime64[ms]"))
    _draw_bars(axes, bars, times, 0.7 * width)
    if answers is not None:
        if (answers.symbol, answers.timeframe) != (bars.symbol, bars.timeframe):
            raise ConfigError(
                f"the bars are of {market}, the answers of {answers.symbol} "
                f"{answers.timeframe.value}: give both of one market"
            )
        _draw_signals(axes, bars, times, answers, threshold)
    axes.set_xlim(times[0] - width, times[-1] + width)
    axes.set_ylabel("price")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    date_axis(axes)
    return figure


def _draw_bars(axes: Axes, bars: Bars, times: FloatArray, width: float) -> None:
    opened, closed = bars.column("open"), bars.column("close")
    axes.vlines(times, bars.column("low"), bars.column("high"), color=_INK, linewidth=0.8)
    axes.bar(
        times,
        closed - opened,
        width,
        opened,
        color=[_RISING if is_up else _INK for is_up in closed >= opened],
        edgecolor=_INK,
        linewidth=0.8,
        zorder=2,
    )


def _draw_signals(
    axes: Axes, bars: Bars, times: FloatArray, answers: RangeAnswers, threshold: float
) -> None:
    answered = answers.open_time.to_numpy(dtype="datetime64[ms]").astype(np.int64)
    _, rows, found = np.intersect1d(bars.open_time, answered, return_indices=True)
    signal, is_sure = answers.signal[found], answers.confidence[found] >= threshold
    room = 0.03 * float(np.ptp(np.r_[bars.column("low"), bars.column("high")]))
    long, short = (is_sure & (signal == side) for side in (Signal.LONG, Signal.SHORT))
    low, high = bars.column("low")[rows] - room, bars.column("high")[rows] + room
    _mark(axes, times[rows], low, long, Signal.LONG)
    _mark(axes, times[rows], high, short, Signal.SHORT)
    axes.legend(ncols=2, framealpha=0.8)


def _mark(
    axes: Axes, times: FloatArray, prices: FloatArray, given: BoolArray, side: Signal
) -> None:
    colour, marker = (BLUE, "^") if side is Signal.LONG else (ORANGE, "v")
    label = f"{side.name} ({int(given.sum())})"
    places = times[given], prices[given]
    axes.scatter(*places, s=34, color=colour, marker=marker, label=label, zorder=3)
