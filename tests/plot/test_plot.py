"""What the pictures of ``percoin.plot`` show: the drawn numbers are the given ones."""

import subprocess
import sys
import warnings
from dataclasses import replace
from io import BytesIO

import numpy as np
import pandas as pd
import pytest
from builders import make_bars
from matplotlib.dates import date2num
from matplotlib.figure import Figure

from percoin import plot
from percoin.bars.schema import Bars
from percoin.errors import ConfigError
from percoin.evaluation.backtest import Costs, ExitRule, Prices, backtest, buy_and_hold
from percoin.evaluation.baselines import MAJORITY, TRAIN_PRIOR, class_shares
from percoin.evaluation.evaluate import Evaluation, Forecast, evaluate
from percoin.evaluation.metrics import reliability, reliability_by_rank
from percoin.evaluation.uncertainty import Bootstrap
from percoin.inference.results import RangeAnswers
from percoin.types import CLASS_NAMES, Signal, Timeframe

N_ROWS = 1500


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    """A model that knows the odds, beside the prior, a constant and a noisy rival."""
    rng = np.random.default_rng(3)
    odds = rng.dirichlet([1.5, 3, 1.5], N_ROWS)
    labels = (rng.random((N_ROWS, 1)) > odds.cumsum(axis=1)).sum(axis=1).clip(max=2)
    noisy = 0.5 * odds + 0.5 * rng.dirichlet([3, 6, 3], N_ROWS)
    close = 100 * np.exp(rng.normal(0, 0.004, N_ROWS).cumsum())
    prices, rule = Prices(close, close * 1.002, close * 0.998, close), ExitRule(3)
    money = [
        backtest(name, prices, said.argmax(axis=1), rule, Costs(), bars_per_year=8760.0)
        for name, said in (("blend", odds), ("logistic", noisy))
    ]
    return evaluate(
        Forecast("blend", odds),
        [
            Forecast(MAJORITY, np.eye(3)[np.full(N_ROWS, 1)]),
            Forecast(TRAIN_PRIOR, np.tile(class_shares(labels), (N_ROWS, 1))),
            Forecast("logistic", noisy),
        ],
        labels,
        bootstrap=Bootstrap(3, repetitions=200),
        money=[*money, buy_and_hold(prices, Costs(), bars_per_year=8760.0)],
        rival="logistic",
    )


@pytest.fixture(scope="module")
def bars() -> Bars:
    return make_bars(80, timeframe=Timeframe.H1)


def answers_for(bars: Bars, **changes: object) -> RangeAnswers:
    """LONG, NO_TRADE, SHORT, nothing, LONG, ... at the closes of the bars."""
    certain = np.array([[0.1, 0.2, 0.7], [0.1, 0.8, 0.1], [0.5, 0.3, 0.2], [np.nan] * 3])
    answers = RangeAnswers(
        symbol=bars.symbol,
        timeframe=bars.timeframe,
        open_time=bars.frame.index,
        probabilities=np.resize(certain, (len(bars), 3)),
        model_version="cnn_lstm_v1",
        version_id="1",
        part=np.full(len(bars), "live", dtype=object),
    )
    return replace(answers, **changes)


def drawn(figure: Figure) -> bytes:
    """The picture as PNG; a warning while drawing is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        buffer = BytesIO()
        figure.savefig(buffer)
    return buffer.getvalue()


def assert_nothing_is_clipped(figure: Figure) -> None:
    drawn(figure)
    needed = figure.get_tightbbox(figure.canvas.get_renderer())
    width, height = figure.get_size_inches()
    is_within = needed.x0 >= 0 and needed.y0 >= 0 and needed.x1 <= width and needed.y1 <= height
    assert is_within, f"{figure.get_suptitle()!r} needs {needed.extents} of {width} x {height}"


def markers(figure: Figure, side: Signal) -> np.ndarray:
    """Times and prices of the triangles of one side."""
    (found,) = (
        each
        for each in figure.axes[0].collections
        if str(each.get_label()).startswith(f"{side.name} (")
    )
    return np.asarray(found.get_offsets())


def test_candles_have_the_prices_of_their_bars(bars):
    axes = plot.candles(bars).axes[0]
    bodies = [(each.get_y(), each.get_y() + each.get_height()) for each in axes.patches]
    wicks = np.array([path.vertices[:, 1] for path in axes.collections[0].get_paths()])
    middles = [each.get_x() + each.get_width() / 2 for each in axes.patches]

    np.testing.assert_allclose(bodies, bars.frame[["open", "close"]])
    np.testing.assert_allclose(wicks, bars.frame[["low", "high"]])
    np.testing.assert_allclose(middles, date2num(bars.frame.index.tz_localize(None)))


def test_a_signal_stands_at_its_own_bar_and_not_in_its_way(bars):
    figure = plot.candles(bars, answers_for(bars))
    times = date2num(bars.frame.index.tz_localize(None))
    long, short = markers(figure, Signal.LONG), markers(figure, Signal.SHORT)

    np.testing.assert_allclose(long[:, 0], times[::4])
    np.testing.assert_allclose(short[:, 0], times[2::4])
    assert (long[:, 1] < bars.column("low")[::4]).all()
    assert (short[:, 1] > bars.column("high")[2::4]).all()


def test_signals_below_the_threshold_and_of_other_bars_are_not_drawn(bars):
    answers = answers_for(bars)
    figure = plot.candles(bars.slice(40), answers, threshold=0.6)

    assert len(markers(figure, Signal.LONG)) == 10
    assert len(markers(figure, Signal.SHORT)) == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"symbol": "ETHUSDT"}, "BTCUSDT 1h, the answers of ETHUSDT 1h"),
        ({"timeframe": Timeframe.M15}, "the answers of BTCUSDT 15m"),
    ],
)
def test_answers_of_another_market_are_refused(bars, changes, words):
    with pytest.raises(ConfigError, match=words):
        plot.candles(bars, answers_for(bars, **changes))
    with pytest.raises(ConfigError, match="no bars"):
        plot.candles(bars.slice(0, 0))


def test_reliability_shows_the_judged_bins_that_hold_enough_rows(evaluation):
    axes = plot.reliability(evaluation).axes[0]

    for name, container in zip(CLASS_NAMES, axes.containers, strict=True):
        kept = [b for b in evaluation.reliability[name] if b.n_rows >= 0.01 * N_ROWS]
        assert 3 < len(kept) < len(evaluation.reliability[name])
        expected = [(b.mean_probability, b.frequency) for b in kept]
        np.testing.assert_allclose(container.lines[0].get_xydata(), expected)


def test_bins_of_equal_width_and_of_equal_counts_hold_the_same_rows():
    rng = np.random.default_rng(0)
    said, came = rng.dirichlet([1, 2, 1], 500), rng.integers(0, 3, 500)
    for bins in (
        reliability(said, came, Signal.LONG),
        reliability_by_rank(said, came, Signal.LONG),
    ):
        assert sum(b.n_rows for b in bins) == 500
        assert sum(b.n_rows * b.mean_probability for b in bins) == pytest.approx(said[:, 2].sum())
        assert sum(b.n_rows * b.frequency for b in bins) == pytest.approx((came == 2).sum())


@pytest.mark.parametrize("has_times", [False, True])
def test_equity_is_drawn_in_percent_of_the_start(evaluation, has_times):
    times = pd.date_range("2024-01-01", periods=N_ROWS, freq="h", tz="UTC")
    axes = plot.equity(evaluation, times if has_times else None).axes[0]
    model, rival, hold = axes.lines[:3]

    for line, result in zip((model, rival, hold), evaluation.money, strict=True):
        np.testing.assert_allclose(line.get_ydata(), 100 * (result.equity - 1))
        words = line.get_label()
        assert words.startswith(f"{result.name.replace('_', ' ')}: {result.net_return:+.1%}")
        assert ("trades" in words) == (line is not hold)
    x = np.asarray(axes.lines[0].get_xdata())
    assert (x[0], x[-1]) == (
        (times[0].to_datetime64(), times[-1].to_datetime64()) if has_times else (0, N_ROWS - 1)
    )


def test_equity_without_trades_says_so_and_without_a_backtest_is_refused(evaluation):
    idle = replace(evaluation.money[0], n_trades=0, net_return=0.0, equity=np.ones(N_ROWS))
    figure = plot.equity(replace(evaluation, money=(idle,)))
    assert figure.axes[0].lines[0].get_label() == "blend: no trades"
    with pytest.raises(ConfigError, match="no backtest"):
        plot.equity(replace(evaluation, money=()))
    with pytest.raises(ConfigError, match="has 3 times and the backtest 1500 bars"):
        plot.equity(evaluation, pd.date_range("2024-01-01", periods=3, tz="UTC"))


def test_skills_and_their_intervals_are_drawn_best_first(evaluation):
    panels = plot.skills(evaluation).axes
    names = [label.get_text() for label in panels[0].get_yticklabels()]
    lines = {
        line.name.replace("_", " "): line for line in (evaluation.model, *evaluation.baselines)
    }
    expected = sorted(lines, key=lambda name: -lines[name].skill.value)

    assert names == expected
    found = {}
    for collection in panels[0].collections:
        for path in collection.get_paths() if collection.get_label().startswith("_") else ():
            (low, row), (high, _) = path.vertices
            found[names[int(row)]] = (low, high)
    assert found["blend"] == pytest.approx(evaluation.model.skill.ends)
    assert found["logistic"] == pytest.approx(lines["logistic"].skill.ends)


def test_a_skill_far_below_the_others_does_not_flatten_them(evaluation):
    panel = plot.skills(evaluation).axes[0]
    majority = next(line for line in evaluation.baselines if line.name == MAJORITY)
    lowest, highest = panel.get_xlim()

    assert majority.skill.value < -5 < lowest < 0 < highest < 1
    assert [text.get_text()[2:] for text in panel.texts] == [f"{majority.skill.value:+.1f}"]


def test_the_lead_is_told_in_nats_and_no_axis_is_in_nats(evaluation):
    figure = plot.skills(evaluation, "BTCUSDT 1h")
    title = figure.get_suptitle()

    assert title.startswith("BTCUSDT 1h: lead over logistic +")
    assert title.endswith("nats a row")
    assert [axes.get_title() for axes in figure.axes if "nats" in axes.get_title()] == []


def test_no_label_is_clipped(evaluation, bars):
    long = "BTCUSDT 15m, 12,520 test rows, before calibration"
    counts = {part: np.array([20000, 70000, 10000]) for part in ("train", "validation", "test")}
    for figure in (
        plot.candles(bars, answers_for(bars)),
        plot.reliability(evaluation, long),
        plot.equity(evaluation),
        plot.skills(evaluation, "BTCUSDT 15m"),
        plot.confusion_matrix([[12345, 2, 3]] * 3, long),
        plot.label_distribution(counts, long),
    ):
        assert_nothing_is_clipped(figure)


def test_a_notebook_shows_the_picture_that_a_file_gets(bars):
    figure = plot.candles(bars)
    assert figure._repr_png_() == drawn(figure)


def test_neither_a_picture_nor_the_import_touches_pyplot():
    code = (
        "import sys; from percoin import plot; assert 'matplotlib' not in sys.modules\n"
        "assert callable(plot.equity) and callable(plot.candles) and callable(plot.skills)\n"
        "plot.confusion_matrix([[1, 2, 3]] * 3).savefig('/dev/null', format='png')\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
