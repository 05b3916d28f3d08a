"""The lead of pooled models over logistic regressions, as a picture: one line for each run.

    python benchmarks/pool_picture.py PICTURE.svg "fixed, seed 0=FOLDER" "fixed, seed 1=FOLDER" ...

Each FOLDER is the run of a ``recipe=pooled`` training (``outputs/pooled/<tf>/<time>``), from
whose ``summary.txt`` the mean lead over all markets that it was trained on is read, in nats a
row, with the interval that draws the same days for all markets. An argument without ``=`` is a
heading.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot as plt

_LEAD = re.compile(
    r"^seen: ahead of the logistic regression on (\d+) of (\d+);.* "
    r"([+-][\d.]+) \[([+-][\d.]+), ([+-][\d.]+)\]",
    re.MULTILINE,
)
_SURE, _UNSURE = "#0072b2", "#b84a00"


def main() -> None:
    """Draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("picture", type=Path)
    parser.add_argument("runs", nargs="+")
    arguments = parser.parse_args()
    figure, axes = plt.subplots(figsize=(8, 0.36 * len(arguments.runs) + 0.9))
    for place, run in enumerate(arguments.runs):
        name, _, folder = run.partition("=")
        if not folder:
            axes.text(
                -0.02,
                place,
                name,
                transform=axes.get_yaxis_transform(),
                weight="bold",
                ha="right",
                va="center",
            )
            continue
        n_ahead, n_markets, *numbers = read_lead(Path(folder))
        value, lower, upper = (1000 * float(number) for number in numbers)
        color = _SURE if lower > 0 else _UNSURE
        axes.plot([lower, upper], [place, place], color=color, linewidth=2)
        axes.plot([value], [place], "o", color=color)
        said = f"{name}: ahead on {n_ahead} of {n_markets}"
        axes.text(-0.02, place, said, transform=axes.get_yaxis_transform(), ha="right", va="center")
    axes.axvline(0, color="#8d949c", linewidth=1)
    axes.set_yticks([])
    axes.set_ylim(len(arguments.runs) - 0.4, -0.6)
    axes.set_xlabel("log-loss below a logistic regression's, thousandths of a nat a row [95 %]")
    for side in ("top", "left", "right"):
        axes.spines[side].set_visible(False)
    figure.savefig(arguments.picture, bbox_inches="tight", metadata={"Date": None})


def read_lead(folder: Path) -> tuple[str, ...]:
    """Markets ahead, all markets, the mean lead and the ends of its interval."""
    found = _LEAD.search((folder / "summary.txt").read_text(encoding="utf-8"))
    if found is None:
        raise SystemExit(f"{folder / 'summary.txt'} tells no lead")
    return found.groups()


if __name__ == "__main__":
    main()
