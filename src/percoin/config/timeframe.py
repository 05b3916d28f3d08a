"""A bar length and the settings that depend on it: the group ``tf``."""

from __future__ import annotations

from dataclasses import dataclass

from percoin.config.fields import MOST_DAYS, Effect, number, setting
from percoin.types import Timeframe, check_timeframe


@dataclass
class TimeframeConfig:
    """One bar length with the settings that depend on it."""

    name: str = setting("the bar length", affects=Effect.MODEL)
    history_days: int = number("the default of history_days", 1, MOST_DAYS, affects=Effect.MODEL)
    threshold: float = number(
        "the default of labels.threshold with labels=fixed_horizon",
        above=0,
        below=1,
        affects=Effect.MODEL,
    )

    def __post_init__(self) -> None:
        check_timeframe(self.name)

    @property
    def timeframe(self) -> Timeframe:
        """The bar length itself."""
        return Timeframe(self.name)
