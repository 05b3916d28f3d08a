"""Train one network per market, many at once (a "fleet"), and keep the best epoch of each."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau
from tqdm import tqdm

from percoin.dataset import MarketDataset, Part
from percoin.errors import ConfigError, DivergedError, ResumeError
from percoin.network import CnnLstm
from percoin.training.datamodule import BatchSampler, WindowDataset
from percoin.training.fleet_network import StackedCnnLstm
from percoin.training.fleet_optimizer import StackedAdamW
from percoin.training.fleet_steps import FleetSteps, Sums, log_losses, step_runs
from percoin.training.lit_module import (
    EpochHistory,
    OptimizerSpec,
    add_epoch,
    diverged,
    epoch_seed,
    no_epochs,
)
from percoin.training.run import TrainingPlan, check_epochs, checkpoint_of, save_whole
from percoin.whole_file import remove_leftovers

log = logging.getLogger(__name__)

# For all models together. Evaluation needs no gradients, so a batch only has to fill the device.
_EVALUATION_WINDOWS = 8192
# Used when steps are recorded as CUDA graphs: a step may compute results for up to half of the
# models that are then thrown away. This costs less than recording one more kind of step.
_MOST_IDLE = 0.5
# The state of 32 networks of the default size takes 340 MiB.
_LONG_TO_WRITE_SECS = 0.5


@dataclass
class FleetModel:
    """State of the training of one market in a fleet.

    Attributes:
        dataset: The market.
        history: Losses and accuracies of its epochs so far.
        best_epoch: Epoch with the lowest validation loss, from 1; 0 before the first epoch.
        lr: Learning rate of its next epoch.
        secs: Seconds from the start of the fleet to the end of the model's last epoch.
        state_dict: Weights of its best epoch; set when the whole fleet has ended.
        error: Why it has no weights; None if it has them.
    """

    dataset: MarketDataset
    lr: float
    history: EpochHistory = field(default_factory=no_epochs)
    best_epoch: int = 0
    secs: float = 0.0
    state_dict: dict[str, Tensor] = field(default_factory=dict)
    error: DivergedError | None = None

    @property
    def symbol(self) -> str:
        """Its market."""
        return self.dataset.bars.symbol

    def newest_figures(self) -> dict[str, float]:
        """Losses and accuracies of the last epoch, named as in a training of one market."""
        return {
            "loss/train": self.history["train_loss"][-1],
            "accuracy/train": self.history["train_acc"][-1],
            "loss/val": self.history["val_loss"][-1],
            "val/accuracy": self.history["val_acc"][-1],
        }


def train_fleet(
    datasets: Sequence[MarketDataset],
    networks: Sequence[CnnLstm],
    plan: TrainingPlan,
    check: Callable[[], None] = lambda: None,
    after_epoch: Callable[[FleetModel], None] = lambda model: None,
    folder: Path | None = None,
    resume: bool = False,
) -> list[FleetModel]:
    """Fit one network per market as ``train`` does, with the steps of all networks together.

    Each network has its own batches, in the same order as alone, and its own gradient,
    clipping, learning rate, early stopping and best epoch. Without dropout the weights equal
    those of separate trainings, up to rounding. With dropout, different values are dropped.
    On a CPU a resumed fleet ends with exactly the weights of an uninterrupted one. On a GPU
    the order of some sums changes from run to run.

    Args:
        datasets: The markets, with the same timeframe and lookback; their lengths may differ.
        networks: One per market, all of one shape; they are not changed.
        plan: How to train each network.
        check: Called before every batch; an error it raises ends the training.
        after_epoch: Called for each model after each of its epochs.
        folder: The state after finished epochs is saved below it; None saves nothing.
        resume: Continue from the saved state.

    Returns:
        The models in the order of the markets, including those that diverged.

    Raises:
        ConfigError: The plan asks for what a fleet does not do: averaged weights, a share of the
            windows or of the batches, a loss, optimizer or schedule of the user's own.
        ResumeError: The state is damaged, belongs to other markets or is beyond ``plan.epochs``.
    """
    _check_plan(plan)
    fleet = _Fleet(datasets, networks, plan, check)
    n_done, secs = 0, 0.0
    if folder is not None:
        # A process killed while it writes a checkpoint leaves a temporary file.
        remove_leftovers(checkpoint_of(folder))
    if resume and folder is not None:
        n_done, secs = _restore(fleet, checkpoint_of(folder), plan.epochs)
    started, keeper = time.monotonic() - secs, _Keeper()
    for epoch in range(n_done, plan.epochs):
        if not fleet.models:
            break
        began = time.monotonic()
        trained = fleet.train_epoch(epoch)
        now = time.monotonic()
        _tell(trained, epoch, plan.epochs, now - began)
        for model in trained:
            model.secs = now - started
            if model.error is None:
                after_epoch(model)
        fleet.drop_finished()
        if folder is not None and keeper.is_due():
            state = {"epoch": epoch, "secs": now - started, **fleet.state()}
            keeper.keep(state, checkpoint_of(folder))
    return fleet.end()


class _Keeper:
    """Saves the state after each epoch, or less often if writing takes long."""

    def __init__(self) -> None:
        self._kept_at = -math.inf
        self._secs = 0.0

    def is_due(self) -> bool:
        """Whether to save now; slow writes take at most a tenth of the time."""
        quiet_secs = time.monotonic() - self._kept_at
        return self._secs < _LONG_TO_WRITE_SECS or quiet_secs >= 9 * self._secs

    def keep(self, state: Mapping[str, Any], path: Path) -> None:
        """Replace the saved state in one step."""
        began = time.monotonic()
        save_whole(state, path)
        self._kept_at = time.monotonic()
        self._secs = self._kept_at - began


def _restore(fleet: _Fleet, path: Path, most_epochs: int) -> tuple[int, float]:
    """Load the state of an interrupted fleet; return its finished epochs and its seconds."""
    market = (f"fleet of {len(fleet.all)} markets", fleet.all[0].dataset.bars.timeframe.value)
    try:
        state = torch.load(path, weights_only=True, map_location=fleet.device)
        n_done, secs = int(state["epoch"]) + 1, float(state["secs"])
        fleet.restore(state)
    except Exception as error:
        # For broken bytes torch raises many kinds of errors.
        raise ResumeError(
            *market,
            f"{path} is no state of this fleet",
            "start afresh without resume=true",
        ) from error
    check_epochs(n_done, most_epochs, market)
    return n_done, secs


def _check_plan(plan: TrainingPlan) -> None:
    ignored = ("windows_per_epoch", "own", "train_batches", "val_batches", "overfit_batches")
    names = [name for name in ignored if getattr(plan, name) != getattr(TrainingPlan, name)]
    if plan.optimizer.averaging:
        names.append("optimizer.averaging")
    if names:
        raise ConfigError(
            f"a fleet does not take {', '.join(names)}; leave it out, or train each market alone"
        )


class _Fleet:
    """The models still in training, and the best weights of all models."""

    def __init__(
        self,
        datasets: Sequence[MarketDataset],
        networks: Sequence[CnnLstm],
        plan: TrainingPlan,
        check: Callable[[], None],
    ) -> None:
        self._plan = plan
        self._check = check
        self.device = torch.device("cuda" if plan.accelerator == "gpu" else "cpu")
        self.all = [FleetModel(dataset, plan.lr) for dataset in datasets]
        self._watches = [_FleetPatience(plan.lr, plan.optimizer) for _ in datasets]
        # Index in ``all`` of each row of the network.
        self._members = list(range(len(datasets)))
        self._train = _Windows(datasets, "train", self.device)
        self._validation = _Windows(datasets, "validation", self.device)
        self._network = StackedCnnLstm.from_networks(networks).to(self.device)
        self._best = StackedCnnLstm.from_networks(networks).to(self.device)
        optimizer = plan.optimizer
        self._adamw = StackedAdamW(
            self._network.weights, optimizer.weight_decay, optimizer.gradient_clip_norm
        )
        self._most_idle = _MOST_IDLE if plan.record_steps else 0.0
        self._prepare_steps()

    @property
    def models(self) -> list[FleetModel]:
        """The models still in training, in the order of the network's rows."""
        return [self.all[member] for member in self._members]

    def train_epoch(self, epoch: int) -> list[FleetModel]:
        """Train every model for one epoch, then validate it."""
        train = self._fit(epoch)
        validation = self._validate()
        improved = []
        for row, member in enumerate(self._members):
            model = self.all[member]
            add_epoch(model.history, train[row], validation[row])
            model.error = _divergence(model, self._plan.lr)
            if self._watches[member].improves(model):
                improved.append(row)
        self._keep(improved)
        return self.models

    def drop_finished(self) -> None:
        """Continue only with unfinished models; the weights of the others no longer change."""
        left = [
            row
            for row, member in enumerate(self._members)
            if self.all[member].error is None and not self._watches[member].is_over
        ]
        if len(left) == len(self._members):
            return
        rows = self._index(left)
        self._members = [self._members[row] for row in left]
        self._network = self._network.take(rows)
        self._adamw.narrow(self._network.weights, rows)
        self._prepare_steps()

    def state(self) -> dict[str, Any]:
        """Everything the next epochs depend on, as tensors and plain containers."""
        return {
            "members": self._members,
            "network": self._network.state_dict(),
            "best": self._best.state_dict(),
            "adamw": self._adamw.state(),
            "models": [
                {
                    "history": dict(model.history),
                    "best_epoch": model.best_epoch,
                    "lr": model.lr,
                    "secs": model.secs,
                    "error": None if model.error is None else model.error.found,
                    "watch": watch.state(),
                }
                for model, watch in zip(self.all, self._watches, strict=True)
            ],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from the ``state`` of another fleet of the same markets.

        Raises:
            Exception: The state is not from a fleet of these markets.
        """
        rows = self._index(list(state["members"]))
        self._members = rows.tolist()
        self._network = self._network.take(rows)
        self._network.load_state_dict(state["network"])
        self._best.load_state_dict(state["best"])
        self._adamw.narrow(self._network.weights, rows)
        self._adamw.restore(state["adamw"])
        for model, watch, kept in zip(self.all, self._watches, state["models"], strict=True):
            history: EpochHistory = kept["history"]
            model.history = history
            model.best_epoch, model.lr = int(kept["best_epoch"]), float(kept["lr"])
            model.secs = float(kept["secs"])
            if kept["error"] is not None:
                model.error = _diverged(model, str(kept["error"]), self._plan.lr)
            watch.restore(kept["watch"])
        self._prepare_steps()

    def end(self) -> list[FleetModel]:
        """Return all models, with the weights of their best epochs."""
        for number, model in enumerate(self.all):
            if model.error is None:
                model.state_dict = self._best.unstack(number)
        return self.all

    def _prepare_steps(self) -> None:
        """Drop the recorded steps, which read the weights of the old set of models."""
        self._lr = torch.zeros(len(self._members), dtype=torch.float64, device=self.device)
        self._steps = FleetSteps(
            self._network,
            self._adamw,
            self._train.__getitem__,
            self._precision,
            self._lr,
            self._plan.record_steps,
        )

    def _fit(self, epoch: int) -> list[tuple[float, float]]:
        """Train one epoch; return mean loss and accuracy of each model over its batches."""
        torch.manual_seed(epoch_seed(self._plan.seed, epoch))
        self._network.train()
        rates = [model.lr for model in self.models]
        self._lr.copy_(torch.tensor(rates, dtype=torch.float64))
        sums = self._steps.sums
        sums.reset()
        runs = step_runs(
            [self._batches(member, epoch) for member in self._members], self._most_idle
        )
        # The with block closes the bar, so an interruption leaves a clean line.
        with self._bar(sum(len(run.batches) for run in runs), epoch) as bar:
            for run in runs:
                self._check()
                for _ in self._steps.run(run):
                    bar.update()
                    self._check()
        return sums.means()

    @torch.no_grad()
    def _validate(self) -> list[tuple[float, float]]:
        """Mean loss and accuracy of each model on its validation rows."""
        self._network.eval()
        sums = Sums(len(self._members), self.device)
        positions, counts = self._validation.padded(self._members)
        n_rows = max(1, _EVALUATION_WINDOWS // len(self._members))
        for asked, count in zip(
            torch.split(positions, n_rows, 1), torch.split(counts, n_rows, 1), strict=True
        ):
            self._check()
            windows, labels = self._validation[asked]
            with self._precision():
                logits = self._network(windows).float()
            sums.add(log_losses(logits, labels), logits, labels, counts=count)
        return sums.means()

    def _batches(self, member: int, epoch: int) -> Tensor:
        """The batches of a separate training of the market in this epoch, (n_batches, B)."""
        first, n_rows = self._train.span(member)
        sampler = BatchSampler(n_rows, self._plan.batch_size, self._plan.seed)
        sampler.set_epoch(epoch)
        batches = list(sampler) or [torch.empty(0, dtype=torch.long)]
        return torch.stack(batches).to(self.device) + first

    def _bar(self, n_steps: int, epoch: int) -> tqdm[None]:
        return tqdm(
            total=n_steps,
            desc=f"epoch {epoch + 1}/{self._plan.epochs}",
            unit="step",
            leave=False,
            disable=not sys.stderr.isatty(),
        )

    def _keep(self, rows: list[int]) -> None:
        if rows:
            members = self._index([self._members[row] for row in rows])
            self._best.put(members, self._network.take(self._index(rows)))

    def _index(self, rows: list[int]) -> Tensor:
        return torch.tensor(rows, dtype=torch.long, device=self.device)

    def _precision(self) -> torch.autocast:
        is_mixed = self._plan.precision == "bf16-mixed"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=is_mixed)


class _Windows:
    """Windows of one part (train or validation) of all markets, in one feature tensor.

    Args:
        datasets: The markets.
        part: Which rows.
        device: Device of the tensors.
    """

    def __init__(self, datasets: Sequence[MarketDataset], part: Part, device: torch.device) -> None:
        features = np.concatenate([dataset.features for dataset in datasets])
        label = np.concatenate([dataset.label for dataset in datasets])
        n_bars = np.cumsum([0, *(len(dataset.bars) for dataset in datasets)])
        rows = [
            dataset.rows(part) + first for dataset, first in zip(datasets, n_bars, strict=False)
        ]
        self._ends = np.cumsum([0, *map(len, rows)]).tolist()
        self._windows = WindowDataset(
            torch.from_numpy(features).to(device),
            torch.from_numpy(label).to(device),
            torch.from_numpy(np.concatenate(rows)).to(device),
            datasets[0].lookback,
        )

    def __getitem__(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Windows (K, B, L, F) and labels (K, B) at positions (K, B)."""
        return self._windows[positions]

    def span(self, market: int) -> tuple[int, int]:
        """Position of a market's first row, and its number of rows."""
        first, end = self._ends[market : market + 2]
        return first, end - first

    def padded(self, markets: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Row positions of some markets, padded to (K, most rows), and a mask of real rows."""
        firsts, lengths = torch.tensor([self.span(market) for market in markets]).T.unsqueeze(2)
        places = torch.arange(int(lengths.max()))
        counts = places < lengths
        device = self._windows.windows.device
        return (firsts + places * counts).to(device), counts.to(device)


class _FleetPatience:
    """Tracks for one model the best loss, the learning rate and early stopping."""

    def __init__(self, lr: float, settings: OptimizerSpec) -> None:
        self._patience = settings.early_stopping_patience
        self._best, self._n_worse = math.inf, 0
        # A dummy optimizer: it only holds the learning rate for torch's scheduler.
        self._holder = torch.optim.SGD([torch.zeros(0)], lr=lr)
        self._plateau = ReduceLROnPlateau(
            self._holder, factor=settings.plateau_factor, patience=settings.plateau_patience
        )

    @property
    def is_over(self) -> bool:
        """Whether the model has gone ``early_stopping_patience`` epochs without improving."""
        return self._n_worse > 0 and self._n_worse >= self._patience

    def state(self) -> dict[str, Any]:
        """Everything that later decisions depend on."""
        return {
            "best": self._best,
            "n_worse": self._n_worse,
            "lr": self._holder.param_groups[0]["lr"],
            "plateau": self._plateau.state_dict(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved ``state``."""
        self._best, self._n_worse = float(state["best"]), int(state["n_worse"])
        self._holder.param_groups[0]["lr"] = float(state["lr"])
        self._plateau.load_state_dict(state["plateau"])

    def improves(self, model: FleetModel) -> bool:
        """Update the model's learning rate and best epoch; return whether its loss improved."""
        loss = model.history["val_loss"][-1]
        is_best = loss < self._best
        self._plateau.step(loss)
        model.lr = self._holder.param_groups[0]["lr"]
        if is_best:
            self._best, self._n_worse = loss, 0
            model.best_epoch = len(model.history["val_loss"])
        else:
            self._n_worse += 1
        return is_best


def _divergence(model: FleetModel, lr: float) -> DivergedError | None:
    history = model.history
    for part, loss in (("train", history["train_loss"][-1]), ("val", history["val_loss"][-1])):
        if not math.isfinite(loss):
            found = f"the {part} loss became {loss} in epoch {len(history['val_loss'])}"
            return _diverged(model, found, lr)
    return None


def _diverged(model: FleetModel, found: str, lr: float) -> DivergedError:
    bars = model.dataset.bars
    return diverged((bars.symbol, bars.timeframe.value), found, lr)


def _tell(trained: Sequence[FleetModel], epoch: int, n_epochs: int, secs: float) -> None:
    """Log one line on the epoch, with the longest time left."""
    sound = [model for model in trained if model.error is None]
    n_best = sum(model.best_epoch == epoch + 1 for model in sound)
    losses = [model.history["val_loss"][-1] for model in sound]
    log.info(
        "epoch %d/%d  %d models  mean val_loss %.4f  best so far for %d  %.1f s, at most %s left",
        epoch + 1,
        n_epochs,
        len(trained),
        math.nan if not losses else sum(losses) / len(losses),
        n_best,
        secs,
        tqdm.format_interval(secs * (n_epochs - epoch - 1)),
    )
