"""How a bar's future becomes its label: the group ``labels``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from percoin.config.fields import MOST_BARS, Effect, When, number
from percoin.config.targets import check_target, target, target_arguments
from percoin.labels import FixedHorizon, OwnRule, Relative, TripleBarrier, VolatilityScaled
from percoin.targets import code_name

_A_FRACTION = ", and is a fraction of the price: 0.0025 for 0.25 %"


def volatility_window() -> Any:
    """A field: over how many bars volatility is measured."""
    why = " bars: a standard deviation takes two"
    return number(
        "bars over which volatility is measured", 2, MOST_BARS, why=why, affects=Effect.MODEL
    )


def no_trade_share() -> Any:
    """A field: the share of NO_TRADE that a threshold is fitted to."""
    line = "of the train rows; the threshold is fitted to it"
    given = When(unless=("labels.width=*",))
    return number(line, above=0, below=1, affects=Effect.MODEL, used=given)


def fitted_width() -> Any:
    """A field: the threshold in units of volatility, or null."""
    line = "threshold in units of volatility; null fits it on the train rows"
    return number(line, above=0, most=1000, default=None, affects=Effect.MODEL)


@dataclass
class LabelsConfig:
    """How a bar's future becomes its label; one subclass per rule."""

    # Of the group labels; the kind that the rule has in manifests.
    option: ClassVar[str]

    horizon: int = number("bars that a label looks ahead", 1, MOST_BARS, affects=Effect.MODEL)

    def alone(self) -> LabelsConfig:
        """The rule for a market of a pool by itself."""
        return self


@dataclass
class FixedHorizonConfig(LabelsConfig):
    """The return after ``horizon`` bars against a fixed threshold."""

    option: ClassVar[str] = FixedHorizon.kind

    threshold: float = number(
        "fraction of the price", above=0, below=1, why=_A_FRACTION, affects=Effect.MODEL
    )


@dataclass
class TripleBarrierConfig(LabelsConfig):
    """The first of two volatility-scaled barriers within ``horizon`` bars."""

    option: ClassVar[str] = TripleBarrier.kind

    barrier_width: float = number(
        "in units of volatility", above=0, most=1000, affects=Effect.MODEL
    )
    volatility_bars: int = volatility_window()


@dataclass
class VolatilityScaledConfig(LabelsConfig):
    """The return after ``horizon`` bars against a threshold in units of volatility."""

    option: ClassVar[str] = VolatilityScaled.kind

    no_trade_share: float = no_trade_share()
    volatility_bars: int = volatility_window()
    width: float | None = fitted_width()


@dataclass
class RelativeConfig(LabelsConfig):
    """The return less the mean of all markets of the pool, in units of its own volatility."""

    option: ClassVar[str] = Relative.kind

    no_trade_share: float = no_trade_share()
    volatility_bars: int = volatility_window()
    width: float | None = fitted_width()
    min_share: float = number(
        "share of the pool's markets that must have the bars; else there is no label",
        above=0,
        most=1,
        affects=Effect.MODEL,
    )

    def alone(self) -> LabelsConfig:
        """The same against no other market."""
        return VolatilityScaledConfig(
            self.horizon, self.no_trade_share, self.volatility_bars, self.width
        )


@dataclass
class OwnLabelsConfig(LabelsConfig):
    """A rule of the user's own."""

    option: ClassVar[str] = OwnRule.kind

    _target_: str = target("its class, as MODULE:NAME or FILE.py:NAME; plugins allows the code")
    arguments: dict[str, Any] = target_arguments()

    def __post_init__(self) -> None:
        check_target("labels", self._target_, self.arguments)
        _ = self.rule

    @property
    def rule(self) -> OwnRule:
        """The rule, before its proof and its fit."""
        return OwnRule.of(code_name(self._target_), self.horizon, self.arguments)
