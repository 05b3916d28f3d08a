"""A search for better settings: ``experiment=tune``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from omegaconf import MISSING

from percoin.config.fields import MOST_BARS, MOST_EPOCHS, MOST_SEED, MOST_TRIALS, number, require
from percoin.config.labels import FOR_SIGMA
from percoin.labels import FixedHorizon, TripleBarrier


class PrunerKind(StrEnum):
    """By what a trial is ended early."""

    MEDIAN = "median"
    HALVING = "halving"
    NONE = "none"


@dataclass
class PrunerConfig:
    """Which trials of a search end early, by the validation skill of their epochs."""

    kind: str = MISSING
    startup_trials: int = number(1, MOST_TRIALS)
    warmup_epochs: int = number(1, MOST_EPOCHS)
    reduction_factor: int = number(2, 1000)

    def __post_init__(self) -> None:
        known = [kind.value for kind in PrunerKind]
        require(
            self.kind in known,
            f"experiment.pruner.kind={self.kind} must be one of {', '.join(known)}",
        )


@dataclass
class FixedHorizonRangeConfig:
    """Which labels of a fixed horizon a search may try."""

    horizon: list[int] = MISSING
    threshold: list[float] = MISSING

    def __post_init__(self) -> None:
        _check_range("space.fixed_horizon.horizon", self.horizon, 1, 1000)
        _check_range("space.fixed_horizon.threshold", self.threshold, 0.01, 100)


@dataclass
class TripleBarrierRangeConfig:
    """Which triple-barrier labels a search may try."""

    horizon: list[int] = MISSING
    barrier_width: list[float] = MISSING
    volatility_bars: int = number(2, MOST_BARS, note=FOR_SIGMA)

    def __post_init__(self) -> None:
        _check_range("space.triple_barrier.horizon", self.horizon, 1, 1000)
        _check_range("space.triple_barrier.barrier_width", self.barrier_width, 0.01, 100)


@dataclass
class SpaceConfig:
    """What a search may try; a range is ``[smallest, largest]``."""

    lr: list[float] = MISSING
    dropout: list[float] = MISSING
    width: list[float] = MISSING
    lookback: list[int] = MISSING
    labels: list[str] = MISSING
    fixed_horizon: FixedHorizonRangeConfig = MISSING
    triple_barrier: TripleBarrierRangeConfig = MISSING

    def __post_init__(self) -> None:
        _check_range("space.lr", self.lr, 1e-8, 0.99)
        _check_range("space.dropout", self.dropout, 0, 0.95)
        _check_range("space.lookback", self.lookback, 4, 10_000)
        require(
            bool(self.width) and min(self.width) > 0 and max(self.width) <= 16,
            f"experiment.space.width={self.width} must be factors above 0 and at most 16",
        )
        known = (FixedHorizon.kind, TripleBarrier.kind)
        require(
            set(self.labels) <= set(known),
            f"experiment.space.labels={self.labels} must be some of {', '.join(known)}, or []",
        )


def _check_range(name: str, values: Sequence[float], least: float, most: float) -> None:
    require(
        len(values) == 2 and least <= values[0] <= values[1] <= most,
        f"experiment.{name}={list(values)} must be [smallest, largest] "
        f"between {least:g} and {most:g}",
    )


@dataclass
class TuneConfig:
    """A search among settings on validation rows."""

    trials: int = number(1, MOST_TRIALS)
    epochs: int = number(1, MOST_EPOCHS)
    max_minutes: float | None = number(above=0, most=525_600, default=None)
    restart: bool = MISSING
    seed: int = number(0, MOST_SEED)
    startup_trials: int = number(1, MOST_TRIALS)
    min_class_share: float = number(0, below=1 / 3)
    pruner: PrunerConfig = MISSING
    space: SpaceConfig = MISSING
