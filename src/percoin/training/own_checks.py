"""Own networks, losses, optimizers and schedules are put to the proof first, in a second or two."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from percoin.config import OwnNetworkConfig, TrainConfig
from percoin.dataset import MarketDataset
from percoin.errors import ConfigError, InvalidArtifactError
from percoin.memory import is_out_of_memory
from percoin.registry.layout import SERVED_WEIGHTS_FILE, MarketFolder
from percoin.registry.weights import load_weights, save_weights
from percoin.targets import in_short
from percoin.training.fitted_network import spread_windows
from percoin.training.lit_module import LossFunction
from percoin.training.onnx_export import export_onnx
from percoin.training.own_parts import own_training
from percoin.training.recipes.network import network_spec, seeded_network
from percoin.types import CLASS_NAMES

_PER_CLASS = 4
# The network learns a batch by heart if its log-loss falls below this share of that of a guess.
_LEARNT = 0.5
_RATES = (0.003, 0.0003, 0.03)
_STEPS = 100
# A layer that begins with zeros passes no gradient on in the first steps.
_FEWEST_STEPS = 5
_TOLERANCE = 1e-3
_NAMES_SHOWN = 3


def check_own_parts(settings: TrainConfig, dataset: MarketDataset, onnx: bool = False) -> None:
    """Refuse own parts of a training that could not be trained, served or trusted.

    The output has one row of three finite logits a window; a batch of a dozen windows can be
    learnt by heart; gradients reach every parameter on the way; in eval mode the answer to a
    window is always the same and does not depend on the windows beside it; the weights can be
    saved; an own optimizer and an own schedule take a step. Random generators and the network of
    the training stay as they are.

    Args:
        settings: Settings of the training.
        dataset: Gives the windows.
        onnx: Also check that the network can be exported.

    Raises:
        ConfigError: Says what was found, and what to do.
    """
    with torch.random.fork_rng(devices=()):
        # Sized before it takes memory.
        network_spec(settings)
        network = seeded_network(settings)
        windows, labels = _few_windows(dataset)
        proof = _Proof(settings, windows, labels)
        if {"model", "loss"} & set(settings.targets):
            proof.check_output(network)
            learnt = proof.learn(network)
            proof.check_alone(learnt)
        if isinstance(settings.model, OwnNetworkConfig):
            proof.check_weights(network)
            if onnx:
                proof.check_onnx(network, dataset)
        # What fails here is no fault of the network, which has been checked.
        if {"optimizer", "scheduler"} & set(settings.targets):
            proof.check_step(network)


def _few_windows(dataset: MarketDataset) -> tuple[Tensor, Tensor]:
    """A few train windows of each class, far from each other."""
    rows = dataset.rows("train")
    chosen = []
    for label in range(len(CLASS_NAMES)):
        own = rows[dataset.label[rows] == label]
        spread = np.linspace(0, len(own) - 1, min(_PER_CLASS, len(own))).astype(int)
        chosen += own[spread].tolist()
    windows = dataset.windows[np.array(chosen) - dataset.lookback + 1]
    return torch.tensor(windows), torch.tensor(dataset.label[chosen])


def _without_dropout(network: nn.Module) -> nn.Module:
    """Learning a few windows by heart takes long with dropout, which is there to prevent it."""
    for module in network.modules():
        if isinstance(module, nn.Dropout | nn.Dropout1d | nn.Dropout2d | nn.AlphaDropout):
            module.p = 0.0
        elif isinstance(module, nn.RNNBase):
            module.dropout = 0.0
    return network


class _Proof:
    """The checks of one network, on a dozen windows."""

    def __init__(self, settings: TrainConfig, windows: Tensor, labels: Tensor) -> None:
        self._settings = settings
        self._make_loss = own_training(settings).make_loss
        self._windows, self._labels = windows, labels
        shares = torch.bincount(labels) / len(labels)
        self._guess = float(torch.special.entr(shares).sum())

    def _refusal(self, found: str, group: str = "model") -> ConfigError:
        name, _ = self._settings.targets.get(group, (self._settings.model.option, {}))
        where = f"{group}._target_" if group in self._settings.targets else group
        return ConfigError(f"{where}={name}: {found}")

    def check_output(self, network: nn.Module) -> None:
        """One row of three finite logits for each window."""
        one = self._windows[:1]
        self._check_logits(self._asked(copy.deepcopy(network).eval(), one), one)
        self._check_logits(
            self._asked(copy.deepcopy(network).train(), self._windows), self._windows
        )

    def _asked(self, network: nn.Module, windows: Tensor) -> Tensor:
        try:
            return network(windows)  # type: ignore[no-any-return]
        except Exception as error:
            if is_out_of_memory(error):
                raise
            shape = tuple(windows.shape)
            raise self._refusal(
                f"it fails on windows of shape (B, L, F) = {shape}: {in_short(error)}; take them "
                "as they are, and n_features and lookback in its constructor"
            ) from error

    def _check_logits(self, logits: object, windows: Tensor) -> None:
        wanted = len(windows), len(CLASS_NAMES)
        if not isinstance(logits, Tensor) or tuple(logits.shape) != wanted:
            found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            asked = "one window" if len(windows) == 1 else f"{len(windows)} windows"
            raise self._refusal(
                f"it answers {asked} with {found}, not with shape {wanted}; return "
                f"one logit for each of {', '.join(CLASS_NAMES)}, without softmax"
            )
        if not bool(torch.isfinite(logits).all()):
            raise self._refusal(
                "it answers with values that are not finite before any training; look for a "
                "division by 0, a logarithm, or missing normalisation"
            )

    def check_step(self, network: nn.Module) -> None:
        """The optimizer takes a step, and the schedule after it."""
        own, learner = own_training(self._settings), copy.deepcopy(network).train()
        parameters, rate = list(learner.parameters()), self._settings.lr
        decay = self._settings.optimizer.weight_decay
        optimizer: Optimizer = (
            torch.optim.AdamW(parameters, lr=rate, weight_decay=decay)
            if own.make_optimizer is None
            else own.make_optimizer(parameters, rate, decay)
        )

        def loss_and_gradients() -> float:
            optimizer.zero_grad()
            loss = functional.cross_entropy(learner(self._windows), self._labels)
            loss.backward()  # type: ignore[no-untyped-call]
            return float(loss.detach())

        # The number of batches is not known yet, and one step needs no more than this.
        n_steps = self._settings.epochs
        schedule = own.make_schedule(optimizer, n_steps) if own.make_schedule else None
        self._try("optimizer", lambda: optimizer.step(loss_and_gradients))
        if schedule is not None:
            watched = (self._guess,) if isinstance(schedule, ReduceLROnPlateau) else ()
            self._try("scheduler", lambda: schedule.step(*watched))

    def _try(self, group: str, step: Callable[[], object]) -> None:
        try:
            step()
        except Exception as error:
            if is_out_of_memory(error):
                raise
            raise self._refusal(
                f"it fails in its first step: {in_short(error)}; choose another one, or correct it",
                group,
            ) from error

    def learn(self, network: nn.Module) -> nn.Module:
        """Learn the windows by heart; returns the network that has."""
        reached: set[str] = set()
        lowest = math.inf
        for rate in _RATES:
            learner = _without_dropout(copy.deepcopy(network).train())
            for loss in self._steps(learner, rate, reached):
                lowest = min(lowest, loss)
                if loss < _LEARNT * self._guess:
                    self._check_reached(learner, reached)
                    return learner
        self._check_reached(network, reached)
        raise self._refusal(
            f"it cannot learn {len(self._labels)} windows by heart: after {_STEPS} steps their "
            f"log-loss is {lowest:.2f}, and a guess has {self._guess:.2f}; look for a softmax "
            "before the loss, a detach, or an input that is not used",
            "model" if "model" in self._settings.targets else "loss",
        )

    def _steps(self, learner: nn.Module, rate: float, reached: set[str]) -> Iterator[float]:
        """Log-loss after each step; adds the names of the parameters that gradients reach."""
        criterion = functional.cross_entropy if self._make_loss is None else self._make_loss()
        optimizer = torch.optim.AdamW(learner.parameters(), lr=rate, weight_decay=0.0)
        for step in range(_STEPS):
            optimizer.zero_grad()
            logits = self._asked(learner, self._windows)
            self._loss(criterion, logits).backward()  # type: ignore[no-untyped-call]
            for name, each in learner.named_parameters():
                if each.grad is not None and bool(each.grad.any()):
                    reached.add(name)
            optimizer.step()
            if step + 1 >= _FEWEST_STEPS:
                yield float(functional.cross_entropy(logits.detach(), self._labels))

    def _loss(self, criterion: LossFunction, logits: Tensor) -> Tensor:
        if not logits.requires_grad:
            raise self._refusal(
                "no gradient comes from its logits; look for a detach, torch.no_grad or .data"
            )
        try:
            loss = criterion(logits, self._labels)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            raise self._refusal(
                f"it fails on logits of shape {tuple(logits.shape)} and labels of shape "
                f"{tuple(self._labels.shape)}: {in_short(error)}; take (logits, labels)",
                "loss",
            ) from error
        if isinstance(loss, Tensor) and loss.ndim == 0 and not loss.requires_grad:
            raise self._refusal(
                "no gradient leads from its number to the logits; look for a detach, "
                "torch.no_grad, .item() or .data",
                "loss",
            )
        if not isinstance(loss, Tensor) or loss.ndim != 0:
            found = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else repr(loss)[:40]
            raise self._refusal(
                f"it answers with {found}, not with one number that gradients come from; return "
                "the mean over the batch as a tensor",
                "loss",
            )
        return loss

    def _check_reached(self, network: nn.Module, reached: set[str]) -> None:
        named = [name for name, each in network.named_parameters() if each.requires_grad]
        missing = [name for name in named if name not in reached]
        if missing:
            shown = ", ".join(missing[:_NAMES_SHOWN])
            more = f" and {len(missing) - _NAMES_SHOWN} more" if missing[_NAMES_SHOWN:] else ""
            raise self._refusal(
                f"no gradient reaches {shown}{more}; use them in forward, remove them, or set "
                "requires_grad=False"
            )

    @torch.no_grad()
    def check_alone(self, learnt: nn.Module) -> None:
        """In eval mode a window has one answer, whatever else is in its batch."""
        network = learnt.eval()
        together, again = (self._asked(network, self._windows) for _ in range(2))
        alone = torch.cat([self._asked(network, each) for each in torch.split(self._windows, 1)])
        scale = float(together.abs().max()) + 1.0
        if not float((together - again).abs().max()) <= _TOLERANCE * scale:
            raise self._refusal(
                "in eval mode it gives the same windows other logits each time; draw random "
                "numbers only while self.training is true, as nn.Dropout does"
            )
        if not float((together - alone).abs().max()) <= _TOLERANCE * scale:
            raise self._refusal(
                "in eval mode the logits of a window change with the other windows of its batch; "
                "compute along time and features only, and use batch statistics in training alone"
            )

    def check_weights(self, network: nn.Module) -> None:
        """The state dict is one that the registry stores and reads."""
        market = MarketFolder(Path(), self._settings.symbols[0], self._settings.tf.timeframe)
        try:
            load_weights(market, SERVED_WEIGHTS_FILE, save_weights(network.state_dict()))
        except InvalidArtifactError as error:
            raise self._refusal(
                f"its weights cannot be kept: {error.found}; register such values as buffers with "
                "persistent=False, and make them in the constructor"
            ) from error

    def check_onnx(self, network: nn.Module, dataset: MarketDataset) -> None:
        """It can be exported, and answers the same there."""
        market = (dataset.bars.symbol, dataset.bars.timeframe.value)
        try:
            export_onnx(copy.deepcopy(network), spread_windows(dataset), market)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            raise self._refusal(
                f"it cannot be exported for ONNX Runtime: {in_short(error)}; use export.onnx=false"
            ) from error
