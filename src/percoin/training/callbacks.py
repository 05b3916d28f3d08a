"""What happens around training: progress, pictures, and the export to the registry."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.figure import Figure
from tqdm import tqdm

from percoin.dataset import MarketDataset
from percoin.training.figures import draw_pictures, write_picture
from percoin.training.lit_module import SignalClassifier
from percoin.training.manifest_draft import ExportedModel
from percoin.training.metrics import confusion_matrix

log = logging.getLogger(__name__)


class Progress(pl.Callback):
    """A bar within each epoch where a person watches, and one line after each.

    Args:
        each_epoch: Whether there is such a line.
    """

    def __init__(self, each_epoch: bool = True) -> None:
        self._each_epoch = each_epoch
        self._bar: tqdm[Any] | None = None
        self._epoch_start = 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the bar."""
        self._epoch_start = time.monotonic()
        self._bar = tqdm(
            total=int(trainer.num_training_batches),
            desc=f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}",
            unit="batch",
            leave=False,
            disable=not sys.stderr.isatty(),
        )

    def on_train_batch_end(self, *_: Any) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.update()

    def on_validation_start(self, *_: Any) -> None:
        """Close the bar before anything else is written."""
        self._close()

    def on_exception(self, *_: Any) -> None:
        """Leave a clean line for the message that follows."""
        self._close()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say how the epoch went and how long the rest may take."""
        assert isinstance(pl_module, SignalClassifier)
        if not self._each_epoch:
            return
        history = pl_module.history
        secs = time.monotonic() - self._epoch_start
        epoch, last = trainer.current_epoch + 1, int(trainer.max_epochs or 0)
        is_best = history["val_loss"][-1] <= min(history["val_loss"])
        log.info(
            "epoch %d/%d  train_loss %.4f  val_loss %.4f%s  val_acc %.3f  %.1f s, at most %s left",
            epoch,
            last,
            history["train_loss"][-1],
            history["val_loss"][-1],
            " (best)" if is_best else "       ",
            history["val_acc"][-1],
            secs,
            tqdm.format_interval(secs * (last - epoch)),
        )

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class Pictures(pl.Callback):
    """Draws the test evaluation into TensorBoard and into PNG files.

    Args:
        dataset: The market, for the labels of each split.
        folder: Where the PNG files go.
    """

    def __init__(self, dataset: MarketDataset, folder: Path) -> None:
        self._dataset = dataset
        self._folder = folder

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw and keep the three pictures."""
        assert isinstance(pl_module, SignalClassifier)
        self._folder.mkdir(parents=True, exist_ok=True)
        for name, figure in self._draw(pl_module).items():
            write_picture(figure, self._folder / f"{name}.png")
            for logger in trainer.loggers:
                if isinstance(logger, TensorBoardLogger):
                    logger.experiment.add_figure(name, figure, trainer.global_step)

    def _draw(self, module: SignalClassifier) -> Mapping[str, Figure]:
        return draw_pictures(
            self._dataset,
            confusion_matrix(module.test_metrics),
            module.test_probabilities.double().numpy(),
            module.test_labels.numpy(),
            "before calibration",
        )


class ExportToRegistry(pl.Callback):
    """Hands the tested model to the registry; a failed export fails the run.

    Args:
        export: Judges the model and writes it.
    """

    def __init__(self, export: Callable[[SignalClassifier], ExportedModel]) -> None:
        self._export = export
        self.exported: ExportedModel | None = None

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Export the weights that were just tested."""
        assert isinstance(pl_module, SignalClassifier)
        self.exported = self._export(pl_module)
