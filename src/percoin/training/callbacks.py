"""Lightning callbacks: progress, and export to the registry."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

import lightning.pytorch as pl
from tqdm import tqdm

from percoin.errors import ConfigError
from percoin.training.datamodule import MarketDataModule
from percoin.training.export import ModelExporter
from percoin.training.lit_module import SignalClassifier
from percoin.training.manifest_draft import ExportedModel

log = logging.getLogger(__name__)


class Progress(pl.Callback):
    """A progress bar on a terminal, and a log line after each epoch.

    Args:
        each_epoch: Whether to write the log line.
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
        """Close the bar before other output."""
        self._close()

    def on_exception(self, *_: Any) -> None:
        """Close the bar, so the error message starts on a clean line."""
        self._close()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the epoch's losses and the longest time left."""
        if not self._each_epoch or not isinstance(pl_module, SignalClassifier):
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


class ExportToRegistry(pl.Callback):
    """Exports the weights after each test; a failed export fails the run.

    With ``fast_dev_run`` it exports nothing, because that is only a trial of the code.

    Args:
        exporter: Writes the model, usually ``ModelExporter("models")``.
    """

    def __init__(self, exporter: ModelExporter) -> None:
        self._exporter = exporter
        self._exported: ExportedModel | None = None

    @property
    def exported(self) -> ExportedModel:
        """The newest exported version and its judgement.

        Raises:
            ConfigError: No test has finished yet.
        """
        if self._exported is None:
            raise ConfigError(
                "nothing has been exported yet: trainer.test(module, datamodule=data) does it"
            )
        return self._exported

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Check before the first batch that the export after the test can work.

        Raises:
            ConfigError: The module, the data module or the network is not percoin's.
            RegistryWriteError: A new version cannot be written to the models folder.
        """
        if stage in ("fit", "test"):
            self._exporter.check(classifier(pl_module), _market_data(trainer))

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Export the tested weights."""
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            log.info("nothing is exported after fast_dev_run")
            return
        data = _market_data(trainer)
        self._exported = self._exporter.export(classifier(pl_module), data.dataset, data.source)


def classifier(module: pl.LightningModule) -> SignalClassifier:
    """Return the module as a ``SignalClassifier``.

    Raises:
        ConfigError: It has another type.
    """
    if isinstance(module, SignalClassifier):
        return module
    raise ConfigError(
        f"this callback works with SignalClassifier, and the trainer has a {type(module).__name__}"
    )


def _market_data(trainer: pl.Trainer) -> MarketDataModule:
    data = trainer.datamodule  # type: ignore[attr-defined]
    if isinstance(data, MarketDataModule):
        return data
    found = "no data module" if data is None else f"a {type(data).__name__}"
    raise ConfigError(
        f"an export needs a MarketDataModule, which knows the scaling and the labels, and the "
        f"trainer has {found}: use trainer.fit(module, datamodule=data) and "
        "trainer.test(module, datamodule=data)"
    )
