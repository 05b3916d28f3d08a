"""How a bar's future becomes its label: the group ``labels``."""

from __future__ import annotations

from dataclasses import dataclass

from percoin.config.fields import MOST_BARS, number
from percoin.labels import FixedHorizon, LabelRule, TripleBarrier, VolatilityScaled

A_FRACTION = ", and is a fraction of the price: 0.0025 for 0.25 %"


FOR_SIGMA = " bars: a standard deviation takes two"


@dataclass
class LabelsConfig:
    """How a bar's future becomes its label; one subclass per rule."""

    horizon: int = number(1, MOST_BARS)

    def __post_init__(self) -> None:
        # The rule knows what its numbers may be.
        self.build()

    def build(self) -> LabelRule:
        """The rule itself."""
        raise TypeError(f"{type(self).__name__} only gathers what its subclasses share")


@dataclass
class FixedHorizonConfig(LabelsConfig):
    """The return after ``horizon`` bars against a fixed threshold."""

    threshold: float = number(above=0, below=1, note=A_FRACTION)

    def build(self) -> LabelRule:
        """The rule itself."""
        return FixedHorizon(self.horizon, self.threshold)


@dataclass
class TripleBarrierConfig(LabelsConfig):
    """The first of two volatility-scaled barriers within ``horizon`` bars."""

    barrier_width: float = number(above=0, most=1000)
    volatility_bars: int = number(2, MOST_BARS, note=FOR_SIGMA)

    def build(self) -> LabelRule:
        """The rule itself."""
        return TripleBarrier(self.horizon, self.barrier_width, self.volatility_bars)


@dataclass
class VolatilityScaledConfig(LabelsConfig):
    """The return after ``horizon`` bars against a threshold in units of volatility."""

    no_trade_share: float = number(above=0, below=1)
    volatility_bars: int = number(2, MOST_BARS, note=FOR_SIGMA)
    width: float | None = number(above=0, most=1000, default=None)

    def build(self) -> LabelRule:
        """The rule itself; without a width it is fitted on the train rows."""
        return VolatilityScaled(self.horizon, self.no_trade_share, self.volatility_bars, self.width)
