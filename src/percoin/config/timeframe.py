"""A bar length and the settings that depend on it: the group ``tf``."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING

from percoin.config.fields import MOST_DAYS, number
from percoin.types import Timeframe, check_timeframe


@dataclass
class TimeframeConfig:
    """One bar length with the settings that depend on it."""

    name: str = MISSING
    history_days: int = number(1, MOST_DAYS)
    threshold: float = number(above=0, below=1)

    def __post_init__(self) -> None:
        check_timeframe(self.name)

    @property
    def timeframe(self) -> Timeframe:
        """The bar length itself."""
        return Timeframe(self.name)
