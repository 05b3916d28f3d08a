"""A search for better settings: ``experiment=tune``.

What these settings affect is the search: those of the model decide what a trial is worth and which
settings are tried, those of the run only how long it goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar

from percoin.config.fields import (
    MOST_EPOCHS,
    MOST_SEED,
    MOST_TRIALS,
    Effect,
    choice,
    number,
    require,
    setting,
)
from percoin.config.labels import volatility_window
from percoin.labels import FixedHorizon, TripleBarrier


class PrunerKind(StrEnum):
    """By what a trial is ended early."""

    MEDIAN = "median"
    HALVING = "halving"
    NONE = "none"


@dataclass
class PrunerConfig:
    """Which trials of a search end early, by the validation skill of their epochs."""

    kind: str = choice("median, halving or none", PrunerKind, affects=Effect.MODEL)
    startup_trials: int = number(
        "complete trials before the median is used", 1, MOST_TRIALS, affects=Effect.MODEL
    )
    warmup_epochs: int = number(
        "epochs that every trial gets in any case", 1, MOST_EPOCHS, affects=Effect.MODEL
    )
    reduction_factor: int = number(
        "with kind=halving: one trial in so many goes on",
        2,
        1000,
        affects=Effect.MODEL,
    )


@dataclass
class FixedHorizonRangeConfig:
    """Which labels of a fixed horizon a search may try."""

    horizon: list[int] = setting("bars", affects=Effect.MODEL)
    threshold: list[float] = setting("factors of tf.threshold", affects=Effect.MODEL)

    def __post_init__(self) -> None:
        _check_range("space.fixed_horizon.horizon", self.horizon, 1, 1000)
        _check_range("space.fixed_horizon.threshold", self.threshold, 0.01, 100)


@dataclass
class TripleBarrierRangeConfig:
    """Which triple-barrier labels a search may try."""

    horizon: list[int] = setting("bars", affects=Effect.MODEL)
    barrier_width: list[float] = setting("in units of volatility", affects=Effect.MODEL)
    volatility_bars: int = volatility_window()

    def __post_init__(self) -> None:
        _check_range("space.triple_barrier.horizon", self.horizon, 1, 1000)
        _check_range("space.triple_barrier.barrier_width", self.barrier_width, 0.01, 100)


@dataclass
class SpaceConfig:
    """What a search may try; a range is ``[smallest, largest]``."""

    lr: list[float] = setting("smallest and largest", affects=Effect.MODEL)
    dropout: list[float] = setting("smallest and largest", affects=Effect.MODEL)
    width: list[float] = setting("factors of the model's widths", affects=Effect.MODEL)
    lookback: list[int] = setting("smallest and largest, in bars", affects=Effect.MODEL)
    arguments: dict[str, Any] = setting(
        "values of a network of your own: {width: [16, 32]} tries two of model.width",
        affects=Effect.MODEL,
    )
    labels: list[str] = setting(
        "rules to try; [] keeps the command's own labels", affects=Effect.MODEL
    )
    fixed_horizon: FixedHorizonRangeConfig = setting("smallest and largest")
    triple_barrier: TripleBarrierRangeConfig = setting("smallest and largest")

    def __post_init__(self) -> None:
        _check_range("space.lr", self.lr, 1e-8, 0.99)
        _check_range("space.dropout", self.dropout, 0, 0.95)
        _check_range("space.lookback", self.lookback, 4, 10_000)
        require(
            bool(self.width) and min(self.width) > 0 and max(self.width) <= 16,
            f"experiment.space.width={self.width} must be factors above 0 and at most 16",
        )
        given = "experiment.space.arguments must be {NAME: [VALUES]}"
        require(isinstance(self.arguments, dict), given)
        for name, values in self.arguments.items():
            require(
                isinstance(values, list)
                and bool(values)
                and all(value is None or isinstance(value, str | int | float) for value in values),
                f"experiment.space.arguments.{name}={values!r:.60} must be a list of numbers, "
                "texts or flags to try",
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

    # Of the group experiment.
    option: ClassVar[str] = "tune"

    trials: int = number(
        "how many settings to try; the command's own come first",
        1,
        MOST_TRIALS,
        affects=Effect.RUN,
    )
    epochs: int = number(
        "of a trial, at most; the best settings are then trained for `epochs`",
        1,
        MOST_EPOCHS,
        affects=Effect.MODEL,
    )
    max_minutes: float | None = number(
        "no new trial begins after so many minutes; null is no limit",
        above=0,
        most=525_600,
        default=None,
        affects=Effect.RUN,
    )
    restart: bool = setting(
        "begin a new study, on the newest bars; the trials of earlier ones still count",
        affects=Effect.RUN,
    )
    seed: int = number("for the choice of settings", 0, MOST_SEED, affects=Effect.MODEL)
    startup_trials: int = number(
        "random trials, before the search learns from earlier ones",
        1,
        MOST_TRIALS,
        affects=Effect.MODEL,
    )
    min_class_share: float = number(
        "least share of each class in the train rows; a trial with a rarer class fails",
        0,
        below=1 / 3,
        affects=Effect.MODEL,
    )
    pruner: PrunerConfig = setting("ends trials early that do worse than others did")
    space: SpaceConfig = setting(
        "what is searched; ranges grow to include the command's own settings"
    )
