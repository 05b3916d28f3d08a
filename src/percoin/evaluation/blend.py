"""Average the probabilities of several forecasters; validation rows choose the weights.

Each part is calibrated alone first, so at weight 1 the blend equals a model that can be served
alone. The average is not calibrated again: the validation rows have already fitted the
calibrations and the weights, and another fit on them risks overfitting.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from percoin.evaluation.metrics import PROBABILITY_FLOOR, check_labels, check_probabilities
from percoin.intervals import Interval, interval_text
from percoin.types import FloatArray, IntArray

if TYPE_CHECKING:
    from percoin.evaluation.uncertainty import Estimate

NETWORK = "network"
BLEND = "blend"
# A model that averages others, without a network.
AVERAGE = "average"
_TITLES = {"logistic": "logistic regression"}

_MOST_STEPS = 1000
# Of the log-loss, in nats a row.
_TOLERANCE = 1e-8


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


def weights_text(weights: Mapping[str, float], digits: int = 2) -> str:
    """The weights of the parts by name, for people: ``0.40 network + 0.60 boosting``."""
    parts = ((weight, _TITLES.get(name, name)) for name, weight in weights.items())
    return " + ".join(f"{weight:.{digits}f} {title}" for weight, title in parts)


def network_text(adds: Interval) -> str:
    """What a network adds to the other parts, for people; in nats a row."""
    told = f"the network adds {interval_text(adds)} nats a row to the same parts without it"
    return told + without_network_advice(adds)


def without_network_advice(adds: Interval) -> str:
    """What to do if the other parts are surely better alone; else nothing."""
    is_harmful = adds.upper is not None and adds.upper < 0
    return f": better alone, by model={AVERAGE}, or model=NAME of one part" if is_harmful else ""


def blend_probabilities(parts: Sequence[FloatArray], weights: Sequence[float]) -> FloatArray:
    """The weighted mean of several forecasts, shape (n, C).

    Args:
        parts: Calibrated probabilities, each of shape (n, C).
        weights: Weight of each part, from 0 to 1; their sum is 1.
    """
    weighted = [weight * part for weight, part in zip(weights, parts, strict=True)]
    blended: FloatArray = functools.reduce(np.add, weighted)
    return blended


def choose_weights(parts: Sequence[FloatArray], labels: IntArray) -> tuple[float, ...]:
    """The convex weights with the smallest log-loss; a part that does not help gets 0.

    The log-loss is convex in the weights. Each step moves weight from the part that deserves
    it least to the one that deserves it most, by an exact line search (pairwise Frank-Wolfe,
    Lacoste-Julien and Jaggi, 2015); for two parts one step is enough. The search begins with
    all weight on the last part, and ends when no weights can be better by more than 1e-8 nats
    a row. On these rows the blend is never worse than any part alone.

    Args:
        parts: Calibrated probabilities on validation rows, each of shape (n, C).
        labels: Labels of these rows, shape (n,).

    Returns:
        A weight for each part, with the sum 1.

    Raises:
        ValueError: Malformed probabilities or labels.
    """
    known = check_labels(labels, len(parts[0]))
    rows = np.arange(len(known))
    # The same floor as in the log-loss, so that the slope is finite at probability zero.
    said = [np.maximum(check_probabilities(p)[rows, known], PROBABILITY_FLOOR) for p in parts]
    weights = [0.0] * (len(said) - 1) + [1.0]
    for _ in range(_MOST_STEPS):
        mixed = blend_probabilities(said, weights)
        worth = [float((own / mixed).mean()) for own in said]
        most = int(np.argmax(worth))
        least = min((k for k, weight in enumerate(weights) if weight > 0), key=worth.__getitem__)
        # The log-loss of the best weights is at most this much smaller, because it is convex.
        if worth[most] - 1 < _TOLERANCE or most == least:
            break
        both = weights[most] + weights[least]
        rest = mixed - weights[most] * said[most] - weights[least] * said[least]
        other = said[least] if both == 1 else rest + both * said[least]
        weights[most] = _line_search(other, said[most] - said[least], both)
        weights[least] = both - weights[most]
    return tuple(weights)


def _line_search(other: FloatArray, gain: FloatArray, most: float) -> float:
    """The weight from 0 to ``most`` at which ``other + weight * gain`` has the smallest log-loss.

    A root search finds the zero of the slope (Brent, 1973). If the slope does not change sign,
    the result is 0 or ``most``.
    """
    from scipy.optimize import brentq

    def slope(weight: float) -> float:
        return float(-(gain / (other + weight * gain)).mean())

    if slope(0.0) >= 0:
        return 0.0
    if slope(most) <= 0:
        return most
    found = float(brentq(slope, 0.0, most, xtol=1e-9))
    return min((0.0, found, most), key=lambda weight: float(-np.log(other + weight * gain).mean()))
