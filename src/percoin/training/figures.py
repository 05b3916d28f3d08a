"""Pictures of one evaluation, drawn without a screen, for TensorBoard and PNG files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from percoin.dataset import PARTS, MarketDataset, Part
from percoin.types import CLASS_NAMES, FloatArray, IntArray
from percoin.whole_file import write_whole

# SHORT, NO_TRADE, LONG, in colours that colour-blind readers can distinguish
# (Okabe and Ito, 2008).
_COLOURS = ("#D55E00", "#999999", "#0072B2")
_N_BINS = 10


def draw_pictures(
    dataset: MarketDataset,
    counts: Sequence[Sequence[int]],
    probabilities: FloatArray,
    labels: IntArray,
    what: str,
) -> dict[str, Figure]:
    """Draw the three pictures of a training, by file name.

    Args:
        dataset: The market.
        counts: Confusion matrix of the test rows.
        probabilities: Class probabilities of the test rows, shape (n_rows, C).
        labels: True classes of the test rows, shape (n_rows,).
        what: Kind of probabilities for the title, such as "calibrated".
    """
    market = f"{dataset.bars.symbol} {dataset.bars.timeframe.value}"
    rows = f"{market}, {len(labels):,} test rows"
    shares = {part: dataset.class_counts(part) for part in PARTS}
    return {
        "confusion_matrix": draw_confusion_matrix(counts, rows),
        "reliability": draw_reliability(probabilities, labels, f"{rows}, {what}"),
        "label_distribution": draw_label_distribution(shares, f"{market}, labels per split"),
    }


def write_picture(figure: Figure, path: Path) -> None:
    """Replace the PNG file in one step."""
    write_whole(path, partial(figure.savefig, format="png"), is_synced=False)


def draw_confusion_matrix(counts: Sequence[Sequence[int]], title: str) -> Figure:
    """Draw true classes as rows, predicted classes as columns, shaded by share of the row."""
    matrix = np.asarray(counts)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    figure = _new_figure(6.4, 4.8)
    # A square image leaves the constrained layout no room for its labels.
    figure.set_layout_engine("compressed")
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(matrix):
        share = shares[row, column]
        colour = "white" if share > 0.6 else "black"
        text = f"{count:,}\n{share:.0%}"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=11)
    axes.set_xticks(range(len(CLASS_NAMES)), CLASS_NAMES)
    axes.set_yticks(range(len(CLASS_NAMES)), CLASS_NAMES)
    axes.set(xlabel="predicted", ylabel="true", title=title)
    figure.colorbar(image, ax=axes, label="share of the true class", fraction=0.046, pad=0.04)
    return figure


def draw_reliability(probabilities: FloatArray, labels: IntArray, title: str) -> Figure:
    """Draw a reliability diagram: observed share of each class by predicted probability.

    All bins hold about the same number of rows. The error bars are 95 % Wilson intervals
    (Wilson, 1927) for independent rows. Rows overlap, so the true intervals are wider.

    Args:
        probabilities: Shape (n_rows, C).
        labels: Shape (n_rows,).
        title: Title of the picture.
    """
    figure = _new_figure(5.2, 5.2)
    axes = figure.add_subplot()
    for index, (name, colour) in enumerate(zip(CLASS_NAMES, _COLOURS, strict=True)):
        predicted, observed, below, above = _reliability(probabilities[:, index], labels == index)
        axes.errorbar(
            predicted,
            observed,
            yerr=(below, above),
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
    axes.set(xlim=limits, ylim=limits, aspect="equal", title=title)
    axes.set(xlabel="predicted probability", ylabel="observed share")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return figure


def draw_label_distribution(counts: Mapping[Part, IntArray], title: str) -> Figure:
    """Draw the share of each class in each split, with counts on the bars."""
    figure = _new_figure(6.4, 4.2)
    axes = figure.add_subplot()
    positions = np.arange(len(counts))
    width = 0.8 / len(CLASS_NAMES)
    for index, (name, colour) in enumerate(zip(CLASS_NAMES, _COLOURS, strict=True)):
        shares = [split[index] / max(split.sum(), 1) for split in counts.values()]
        offset = (index - (len(CLASS_NAMES) - 1) / 2) * width
        bars = axes.bar(positions + offset, shares, width * 0.95, color=colour, label=name)
        numbers = [f"{split[index]:,}" for split in counts.values()]
        axes.bar_label(bars, numbers, padding=2, fontsize=8)
    axes.set_xticks(positions, list(counts))
    # The space above 1 is for the legend.
    axes.set(ylim=(0, 1.2), yticks=np.linspace(0, 1, 6), ylabel="share of rows", title=title)
    axes.legend(frameon=False, ncols=len(CLASS_NAMES))
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _reliability(
    probability: FloatArray, came_true: IntArray
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    order = np.argsort(probability, kind="stable")
    bins = [part for part in np.array_split(order, _N_BINS) if len(part)]
    sizes = np.array([len(part) for part in bins])
    predicted = np.array([probability[part].mean() for part in bins])
    observed = np.array([came_true[part].mean() for part in bins])
    z = 1.96
    centre = (observed + z**2 / (2 * sizes)) / (1 + z**2 / sizes)
    spread = np.sqrt(observed * (1 - observed) / sizes + z**2 / (4 * sizes**2))
    half = z * spread / (1 + z**2 / sizes)
    below = np.maximum(observed - (centre - half), 0)
    above = np.maximum(centre + half - observed, 0)
    return predicted, observed, below, above


def _new_figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    return figure
