"""The Lightning module: loss, optimizer, learning rate schedule and metrics."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, TypedDict

import lightning.pytorch as pl
import torch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import (
    LRSchedulerConfigType,
    OptimizerLRScheduler,
    OptimizerLRSchedulerConfig,
)
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torchmetrics import MetricCollection

from percoin.errors import ConfigError, DivergedError
from percoin.features.feature_set import FEATURE_NAMES
from percoin.network import CnnLstm
from percoin.training.averaging import AveragedWeights, averaged_state
from percoin.training.datamodule import Batch, MarketDataModule
from percoin.training.metrics import build_metrics, metric_values

log = logging.getLogger(__name__)

# Checkpoints, early stopping and the learning rate schedule watch this value.
# The slash groups the curves in TensorBoard.
MONITORED = "loss/val"
# Symbol and timeframe in messages if the data module names no market.
UNKNOWN_MARKET = ("unknown", "market")

_LOG_EVERY_N_STEPS = 50
# All of them keep the weights in 32 bits, as the registry does.
_PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
# Without a factor on the gradients.
_UNSCALED = ("32-true", "bf16-mixed")


@dataclass(frozen=True)
class OptimizerSpec:
    """Settings of AdamW, learning rate decay, gradient clipping and early stopping.

    Attributes:
        weight_decay: Weight decay of AdamW.
        plateau_factor: Multiplies the learning rate when the validation loss stalls.
        plateau_patience: Epochs without a better validation loss before the rate falls.
        gradient_clip_norm: Largest gradient norm.
        averaging: Share that a moving average of the weights keeps of itself at each step; the
            average is what is validated and kept. 0 averages nothing.
        early_stopping_patience: Epochs without a better validation loss before ``train.py``
            stops. It has no effect in your own ``Trainer``; use a callback there.
    """

    weight_decay: float = 1e-5
    plateau_factor: float = 0.5
    plateau_patience: int = 3
    gradient_clip_norm: float = 1.0
    averaging: float = 0.0
    early_stopping_patience: int = 5


# Logits (B, C) and labels (B,) to one number, the mean over the batch.
LossFunction = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class OwnTraining:
    """What stands in the place of the usual loss, optimizer and schedule; None is the usual one.

    Attributes:
        make_loss: Makes what the train steps minimise. Validation always uses the log-loss.
        make_optimizer: Parameters, learning rate and weight decay to an optimizer.
        make_schedule: An optimizer, and how often the schedule will step, to a schedule.
        steps_each_batch: Whether the schedule steps after each batch, and not after each epoch.
    """

    make_loss: Callable[[], LossFunction] | None = None
    make_optimizer: Callable[[Iterable[nn.Parameter], float, float], Optimizer] | None = None
    make_schedule: Callable[[Optimizer, int], LRScheduler] | None = None
    steps_each_batch: bool = False


class EpochHistory(TypedDict):
    """One value per epoch."""

    train_loss: list[float]
    train_acc: list[float]
    val_loss: list[float]
    val_acc: list[float]


def no_epochs() -> EpochHistory:
    """The history of a training before its first epoch."""
    return EpochHistory(train_loss=[], train_acc=[], val_loss=[], val_acc=[])


def add_epoch(
    history: EpochHistory, train: tuple[float, float], validation: tuple[float, float]
) -> None:
    """Add loss and accuracy of an epoch, on train and on validation rows."""
    history["train_loss"].append(train[0])
    history["train_acc"].append(train[1])
    history["val_loss"].append(validation[0])
    history["val_acc"].append(validation[1])


def epoch_seed(seed: int, epoch: int) -> int:
    """Seed for the dropout of an epoch; epochs are counted from 0."""
    return seed * 1_000_003 + epoch


def diverged(market: tuple[str, str], found: str, lr: float, setting: str = "lr") -> DivergedError:
    """The error of a training whose loss is no longer finite.

    Args:
        market: Symbol and timeframe.
        found: Which loss, and in which epoch.
        lr: Initial learning rate.
        setting: Name of the setting that it comes from.
    """
    action = f"nothing was saved; try a smaller learning rate than {setting}={lr:g}"
    return DivergedError(*market, found, action)


def new_network(seed: int, n_features: int = len(FEATURE_NAMES), **kwargs: Any) -> CnnLstm:
    """Create a network for the 15 features, or more.

    Args:
        seed: The only source of the initial weights; torch's global generator stays unchanged.
        n_features: Features per bar; ``MarketDataModule.n_features`` says how many its data has.
        kwargs: Widths and dropout, as in ``CnnLstm``.
    """
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        return CnnLstm(n_features, **kwargs)


def check_n_features(network: nn.Module, n_features: int) -> None:
    """Refuse a ``CnnLstm`` that is made for another number of features than the data has.

    Raises:
        ConfigError: The two numbers differ.
    """
    if isinstance(network, CnnLstm) and network.n_features != n_features:
        raise ConfigError(
            f"the network takes {network.n_features} features and there are {n_features}: "
            f"use CnnLstm({n_features})"
        )


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Compute in 32 bits, as serving does, whatever precision the training uses."""
    # With TF32 a GPU rounds the factors in convolutions and LSTMs to 10 bits.
    tf32_off = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
    with torch.autocast(device.type, enabled=False), tf32_off:
        yield


class SignalClassifier(pl.LightningModule):
    """Trains a network on the mean log-loss over three classes, or on a loss of your own.

    ``SignalClassifier()`` trains the default network with the settings of ``train.py``, in any
    ``Trainer`` with one device. If the trainer sets ``gradient_clip_val``, that value is used
    instead of the one in ``optimizer``.

    Args:
        network: Maps windows to logits; None means ``new_network(seed)``.
        optimizer: Settings of AdamW, learning rate decay and clipping.
        lr: Initial learning rate.
        seed: For dropout. Seed and epoch number decide every random draw, so a resumed run
            gives the same result as an uninterrupted one.
        own: A loss, an optimizer or a schedule of your own.

    Attributes:
        history: Losses and accuracies by epoch.
        twin: In a refit, the history of the judged twin: its validation losses stand in for
            those that a training without validation rows does not have.
        planned_epochs: Epochs that the learning rate's schedule covers; None means the trainer's.
            A refit ends earlier.
        test_probabilities: Class probabilities of the last tested rows, shape (n_rows, C).
        test_labels: True classes of the same rows, shape (n_rows,).
        market: Symbol and timeframe of the training data.
        batch_size: Windows per training step; None if the data module does not say.
        windows_per_epoch: Train windows of an epoch; None means all of them.
        secs_before: Training seconds before the run was interrupted and resumed.
        lr_setting: Name of the setting that ``lr`` comes from, for messages.
    """

    lr_setting: ClassVar[str] = "lr"

    def __init__(
        self,
        network: nn.Module | None = None,
        optimizer: OptimizerSpec = OptimizerSpec(),
        lr: float = 0.001,
        seed: int = 0,
        own: OwnTraining = OwnTraining(),
    ) -> None:
        super().__init__()
        self.network = new_network(seed) if network is None else network
        self.own = own
        # A loss that is a module is trained and moved to the device with this one.
        self.loss = functional.cross_entropy if own.make_loss is None else own.make_loss()
        self.optimizer = optimizer
        self.lr = lr
        self.seed = seed
        self.history = no_epochs()
        self.twin: EpochHistory | None = None
        self.planned_epochs: int | None = None
        self.test_probabilities = torch.empty(0)
        self.test_labels = torch.empty(0, dtype=torch.long)
        self.val_metrics = build_metrics()
        self.test_metrics = build_metrics()
        self.market = UNKNOWN_MARKET
        self.batch_size: int | None = None
        self.windows_per_epoch: int | None = None
        self.secs_before = 0.0
        self._began_at = time.monotonic()
        # The schedule if it steps after each epoch.
        self._each_epoch: LRScheduler | None = None
        # Weight of each row of a batch; the validation of a pool gives all markets the same share.
        self._weight = 1.0
        self._reset_sums()

    def forward(self, windows: Tensor) -> Tensor:
        """Map windows (B, L, F) to logits (B, C)."""
        logits: Tensor = self.network(windows)
        return logits

    def setup(self, stage: str) -> None:
        """Check the trainer, and read the market's name from the data module.

        Raises:
            ConfigError: The trainer has several devices, or does not keep weights in 32 bits.
        """
        if self.trainer.world_size > 1:
            raise ConfigError(
                f"the trainer has {self.trainer.world_size} devices and percoin trains a network "
                "on one: use Trainer(devices=1)"
            )
        if self.trainer.precision not in _PRECISIONS:
            raise ConfigError(
                f"Trainer(precision={self.trainer.precision!r}) is none of "
                f"{', '.join(_PRECISIONS)}, which keep weights in 32 bits"
            )
        if stage == "fit" or self.market == UNKNOWN_MARKET:
            data = getattr(self.trainer, "datamodule", None)
            self.market = getattr(data, "market", UNKNOWN_MARKET)
            self.batch_size = getattr(data, "batch_size", None)
            self.windows_per_epoch = getattr(data, "windows_per_epoch", None)
            if isinstance(data, MarketDataModule):
                check_n_features(self.network, data.n_features)

    def configure_callbacks(self) -> list[pl.Callback]:
        """The moving average of the weights, for a trainer that fits."""
        is_averaged = self.optimizer.averaging and self.trainer.state.fn == TrainerFn.FITTING
        return [AveragedWeights(self.optimizer.averaging)] if is_averaged else []

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW and its schedule, or your own ones."""
        make_optimizer, make_schedule = self.own.make_optimizer, self.own.make_schedule
        decay = self.optimizer.weight_decay
        if make_optimizer is None:
            optimizer: Optimizer = self._adamw(decay)
        else:
            optimizer = make_optimizer(self.parameters(), self.lr, decay)
        if make_schedule is None:
            schedule, each_batch = self._usual_schedule(optimizer)
        else:
            each_batch = self.own.steps_each_batch
            n_steps = self._planned_steps() if each_batch else self._n_epochs
            schedule = make_schedule(optimizer, n_steps)
        self._each_epoch = None if each_batch else schedule
        # A trainer without validation has no loss to watch.
        watched = LRSchedulerConfigType(
            scheduler=schedule,
            interval="step" if each_batch else "epoch",
            monitor=MONITORED,
            strict=False,
        )
        return OptimizerLRSchedulerConfig(optimizer=optimizer, lr_scheduler=watched)

    @property
    def _n_epochs(self) -> int:
        """Epochs that a schedule covers."""
        return self.planned_epochs or int(self.trainer.max_epochs or 1)

    def _planned_steps(self) -> int:
        """Steps that a schedule covers."""
        per_epoch = self.trainer.estimated_stepping_batches / int(self.trainer.max_epochs or 1)
        return round(per_epoch * self._n_epochs)

    def _usual_schedule(self, optimizer: Optimizer) -> tuple[LRScheduler, bool]:
        """The schedule, and whether it steps after each batch.

        The learning rate falls when the validation loss stops falling.
        """
        factor, patience = self.optimizer.plateau_factor, self.optimizer.plateau_patience
        return ReduceLROnPlateau(optimizer, factor=factor, patience=patience), False

    def _adamw(self, decay: float) -> torch.optim.AdamW:
        # Fused AdamW makes one pass over each tensor.
        fused = self.device.type == "cpu" and self.trainer.precision in _UNSCALED
        return torch.optim.AdamW(self.parameters(), lr=self.lr, weight_decay=decay, fused=fused)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip by the trainer's value if it has one, else to ``gradient_clip_norm``."""
        if gradient_clip_val is None:
            gradient_clip_val = self.optimizer.gradient_clip_norm
        is_by_norm = gradient_clip_algorithm in (None, "norm")
        if self.trainer.precision == "bf16-mixed" and is_by_norm and gradient_clip_val > 0:
            # Lightning clips for no fused optimizer in mixed precision; bf16 scales no gradients.
            clipped = [each for group in optimizer.param_groups for each in group["params"]]
            nn.utils.clip_grad_norm_(clipped, gradient_clip_val)
            return
        self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm or "norm")

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Make the step after a batch; ``on_train_epoch_end`` makes that after an epoch.

        Lightning makes the latter after it writes the epoch's checkpoint, so a resumed run would
        miss that step.
        """
        if self._each_epoch is None:
            scheduler.step()

    def on_train_batch_start(self, batch: Batch, batch_index: int) -> None:
        """Seed dropout from seed and epoch, before the first batch.

        The start of the epoch is too early: Lightning opens the loader right after it, which
        draws a random number. In a resumed epoch the loader is open already.
        """
        if batch_index == 0:
            torch.manual_seed(epoch_seed(self.seed, self.current_epoch))
            self._reset_sums()

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """The loss of a batch."""
        windows, labels = batch
        logits = self(windows)
        loss: Tensor = self.loss(logits, labels)
        self._add(loss, logits, labels)
        if batch_index % _LOG_EVERY_N_STEPS == 0:
            self.log("loss/train_step", loss)
            self._check_finite("train", float(loss.detach()))
        return loss

    def validation_step(self, batch: Batch) -> None:
        """Add a batch to the validation metrics."""
        self._evaluate(batch, self.val_metrics)

    def on_validation_epoch_start(self) -> None:
        """Compute the train loss and accuracy before validation reuses the sums."""
        if self._ends_epoch:
            self._train_loss, self._train_acc = self._means()
            self._check_finite("train", self._train_loss)
        self._reset_sums()

    def on_validation_epoch_end(self) -> None:
        """Log the epoch and add it to the history."""
        self._log_evaluation("val", self.val_metrics)
        if self._ends_epoch:
            self.log_dict({"loss/train": self._train_loss, "accuracy/train": self._train_acc})
            measured = self.trainer.callback_metrics
            validation = float(measured[MONITORED]), float(measured["val/accuracy"])
            add_epoch(self.history, (self._train_loss, self._train_acc), validation)
        self.val_metrics.reset()

    @property
    def _ends_epoch(self) -> bool:
        """Whether this validation ends a train epoch; False in Lightning's sanity check."""
        is_fit = self.trainer.state.fn == TrainerFn.FITTING
        return is_fit and not self.trainer.sanity_checking

    def on_train_epoch_end(self) -> None:
        """Update the learning rate, by the validation loss (or the twin's) if it depends on one."""
        if self.twin is not None:
            epoch, (loss, accuracy) = self.current_epoch, self._means()
            self._check_finite("train", loss)
            validation = self.twin["val_loss"][epoch], self.twin["val_acc"][epoch]
            add_epoch(self.history, (loss, accuracy), validation)
            log.info("refit epoch %d/%d  train_loss %.4f", epoch + 1, self.trainer.max_epochs, loss)
        losses, schedule = self.history["val_loss"], self._each_epoch
        if isinstance(schedule, ReduceLROnPlateau):
            if losses:
                schedule.step(losses[-1])
        elif schedule is not None:
            schedule.step()

    def on_test_epoch_start(self) -> None:
        """Reset the metrics of an earlier test."""
        self._reset_sums()
        self.test_metrics.reset()
        self._test_outputs: list[tuple[Tensor, Tensor]] = []

    def test_step(self, batch: Batch) -> None:
        """Add a batch to the test metrics, computed in 32 bits as in serving."""
        with full_precision(self.device):
            self._test_outputs.append((self._evaluate(batch, self.test_metrics), batch[1]))

    def on_test_epoch_end(self) -> None:
        """Log the test metrics; keep the outputs for the pictures and the registry."""
        self._log_evaluation("test", self.test_metrics)
        self.test_probabilities = torch.cat([output for output, _ in self._test_outputs]).cpu()
        self.test_labels = torch.cat([labels for _, labels in self._test_outputs]).cpu()

    @property
    def secs(self) -> float:
        """Wall time of the training so far, including the time before an interruption."""
        return self.secs_before + time.monotonic() - self._began_at

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store history and seconds with the weights."""
        checkpoint["history"] = dict(self.history)
        checkpoint["secs"] = self.secs

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Load the history that is stored with the weights.

        A test may load the best weights of this same training, or their average. Its own history
        is then longer than the stored one, and it is kept.
        """
        is_fit = self._trainer is not None and self.trainer.state.fn == TrainerFn.FITTING
        if not is_fit:
            checkpoint["state_dict"] = averaged_state(checkpoint, self.network)
        history, losses = checkpoint["history"], self.history["val_loss"]
        is_ours = bool(losses) and history["val_loss"] == losses[: len(history["val_loss"])]
        if is_ours and not is_fit:
            return
        self.history = history
        # Checkpoints of earlier versions have no "secs".
        self.secs_before = float(checkpoint.get("secs", 0.0))

    def _evaluate(self, batch: Batch, metrics: MetricCollection) -> Tensor:
        windows, labels = batch
        logits = self(windows).float()
        probabilities: Tensor = logits.softmax(dim=1)
        self._add(functional.cross_entropy(logits, labels), logits, labels)
        metrics.update(probabilities, labels)
        return probabilities

    def _log_evaluation(self, prefix: str, metrics: MetricCollection) -> None:
        loss, _ = self._means()
        self._check_finite(prefix, loss)
        values = {f"{prefix}/{name}": value for name, value in metric_values(metrics).items()}
        self.log_dict({f"loss/{prefix}": loss, **values})

    def _check_finite(self, part: str, loss: float) -> None:
        if not math.isfinite(loss):
            found = f"the {part} loss became {loss} in epoch {self.current_epoch + 1}"
            raise diverged(self.market, found, self.lr, self.lr_setting)

    def _reset_sums(self) -> None:
        # Scalar tensors on the device: adding to them does not wait for the GPU.
        self._loss_sum = torch.zeros((), dtype=torch.float64, device=self.device)
        self._n_correct = torch.zeros((), dtype=torch.float64, device=self.device)
        self._n_rows = 0.0

    def _add(self, mean_loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        self._loss_sum += mean_loss.detach().double() * (len(labels) * self._weight)
        self._n_correct += (logits.argmax(dim=1) == labels).sum() * self._weight
        self._n_rows += len(labels) * self._weight

    def _means(self) -> tuple[float, float]:
        """Mean loss and accuracy of the rows added since the last reset."""
        return float(self._loss_sum) / self._n_rows, float(self._n_correct) / self._n_rows
