"""The picture of a search: skill over the trials, and skill against each parameter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from percoin.plot.picture import BLUE, GREY, ORANGE, new_picture
from percoin.tuning.search import Fate, Tried, best_of

_N_COLUMNS = 3
_LOGARITHMIC = {"lr"}
_OFF_THE_EDGE = {"marker": "v", "label": "far below"}
# Shapes differ too.
_WHOLE: dict[str, Any] = {"marker": "o", "color": BLUE, "label": "whole"}
_EARLY: dict[str, Any] = {
    "marker": "o",
    "facecolors": "none",
    "edgecolors": GREY,
    "label": "ended early",
}
_OWN: dict[str, Any] = {"marker": "s", "color": "black", "label": "own settings"}
_BEST: dict[str, Any] = {"marker": "*", "color": ORANGE, "s": 130, "label": "best", "zorder": 4}
_FAILED: dict[str, Any] = {
    "marker": "x",
    "color": "#CC79A7",
    "label": "failed",
    "clip_on": False,
    "zorder": 4,
}


def draw_search(tried: Sequence[Tried], title: str) -> Figure:
    """Draw all finished trials; there must be at least one.

    A skill far below the rest is drawn as a triangle at the lower edge, so that the rest
    stays readable.
    """
    told = [each for each in tried if each.skill is not None]
    names = list(dict.fromkeys(name for each in told for name in each.parameters))
    n_rows = 1 + -(-len(names) // _N_COLUMNS)
    height = 2.9 * n_rows
    # With so many axes an automatic layout takes seconds.
    figure = new_picture(10.5, height, layout=None)
    grid = figure.add_gridspec(
        n_rows,
        _N_COLUMNS,
        left=0.075,
        right=0.985,
        top=1 - 0.4 / height,
        bottom=0.55 / height,
        wspace=0.25,
        hspace=0.3,
    )
    bottom, top = _skill_limits(tried)
    edge = bottom + 0.03 * (top - bottom)
    history = figure.add_subplot(grid[0, :])
    _draw_history(history, tried, edge)
    history.set_title(title, loc="left")
    history.set_ylim(bottom, top)
    for index, name in enumerate(names):
        row, column = divmod(index, _N_COLUMNS)
        axes = figure.add_subplot(grid[1 + row, column])
        _draw_parameter(axes, told, name, edge)
        axes.set(xlabel=name, ylim=(bottom, top), ylabel="" if column else "validation skill")
    return figure


def _skill_limits(tried: Sequence[Tried]) -> tuple[float, float]:
    """Lower and upper end of the skill axis, set by the best and the median skill."""
    skills = np.array([each.skill for each in tried if each.skill is not None])
    if len(skills) == 0:
        return 0.0, 1.0
    best, middle = float(skills.max()), float(np.median(skills))
    bottom = max(float(skills.min()), middle - 1.5 * (best - middle))
    room = 0.1 * (best - bottom) or 0.01
    return bottom - room, best + room


def _draw_history(axes: Axes, tried: Sequence[Tried], edge: float) -> None:
    _scatter(axes, tried, [each.number for each in tried], edge, best_of(tried))
    failed = [each.number for each in tried if each.fate is Fate.FAILED]
    if failed:
        axes.scatter(failed, [edge] * len(failed), **_FAILED)
    numbers = [each.number for each in tried]
    axes.step(numbers, _best_so_far(tried), where="post", color=ORANGE, linewidth=1)
    axes.set(xlabel="trial", ylabel="validation skill")
    axes.set_xlim(0.5, max(numbers) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(
        handles=dict(zip(labels, handles, strict=True)).values(),
        frameon=False,
        ncols=6,
        fontsize=8,
        loc="lower right",
        bbox_to_anchor=(1, 1),
    )
    axes.grid(alpha=0.3)


def _draw_parameter(axes: Axes, tried: Sequence[Tried], name: str, edge: float) -> None:
    having, best = [each for each in tried if name in each.parameters], best_of(tried)
    values = [each.parameters[name] for each in having]
    if not all(type(value) in (int, float) for value in values):
        kinds = sorted(set(map(str, values)))
        _scatter(axes, having, [kinds.index(str(value)) for value in values], edge, best)
        axes.set_xticks(range(len(kinds)), kinds, fontsize=8)
        axes.set_xlim(-0.5, len(kinds) - 0.5)
    else:
        _scatter(axes, having, values, edge, best)
        if name in _LOGARITHMIC:
            axes.set_xscale("log")
    axes.grid(alpha=0.3)


def _scatter(
    axes: Axes, tried: Sequence[Tried], places: Sequence[Any], edge: float, best: Tried | None
) -> None:
    """One point per trial with a skill; the best trial and the own settings are highlighted."""
    for each, place in zip(tried, places, strict=True):
        if each.skill is None:
            continue
        kind = _OWN if each.is_own else _WHOLE if each.fate is Fate.WHOLE else _EARLY
        styles = [kind, _BEST] if best is not None and each.number == best.number else [kind]
        for style in styles:
            below = _OFF_THE_EDGE if each.skill < edge else {}
            axes.scatter([place], [max(each.skill, edge)], **{**style, **below})


def _best_so_far(tried: Sequence[Tried]) -> list[float]:
    skills = [
        each.skill if each.fate is Fate.WHOLE and each.skill is not None else -np.inf
        for each in tried
    ]
    best = np.maximum.accumulate(skills)
    return [float(value) if np.isfinite(value) else np.nan for value in best]
