"""Skills with their intervals: a model beside its baselines, or many models side by side."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from percoin.evaluation.evaluate import Assessment, Evaluation
from percoin.intervals import Interval, interval_text, number_text
from percoin.plot.picture import BLUE, GREY, ORANGE, new_picture

# Skill over the train prior, then both AUCs; and what knowing nothing is worth.
_PANELS = (
    ("log-loss skill over the train prior", 0.0),
    ("is a move coming? (activity AUC)", 0.5),
    ("up or down? (direction AUC)", 0.5),
)
_COLOURS = {"model": BLUE, "rival": ORANGE, "baseline": GREY}


def skills(evaluation: Evaluation, title: str = "") -> Figure:
    """Draw the model and its baselines on the same test rows, best skill first.

    The lead over the rival is in nats a row, another unit than skill: it is told in words.

    Args:
        evaluation: Of one model.
        title: Title; the lead over the rival stands in any case.
    """
    lines = sorted(
        (evaluation.model, *evaluation.baselines), key=lambda line: line.skill.value, reverse=True
    )
    kinds = {evaluation.model.name: "model", evaluation.rival_name: "rival"}
    lead = f"lead over {evaluation.rival_name} {interval_text(evaluation.lead)} nats a row"
    return skills_of(
        lines,
        [line.name.replace("_", " ") for line in lines],
        [kinds.get(line.name, "baseline") for line in lines],
        _COLOURS,
        f"{title}: {lead}" if title else lead,
    )


def skills_of(
    lines: Sequence[Assessment | None],
    names: Sequence[str],
    kinds: Sequence[str],
    colours: Mapping[str, str],
    title: str = "",
) -> Figure:
    """Draw skill, activity and direction of any forecasters with their intervals.

    Args:
        lines: Results from top to bottom; None leaves a row empty.
        names: Name of each row.
        kinds: Kind of each row, a key of ``colours``.
        colours: Colour of each kind, in the order of the legend.
        title: Title of the picture.
    """
    figure = new_picture(11, 1.7 + 0.23 * len(lines), title)
    panels = figure.subplots(1, len(_PANELS), sharey=True, squeeze=False)[0]
    for column, (panel, (heading, null)) in enumerate(zip(panels, _PANELS, strict=True)):
        estimates = {
            row: estimate
            for row, line in enumerate(lines)
            if line is not None and (estimate := _estimates(line)[column]) is not None
        }
        low, high = _limits(estimates.values(), null)
        for kind, colour in colours.items():
            shown = {row: e for row, e in estimates.items() if kinds[row] == kind}
            _draw_whiskers(panel, shown, colour, kind, low)
        panel.axvline(null, color="black", linewidth=0.8, linestyle="--")
        panel.set_xlim(low, high)
        panel.set_title(heading, fontsize=10)
        panel.grid(axis="x", alpha=0.3)
        panel.spines[["top", "right", "left"]].set_visible(False)
        panel.tick_params(axis="y", length=0, labelsize=8)
        panel.tick_params(axis="x", labelsize=8)
        panel.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    panels[0].set_yticks(range(len(names)), names, parse_math=False)
    panels[0].set_ylim(len(names) - 0.4, -0.6)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=len(labels) or 1, frameon=False
    )
    return figure


def _estimates(line: Assessment) -> tuple[Interval | None, ...]:
    return line.skill, line.activity.auc, line.direction.auc


def _limits(estimates: Collection[Interval], null: float) -> tuple[float, float]:
    """Both ends of an axis that shows every interval but those of figures far below ``null``.

    Far is farther than the highest end is above it: the skill of a constant answer is -16.
    """
    above = max([0.02, *(end - null for each in estimates for end in _reach(each))])
    near = [each for each in estimates if null - each.value <= above]
    low, high = min([null, *(end for each in near for end in _reach(each))]), null + above
    room = 0.06 * (high - low)
    return low - room, high + room


def _reach(estimate: Interval) -> tuple[float, ...]:
    return (estimate.value, *(estimate.ends or ()))


def _draw_whiskers(
    panel: Axes, shown: Mapping[int, Interval], colour: str, label: str, low: float
) -> None:
    """One kind's figures; one that lies beyond the axis is an arrow at its edge, in numbers."""
    inside = {row: each for row, each in shown.items() if each.value >= low}
    if shown:
        values = [each.value for each in inside.values()]
        panel.scatter(values, list(inside), s=16, color=colour, label=label)
    known = {row: each.ends for row, each in inside.items() if each.ends is not None}
    if known:
        lower, upper = zip(*known.values(), strict=True)
        panel.hlines(list(known), lower, upper, color=colour, linewidth=1.5)
    for row, each in shown.items():
        if row not in inside:
            text = f"\N{BLACK LEFT-POINTING TRIANGLE} {number_text(each.value, 2)}"
            panel.text(low, row, text, color=colour, fontsize=8, va="center")
