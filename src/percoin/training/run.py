"""Train, keep the best epoch, test it: with ready objects, without the config framework."""

from __future__ import annotations

import logging
import signal
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import Logger
from torch import Tensor

from percoin.config import CHECKPOINT_FOLDER, OptimizerConfig
from percoin.dataset import MarketDataset
from percoin.errors import InterruptedRunError
from percoin.network import CnnLstm
from percoin.training.callbacks import Progress
from percoin.training.datamodule import MarketDataModule
from percoin.training.lit_module import MONITORED, SignalClassifier

BEST_CHECKPOINT = "best"
LAST_CHECKPOINT = "last"


@dataclass(frozen=True)
class TrainingPlan:
    """How to train, apart from the data and the network.

    Attributes:
        epochs: Most passes over the train rows; early stopping may end sooner.
        batch_size: Windows per step.
        lr: Learning rate to begin with.
        seed: Of the shuffle and of dropout.
        optimizer: AdamW, decay of the learning rate, clipping, early stopping.
        accelerator: ``cpu`` or ``gpu``, in Lightning's words.
        precision: ``32-true`` or ``bf16-mixed``, in Lightning's words.
    """

    epochs: int
    batch_size: int
    lr: float
    seed: int
    optimizer: OptimizerConfig
    accelerator: str = "cpu"
    precision: str = "32-true"


@dataclass(frozen=True)
class TrainedModel:
    """What training leaves behind; the module carries the best weights and the test outputs."""

    module: SignalClassifier
    n_epochs: int
    best_epoch: int
    secs: float


def train(
    dataset: MarketDataset,
    network: CnnLstm,
    plan: TrainingPlan,
    folder: Path,
    loggers: Sequence[Logger] = (),
    callbacks: Sequence[pl.Callback] = (),
    resume: bool = False,
) -> TrainedModel:
    """Fit the network, restore its best validation epoch and test that.

    Args:
        dataset: The market.
        network: With its initial weights; it is trained in place.
        plan: How to train.
        folder: Checkpoints go below it.
        loggers: Of Lightning.
        callbacks: Further ones; their test hooks see the best weights.
        resume: Go on from the folder's last checkpoint.

    Raises:
        DivergedError: The loss is no longer finite.
        InterruptedRunError: Ctrl-C or SIGTERM; the last finished epoch is kept.
    """
    bars = dataset.bars
    market = (bars.symbol, bars.timeframe.value)
    module = SignalClassifier(network, plan.optimizer, plan.lr, plan.seed, market)
    data = MarketDataModule(dataset, plan.batch_size, plan.seed)
    best, last = _checkpoints(folder / CHECKPOINT_FOLDER)
    started = time.monotonic()
    with _signals_as_errors(market), _quiet_lightning():
        trainer = _trainer(plan, folder, loggers, [*callbacks, best, last])
        resumed_from = str(Path(str(last.dirpath)) / f"{LAST_CHECKPOINT}.ckpt") if resume else None
        trainer.fit(module, datamodule=data, ckpt_path=resumed_from, weights_only=True)
        best_epoch = _restore(module, best.best_model_path)
        trainer.test(module, datamodule=data, verbose=False)
    n_epochs = len(module.history["val_loss"])
    return TrainedModel(module, n_epochs, best_epoch, time.monotonic() - started)


def _checkpoints(folder: Path) -> tuple[ModelCheckpoint, ModelCheckpoint]:
    # Written when the epoch has fully ended, so that a resumed run misses nothing of it.
    common: dict[str, Any] = {"save_on_train_epoch_end": True, "enable_version_counter": False}
    best = ModelCheckpoint(folder, BEST_CHECKPOINT, monitor=MONITORED, **common)
    last = ModelCheckpoint(folder, LAST_CHECKPOINT, every_n_epochs=1, **common)
    return best, last


def _trainer(
    plan: TrainingPlan, folder: Path, loggers: Sequence[Logger], callbacks: Sequence[pl.Callback]
) -> pl.Trainer:
    stopping = EarlyStopping(
        MONITORED, patience=plan.optimizer.early_stopping_patience, check_on_train_epoch_end=True
    )
    own = [Progress(), stopping] + ([LearningRateMonitor("epoch")] if loggers else [])
    return pl.Trainer(
        accelerator=plan.accelerator,
        devices=1,
        precision=plan.precision,  # type: ignore[arg-type]
        max_epochs=plan.epochs,
        gradient_clip_val=plan.optimizer.gradient_clip_norm,
        logger=list(loggers),
        callbacks=[*own, *callbacks],
        default_root_dir=folder,
        log_every_n_steps=1,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def _restore(module: SignalClassifier, checkpoint_path: str) -> int:
    """Load the best weights and return their epoch, counted from 1."""
    checkpoint = torch.load(checkpoint_path, weights_only=True, map_location="cpu")
    state_dict: dict[str, Tensor] = checkpoint["state_dict"]
    module.load_state_dict(state_dict)
    return int(checkpoint["epoch"]) + 1


@contextmanager
def _signals_as_errors(market: tuple[str, str]) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end training the same way: by an error, once.

    Lightning alone would answer SIGTERM with exit code 0. After the first signal
    the usual handlers are back, so a second one ends the process at once.
    """
    numbers = (signal.SIGINT, signal.SIGTERM)
    usual = {number: signal.getsignal(number) for number in numbers}

    def restore() -> None:
        for number, handler in usual.items():
            signal.signal(number, handler)

    def interrupt(number: int, _frame: FrameType | None) -> None:
        restore()
        raise InterruptedRunError(
            *market,
            f"interrupted by {signal.Signals(number).name}",
            "the last finished epoch is kept; the same command with resume=true goes on from it",
            signal_number=number,
        )

    for number in numbers:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        restore()


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Keep back what Lightning says about itself rather than about the training."""
    lightning_log = logging.getLogger("lightning.pytorch")
    level = lightning_log.level
    lightning_log.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        # The windows lie in memory: there is nothing a loading process could speed up.
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        warnings.filterwarnings("ignore", ".*LeafSpec.*is deprecated.*")
        warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty")
        try:
            yield
        finally:
            lightning_log.setLevel(level)
