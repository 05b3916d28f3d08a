"""What the commands that answer for a market share: who is asked, and what with."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from percoin.config.fields import choice, number, require, setting
from percoin.features.levels import LevelUnit
from percoin.inference import Backend
from percoin.printable import printable
from percoin.types import Source

# In place of a library: ONNX Runtime where it is installed and the version has the file.
AUTO = "auto"
# In place of a number: the confidence that the model's own backtest traded with.
JUDGED = "judged"


@dataclass
class AnswerConfig:
    """Who answers for a market, and with what."""

    predictor: str = choice(
        "torch, onnx (faster; models trained with export.onnx=true, on the CPU), or auto: onnx if "
        "it can be",
        (AUTO, *Backend),
    )
    device: str = setting("cpu, cuda or cuda:N")
    chain: list[str] = setting(
        "sources, asked in this order until one answers; hold is always last"
    )
    use_ml: bool = setting("false skips the model")
    use_pro: bool = setting("false skips the professional analyzer")
    min_confidence: Any = setting(
        "least probability of a model's signal; judged is the threshold of the model's backtest"
    )
    require_accepted: bool = setting(
        "false also uses models that the gate did not accept, and rules that are worse than a coin"
    )
    levels: str = choice(
        "a model's stop and targets are multiples of the mean range of the last 14 bars; bands: of "
        "its expected move",
        LevelUnit,
    )
    max_age_bars: float | None = number(
        "oldest bar that gets an answer, in bar lengths; null is 2 for an exchange, no limit for "
        "other sources",
        1,
        1_000_000_000,
        why=": the newest bar is one bar old before the next one has closed",
        default=None,
    )

    @property
    def backend(self) -> Backend | None:
        """What computes the networks, as ``Predictor`` takes it."""
        return None if self.predictor == AUTO else Backend(self.predictor)

    def __post_init__(self) -> None:
        require(
            re.fullmatch(r"cpu|cuda(:\d{1,2})?", self.device) is not None,
            f"device={self.device} (or ML_DEVICE) must be cpu, cuda or cuda:N",
        )
        check_chain(self.chain)
        self.min_confidence = _read_confidence(self.min_confidence)


def check_chain(names: Sequence[str]) -> None:
    """Refuse sources that are none, twice the same one, and a chain that may end without answer.

    Raises:
        ConfigError: The chain cannot be meant.
    """
    shown = f"chain=[{','.join(names)}]"
    known = [source.option for source in Source]
    for name in names:
        require(name in known, f"{shown}: {name!r} is none of {', '.join(known)}")
        require(names.count(name) == 1, f"{shown}: {name} is named twice")
    require(
        len(names) > 0 and names[-1] == Source.HOLD.option,
        f"{shown} must end with hold, which alone always has an answer",
    )


def _read_confidence(value: Any) -> float | str:
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
