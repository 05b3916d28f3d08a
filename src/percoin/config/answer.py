"""Settings of commands that answer for a market: who is asked, and what with."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from percoin.config.fields import require
from percoin.inference import Backend
from percoin.printable import printable
from percoin.types import Source

AGE_OF_NEWEST = ": the newest bar is one bar old before the next one has closed"


# In place of a number: the confidence that the model's own backtest traded with.
JUDGED = "judged"


def check_device(value: str) -> None:
    """Refuse a device that PyTorch would not know."""
    require(
        re.fullmatch(r"cpu|cuda(:\d{1,2})?", value) is not None,
        f"device={value} (or ML_DEVICE) must be cpu, cuda or cuda:N",
    )


def check_predictor(value: str) -> None:
    """Refuse an engine that is none of the two."""
    require(value in list(Backend), f"predictor={value} must be one of {', '.join(Backend)}")


def check_chain(names: Sequence[str]) -> None:
    """Refuse sources that are none, twice the same one, and a chain that may end without answer.

    Raises:
        ConfigError: The chain cannot be meant.
    """
    shown = f"chain=[{','.join(names)}]"
    known = [source.option for source in Source]
    for name in names:
        require(name in known, f"{shown}: {name!r} is none of {', '.join(known)}")
        require(names.count(name) == 1, f"{shown}: {name} is there twice")
    require(
        len(names) > 0 and names[-1] == Source.HOLD.option,
        f"{shown} must end with hold, which alone always has an answer",
    )


def read_confidence(value: Any) -> float | str:
    """A number, also where the environment gives it as text, or ``JUDGED``."""
    if value == JUDGED:
        return JUDGED
    try:
        share = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        share = math.nan
    require(
        0 <= share <= 1,
        f"min_confidence={printable(str(value), 60)} (or MIN_CONFIDENCE) must be a number "
        f"between 0 and 1, or {JUDGED}",
    )
    return share
