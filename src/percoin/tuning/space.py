"""The ranges of a search, and how a proposal becomes settings."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from optuna.trial import BaseTrial, FixedTrial

from percoin.cli.targets import as_typed
from percoin.commands import command
from percoin.config import (
    CnnLstmConfig,
    FixedHorizonConfig,
    LabelsConfig,
    ModelConfig,
    OwnNetworkConfig,
    SpaceConfig,
    SplitConfig,
    TrainConfig,
    TripleBarrierConfig,
)
from percoin.config.effects import settings_with
from percoin.config.fields import Effect
from percoin.config.folders import named_folders
from percoin.errors import ConfigError
from percoin.labels import FixedHorizon, TripleBarrier
from percoin.tuning.words import words_for

# Significant digits of a proposed number, so that a command line can repeat it exactly.
_DIGITS = 3
# Upper limit of a threshold, which is a fraction of the price.
_MOST = 0.999
# Begins the name of a parameter that is an argument of a network of the user's own.
_MODEL = "model."
_FOLLOW_THE_LABELS = ("split.purge_bars", "split.embargo_bars")


@dataclass(frozen=True)
class Candidate:
    """One proposal of settings.

    Attributes:
        lr: Initial learning rate.
        dropout: Dropout probability; None with a network of the user's own.
        width: Factor for the layer widths of the command's model; None likewise.
        lookback: Window length in bars.
        labels: The label rule.
        arguments: Of a network of the user's own, by name.
    """

    lr: float
    dropout: float | None
    width: float | None
    lookback: int
    labels: LabelsConfig
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        rule = [f"labels={self.labels.option}"]
        rule += [f"{name}={_short(value)}" for name, value in asdict(self.labels).items()]
        of_model = {
            "dropout": self.dropout,
            "width": self.width,
            **{f"{_MODEL}{name}": value for name, value in self.arguments.items()},
        }
        parts = [
            f"lr={_short(self.lr)}",
            *(f"{name}={_short(each)}" for name, each in of_model.items() if each is not None),
            f"lookback={self.lookback}",
        ]
        return " ".join([*parts, *rule])


class SearchSpace:
    """The settings that a search may propose around the command's own settings.

    Each range is widened if needed to include the command's own value. The own settings are
    the first trial, and the search learns from it as from any other trial.

    Args:
        base: The command's settings.
        space: The ranges.

    Raises:
        ConfigError: The arguments to search are none of the command's own network.
    """

    def __init__(self, base: TrainConfig, space: SpaceConfig) -> None:
        self.base = replace(base, experiment=None)
        self._space = space
        self._own_kind = base.labels.option
        # Other models have no settings to search; experiment=tune refuses them.
        self._network = base.model if isinstance(base.model, CnnLstmConfig) else None
        self._arguments = _own_values(base, space)

    @property
    def largest_lookback(self) -> int:
        """The longest lookback that may be proposed, in bars."""
        return max(self.base.lookback, self._space.lookback[1])

    def own(self) -> dict[str, Any]:
        """The command's own settings as parameters of a trial."""
        base = self.base
        network = self._network
        parameters: dict[str, Any] = {
            "lr": base.lr,
            **({} if network is None else {"dropout": network.dropout, "width": 1.0}),
            **{f"{_MODEL}{name}": value for name, value in self._arguments.items()},
            "lookback": base.lookback,
        }
        if self._space.labels:
            parameters["labels"] = self._own_kind
            for name in _searched_fields(self._own_kind):
                parameters[f"{self._own_kind}.{name}"] = getattr(base.labels, name)
        return parameters

    def suggest(self, trial: BaseTrial) -> Candidate:
        """Let the trial choose a value for each parameter."""
        base, space = self.base, self._space
        lookback = _holding(space.lookback, base.lookback)
        lr = self._number(trial, "lr", space.lr, base.lr, log=True)
        dropout = width = None
        if self._network is not None:
            dropout = self._number(trial, "dropout", space.dropout, self._network.dropout)
            widths = sorted({*space.width, 1.0})
            width = float(trial.suggest_categorical("width", widths))
        arguments = {
            name: trial.suggest_categorical(
                f"{_MODEL}{name}", list(dict.fromkeys([*space.arguments[name], value]))
            )
            for name, value in self._arguments.items()
        }
        return Candidate(
            lr=lr,
            dropout=dropout,
            width=width,
            lookback=trial.suggest_int("lookback", *lookback, log=True),
            labels=self._suggest_labels(trial),
            arguments=arguments,
        )

    def candidate(self, parameters: Mapping[str, Any]) -> Candidate:
        """The proposal that belongs to the parameters of a trial.

        Raises:
            ValueError: A parameter is missing.
        """
        return self.suggest(FixedTrial(dict(parameters)))

    def settings(self, candidate: Candidate) -> TrainConfig:
        """The complete training settings of a proposal.

        Raises:
            ConfigError: The settings contradict each other.
        """
        base = self.base
        return replace(
            base,
            lr=candidate.lr,
            lookback=candidate.lookback,
            model=_model_of(base.model, candidate),
            labels=candidate.labels,
            split=_split_for(base, candidate.labels.horizon),
        )

    def _suggest_labels(self, trial: BaseTrial) -> LabelsConfig:
        if not self._space.labels:
            return self.base.labels
        kinds = list(dict.fromkeys([*self._space.labels, self._own_kind]))
        kind = trial.suggest_categorical("labels", kinds)
        if kind == FixedHorizon.kind:
            return self._suggest_fixed_horizon(trial)
        if kind == TripleBarrier.kind:
            return self._suggest_triple_barrier(trial)
        return self.base.labels

    def _suggest_fixed_horizon(self, trial: BaseTrial) -> FixedHorizonConfig:
        ranges = self._space.fixed_horizon
        own = self.base.labels if isinstance(self.base.labels, FixedHorizonConfig) else None
        horizons = _holding(ranges.horizon, own.horizon if own else None)
        return FixedHorizonConfig(
            horizon=trial.suggest_int(f"{FixedHorizon.kind}.horizon", *horizons),
            threshold=self._number(
                trial,
                f"{FixedHorizon.kind}.threshold",
                [min(factor * self.base.tf.threshold, _MOST) for factor in ranges.threshold],
                own.threshold if own else None,
                log=True,
            ),
        )

    def _suggest_triple_barrier(self, trial: BaseTrial) -> TripleBarrierConfig:
        ranges = self._space.triple_barrier
        own = self.base.labels if isinstance(self.base.labels, TripleBarrierConfig) else None
        horizons = _holding(ranges.horizon, own.horizon if own else None)
        return TripleBarrierConfig(
            horizon=trial.suggest_int(f"{TripleBarrier.kind}.horizon", *horizons),
            barrier_width=self._number(
                trial,
                f"{TripleBarrier.kind}.barrier_width",
                ranges.barrier_width,
                own.barrier_width if own else None,
                log=True,
            ),
            volatility_bars=own.volatility_bars if own else ranges.volatility_bars,
        )

    def _number(
        self,
        trial: BaseTrial,
        name: str,
        limits: Sequence[float],
        own: float | None,
        log: bool = False,
    ) -> float:
        value = trial.suggest_float(name, *_holding(limits, own), log=log)
        return value if value == own else float(f"{value:.{_DIGITS}g}")


def command_for(
    overrides: Iterable[str],
    base: TrainConfig,
    chosen: TrainConfig,
    options: Mapping[str, Any] | None = None,
) -> str:
    """The command line that trains the chosen settings without a search.

    Args:
        overrides: The ``KEY=VALUE`` words of the command that searched.
        base: The settings that these words give.
        chosen: The settings to train; they differ from ``base`` only in searched settings, and
            in what counts trials, looks and rows that the search saw.
        options: The chosen option of each config group; None if no experiment file chose any.
    """
    words = [*_changes(base, chosen), f"trials={chosen.trials}"]
    if chosen.looks > 1:
        words.append(f"looks={chosen.looks}")
    if chosen.test_from is not None:
        words.append(f"test_from={chosen.test_from}")
    replaced, groups = {word.partition("=")[0] for word in words}, {"experiment"}
    if "labels" in replaced:
        # Another kind of rule: what was said of the base's own, its code among it, is no part.
        groups.add("labels")
    dropped = replaced | {*_FOLLOW_THE_LABELS, "trials", "looks"}
    kept = [
        word
        for word in map(as_typed, overrides)
        if (key := word.partition("=")[0]) not in dropped and key.split(".")[0] not in groups
    ]
    folders = [word for folder in named_folders() for word in ("--config-dir", str(folder))]
    said = words_for(chosen, [*kept, *words], options or {})
    return command("python train.py", *folders, *said)


def _changes(base: TrainConfig, chosen: TrainConfig) -> list[str]:
    """The ``KEY=VALUE`` words that turn ``base`` into ``chosen``."""
    were, wanted = (settings_with(settings, {Effect.MODEL}) for settings in (base, chosen))
    words = [
        f"{_typed_key(key)}={_exact(value)}"
        for key, value in wanted.items()
        if not key.startswith(("labels.", *_FOLLOW_THE_LABELS)) and value != were[key]
    ]
    kind, same_kind = chosen.labels.option, type(base.labels) is type(chosen.labels)
    if not same_kind:
        words.append(f"labels={kind}")
    for entry in fields(chosen.labels):
        value = getattr(chosen.labels, entry.name)
        if not same_kind or value != getattr(base.labels, entry.name):
            words.append(f"labels.{entry.name}={_exact(value)}")
    # By default purge and embargo equal the horizon; other values need a word.
    for key in _FOLLOW_THE_LABELS:
        if wanted[key] != chosen.labels.horizon:
            words.append(f"{key}={wanted[key]}")
    return words


def _typed_key(key: str) -> str:
    """``model.width`` for ``model.arguments.width``."""
    return key.replace(".arguments.", ".")


def _exact(value: Any) -> str:
    if value is None:
        return "null"
    return str(value).replace(" ", "") if isinstance(value, list) else repr(value)


def _short(value: Any) -> str:
    return f"{value:.{_DIGITS}g}" if isinstance(value, float) else str(value)


def _searched_fields(kind: str) -> tuple[str, ...]:
    """The searched fields of a label rule; empty for rules without ranges."""
    others = {FixedHorizon.kind: "threshold", TripleBarrier.kind: "barrier_width"}
    return ("horizon", others[kind]) if kind in others else ()


def _holding(limits: Sequence[Any], own: Any | None) -> tuple[Any, Any]:
    """The limits, widened to include the own value."""
    values = [*limits] if own is None else [*limits, own]
    return min(values), max(values)


def _own_values(base: TrainConfig, space: SpaceConfig) -> dict[str, Any]:
    """The command's own values of the arguments to search.

    Raises:
        ConfigError: It names none of a network of its own, or not this one.
    """
    model = base.model
    own = model.arguments if isinstance(model, OwnNetworkConfig) else {}
    for name in space.arguments:
        if not isinstance(model, OwnNetworkConfig):
            raise ConfigError(
                f"experiment.space.arguments searches {name} of a network of your own, and "
                f"model={model.option} has dropout and width: leave it out, or name "
                "model._target_"
            )
        if name not in own:
            raise ConfigError(
                f"experiment.space.arguments searches {name}: say the command's own value too, "
                f"with model.{name}=VALUE"
            )
        if isinstance(own[name], list | dict):
            raise ConfigError(
                f"experiment.space.arguments searches {name}, which holds several values: a search "
                "tries numbers, texts and yes or no; leave it out"
            )
    return {name: own[name] for name in space.arguments}


def _model_of(model: ModelConfig, candidate: Candidate) -> ModelConfig:
    if isinstance(model, OwnNetworkConfig):
        return replace(model, arguments={**model.arguments, **candidate.arguments})
    if isinstance(model, CnnLstmConfig) and None not in (candidate.width, candidate.dropout):
        return _scaled(model, candidate.width or 1.0, candidate.dropout or 0.0)
    return model


def _scaled(model: CnnLstmConfig, width: float, dropout: float) -> CnnLstmConfig:
    """The model with scaled widths; the hidden size still divides among the attention heads."""
    step = model.n_heads // math.gcd(model.n_heads, 2)
    return replace(
        model,
        channels=[max(1, round(size * width)) for size in model.channels],
        hidden_size=max(step, step * round(model.hidden_size * width / step)),
        head_sizes=[max(1, round(size * width)) for size in model.head_sizes],
        dropout=dropout,
    )


def _split_for(base: TrainConfig, horizon: int) -> SplitConfig:
    """Purge and embargo for another horizon: equal to it, unless the command set other values."""
    split, own = base.split, base.labels.horizon
    follows = split.purge_bars == own
    return replace(
        split,
        purge_bars=horizon if follows else max(split.purge_bars, horizon),
        embargo_bars=horizon if split.embargo_bars == own else split.embargo_bars,
    )
