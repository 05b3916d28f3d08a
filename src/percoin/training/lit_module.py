"""How the network learns: loss, optimizer, schedule and metrics, in Lightning's terms."""

from __future__ import annotations

import math
import time
from typing import Any, TypedDict

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.nn import functional
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torchmetrics import MetricCollection

from percoin.config import OptimizerConfig
from percoin.errors import DivergedError
from percoin.network import CnnLstm
from percoin.training.datamodule import Batch
from percoin.training.metrics import build_metrics, metric_values

# What the checkpoint, early stopping and the learning rate watch.
# A slash groups the curves in TensorBoard.
MONITORED = "loss/val"

_LOG_EVERY_N_STEPS = 50


class EpochHistory(TypedDict):
    """One value per finished epoch."""

    train_loss: list[float]
    train_acc: list[float]
    val_loss: list[float]
    val_acc: list[float]


def epoch_seed(seed: int, epoch: int) -> int:
    """What an epoch's dropout is drawn from; epochs are counted from 0."""
    return seed * 1_000_003 + epoch


class SignalClassifier(pl.LightningModule):
    """Trains a network on the mean log-loss of its three classes.

    Args:
        network: Windows to logits.
        optimizer: Settings of AdamW, of the learning rate's decay and of clipping.
        lr: Learning rate to begin with.
        seed: Of dropout; with the epoch's number it fixes every random draw, so a
            resumed run repeats the uninterrupted one.
        market: Symbol and timeframe, for messages.
    """

    def __init__(
        self,
        network: CnnLstm,
        optimizer: OptimizerConfig,
        lr: float,
        seed: int,
        market: tuple[str, str],
    ) -> None:
        super().__init__()
        self.network = network
        self.history = EpochHistory(train_loss=[], train_acc=[], val_loss=[], val_acc=[])
        self.test_probabilities = torch.empty(0)
        self.test_labels = torch.empty(0, dtype=torch.long)
        self.val_metrics = build_metrics()
        self.test_metrics = build_metrics()
        self._optimizer = optimizer
        self._lr = lr
        self._seed = seed
        self.market = market
        # Of the processes before this one that got the training as far as its checkpoint.
        self.secs_before = 0.0
        self._began_at = time.monotonic()
        # Of each row that counts at the moment; a pool evens its markets out by it.
        self._weight = 1.0
        self._reset_sums()

    def forward(self, windows: Tensor) -> Tensor:
        """Logits, shape (B, C), of windows (B, L, F)."""
        logits: Tensor = self.network(windows)
        return logits

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW, its learning rate cut when the validation loss stops falling."""
        settings = self._optimizer
        adamw = self._adamw()
        plateau = ReduceLROnPlateau(
            adamw, factor=settings.plateau_factor, patience=settings.plateau_patience
        )
        return {"optimizer": adamw, "lr_scheduler": {"scheduler": plateau, "monitor": MONITORED}}

    def _adamw(self) -> torch.optim.AdamW:
        # One pass over each tensor. In mixed precision Lightning refuses to clip with it.
        fused = self.device.type == "cpu" and self.trainer.precision == "32-true"
        decay = self._optimizer.weight_decay
        return torch.optim.AdamW(self.parameters(), lr=self._lr, weight_decay=decay, fused=fused)

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
            torch.manual_seed(epoch_seed(self._seed, self.current_epoch))
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
        """Gather what the epoch's validation figures are made of."""
        self._evaluate(batch, self.val_metrics)

    def on_validation_epoch_start(self) -> None:
        """Turn the train sums into figures before validation reuses them."""
        self._train_loss, self._train_acc = self._means()
        self._check_finite("train", self._train_loss)
        self._reset_sums()

    def on_validation_epoch_end(self) -> None:
        """Log the epoch and remember it."""
        self._log_evaluation("val", self.val_metrics)
        self.log_dict({"loss/train": self._train_loss, "accuracy/train": self._train_acc})
        measured = self.trainer.callback_metrics
        self.history["train_loss"].append(self._train_loss)
        self.history["train_acc"].append(self._train_acc)
        self.history["val_loss"].append(float(measured["loss/val"]))
        self.history["val_acc"].append(float(measured["val/accuracy"]))
        self.val_metrics.reset()

    def on_train_epoch_end(self) -> None:
        """Let the learning rate react to the epoch's validation loss."""
        scheduler = self.lr_schedulers()
        assert isinstance(scheduler, ReduceLROnPlateau)
        scheduler.step(self.history["val_loss"][-1])

    def on_test_epoch_start(self) -> None:
        """Begin with nothing gathered."""
        self._reset_sums()
        self.test_metrics.reset()
        self._test_outputs: list[tuple[Tensor, Tensor]] = []

    def test_step(self, batch: Batch) -> None:
        """Gather what the test figures are made of."""
        self._test_outputs.append((self._evaluate(batch, self.test_metrics), batch[1]))

    def on_test_epoch_end(self) -> None:
        """Log the test figures; keep the outputs for the pictures and the registry."""
        self._log_evaluation("test", self.test_metrics)
        self.test_probabilities = torch.cat([output for output, _ in self._test_outputs]).cpu()
        self.test_labels = torch.cat([labels for _, labels in self._test_outputs]).cpu()

    @property
    def secs(self) -> float:
        """Wall time of the training so far, that before an interruption included."""
        return self.secs_before + time.monotonic() - self._began_at

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the history with the weights, and how long it took."""
        checkpoint["history"] = dict(self.history)
        checkpoint["secs"] = self.secs

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with the history of the interrupted run."""
        self.history = checkpoint["history"]
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
                f"nothing was saved; try a smaller learning rate than lr={self._lr:g}",
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
