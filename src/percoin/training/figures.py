"""The pictures of one training, for TensorBoard and PNG files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from percoin import plot
from percoin.dataset import PARTS, MarketDataset
from percoin.types import FloatArray, IntArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
    shares: dict[str, IntArray] = {part: dataset.class_counts(part) for part in PARTS}
    return {
        "confusion_matrix": plot.confusion_matrix(counts, rows),
        "reliability": plot.reliability_of(probabilities, labels, f"{rows}, {what}"),
        "label_distribution": plot.label_distribution(shares, f"{market}, labels per split"),
    }
