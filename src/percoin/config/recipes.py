"""On what a network is trained, and by which rows it is judged."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from omegaconf import MISSING

from percoin.bars.renames import current_symbol
from percoin.config.fields import MOST_EPOCHS, MOST_LOOKS, number


class EvaluationMode(StrEnum):
    """On which rows a model is judged."""

    SINGLE_SPLIT = "single_split"
    WALK_FORWARD = "walk_forward"


class BlendKind(StrEnum):
    """What a network's probabilities are averaged with."""

    NONE = "none"
    LOGISTIC = "logistic"


class RecipeName(StrEnum):
    """On what a network is trained."""

    PER_MARKET = "per_market"
    POOLED = "pooled"


# In place of nothing: a training that begins with the weights of a pooled model.
INIT_POOLED = "pooled"


@dataclass
class PooledConfig:
    """One network for many markets, and what a market makes of it afterwards."""

    # Batch normalisation needs two windows to know a variance.
    windows_per_epoch: int = number(2, 100_000_000)
    validation_windows: int = number(1, 100_000_000)
    warmup_epochs: float = number(0, MOST_EPOCHS)
    seeds: int = number(1, 100)
    leave_out: list[str] = MISSING
    without: list[str] = field(default_factory=list)
    looks: list[int] = number(1, MOST_LOOKS, default_factory=list)
    init_model: str | None = None
    init_lr: float = number(above=0, below=1)

    def __post_init__(self) -> None:
        for symbol in (*self.leave_out, *self.without):
            current_symbol(symbol)


def usual_blend(recipe: str) -> str:
    """What a recipe is blended with by itself; docs/RECIPES.md has the evidence."""
    return (BlendKind.LOGISTIC if recipe == RecipeName.POOLED else BlendKind.NONE).value


def usual_epochs(recipe: str) -> int:
    """How long a recipe trains by itself, at most; docs/RECIPES.md has the evidence."""
    return 15 if recipe == RecipeName.POOLED else 50
