"""On what a network is trained, and by which rows it is judged."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from percoin.bars.renames import current_symbol
from percoin.config.fields import MOST_EPOCHS, MOST_LOOKS, Effect, When, number, setting
from percoin.config.model import OF_A_NETWORK
from percoin.evaluation.baselines import NO_BLEND, USUAL_BESIDE, USUAL_POOLED

# In place of nothing: a training that begins with the weights of a pooled model.
INIT_POOLED = "pooled"

_OF_A_POOL = When(needs=("recipe=pooled",))
_OF_ITS_NETWORK = When(needs=("recipe=pooled",), unless=OF_A_NETWORK.unless)
_OF_A_START = When(needs=(f"init={INIT_POOLED}",))


class EvaluationMode(StrEnum):
    """On which rows a model is judged."""

    SINGLE_SPLIT = "single_split"
    WALK_FORWARD = "walk_forward"


class RecipeName(StrEnum):
    """On what a network is trained."""

    PER_MARKET = "per_market"
    POOLED = "pooled"


@dataclass
class PooledConfig:
    """One network for many markets, and what a market makes of it afterwards."""

    # Batch normalisation needs two windows to know a variance.
    windows_per_epoch: int = number(
        "train windows of an epoch, drawn anew each time from all markets",
        2,
        100_000_000,
        affects=Effect.MODEL,
        used=_OF_ITS_NETWORK,
    )
    validation_windows: int = number(
        "most validation windows, spread evenly over markets and time; they choose the best epoch",
        1,
        100_000_000,
        affects=Effect.MODEL,
        used=_OF_ITS_NETWORK,
    )
    warmup_epochs: float = number(
        "epochs in which the learning rate grows to lr; then it falls to 0 by a cosine",
        0,
        MOST_EPOCHS,
        affects=Effect.MODEL,
        used=_OF_ITS_NETWORK,
    )
    seeds: int = number(
        "networks to train, with seeds from seed=N on; the best on validation windows is kept",
        1,
        100,
        affects=Effect.MODEL,
        used=_OF_ITS_NETWORK,
    )
    leave_out: list[str] = setting(
        "markets of symbol that are not trained on, but calibrated, judged and saved",
        affects=Effect.MODEL,
        used=_OF_A_POOL,
    )
    without: list[str] = setting(
        "markets of symbol that take no part; percoin.retrain names those without bars here",
        default_factory=list,
        affects=Effect.MODEL,
        used=_OF_A_POOL,
    )
    looks: list[int] = number(
        "looks for each market of symbol, in that order; [] uses looks for all",
        1,
        MOST_LOOKS,
        default_factory=list,
        affects=Effect.JUDGEMENT,
        used=_OF_A_POOL,
    )
    init_model: str | None = setting(
        "with init=pooled: a market or a version's folder; null is the market's own",
        default=None,
        affects=Effect.MODEL,
        used=_OF_A_START,
    )
    init_lr: float = number(
        "learning rate with init=pooled, in place of lr",
        above=0,
        below=1,
        affects=Effect.MODEL,
        used=_OF_A_START,
    )

    def __post_init__(self) -> None:
        for symbol in (*self.leave_out, *self.without):
            current_symbol(symbol)


def usual_blend(recipe: str, is_blended: bool) -> str:
    """What a recipe is blended with by itself; docs/RECIPES.md has the evidence."""
    if not is_blended:
        return NO_BLEND
    return "+".join(USUAL_POOLED if recipe == RecipeName.POOLED else USUAL_BESIDE)


def usual_epochs(recipe: str) -> int:
    """How long a recipe trains by itself, at most; docs/RECIPES.md has the evidence."""
    return 15 if recipe == RecipeName.POOLED else 50
