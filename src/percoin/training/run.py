"""Train, keep the best epoch and test it. Takes ready objects; needs no config framework."""

from __future__ import annotations

import hashlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins.io import CheckpointIO, TorchCheckpointIO
from torch import Tensor, nn
from torch.nn import functional

from percoin.dataset import MarketDataset
from percoin.errors import ResumeError, TrainingError
from percoin.run_record import BEST_CHECKPOINT, CHECKPOINT_FOLDER, LAST_CHECKPOINT, REFIT_FOLDER
from percoin.splits import Split
from percoin.training.averaging import averaged_state
from percoin.training.callbacks import Progress
from percoin.training.datamodule import MarketDataModule
from percoin.training.interruption import RunInterruption
from percoin.training.lit_module import MONITORED, OptimizerSpec, OwnTraining, SignalClassifier
from percoin.training.pooled_module import GentleClassifier
from percoin.whole_file import remove_leftovers, write_whole

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingPlan:
    """How to train, apart from the data and the network.

    Attributes:
        epochs: Maximum passes over the train rows; early stopping may end sooner.
        batch_size: Windows per training step.
        lr: Initial learning rate.
        seed: For the shuffle and for dropout.
        optimizer: AdamW, learning rate decay, clipping, early stopping.
        accelerator: Lightning's name, ``cpu`` or ``gpu``.
        precision: Lightning's name, ``32-true`` or ``bf16-mixed``.
        windows_per_epoch: Train windows of an epoch, drawn anew each time; None is all of them.
        record_steps: Record training steps as CUDA graphs and replay them. Only used when many
            networks train at once (a fleet) on a GPU.
        own: A loss, an optimizer or a schedule of the user's own.
        train_batches: Most train batches of an epoch; None means all.
        val_batches: Most validation batches of an epoch; None means all.
        overfit_batches: Train and validate on so many train batches alone; None means all rows.
    """

    epochs: int
    batch_size: int
    lr: float
    seed: int
    optimizer: OptimizerSpec
    accelerator: str = "cpu"
    precision: str = "32-true"
    windows_per_epoch: int | None = None
    record_steps: bool = False
    own: OwnTraining = OwnTraining()
    train_batches: int | None = None
    val_batches: int | None = None
    overfit_batches: int | None = None

    def rows_of(self, split: Split) -> Split:
        """The split that is trained on."""
        if self.overfit_batches is None:
            return split
        few = split.train[: self.overfit_batches * self.batch_size]
        return replace(split, train=few, validation=few)


@dataclass(frozen=True)
class TrainedModel:
    """The result of a training.

    Attributes:
        module: Holds the best weights and the test outputs.
        n_epochs: Epochs trained, including those before an interruption.
        best_epoch: Counted from 1; 0 means the initial weights.
        secs: Wall time of all epochs and of the test.
    """

    module: SignalClassifier
    n_epochs: int
    best_epoch: int
    secs: float


def train(
    dataset: MarketDataset,
    network: nn.Module,
    plan: TrainingPlan,
    folder: Path,
    loggers: Sequence[Logger] = (),
    callbacks: Sequence[pl.Callback] = (),
    resume: bool = False,
    interruption: RunInterruption | None = None,
    is_gentle: bool = False,
) -> TrainedModel:
    """Fit the network, restore its best validation epoch and test it.

    Args:
        dataset: The market. For fine-tuning, it is scaled as in the network's first training.
        network: Holds the initial weights; it is trained in place.
        plan: How to train.
        folder: Checkpoints go below it.
        loggers: Lightning loggers.
        callbacks: Extra callbacks; their test hooks see the best weights.
        resume: Continue from the last checkpoint in the folder.
        interruption: Signal handling of the surrounding run; None creates one.
        is_gentle: Fine-tune a network that was trained on several markets, with batch
            normalisation frozen. The best epoch is kept if its validation log-loss is below
            that of the initial weights. Otherwise the initial weights are tested, as epoch 0.

    Raises:
        DivergedError: The loss is no longer finite.
        InterruptedRunError: Ctrl-C or SIGTERM; the last finished epoch is kept.
        ResumeError: The last checkpoint is damaged or beyond ``plan.epochs``.
    """
    market = (dataset.bars.symbol, dataset.bars.timeframe.value)
    if resume:
        check_checkpoint(checkpoint_of(folder), plan.epochs, market)
    module = make_module(network, plan, is_gentle)
    data = data_of(replace(dataset, split=plan.rows_of(dataset.split)), plan)
    begun = _Begun.of(network, data) if is_gentle else None
    interruption = interruption or RunInterruption(market, folder)
    with interruption.expected(), quiet_lightning():
        around = [EndsWhenTold(interruption), *callbacks]
        trainer, best_epoch = fit_best(module, data, plan, folder, loggers, around, resume)
        if begun is not None and not begun.is_improved(network, data, best_epoch):
            best_epoch = 0
        run_test(trainer, module, data)
        interruption.end_if_received()
    n_epochs = len(module.history["val_loss"])
    return TrainedModel(module, n_epochs, best_epoch, module.secs)


def data_of(dataset: MarketDataset, plan: TrainingPlan) -> MarketDataModule:
    """The batches of a market that a plan trains on."""
    return MarketDataModule.of(dataset, plan.batch_size, plan.seed, plan.windows_per_epoch)


def make_module(
    network: nn.Module, plan: TrainingPlan, is_gentle: bool = False
) -> SignalClassifier:
    """The Lightning module that trains a network on one market."""
    kind = GentleClassifier if is_gentle else SignalClassifier
    return kind(network, plan.optimizer, plan.lr, plan.seed, plan.own)


@dataclass(frozen=True)
class _Begun:
    """The initial weights of a fine-tuning, and their validation log-loss."""

    state_dict: Mapping[str, Tensor]
    loss: float

    @classmethod
    def of(cls, network: nn.Module, data: MarketDataModule) -> _Begun:
        weights = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        return cls(weights, _validation_loss(network, data))

    def is_improved(self, network: nn.Module, data: MarketDataModule, epoch: int) -> bool:
        """Whether the network is better than at the start; if not, restore its first weights."""
        loss = _validation_loss(network, data)
        log.info(
            "validation log-loss %.5f with the pooled weights, %.5f after epoch %d: %s are kept",
            self.loss,
            loss,
            epoch,
            "the new ones" if loss < self.loss else "the pooled ones, as they were,",
        )
        if loss < self.loss:
            return True
        network.load_state_dict(self.state_dict)
        return False


@torch.inference_mode()
def _validation_loss(network: nn.Module, data: MarketDataModule) -> float:
    """Mean log-loss of the validation rows, always computed in 32 bits on the CPU."""
    was_training = network.training
    network.cpu().eval()
    loss, n_rows = 0.0, 0
    for windows, labels in data.val_dataloader():
        logits = network(windows.cpu()).double()
        labels = labels.cpu()
        loss += float(functional.cross_entropy(logits, labels, reduction="sum"))
        n_rows += len(labels)
    network.train(was_training)
    return loss / n_rows


def fit_best(
    module: SignalClassifier,
    data: pl.LightningDataModule,
    plan: TrainingPlan,
    folder: Path,
    loggers: Sequence[Logger],
    callbacks: Sequence[pl.Callback],
    resume: bool,
) -> tuple[pl.Trainer, int]:
    """Fit, and restore the weights of the best validation epoch.

    Returns:
        The trainer, with callbacks ready for a test, and the best epoch, counted from 1.

    Raises:
        TrainingError: The best checkpoint was written by another training.
    """
    # A process killed while it writes a checkpoint leaves a temporary file.
    for name in (BEST_CHECKPOINT, LAST_CHECKPOINT):
        remove_leftovers(folder / CHECKPOINT_FOLDER / f"{name}.ckpt")
    best, last = _checkpoints(folder / CHECKPOINT_FOLDER)
    files = _WholeFiles()
    trainer = make_trainer(plan, folder, loggers, [Progress(), *callbacks, best, last], files)
    resumed_from = str(checkpoint_of(folder)) if resume else None
    trainer.fit(module, datamodule=data, ckpt_path=resumed_from, weights_only=True)
    return trainer, _restore(module, Path(best.best_model_path), files)


def train_again(
    judged: TrainedModel,
    module: SignalClassifier,
    data: pl.LightningDataModule,
    plan: TrainingPlan,
    folder: Path,
    resume: bool = False,
    interruption: RunInterruption | None = None,
) -> None:
    """Train a judged model once more, as long as its twin, on rows of which none is held out.

    Without validation rows, the learning rate follows the validation losses of the twin.

    Args:
        judged: The twin; its best epoch is the number of epochs.
        module: Holds the initial weights; it is trained in place.
        data: All rows in train.
        plan: As the twin's.
        folder: The twin's folder; checkpoints go below ``refit`` in it.
        resume: Continue from the last checkpoint, if it belongs to this twin.
        interruption: Signal handling of the surrounding run; None creates one.

    Raises:
        DivergedError: The loss is no longer finite.
        InterruptedRunError: Ctrl-C or SIGTERM; the last finished epoch is kept.
    """
    if judged.best_epoch == 0:
        return
    folder = folder / REFIT_FOLDER
    last = checkpoint_of(folder)
    remove_leftovers(last)
    module.twin, module.planned_epochs = judged.module.history, plan.epochs
    interruption = interruption or RunInterruption(judged.module.market, folder)
    with interruption.expected(), quiet_lightning():
        callbacks = [EndsWhenTold(interruption), _checkpoints(folder / CHECKPOINT_FOLDER)[1]]
        trainer = make_trainer(
            replace(plan, epochs=judged.best_epoch), folder, (), callbacks, watches=False
        )
        goes_on = resume and _is_begun(last, judged)
        trainer.fit(
            module, datamodule=data, ckpt_path=str(last) if goes_on else None, weights_only=True
        )
        interruption.end_if_received()


def _is_begun(last: Path, judged: TrainedModel) -> bool:
    """Whether a checkpoint is of the refit of this twin; if not, the refit starts afresh."""
    try:
        state = _EpochState.of(torch.load(last, weights_only=True, map_location="cpu"))
    except FileNotFoundError:
        return False
    except Exception as error:  # noqa: BLE001 - for broken bytes torch raises many kinds of errors
        log.warning("%s cannot be read (%s): the refit starts afresh", last, error)
        return False
    n_done, losses = state.n_epochs, judged.module.history["val_loss"]
    is_ours = n_done <= judged.best_epoch and state.history["val_loss"] == losses[:n_done]
    if not is_ours:
        log.warning("%s follows another twin: the refit starts afresh", last)
    return is_ours


def run_test(trainer: pl.Trainer, module: SignalClassifier, data: pl.LightningDataModule) -> None:
    """Test the current weights of the module."""
    trainer.test(module, datamodule=data, verbose=False)


def checkpoint_of(folder: Path) -> Path:
    """Path of the checkpoint of a run's last finished epoch."""
    return folder / CHECKPOINT_FOLDER / f"{LAST_CHECKPOINT}.ckpt"


def fit(
    dataset: MarketDataset,
    network: nn.Module,
    plan: TrainingPlan,
    callbacks: Sequence[pl.Callback] = (),
) -> SignalClassifier:
    """Only fit the network: write no file and use no test row.

    Args:
        dataset: The market.
        network: Holds the initial weights; it is trained in place.
        plan: How to train.
        callbacks: Extra Lightning callbacks.

    Returns:
        The module with the weights of the last epoch and the whole history.

    Raises:
        DivergedError: The loss is no longer finite.
        InterruptedRunError: Ctrl-C or SIGTERM.
    """
    market = (dataset.bars.symbol, dataset.bars.timeframe.value)
    module = SignalClassifier(network, plan.optimizer, plan.lr, plan.seed, plan.own)
    interruption = RunInterruption(market, folder=None)
    with interruption.expected(), quiet_lightning():
        around = [Progress(each_epoch=False), EndsWhenTold(interruption), *callbacks]
        trainer = make_trainer(plan, None, (), around)
        trainer.fit(module, datamodule=data_of(dataset, plan))
        interruption.end_if_received()
    return module


def _checkpoints(folder: Path) -> tuple[ModelCheckpoint, ModelCheckpoint]:
    # Written after the epoch has fully ended, so a resumed run has all of it.
    common: dict[str, Any] = {"save_on_train_epoch_end": True, "enable_version_counter": False}
    best = _Checkpoint(folder, BEST_CHECKPOINT, monitor=MONITORED, **common)
    last = _Checkpoint(folder, LAST_CHECKPOINT, every_n_epochs=1, **common)
    return best, last


class _Checkpoint(ModelCheckpoint):
    """A checkpoint callback that still finds its file after the run's folder has moved."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # With another folder Lightning forgets the best score; a worse epoch then replaces it.
        before, now = state_dict["dirpath"], str(self.dirpath)

        def moved(path: str) -> str:
            return path.replace(before, now, 1)

        paths = ("best_model_path", "kth_best_model_path", "last_model_path")
        files = {moved(path): score for path, score in state_dict["best_k_models"].items()}
        changed = {"dirpath": now, "best_k_models": files}
        super().load_state_dict(
            state_dict | changed | {name: moved(state_dict[name]) for name in paths}
        )


class _EarlyStopping(EarlyStopping):
    """Stays stopped when a run resumes that was interrupted after early stopping."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # 0 means "not stopped": the first epoch has no earlier loss, so it never stops a run.
        trainer.should_stop = trainer.should_stop or self.stopped_epoch > 0


class _WholeFiles(TorchCheckpointIO):
    """Replaces each checkpoint in one step: a process killed meanwhile leaves the old one."""

    def __init__(self) -> None:
        super().__init__()
        self._written: dict[Path, bytes] = {}

    def is_changed(self, path: Path, content: bytes) -> bool:
        """Whether the content differs from the last write to the path; False without one."""
        return path in self._written and self._written[path] != hashlib.sha256(content).digest()

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        self._written[Path(path)] = hashlib.sha256(save_whole(checkpoint, Path(path))).digest()


def save_whole(checkpoint: Mapping[str, Any], path: Path) -> memoryview:
    """Replace a checkpoint in one step: a process killed meanwhile leaves the old one.

    Lightning writes to the system's temporary folder first. If that is on another disk, it
    copies the file, which takes more than one step.

    Returns:
        The bytes written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # In memory first: when torch writes the file, its errors name neither file nor full disk.
    content = io.BytesIO()
    torch.save(checkpoint, content)
    write_whole(path, content.getbuffer())
    return content.getbuffer()


def check_checkpoint(path: Path, epochs: int, market: tuple[str, str]) -> None:
    """Check that a run can resume from its checkpoints.

    Args:
        path: Checkpoint of the last epoch; that of the best epoch lies beside it.
        epochs: Maximum number of epochs.
        market: Symbol and timeframe, for the message.

    Raises:
        ResumeError: A checkpoint is damaged or has more than ``epochs`` epochs, or the two
            come from different runs.
    """
    read = {}
    for each in (path, path.with_stem(BEST_CHECKPOINT)):
        try:
            read[each] = _EpochState.of(torch.load(each, weights_only=True, map_location="cpu"))
        except Exception as error:
            # For broken bytes torch raises many kinds of errors.
            raise ResumeError(
                *market, f"{each} cannot be read", "start afresh without resume=true"
            ) from error
    last, best = read.values()
    if not (best.is_best_of(last.history) or best.is_one_ahead_of(last)):
        raise ResumeError(
            *market,
            f"{path.with_stem(BEST_CHECKPOINT)} is not of the run that wrote {path}",
            "start afresh without resume=true",
        )
    check_epochs(max(last.n_epochs, best.n_epochs), epochs, market)


def check_epochs(n_done: int, epochs: int, market: tuple[str, str]) -> None:
    """Check that an interrupted run has not trained more epochs than are wanted.

    Raises:
        ResumeError: It has.
    """
    if n_done > epochs:
        raise ResumeError(
            *market,
            f"the interrupted run has trained {n_done} epochs already",
            f"use epochs={n_done} or more, or start afresh without resume=true",
        )


def make_trainer(
    plan: TrainingPlan,
    folder: Path | None,
    loggers: Sequence[Logger],
    callbacks: Sequence[pl.Callback],
    files: CheckpointIO | None = None,
    watches: bool = True,
) -> pl.Trainer:
    """The Lightning trainer for training and testing; without a folder it writes nothing.

    ``watches`` is False if there are no validation rows to stop early by.
    """
    stopping = _EarlyStopping(
        MONITORED, patience=plan.optimizer.early_stopping_patience, check_on_train_epoch_end=True
    )
    own: list[pl.Callback] = [stopping] if watches else []
    own += [LearningRateMonitor("epoch")] if loggers else []
    return pl.Trainer(
        accelerator=plan.accelerator,
        devices=1,
        precision=plan.precision,  # type: ignore[arg-type]
        max_epochs=plan.epochs,
        logger=list(loggers),
        callbacks=[*own, *callbacks],
        plugins=[files or _WholeFiles()],
        # By default Lightning adds its own checkpoints if there is no checkpoint callback.
        enable_checkpointing=any(isinstance(each, ModelCheckpoint) for each in callbacks),
        default_root_dir=folder,
        limit_train_batches=plan.train_batches,
        limit_val_batches=plan.val_batches if watches else 0,
        log_every_n_steps=1,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


@dataclass(frozen=True)
class _EpochState:
    """The training state stored in a checkpoint."""

    n_epochs: int
    history: Mapping[str, Sequence[float]]

    @classmethod
    def of(cls, checkpoint: dict[str, Any]) -> _EpochState:
        """Read the state from a checkpoint.

        Raises:
            ValueError, KeyError, TypeError, AttributeError: It is no checkpoint of a training.
        """
        n_epochs = int(checkpoint["epoch"]) + 1
        history = {
            name: [float(value) for value in values]
            for name, values in checkpoint["history"].items()
        }
        lengths = {len(values) for values in history.values()}
        if n_epochs < 1 or lengths != {n_epochs} or "val_loss" not in history:
            raise ValueError("not one value an epoch")
        return cls(n_epochs, history)

    def is_best_of(self, history: Mapping[str, Any]) -> bool:
        """Whether this is the best epoch of the training with that history.

        The losses identify the training: two different ones never agree in every digit.
        """
        begun = {name: values[: self.n_epochs] for name, values in history.items()}
        return self.history == begun and begun["val_loss"][-1] == min(history["val_loss"])

    def is_one_ahead_of(self, last: _EpochState) -> bool:
        """Whether this is the epoch after ``last``.

        Each epoch writes the best checkpoint first. A process killed between the two writes
        leaves this state; the epoch is then trained again.
        """
        begun = {name: values[: last.n_epochs] for name, values in self.history.items()}
        return self.n_epochs == last.n_epochs + 1 and begun == last.history


def _restore(module: SignalClassifier, path: Path, files: _WholeFiles) -> int:
    """Load the best weights and return their epoch, counted from 1.

    Raises:
        TrainingError: The weights are from another training.
    """
    content = path.read_bytes()
    checkpoint = torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
    progress = _EpochState.of(checkpoint)
    # A resumed run that finds no better epoch does not write the file, so compare histories too.
    if files.is_changed(path, content) or not progress.is_best_of(module.history):
        raise TrainingError(
            *module.market,
            f"{path} is not what this training wrote: another process writes there",
            "nothing was exported; end the other process and train again",
        )
    module.load_state_dict(averaged_state(checkpoint, module.network))
    return progress.n_epochs


class EndsWhenTold(pl.Callback):
    """Ends a training between two batches after a signal (Ctrl-C or SIGTERM).

    Args:
        interruption: Remembers the signal.
    """

    def __init__(self, interruption: RunInterruption) -> None:
        self._interruption = interruption

    def on_train_batch_start(self, *_: Any) -> None:
        """Raise here if a signal was received."""
        self._interruption.end_if_received()

    def on_validation_batch_start(self, *_: Any) -> None:
        """Raise here if a signal was received."""
        self._interruption.end_if_received()

    def on_test_batch_start(self, *_: Any) -> None:
        """Raise here if a signal was received."""
        self._interruption.end_if_received()

    def on_test_end(self, *_: Any) -> None:
        """Raise here if a signal was received, before other callbacks see the finished test."""
        self._interruption.end_if_received()


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Silence Lightning's messages about itself."""
    lightning_log = logging.getLogger("lightning.pytorch")
    level = lightning_log.level
    lightning_log.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        # The windows are in memory, so loader processes would not help.
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        warnings.filterwarnings("ignore", ".*LeafSpec.*is deprecated.*")
        warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty")
        # The module steps the learning rate by itself; a refit has no validation loss.
        warnings.filterwarnings("ignore", "ReduceLROnPlateau conditioned on metric .*")
        try:
            yield
        finally:
            lightning_log.setLevel(level)
