"""Measure two skills separately: does a move come (activity), and which way (direction)?

The log-loss of the three classes is the sum of two parts in each row: the log-loss of NO_TRADE
against a move and, if a move came, the log-loss of LONG against SHORT. A model can have skill
in activity, which alone earns nothing, and no skill in direction.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from percoin.evaluation.metrics import PROBABILITY_FLOOR, check_labels, check_probabilities
from percoin.types import BoolArray, FloatArray, IntArray, Signal


@dataclass(frozen=True)
class BinaryView:
    """A forecast of one yes-or-no question.

    Attributes:
        asked: Whether the question applies to the row, shape (n,).
        came: Whether the true answer is yes, shape (n,); no meaning if not ``asked``.
        probability: Probability of yes, shape (n,).
    """

    asked: BoolArray
    came: BoolArray
    probability: FloatArray

    def row_losses(self) -> FloatArray:
        """Binary log-loss in nats, shape (n,); 0 on rows to which the question does not apply."""
        right = np.where(self.came, self.probability, 1.0 - self.probability)
        losses: FloatArray = np.where(self.asked, -np.log(np.maximum(right, PROBABILITY_FLOOR)), 0)
        return losses

    def auc(self) -> float | None:
        """Probability that a yes row has a higher forecast than a no row; None without both."""
        came = self.came[self.asked]
        if came.all() or not came.any():
            return None
        return float(self.auc_rows().mean())

    def auc_rows(self) -> FloatArray:
        """Values, one per row, whose mean is the AUC, shape (n,).

        Each value is the AUC plus the row's influence on it (DeLong et al., 1988). So an
        interval for a mean is also valid for the AUC. Needs yes rows and no rows.
        """
        auc, above_no, above_yes = _placements(self.probability[self.asked], self.came[self.asked])
        n_rows, came = len(self.asked), self.came[self.asked]
        influence = np.where(came, (above_no - auc) / came.sum(), (above_yes - auc) / (~came).sum())
        rows = np.full(n_rows, auc)
        rows[self.asked] += n_rows * influence
        return rows


def activity(probabilities: FloatArray, labels: IntArray) -> BinaryView:
    """The question "move or NO_TRADE?", for every row.

    Args:
        probabilities: Shape (n, C).
        labels: Shape (n,).
    """
    checked = check_probabilities(probabilities)
    known = check_labels(labels, len(checked))
    moves = checked[:, Signal.SHORT] + checked[:, Signal.LONG]
    return BinaryView(np.ones(len(known), dtype=bool), known != Signal.NO_TRADE, moves)


def direction(probabilities: FloatArray, labels: IntArray) -> BinaryView:
    """The question "LONG or SHORT?", for rows with a move.

    The forecast is the probability of LONG given a move. It is one half if the forecast gives
    a move probability 0.

    Args:
        probabilities: Shape (n, C).
        labels: Shape (n,).
    """
    checked = check_probabilities(probabilities)
    known = check_labels(labels, len(checked))
    moves = checked[:, Signal.SHORT] + checked[:, Signal.LONG]
    long = np.divide(checked[:, Signal.LONG], moves, out=np.full(len(known), 0.5), where=moves > 0)
    return BinaryView(known != Signal.NO_TRADE, known == Signal.LONG, long)


def _placements(scores: FloatArray, came: BoolArray) -> tuple[float, FloatArray, FloatArray]:
    """AUC, and how each row ranks against yes rows and no rows (ties count half).

    Returns:
        The AUC; per row the share of no rows below it; per row the share of yes
        rows above it.
    """
    yes, no = np.sort(scores[came]), np.sort(scores[~came])
    below = (np.searchsorted(no, scores, "left") + np.searchsorted(no, scores, "right")) / 2
    up_to = (np.searchsorted(yes, scores, "left") + np.searchsorted(yes, scores, "right")) / 2
    share_below = below / len(no)
    return float(share_below[came].mean()), share_below, 1.0 - up_to / len(yes)
