"""What every rung of the chain can do."""

from __future__ import annotations

from typing import Protocol

from percoin.bars.schema import Bars
from percoin.types import Passed, Prediction


class SignalSource(Protocol):
    """Something that may have an answer for a market."""

    def answer(self, bars: Bars) -> Prediction | Passed:
        """Answer for the newest bar, or say why not."""
        ...
