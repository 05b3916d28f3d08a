"""What settings are worth on validation rows: one short fit, watched epoch by epoch."""

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

# A longer trial logs its progress, at most so often.
_SILENCE_SECS = 20.0

Report = Callable[[int, float], bool]


@dataclass(frozen=True)
class Measured:
    """What a trial found.

    Attributes:
        skill: Of its best epoch.
        n_epochs: Epochs trained.
        ended_early: Whether it was told to end before its last epoch.
    """

    skill: float
    n_epochs: int
    ended_early: bool


def measure(
    settings: TrainConfig, rows: SearchRows, min_class_share: float, report: Report
) -> Measured:
    """Fit the settings to the train rows and say what they are worth on validation.

    Worth is the log-loss skill over the train prior, 1 - loss / loss of the class shares
    of the train rows, of the best epoch: the very epoch that a training would keep. Unlike
    the loss itself it can be compared between label rules, whose classes are differently
    common. It then says which question the network can answer better, not which of them
    is better to trade on.

    Args:
        settings: Of the trial; ``epochs`` is the most it gets.
        rows: What a search may see.
        min_class_share: Labels with a rarer class are refused: skill over a prior that is
            nearly certain is a ratio of two small numbers.
        report: Told each epoch, counted from 1, and its skill; its answer ends the trial.

    Raises:
        PercoinError: What is wrong with these settings.
        InterruptedRunError: Ctrl-C or SIGTERM.
    """
    with _quiet_datasets():
        dataset = rows.dataset(settings)
    _check_classes(dataset, min_class_share)
    watch = _TrialReporter(_prior_loss(dataset), report)
    fit_trial(settings, dataset, [watch])
    return Measured(max(watch.skills), len(watch.skills), watch.ended_early)


class _TrialReporter(pl.Callback):
    """Reports the validation skill of each epoch, and ends the fit when told to."""

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
    """Log-loss of the train rows' class shares on the validation rows, in nats a row."""
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
    """Silence the log line on the numbers of rows, which hardly differ between trials."""
    dataset_log = logging.getLogger("percoin.dataset")
    level = dataset_log.level
    dataset_log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        dataset_log.setLevel(level)
