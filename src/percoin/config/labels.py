"""How a bar's future becomes its label: the group ``labels``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from percoin.config.fields import MOST_BARS, number
from percoin.labels import FixedHorizon, TripleBarrier, VolatilityScaled

A_FRACTION = ", and is a fraction of the price: 0.0025 for 0.25 %"
FOR_SIGMA = " bars: a standard deviation takes two"


@dataclass
class LabelsConfig:
    """How a bar's future becomes its label; one subclass per rule."""

    # Of the group labels; the kind that the rule has in manifests.
    option: ClassVar[str]

    horizon: int = number(1, MOST_BARS)


@dataclass
class FixedHorizonConfig(LabelsConfig):
    """The return after ``horizon`` bars against a fixed threshold."""

    option: ClassVar[str] = FixedHorizon.kind

    threshold: float = number(above=0, below=1, note=A_FRACTION)


@dataclass
class TripleBarrierConfig(LabelsConfig):
    """The first of two volatility-scaled barriers within ``horizon`` bars."""

    option: ClassVar[str] = TripleBarrier.kind

    barrier_width: float = number(above=0, most=1000)
    volatility_bars: int = number(2, MOST_BARS, note=FOR_SIGMA)


@dataclass
class VolatilityScaledConfig(LabelsConfig):
    """The return after ``horizon`` bars against a threshold in units of volatility."""

    option: ClassVar[str] = VolatilityScaled.kind

    no_trade_share: float = number(above=0, below=1)
    volatility_bars: int = number(2, MOST_BARS, note=FOR_SIGMA)
    width: float | None = number(above=0, most=1000, default=None)
