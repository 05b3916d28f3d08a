"""How rows are shared out: ``split``."""

from __future__ import annotations

from dataclasses import dataclass

from percoin.config.fields import MOST_BARS, number
from percoin.dataset import check_shares


@dataclass
class SplitConfig:
    """Shares of the history, oldest first, and the rows dropped between them."""

    train: float = number(above=0, below=1)
    validation: float = number(above=0, below=1)
    test: float = number(above=0, below=1)
    purge_bars: int = number(0, MOST_BARS)
    embargo_bars: int = number(0, MOST_BARS)

    def __post_init__(self) -> None:
        check_shares((self.train, self.validation, self.test))
