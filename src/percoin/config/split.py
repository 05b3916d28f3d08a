"""How rows are shared out: ``split``."""

from __future__ import annotations

from dataclasses import dataclass

from percoin.config.fields import MOST_BARS, Effect, When, number
from percoin.dataset import check_shares

# The cuts of a pool are moments.
_OF_OWN_CUTS = When(unless=("init=pooled",))


@dataclass
class SplitConfig:
    """Shares of the history, oldest first, and the rows dropped between them."""

    train: float = number("", above=0, below=1, affects=Effect.MODEL, used=_OF_OWN_CUTS)
    validation: float = number("", above=0, below=1, affects=Effect.MODEL, used=_OF_OWN_CUTS)
    test: float = number("", above=0, below=1, affects=Effect.MODEL, used=_OF_OWN_CUTS)
    purge_bars: int = number(
        "bars dropped before a cut; at least labels.horizon", 0, MOST_BARS, affects=Effect.MODEL
    )
    embargo_bars: int = number("bars dropped after a cut", 0, MOST_BARS, affects=Effect.MODEL)

    def __post_init__(self) -> None:
        check_shares((self.train, self.validation, self.test))
