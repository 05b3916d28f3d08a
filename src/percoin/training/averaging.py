"""A moving average of a network's weights, which is what is validated and kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

# Early on the average follows faster, so that the initial weights are soon forgotten.
_SLOWNESS = 10


class AveragedWeights(pl.Callback):
    """Averages the weights of ``module.network`` over the steps of a training.

    Validation sees the average, and so do the best epoch and early stopping; the steps go on from
    the weights themselves. At the end the network holds the average. The statistics of batch
    normalisation are averaged too. Polyak and Juditsky, 1992; Izmailov et al., 2018.

    Args:
        decay: Share of the average that a step keeps.
    """

    def __init__(self, decay: float) -> None:
        self._decay = decay
        self._average: dict[str, Tensor] = {}
        self._n_steps = 0

    def state_dict(self) -> dict[str, Any]:
        """The average and its number of steps, for a checkpoint."""
        return {"average": self._average, "n_steps": self._n_steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self._average, self._n_steps = state_dict["average"], int(state_dict["n_steps"])

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin with the initial weights, unless a checkpoint has told more."""
        averaged = _averaged(pl_module)
        if not self._average:
            self._average = {name: tensor.detach().clone() for name, tensor in averaged.items()}
        # A checkpoint is read to the CPU.
        self._average = {
            name: tensor.to(averaged[name].device) for name, tensor in self._average.items()
        }

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: object
    ) -> None:
        """Move the average towards the weights."""
        self._n_steps += 1
        decay = min(self._decay, self._n_steps / (self._n_steps + _SLOWNESS))
        newest = _averaged(pl_module)
        torch._foreach_lerp_(list(self._average.values()), list(newest.values()), 1 - decay)

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put the average into the network."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._swap(pl_module)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put the weights back."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._swap(pl_module)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave the average in the network, also if a resumed training had no epoch left."""
        if self._average:
            self._swap(pl_module)
        self._average = {}

    @torch.no_grad()
    def _swap(self, module: pl.LightningModule) -> None:
        for name, tensor in _averaged(module).items():
            kept = tensor.clone()
            tensor.copy_(self._average[name])
            self._average[name] = kept


def averaged_state(checkpoint: Mapping[str, Any], network: nn.Module) -> dict[str, Tensor]:
    """The state of a checkpoint's module, whose network holds the average if there is one.

    Args:
        checkpoint: Of a module that trained such a network.
        network: Says which names one tensor has; it stays as it is.
    """
    states = checkpoint.get("callbacks", {})
    average = states.get(AveragedWeights.__qualname__, {}).get("average", {})
    tensors = network.state_dict(keep_vars=True)
    averages = {id(tensors[name]): each for name, each in average.items() if name in tensors}
    state: dict[str, Tensor] = checkpoint["state_dict"]
    return state | {
        f"network.{name}": averages[id(tensor)]
        for name, tensor in tensors.items()
        if id(tensor) in averages
    }


def _averaged(module: pl.LightningModule) -> dict[str, Tensor]:
    """Weights and statistics of the network, each once; counts of batches cannot be averaged.

    Only what a checkpoint keeps: a mask beside it may be infinite, which has no average.
    """
    network = module.network
    if not isinstance(network, nn.Module):
        raise TypeError("the module has no network")
    state = network.state_dict(keep_vars=True)
    firsts = {id(tensor): name for name, tensor in reversed(state.items())}
    return {name: state[name] for name in firsts.values() if state[name].is_floating_point()}
