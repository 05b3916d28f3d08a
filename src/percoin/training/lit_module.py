"""How the network learns: loss, optimizer, schedule and metrics, in Lightning's terms."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypedDict

import lightning.pytorch as pl
import torch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import (
    LRSchedulerConfigType,
    OptimizerLRScheduler,
    OptimizerLRSchedulerConfig,
)
from torch import Tensor
from torch.nn import functional
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torchmetrics import MetricCollection

from percoin.errors import ConfigError, DivergedError
from percoin.features.feature_set import FEATURE_NAMES
from percoin.network import CnnLstm
from percoin.training.datamodule import Batch
from percoin.training.metrics import build_metrics, metric_values

# What the checkpoint, early stopping and the learning rate watch.
# A slash groups the curves in TensorBoard.
MONITORED = "loss/val"
# Symbol and timeframe in messages, where the data module does not name its market.
UNKNOWN_MARKET = ("unknown", "market")

_LOG_EVERY_N_STEPS = 50
# In all of them the weights themselves have 32 bits, as the registry keeps them.
_PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")


@dataclass(frozen=True)
class OptimizerSpec:
    """AdamW, the decay of its learning rate, clipping, and when a training stops early.

    Attributes:
        weight_decay: Of AdamW.
        plateau_factor: The learning rate is multiplied by it when the validation loss stalls.
        plateau_patience: Epochs without a better validation loss before that.
        gradient_clip_norm: Largest norm of a gradient.
        early_stopping_patience: Epochs without a better validation loss before ``train.py``
            stops; a trainer of your own has its own callbacks.
    """

    weight_decay: float = 1e-5
    plateau_factor: float = 0.5
    plateau_patience: int = 3
    gradient_clip_norm: float = 1.0
    early_stopping_patience: int = 5


class EpochHistory(TypedDict):
    """One value per validation, which comes at the end of each epoch."""

    train_loss: list[float]
    train_acc: list[float]
    val_loss: list[float]
    val_acc: list[float]


def epoch_seed(seed: int, epoch: int) -> int:
    """What an epoch's dropout is drawn from; epochs are counted from 0."""
    return seed * 1_000_003 + epoch


def new_network(seed: int, **kwargs: Any) -> CnnLstm:
    """A network for the 15 features; the seed alone decides its first weights.

    Args:
        seed: The generator of torch is left as it was.
        kwargs: Widths and dropout, as ``CnnLstm`` takes them.
    """
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        return CnnLstm(len(FEATURE_NAMES), **kwargs)


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Compute in 32 bits, in which models are served, whatever the training computes in."""
    # With TF32 a GPU rounds the factors of convolutions and LSTMs to 10 bits.
    tf32_off = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
    with torch.autocast(device.type, enabled=False), tf32_off:
        yield


class SignalClassifier(pl.LightningModule):
    """Trains a network on the mean log-loss of its three classes.

    ``SignalClassifier()`` trains the usual network with the settings of ``train.py``, in any
    ``Trainer`` of one device. The trainer's own ``gradient_clip_val`` comes before that of
    ``optimizer``.

    Args:
        network: Windows to logits; without one, ``new_network(seed)``.
        optimizer: Settings of AdamW, of the learning rate's decay and of clipping.
        lr: Learning rate to begin with.
        seed: For dropout. With the epoch's number it decides every random draw, so a
            resumed run repeats the uninterrupted one.

    Attributes:
        history: Losses and accuracies by epoch.
        test_probabilities: Of the rows that were tested last, shape (n_rows, C).
        test_labels: Of the same rows, shape (n_rows,).
        market: Symbol and timeframe of what it was fitted on.
        batch_size: Windows in each of its training steps; None if the data does not say.
        secs_before: Seconds of the processes that trained before this one was resumed.
    """

    def __init__(
        self,
        network: CnnLstm | None = None,
        optimizer: OptimizerSpec = OptimizerSpec(),
        lr: float = 0.001,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.network = new_network(seed) if network is None else network
        self.optimizer = optimizer
        self.lr = lr
        self.seed = seed
        self.history = EpochHistory(train_loss=[], train_acc=[], val_loss=[], val_acc=[])
        self.test_probabilities = torch.empty(0)
        self.test_labels = torch.empty(0, dtype=torch.long)
        self.val_metrics = build_metrics()
        self.test_metrics = build_metrics()
        self.market = UNKNOWN_MARKET
        self.batch_size: int | None = None
        self.secs_before = 0.0
        self._began_at = time.monotonic()
        self._plateau: ReduceLROnPlateau | None = None
        # How much each row of the batch counts; a pool gives all its markets the same share.
        self._weight = 1.0
        self._reset_sums()

    def forward(self, windows: Tensor) -> Tensor:
        """Logits, shape (B, C), of windows (B, L, F)."""
        logits: Tensor = self.network(windows)
        return logits

    def setup(self, stage: str) -> None:
        """Refuse a trainer that this cannot work with, and learn the name of the market.

        Raises:
            ConfigError: The trainer has several devices, or weights of fewer or more bits.
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

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW, its learning rate cut when the validation loss stops falling."""
        adamw, settings = self._adamw(), self.optimizer
        self._plateau = ReduceLROnPlateau(
            adamw, factor=settings.plateau_factor, patience=settings.plateau_patience
        )
        # A trainer without validation has no loss to watch.
        watched = LRSchedulerConfigType(scheduler=self._plateau, monitor=MONITORED, strict=False)
        return OptimizerLRSchedulerConfig(optimizer=adamw, lr_scheduler=watched)

    def _adamw(self) -> torch.optim.AdamW:
        # One pass over each tensor. In mixed precision Lightning refuses to clip with it.
        fused = self.device.type == "cpu" and self.trainer.precision == "32-true"
        decay = self.optimizer.weight_decay
        return torch.optim.AdamW(self.parameters(), lr=self.lr, weight_decay=decay, fused=fused)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip as the trainer says; if it says nothing, to the norm of the settings."""
        if gradient_clip_val is None:
            gradient_clip_val = self.optimizer.gradient_clip_norm
        self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm or "norm")

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Leave the step to ``on_train_epoch_end``.

        Lightning would step after the epoch's checkpoint is written; a resumed
        run would then miss that step.
        """

    def on_train_batch_start(self, batch: Batch, batch_index: int) -> None:
        """Make the epoch's dropout a function of seed and epoch.

        Not at the epoch's start: right after that Lightning opens the loader, which
        draws a number too, but in a resumed epoch it has opened it before.
        """
        if batch_index == 0:
            torch.manual_seed(epoch_seed(self.seed, self.current_epoch))
            self._reset_sums()

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Mean log-loss of a batch."""
        windows, labels = batch
        logits = self(windows)
        loss = functional.cross_entropy(logits, labels)
        self._add(loss, logits, labels)
        if batch_index % _LOG_EVERY_N_STEPS == 0:
            self.log("loss/train_step", loss)
            self._check_finite("train", float(loss.detach()))
        return loss

    def validation_step(self, batch: Batch) -> None:
        """Add a batch to the epoch's validation figures."""
        self._evaluate(batch, self.val_metrics)

    def on_validation_epoch_start(self) -> None:
        """Turn the train sums into figures before validation reuses them."""
        if self._ends_epoch:
            self._train_loss, self._train_acc = self._means()
            self._check_finite("train", self._train_loss)
        self._reset_sums()

    def on_validation_epoch_end(self) -> None:
        """Log the epoch and remember it."""
        self._log_evaluation("val", self.val_metrics)
        if self._ends_epoch:
            self.log_dict({"loss/train": self._train_loss, "accuracy/train": self._train_acc})
            measured = self.trainer.callback_metrics
            self.history["train_loss"].append(self._train_loss)
            self.history["train_acc"].append(self._train_acc)
            self.history["val_loss"].append(float(measured["loss/val"]))
            self.history["val_acc"].append(float(measured["val/accuracy"]))
        self.val_metrics.reset()

    @property
    def _ends_epoch(self) -> bool:
        """Whether this validation follows train rows: not Lightning's check before a fit."""
        is_fit = self.trainer.state.fn == TrainerFn.FITTING
        return is_fit and not self.trainer.sanity_checking

    def on_train_epoch_end(self) -> None:
        """Let the learning rate react to the epoch's validation loss."""
        losses = self.history["val_loss"]
        if self._plateau is not None and losses:
            self._plateau.step(losses[-1])

    def on_test_epoch_start(self) -> None:
        """Forget the figures of an earlier test."""
        self._reset_sums()
        self.test_metrics.reset()
        self._test_outputs: list[tuple[Tensor, Tensor]] = []

    def test_step(self, batch: Batch) -> None:
        """Add a batch to the test figures, in the 32 bits that models are served in."""
        with full_precision(self.device):
            self._test_outputs.append((self._evaluate(batch, self.test_metrics), batch[1]))

    def on_test_epoch_end(self) -> None:
        """Log the test figures; keep the outputs for the pictures and the registry."""
        self._log_evaluation("test", self.test_metrics)
        self.test_probabilities = torch.cat([output for output, _ in self._test_outputs]).cpu()
        self.test_labels = torch.cat([labels for _, labels in self._test_outputs]).cpu()

    @property
    def secs(self) -> float:
        """Wall time of the training so far, with the part before an interruption."""
        return self.secs_before + time.monotonic() - self._began_at

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the history and the seconds with the weights."""
        checkpoint["history"] = dict(self.history)
        checkpoint["secs"] = self.secs

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the history that the weights come with.

        A test may load the best weights of this very training: the history is then longer
        than theirs, and it is kept.
        """
        history, losses = checkpoint["history"], self.history["val_loss"]
        is_ours = bool(losses) and history["val_loss"] == losses[: len(history["val_loss"])]
        if is_ours and self.trainer.state.fn != TrainerFn.FITTING:
            return
        self.history = history
        # Earlier versions did not note it.
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
            raise DivergedError(
                *self.market,
                f"the {part} loss became {loss} in epoch {self.current_epoch + 1}",
                f"nothing was saved; try a smaller learning rate than lr={self.lr:g}",
            )

    def _reset_sums(self) -> None:
        # Zero-dimensional tensors on the device: adding to them waits for nothing.
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
