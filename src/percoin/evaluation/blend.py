"""A network's probabilities averaged with a regression's; the weight is a choice on validation.

Each part is calibrated by itself first, so that both ends of the weight are models that could
be served alone. The average itself is not calibrated again: that would fit a third number to
the validation rows that have just given three.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from percoin.evaluation.metrics import PROBABILITY_FLOOR, check_labels, check_probabilities
from percoin.intervals import Interval, interval_text
from percoin.types import FloatArray, IntArray

if TYPE_CHECKING:
    from percoin.evaluation.uncertainty import Estimate

NETWORK = "network"
REGRESSION = "regression"
BLEND = "blend"
PARTS = (NETWORK, REGRESSION, BLEND)


@dataclass(frozen=True)
class PartSkill(Interval):
    """Log-loss skill over the train prior; in JSON, ends that are not known are left out."""

    lower: float | None = None
    upper: float | None = None

    @classmethod
    def of(cls, estimate: Estimate) -> PartSkill:
        """What a reader needs of an estimate."""
        return cls(estimate.value, estimate.lower, estimate.upper)

    def __str__(self) -> str:
        return interval_text(self, without="")


@dataclass(frozen=True)
class PartSkills:
    """The skill of one part.

    Attributes:
        validation: On the rows that calibration and weight were fitted on, and by which the
            network's best epoch was chosen: flattered, the network's most of all.
        test: On rows that nothing was chosen by.
    """

    validation: PartSkill
    test: PartSkill


def blend_probabilities(network: FloatArray, regression: FloatArray, weight: float) -> FloatArray:
    """The weighted mean of two forecasts, shape (n, C).

    Args:
        network: Calibrated probabilities, shape (n, C).
        regression: The same of the regression.
        weight: Of the network, from 0 to 1.
    """
    blended: FloatArray = weight * network + (1.0 - weight) * regression
    return blended


def choose_weight(network: FloatArray, regression: FloatArray, labels: IntArray) -> float:
    """The network's weight with the smallest log-loss; 0 where no weight is better than none.

    The log-loss is convex in the weight, so the zero of its slope is found by bisection
    (Brent, 1973), and an end of the range where the slope does not change its sign. On these
    rows the result is never worse than either forecast alone.

    Args:
        network: Calibrated probabilities of the validation rows, shape (n, C).
        regression: The same of the regression.
        labels: Shape (n,).

    Raises:
        ValueError: Malformed probabilities or labels.
    """
    from scipy.optimize import brentq

    known = check_labels(labels, len(network))
    rows = np.arange(len(known))
    # What the log-loss makes of a probability of zero, so that the slope is finite too.
    own, other = (
        np.maximum(check_probabilities(forecast)[rows, known], PROBABILITY_FLOOR)
        for forecast in (network, regression)
    )
    gain = own - other

    def slope(weight: float) -> float:
        return float(-(gain / (other + weight * gain)).mean())

    if slope(0.0) >= 0:
        return 0.0
    if slope(1.0) <= 0:
        return 1.0
    found = float(brentq(slope, 0.0, 1.0, xtol=1e-9))
    return min((0.0, found, 1.0), key=lambda weight: float(-np.log(other + weight * gain).mean()))
