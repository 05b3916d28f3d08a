"""Small pictures as SVG text, without scripts, fonts or colours.

Colours come from the classes in ``chart.css``, which has a dark and a light theme.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from percoin.evaluation.backtest import BacktestResult
from percoin.evaluation.evaluate import Evaluation, Skill
from percoin.evaluation.uncertainty import Estimate
from percoin.intervals import interval_text
from percoin.printable import printable
from percoin.report.board import BoardStatus, RankedModel, money_of
from percoin.types import CLASS_NAMES, FloatArray

CHART_STYLE = (Path(__file__).parent / "chart.css").read_text(encoding="utf-8")

_COIN_FLIP = 0.5
_CURVE_POINTS = 180
_PANEL_GAP = 56
_MARGIN = 24


@dataclass(frozen=True)
class Scale:
    """Linear map from values to pixels; values out of range are drawn at the edge."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Pixel of a value."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)


def nice_ticks(low: float, high: float, n_wanted: int = 5) -> list[float]:
    """Round values between ``low`` and ``high``, about ``n_wanted`` of them."""
    step = 10.0 ** math.floor(math.log10((high - low) / n_wanted))
    step *= next((k for k in (1, 2, 5) if (high - low) / (k * step) <= n_wanted + 0.5), 10)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(k * step, 10) for k in range(first, last + 1)]


def skill_picture(entries: Sequence[RankedModel]) -> str:
    """Activity and direction AUC of every judged model with intervals, on one scale.

    Args:
        entries: In the order of the leaderboard; models without evaluation are left out.
    """
    judged = [(entry, entry.model.evaluation) for entry in entries if entry.model.evaluation]
    row_height = 20 if len(judged) <= 40 else 15
    top, width, labels = 46, 1080, 150
    height = top + row_height * len(judged) + 26
    panel = (width - labels - _PANEL_GAP - 20) / 2
    estimates = [
        skill.auc
        for _, evaluation in judged
        for skill in (evaluation.model.activity, evaluation.model.direction)
        if skill.auc is not None
    ]
    low, high = _auc_range(estimates)
    parts = []
    for column, title in enumerate(("Is a move coming? (activity)", "Up or down? (direction)")):
        left = labels + column * (panel + _PANEL_GAP)
        scale = Scale(low, high, left, left + panel)
        parts.append(_auc_axis(scale, title, top, height - 22))
    for row, (entry, evaluation) in enumerate(judged):
        y = top + row_height * (row + 0.5)
        parts.append(_text(labels - 12, y + 4, entry.model.name, "label end"))
        for column, skill in enumerate((evaluation.model.activity, evaluation.model.direction)):
            left = labels + column * (panel + _PANEL_GAP)
            parts.append(_whisker(skill, entry.status, Scale(low, high, left, left + panel), y))
    title = "Area under the ROC curve of both skills with 95 % intervals; .5 is a coin flip"
    return _svg(width, height, title, parts)


def _auc_range(estimates: Iterable[Estimate]) -> tuple[float, float]:
    ends = [0.45, 0.6]
    for estimate in estimates:
        ends += [estimate.value]
        if estimate.lower is not None and estimate.upper is not None:
            ends += [max(estimate.lower, 0.3), min(estimate.upper, 1.0)]
    return math.floor(min(ends) * 20) / 20, math.ceil(max(ends) * 20) / 20


def _auc_axis(scale: Scale, title: str, top: float, bottom: float) -> str:
    parts = [_text(scale.start, 14, title, "title")]
    for tick in nice_ticks(scale.low, scale.high, 9):
        x = scale(tick)
        kind = "zero" if tick == _COIN_FLIP else "grid"
        parts.append(_line(x, top - 6, x, bottom, kind))
        parts.append(_text(x, bottom + 16, f"{tick:.2f}", "tick middle"))
    parts.append(_text(scale(_COIN_FLIP), top - 12, "coin flip", "tick middle"))
    return "".join(parts)


def _whisker(skill: Skill, status: BoardStatus, scale: Scale, y: float) -> str:
    auc = skill.auc
    if auc is None:
        return ""
    kind = status.value.replace(" ", "-")
    parts = [f"<title>{interval_text(auc, 3, signed=False)}</title>"]
    if auc.lower is not None and auc.upper is not None:
        parts.append(_line(scale(auc.lower), y, scale(auc.upper), y, "whisker"))
    parts.append(_mark(scale(auc.value), y, status))
    return f'<g class="{kind}">{"".join(parts)}</g>'


def _mark(x: float, y: float, status: BoardStatus) -> str:
    """One shape per status, so that readers do not depend on colour."""
    if status is BoardStatus.ACCEPTED:
        return f'<circle class="mark" cx="{x}" cy="{y}" r="4.5"/>'
    if status is BoardStatus.REJECTED:
        return f'<path class="stroke" d="M{x - 4} {y - 4}l8 8m0 -8l-8 8"/>'
    return f'<circle class="hollow" cx="{x}" cy="{y}" r="4"/>'


def skill_glyph(skill: Estimate, status: BoardStatus, low: float, high: float) -> str:
    """One skill with its interval on a scale around zero, for a table cell.

    Args:
        skill: Log-loss skill.
        status: Status of the model; it sets colour and shape.
        low: Lower end of the scale that all cells share; below zero.
        high: Upper end of that scale; above zero.
    """
    scale = Scale(low, high, 5, 105)
    parts = [_line(scale(0), 0, scale(0), 34, "zero")]
    if skill.lower is not None and skill.upper is not None:
        parts.append(_line(scale(skill.lower), 17, scale(skill.upper), 17, "whisker"))
    parts.append(_mark(scale(skill.value), 17, status))
    kind = status.value.replace(" ", "-")
    return (
        f'<svg class="glyph {kind}" viewBox="0 0 110 34" aria-hidden="true">{"".join(parts)}</svg>'
    )


def skill_range(entries: Sequence[RankedModel]) -> tuple[float, float]:
    """Ends of the scale that all cells share; values beyond -0.06 and 0.12 go to the edge."""
    ends = [-0.01, 0.02]
    for entry in entries:
        if entry.model.evaluation is None:
            continue
        skill = entry.model.evaluation.model.skill
        ends += [value for value in (skill.lower, skill.value, skill.upper) if value is not None]
    return max(min(ends), -0.06), min(max(ends), 0.12)


def reliability_chart(evaluation: Evaluation) -> str:
    """Predicted probability against observed frequency, one line per class.

    Dots grow with the number of rows; bins with few rows are left out.
    """
    bins = evaluation.filled_bins
    largest = max(
        [0.5] + [max(b.mean_probability, b.frequency) for many in bins.values() for b in many]
    )
    end = min(1.0, math.ceil(largest * 10) / 10)
    x, y = Scale(0, end, 54, 330), Scale(0, end, 284, 14)
    parts = []
    for tick in nice_ticks(0, end):
        parts.append(_line(x(tick), y(0), x(tick), y(end), "grid"))
        parts.append(_line(x(0), y(tick), x(end), y(tick), "grid"))
        parts.append(_text(x(tick), y(0) + 17, f"{tick:.0%}", "tick middle"))
        parts.append(_text(x(0) - 7, y(tick) + 4, f"{tick:.0%}", "tick end"))
    parts.append(_line(x(0), y(0), x(end), y(end), "zero"))
    for name in CLASS_NAMES:
        points = [(x(b.mean_probability), y(b.frequency), b.n_rows) for b in bins[name]]
        path = _path([(px, py) for px, py, _ in points])
        dots = "".join(
            f'<circle cx="{px}" cy="{py}" r="{_radius(n_rows / evaluation.n_rows)}"/>'
            for px, py, n_rows in points
        )
        parts.append(f'<g class="class-{name}"><path class="curve" d="{path}"/>{dots}</g>')
    parts.append(_text(192, 318, "promised probability", "axis middle"))
    parts.append(
        '<text class="axis middle" transform="translate(11 149) rotate(-90)">how often it came'
        "</text>"
    )
    return _svg(340, 324, "Promised probability against frequency, per answer", parts)


def _radius(share: float) -> float:
    return round(1.6 + 7 * math.sqrt(share), 1)


def equity_chart(evaluation: Evaluation, first_day: str, last_day: str) -> str | None:
    """What one unit of money becomes after costs, and with buy and hold; None without backtest.

    Args:
        evaluation: The evaluation, with its backtests.
        first_day: First day of the test, shown under the axis.
        last_day: Last day of the test, shown under the axis.
    """
    model, hold = money_of(evaluation)
    if model is None:
        return None
    shown = [(result, kind) for result, kind in ((hold, "hold"), (model, "model")) if result]
    values = np.concatenate([result.equity for result, _ in shown])
    low, high = min(0.98, float(values.min())), max(1.02, float(values.max()))
    margin = 0.04 * (high - low)
    y = Scale(low - margin, high + margin, 284, 14)
    parts = []
    for tick in nice_ticks(low - 1, high - 1):
        kind = "zero" if tick == 0 else "grid"
        parts.append(_line(56, y(1 + tick), 400, y(1 + tick), kind))
        parts.append(_text(50, y(1 + tick) + 4, f"{tick:+.0%}" if tick else "0%", "tick end"))
    parts += [_curve(result, kind, y) for result, kind in shown]
    parts += _end_labels(shown, y)
    parts.append(_text(56, 304, first_day, "tick"))
    parts.append(_text(400, 304, last_day, "tick end"))
    return _svg(520, 312, "Equity after costs beside buying and holding", parts)


def _curve(result: BacktestResult, kind: str, y: Scale) -> str:
    equity: FloatArray = result.equity
    bars = np.unique(np.linspace(0, len(equity) - 1, _CURVE_POINTS).astype(int))
    x = Scale(0, max(1, len(equity) - 1), 56, 400)
    points = [(x(float(bar)), y(float(equity[bar]))) for bar in bars]
    return f'<path class="curve {kind}" d="{_path(points)}"/>'


def _end_labels(shown: Sequence[tuple[BacktestResult, str]], y: Scale) -> list[str]:
    """Names at the ends of the curves, moved apart if they would overlap."""
    ends = sorted(shown, key=lambda curve: y(float(curve[0].equity[-1])))
    heights = [y(float(result.equity[-1])) for result, _ in ends]
    if len(heights) == 2 and heights[1] - heights[0] < 30:
        middle = min(max(sum(heights) / 2, 32.0), 262.0)
        heights = [middle - 15, middle + 15]
    names = {"model": "model", "hold": "buy and hold"}
    return [
        _text(407, height, names[kind], f"name {kind}")
        + _text(407, height + 14, f"{result.net_return:+.1%}", f"name {kind}")
        for height, (result, kind) in zip(heights, ends, strict=True)
    ]


def standalone(picture: str) -> str:
    """The picture as the text of a complete SVG file, with its colours and a margin."""
    root, _, rest = picture.partition(">")
    width, height = re.findall(r'viewBox="0 0 (\S+) (\S+)"', root)[0]
    x, y, wide, high = -_MARGIN, -_MARGIN, float(width) + 2 * _MARGIN, float(height) + 2 * _MARGIN
    root = root.replace(f'"0 0 {width} {height}"', f'"{x} {y} {wide:g} {high:g}"')
    style = f"svg{{background:var(--page)}}{CHART_STYLE}"
    return f'{root} xmlns="http://www.w3.org/2000/svg"><style>{style}</style>{rest}\n'


def _svg(width: float, height: float, title: str, parts: Iterable[str]) -> str:
    return (
        f'<svg class="chart" viewBox="0 0 {width:g} {height:g}" role="img" '
        f'aria-label="{html.escape(title)}">{"".join(parts)}</svg>'
    )


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<path class="{kind}" d="M{x1:g} {y1:g}L{x2:g} {y2:g}"/>'


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:g}" y="{y:g}">{html.escape(printable(text))}</text>'


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in points) if points else ""
