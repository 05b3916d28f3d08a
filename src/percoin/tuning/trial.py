"""Measures settings on validation rows by one short training, epoch by epoch."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import lightning.pytorch as pl
import numpy as np

from percoin.config import TrainConfig
from percoin.dataset import MarketDataset
from percoin.errors import MissingClassError
from percoin.evaluation.baselines import class_shares
from percoin.evaluation.metrics import row_log_loss
from percoin.training.lit_module import SignalClassifier
from percoin.training.recipes.network import fit_trial
from percoin.tuning.rows import SearchRows
from percoin.types import CLASS_NAMES

log = logging.getLogger(__name__)

# A long trial logs its progress at most once in this time.
_SILENCE_SECS = 20.0

Report = Callable[[int, float], bool]


@dataclass(frozen=True)
class Measured:
    """The result of a trial.

    Attributes:
        skill: Validation skill of its best epoch.
        n_epochs: Epochs trained.
        ended_early: Whether it was stopped before its last epoch.
    """

    skill: float
    n_epochs: int
    ended_early: bool


def measure(
    settings: TrainConfig, rows: SearchRows, min_class_share: float, report: Report
) -> Measured:
    """Train on the train rows and measure the skill on the validation rows.

    The measure is the log-loss skill over the train prior: 1 - loss / prior loss, where the
    prior always predicts the class shares of the train rows. The best epoch counts, which is
    the epoch that a training keeps. Label rules differ in how frequent their classes are;
    their skills can be compared, their losses cannot. A higher skill then means that the
    labels are easier to predict, not that they are better for trading.

    Args:
        settings: Settings of the trial; ``epochs`` is the largest number of epochs.
        rows: The rows that a search may use.
        min_class_share: Labels with a rarer class are refused: with a nearly certain prior
            the skill is a ratio of two small numbers.
        report: Gets the number of each epoch, from 1, and its skill; if it returns True, the
            trial ends.

    Raises:
        PercoinError: The settings cannot be trained.
        InterruptedRunError: Ctrl-C or SIGTERM.
    """
    with _quiet_datasets():
        dataset = rows.dataset(settings)
    _check_classes(dataset, min_class_share)
    watch = _TrialReporter(_prior_loss(dataset), report)
    fit_trial(settings, dataset, [watch])
    return Measured(max(watch.skills), len(watch.skills), watch.ended_early)


class _TrialReporter(pl.Callback):
    """Reports the validation skill of each epoch, and ends the training on request."""

    def __init__(self, prior_loss: float, report: Report) -> None:
        self._prior_loss = prior_loss
        self._report = report
        self._spoke_at = time.monotonic()
        self.skills: list[float] = []
        self.ended_early = False

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        losses = cast(SignalClassifier, pl_module).history["val_loss"]
        skill = 1 - losses[-1] / self._prior_loss
        self.skills.append(skill)
        epoch, last = len(self.skills), int(trainer.max_epochs or 0)
        if time.monotonic() - self._spoke_at > _SILENCE_SECS:
            log.info("  epoch %d/%d: validation skill %+.4f", epoch, last, skill)
            self._spoke_at = time.monotonic()
        if self._report(epoch, skill) and epoch < last:
            self.ended_early = True
            trainer.should_stop = True


def _prior_loss(dataset: MarketDataset) -> float:
    """Log-loss of always predicting the train class shares, on validation rows, in nats a row."""
    shares = class_shares(dataset.label[dataset.rows("train")])
    labels = dataset.label[dataset.rows("validation")]
    return float(row_log_loss(np.tile(shares, (len(labels), 1)), labels).mean())


def _check_classes(dataset: MarketDataset, min_class_share: float) -> None:
    counts = dataset.class_counts("train")
    shares = counts / counts.sum()
    rarest = int(shares.argmin())
    if shares[rarest] < min_class_share:
        raise MissingClassError(
            dataset.bars.symbol,
            dataset.bars.timeframe.value,
            f"{CLASS_NAMES[rarest]} is {shares[rarest]:.1%} of the train rows",
            f"experiment.min_class_share={min_class_share:g} asks for more",
        )


@contextmanager
def _quiet_datasets() -> Iterator[None]:
    """Silence the log line with the row counts, which hardly differ between trials."""
    dataset_log = logging.getLogger("percoin.dataset")
    level = dataset_log.level
    dataset_log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        dataset_log.setLevel(level)
