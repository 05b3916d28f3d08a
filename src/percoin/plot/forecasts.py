"""What was forecast against what came: reliability, confusion, and the labels themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from percoin.evaluation.evaluate import Evaluation
from percoin.evaluation.metrics import ReliabilityBin, reliability_by_rank
from percoin.plot.picture import CLASS_COLOURS, new_picture
from percoin.types import CLASS_NAMES, FloatArray, IntArray, Signal


def reliability(evaluation: Evaluation, title: str = "") -> Figure:
    """Draw how often each class came, by the probability that the judged model gave it.

    Bins are equally wide; those with few rows are left out, as in ``Evaluation.filled_bins``.
    """
    return _draw_reliability(evaluation.filled_bins, title or f"{evaluation.n_rows:,} test rows")


def reliability_of(probabilities: FloatArray, labels: IntArray, title: str = "") -> Figure:
    """Draw the same for any forecasts, in bins of about equally many rows.

    Args:
        probabilities: Shape (n_rows, C).
        labels: Shape (n_rows,).
        title: Title of the picture.
    """
    bins = {signal.name: reliability_by_rank(probabilities, labels, signal) for signal in Signal}
    return _draw_reliability(bins, title)


def _draw_reliability(bins: Mapping[str, Sequence[ReliabilityBin]], title: str) -> Figure:
    """The error bars are 95 % Wilson intervals (Wilson, 1927) for independent rows.

    Rows overlap, so the true intervals are wider.
    """
    figure = new_picture(5.6, 5.4)
    axes = figure.add_subplot()
    for name, colour in CLASS_COLOURS.items():
        predicted = np.array([entry.mean_probability for entry in bins[name]])
        observed = np.array([entry.frequency for entry in bins[name]])
        sizes = np.array([entry.n_rows for entry in bins[name]])
        axes.errorbar(
            predicted,
            observed,
            yerr=_wilson(observed, sizes),
            marker="o",
            markersize=4,
            linewidth=1,
            capsize=2,
            color=colour,
            label=name,
        )
    top = min(1.0, max(axes.get_xlim()[1], axes.get_ylim()[1]))
    axes.plot([0, top], [0, top], color="black", linewidth=0.8, linestyle="--", label="calibrated")
    # Margins, so that points at 0 and 1 are fully visible.
    limits = (-0.02 * top, 1.02 * top)
    axes.set(xlim=limits, ylim=limits, aspect="equal")
    axes.set_title(title, fontsize=11, parse_math=False)
    axes.set(xlabel="predicted probability", ylabel="observed share")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return figure


def _wilson(observed: FloatArray, sizes: FloatArray) -> tuple[FloatArray, FloatArray]:
    """How far the interval reaches below and above each observed share."""
    z = 1.96
    centre = (observed + z**2 / (2 * sizes)) / (1 + z**2 / sizes)
    spread = np.sqrt(observed * (1 - observed) / sizes + z**2 / (4 * sizes**2))
    half = z * spread / (1 + z**2 / sizes)
    return np.maximum(observed - (centre - half), 0), np.maximum(centre + half - observed, 0)


def confusion_matrix(counts: Sequence[Sequence[int]], title: str = "") -> Figure:
    """Draw true classes as rows, predicted classes as columns, shaded by share of the row."""
    matrix = np.asarray(counts)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    figure = new_picture(6.4, 4.8)
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(matrix):
        share = shares[row, column]
        colour = "white" if share > 0.6 else "black"
        text = f"{count:,}\n{share:.0%}"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=11)
    axes.set_xticks(range(len(CLASS_NAMES)), CLASS_NAMES)
    axes.set_yticks(range(len(CLASS_NAMES)), CLASS_NAMES)
    axes.set(xlabel="predicted", ylabel="true")
    axes.set_title(title, fontsize=11, parse_math=False)
    figure.colorbar(image, ax=axes, label="share of the true class")
    return figure


def label_distribution(counts: Mapping[str, IntArray], title: str = "") -> Figure:
    """Draw the share of each class in each split, with counts on the bars.

    Args:
        counts: Rows of each class by the name of the split, each of shape (C,).
        title: Title of the picture.
    """
    figure = new_picture(6.4, 4.2)
    axes = figure.add_subplot()
    positions = np.arange(len(counts))
    width = 0.8 / len(CLASS_NAMES)
    for index, (name, colour) in enumerate(CLASS_COLOURS.items()):
        shares = [split[index] / max(split.sum(), 1) for split in counts.values()]
        offset = (index - (len(CLASS_NAMES) - 1) / 2) * width
        bars = axes.bar(positions + offset, shares, width * 0.95, color=colour, label=name)
        numbers = [f"{split[index]:,}" for split in counts.values()]
        axes.bar_label(bars, numbers, padding=2, fontsize=8)
    axes.set_xticks(positions, list(counts))
    # The space above 1 is for the legend.
    axes.set(ylim=(0, 1.2), yticks=np.linspace(0, 1, 6), ylabel="share of rows")
    axes.set_title(title, fontsize=11, parse_math=False)
    axes.legend(frameon=False, ncols=len(CLASS_NAMES))
    axes.spines[["top", "right"]].set_visible(False)
    return figure
