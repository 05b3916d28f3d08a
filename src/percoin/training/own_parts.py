"""What the settings name of the user's own by ``_target_``: network, loss, optimizer, schedule."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from percoin.config import TrainConfig
from percoin.plugins import PluginSource
from percoin.targets import Target, find_target
from percoin.training.lit_module import LossFunction, OwnTraining

# What the schedules of torch call the number of their steps.
_LENGTHS = ("total_steps", "T_max")


def find_targets(settings: TrainConfig) -> dict[str, Target]:
    """What is of the user's own, by its group.

    Raises:
        ConfigError: Something is not there, or ``plugins=`` does not allow its code.
    """
    return {
        group: find_target(f"{group}._target_", name)
        for group, (name, _) in settings.targets.items()
    }


def sources_of(settings: TrainConfig) -> dict[str, PluginSource]:
    """Which code that is; classes of torch are left out, as they come with a library's version."""
    found = find_targets(settings).items()
    return {group: target.source for group, target in found if target.source is not None}


def own_training(settings: TrainConfig) -> OwnTraining:
    """The user's own loss, optimizer and schedule.

    Raises:
        ConfigError: As ``find_targets``; what is made of them may raise it too.
    """
    targets = find_targets(settings)
    arguments = {group: given for group, (_, given) in settings.targets.items()}
    each_batch = settings.scheduler.each == "batch"
    return OwnTraining(
        _loss_maker(targets, arguments),
        _optimizer_maker(targets, arguments),
        _schedule_maker(targets, arguments, each_batch),
        each_batch,
    )


def schedule_has_length(settings: TrainConfig) -> bool:
    """Whether the user's own schedule is made for the number of epochs, as a cosine is."""
    scheduler = settings.scheduler
    if scheduler._target_ is None:
        return False
    target = find_target("scheduler._target_", scheduler._target_)
    return any(target.takes(name) and name not in scheduler.arguments for name in _LENGTHS)


_Targets = Mapping[str, Target]
_Arguments = Mapping[str, Mapping[str, Any]]


def _loss_maker(targets: _Targets, arguments: _Arguments) -> Any:
    target = targets.get("loss")
    if target is None:
        return None
    given = arguments["loss"]

    def make() -> LossFunction:
        if not inspect.isclass(target.value):
            return target.with_arguments(given, None, None)  # type: ignore[no-any-return]
        loss = target.make(given)
        if not callable(loss):
            raise target.refusal("makes an object that cannot be called with logits and labels")
        return loss  # type: ignore[no-any-return]

    return make


def _optimizer_maker(targets: _Targets, arguments: _Arguments) -> Any:
    target = targets.get("optimizer")
    if target is None:
        return None

    def make(parameters: Iterable[nn.Parameter], lr: float, weight_decay: float) -> Optimizer:
        given = arguments["optimizer"]
        found = target.make(given, list(parameters), lr=lr, weight_decay=weight_decay)
        if not isinstance(found, Optimizer):
            raise target.refusal(f"makes a {type(found).__name__}, not a torch.optim.Optimizer")
        return found

    return make


def _schedule_maker(targets: _Targets, arguments: _Arguments, each_batch: bool) -> Any:
    target = targets.get("scheduler")
    if target is None:
        return None

    def make(optimizer: Optimizer, n_steps: int) -> LRScheduler:
        length = dict.fromkeys(_LENGTHS, n_steps)
        found = target.make(arguments["scheduler"], optimizer, **length)
        if not isinstance(found, LRScheduler):
            raise target.refusal(f"makes a {type(found).__name__}, no schedule of torch")
        if each_batch and isinstance(found, ReduceLROnPlateau):
            raise target.refusal("watches the validation loss: leave out scheduler.each=batch")
        return found

    return make
