"""Average the probabilities of a network and a regression; validation rows choose the weight.

Each part is calibrated alone first, so at weight 0 or 1 the blend equals a model that can be
served alone. The average is not calibrated again: the validation rows have already fitted two
calibrations and the weight, and another fit on them risks overfitting.
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
    """Log-loss skill over the train prior; JSON leaves out unknown interval ends."""

    lower: float | None = None
    upper: float | None = None

    @classmethod
    def of(cls, estimate: Estimate) -> PartSkill:
        """Keep the value and the interval of an estimate."""
        return cls(estimate.value, estimate.lower, estimate.upper)

    def __str__(self) -> str:
        return interval_text(self, without="")


@dataclass(frozen=True)
class PartSkills:
    """The skill of one part.

    Attributes:
        validation: Skill on the validation rows. It is too high, most of all for the network:
            these rows fit calibration and weight and choose the network's best epoch.
        test: Skill on the test rows, which are not used for any choice.
    """

    validation: PartSkill
    test: PartSkill


def blend_probabilities(network: FloatArray, regression: FloatArray, weight: float) -> FloatArray:
    """The weighted mean of two forecasts, shape (n, C).

    Args:
        network: Calibrated probabilities of the network, shape (n, C).
        regression: Calibrated probabilities of the regression, shape (n, C).
        weight: Weight of the network, from 0 to 1.
    """
    blended: FloatArray = weight * network + (1.0 - weight) * regression
    return blended


def choose_weight(network: FloatArray, regression: FloatArray, labels: IntArray) -> float:
    """The network's weight with the smallest log-loss; 0 if the network does not help.

    The log-loss is convex in the weight, so a root search finds the zero of its slope (Brent,
    1973). If the slope does not change sign, the result is 0 or 1. On these rows the blend is
    never worse than either forecast alone.

    Args:
        network: Calibrated probabilities of the network on validation rows, shape (n, C).
        regression: Calibrated probabilities of the regression on the same rows, shape (n, C).
        labels: Labels of these rows, shape (n,).

    Raises:
        ValueError: Malformed probabilities or labels.
    """
    from scipy.optimize import brentq

    known = check_labels(labels, len(network))
    rows = np.arange(len(known))
    # The same floor as in the log-loss, so that the slope is finite at probability zero.
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
