"""The lead of recipes as a picture: one line for each run that ``recipe_table.py`` printed.

    python benchmarks/recipe_table.py FOLDER ANSWERS > REGRESSION.md
    python benchmarks/recipe_table.py FOLDER ANSWERS --rival validated > BEST.md
    python benchmarks/recipe_picture.py PICTURE.svg REGRESSION.md BEST.md "HEADING=RECIPE" ...

Each run has two leads, over what the two tables hold it against, in nats a row, with the
intervals that draw the same days for all markets.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

_LEAD = re.compile(r"([+-][\d.]+) \[([+-][\d.]+), ([+-][\d.]+)\]")
_COLORS = ("#0072b2", "#b84a00")
_RIVALS = ("over a logistic regression", "over the best model without a network on validation rows")


@dataclass(frozen=True)
class Run:
    """A line of a table: lead and ends of its interval in thousandths of a nat."""

    recipe: str
    name: str
    lead: tuple[float, float, float]


def main() -> None:
    """Draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("picture", type=Path)
    parser.add_argument("tables", nargs=2, type=Path)
    parser.add_argument("recipes", nargs="+", metavar="HEADING=RECIPE")
    arguments = parser.parse_args()
    tables = [list(read(path)) for path in arguments.tables]
    headings = dict(text.split("=", 1) for text in arguments.recipes)
    n_lines = len(headings) + sum(run.recipe in headings.values() for run in tables[0])
    figure, axes = plt.subplots(figsize=(8, 0.42 * n_lines + 0.9))
    place = 0
    for heading, recipe in headings.items():
        say(axes, place, heading, weight="bold")
        place += 1
        for pair in zip(*(of_recipe(runs, recipe) for runs in tables), strict=True):
            say(axes, place, pair[0].name)
            for number, run in enumerate(pair):
                value, lower, upper = run.lead
                at, color = place - 0.16 + 0.32 * number, _COLORS[number]
                axes.plot([lower, upper], [at, at], color=color, linewidth=2)
                label = _RIVALS[number] if place == 1 else None
                axes.plot([value], [at], "o", color=color, markersize=5, label=label)
            place += 1
    axes.axvline(0, color="#8d949c", linewidth=1)
    axes.set_yticks([])
    axes.set_ylim(place - 0.4, -0.6)
    axes.set_xlabel("log-loss below the rival's, thousandths of a nat a row [95 %]")
    axes.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), fontsize=9, ncols=2)
    for side in ("top", "left", "right"):
        axes.spines[side].set_visible(False)
    figure.savefig(arguments.picture, bbox_inches="tight", metadata={"Date": None})


def of_recipe(runs: list[Run], recipe: str) -> list[Run]:
    return [run for run in runs if run.recipe == recipe]


def say(axes: Axes, place: int, text: str, **kwargs: str) -> None:
    transform = axes.get_yaxis_transform()
    axes.text(-0.02, place, text, transform=transform, ha="right", va="center", **kwargs)


def read(table: Path) -> Iterator[Run]:
    """The runs of single seeds."""
    for text in table.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in text.strip("|").split("|")]
        if len(cells) > 6 and cells[2].isdigit() and (found := _LEAD.fullmatch(cells[6])):
            value, lower, upper = (1000 * float(number) for number in found.groups())
            yield Run(cells[0], f"{cells[1]}, seed {cells[2]}", (value, lower, upper))


if __name__ == "__main__":
    main()
