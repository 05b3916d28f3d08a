"""Networks of many pools trained as one stack on a GPU: what ``train_pool`` does, step by step.

Each has its own windows, in the order that it would see alone, learning rate and best epoch, so
it is trained as ``percoin.training.pooled_run`` trains it, but for rounding, for which values
dropout leaves out, and for early stopping, of which there is none here.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from percoin.config import TrainConfig
from percoin.network import CnnLstm
from percoin.training.datamodule import BatchSampler, WindowDataset
from percoin.training.fleet_network import StackedCnnLstm
from percoin.training.fleet_optimizer import StackedAdamW
from percoin.training.fleet_steps import FleetSteps, Sums, log_losses, step_runs
from percoin.training.pooled_module import lr_share, n_warmup_steps, pooled_rows
from percoin.training.recipes.network import seeded_network
from percoin.training.recipes.pool import Pool

log = logging.getLogger("recipes")

_EVALUATION_WINDOWS = 16_384


@dataclass(frozen=True)
class PoolTask:
    """A network to train: on which pool, and by which settings."""

    settings: TrainConfig
    pool: Pool


def train_together(
    tasks: Sequence[PoolTask], device: torch.device
) -> list[tuple[CnnLstm, tuple[int, int]]]:
    """Train a network for each task; all have one width, lookback, batch size and epochs.

    Returns:
        Networks with the weights of their best epochs; how many epochs they were trained for
        and which was the best, from 1.
    """
    stack = _Stack(tasks, device)
    for epoch in range(tasks[0].settings.epochs):
        began = time.monotonic()
        stack.train_epoch(epoch)
        log.info("epoch %d of %d networks: %.1f s", epoch + 1, len(tasks), time.monotonic() - began)
    return stack.answers()


class _Stack:
    """Networks, one for each task, and the best of each so far."""

    def __init__(self, tasks: Sequence[PoolTask], device: torch.device) -> None:
        self._tasks = tasks
        self._device = device
        networks = [seeded_network(task.settings) for task in tasks]
        self._network = StackedCnnLstm.from_networks(networks).to(device)
        self._best = StackedCnnLstm.from_networks(networks).to(device)
        optimizer = tasks[0].settings.optimizer
        self._adamw = StackedAdamW(
            self._network.weights, optimizer.weight_decay, optimizer.gradient_clip_norm
        )
        self._lr = torch.zeros(len(tasks), dtype=torch.float64, device=device)
        self._losses: list[list[float]] = []
        self._windows, self._train, self._validation = _windows(tasks, device)
        self._n_steps = 0
        self._steps = FleetSteps(
            self._network,
            self._adamw,
            self._windows.__getitem__,
            lambda: torch.autocast(device.type, torch.bfloat16, enabled=False),
            self._lr,
            records=device.type == "cuda",
        )

    def train_epoch(self, epoch: int) -> None:
        torch.manual_seed(epoch)
        self._network.train()
        runs = step_runs([self._batches(k, epoch) for k in range(len(self._tasks))], 0.5)
        if len(runs) > 1:
            raise ValueError("pools of one stack need the same number of train batches")
        (run,) = runs
        taken = self._steps.run(run)
        for rates in self._rates(len(run.batches)).to(self._device):
            self._lr.copy_(rates)
            next(taken)
        self._n_steps += len(run.batches)
        self._validate()

    def answers(self) -> list[tuple[CnnLstm, tuple[int, int]]]:
        found = []
        for k, losses in enumerate(np.transpose(self._losses)):
            network = seeded_network(self._tasks[k].settings)
            network.load_state_dict(self._best.unstack(k))
            found.append((network, (len(losses), int(np.nanargmin(losses)) + 1)))
        return found

    def _batches(self, task: int, epoch: int) -> Tensor:
        settings, rows = self._tasks[task].settings, self._train[task]
        n_drawn = settings.pooled.windows_per_epoch
        sampler = BatchSampler(len(rows), settings.batch_size, settings.seed, n_drawn)
        sampler.set_epoch(epoch)
        return rows[torch.stack(list(sampler)).to(self._device)]

    def _rates(self, n_steps: int) -> Tensor:
        """Of each step of this epoch and each network."""
        settings = self._tasks[0].settings
        n_all = n_steps * settings.epochs
        n_warmup = n_warmup_steps(settings.pooled.warmup_epochs, n_steps, n_all)
        steps = range(self._n_steps, self._n_steps + n_steps)
        shares = torch.tensor([lr_share(step, n_warmup, n_all) for step in steps])
        highest = torch.tensor([task.settings.lr for task in self._tasks], dtype=torch.float64)
        return shares.double().unsqueeze(1) * highest

    @torch.no_grad()
    def _validate(self) -> None:
        self._network.eval()
        sums = Sums(len(self._tasks), self._device)
        for rows in torch.split(self._validation, _EVALUATION_WINDOWS // len(self._tasks), 1):
            windows, labels = self._windows[rows]
            logits = self._network(windows).float()
            sums.add(log_losses(logits, labels), logits, labels)
        losses = [loss for loss, _ in sums.means()]
        best = [k for k, loss in enumerate(losses) if loss < min(self._before(k), default=np.inf)]
        if best:
            rows = torch.tensor(best, device=self._device)
            self._best.put(rows, self._network.take(rows))
        self._losses.append(losses)

    def _before(self, task: int) -> list[float]:
        return [losses[task] for losses in self._losses]


def _windows(
    tasks: Sequence[PoolTask], device: torch.device
) -> tuple[WindowDataset, list[Tensor], Tensor]:
    """Windows of all pools by their last bar, the train bars of each task, and validation bars."""
    pools = list({id(task.pool): task.pool for task in tasks}.values())
    features = torch.from_numpy(np.concatenate([pool.features for pool in pools]))
    markets = [market for pool in pools for market in pool.seen]
    label = torch.from_numpy(np.concatenate([market.label for market in markets]))
    train, validation, first = {}, {}, 0
    for pool in pools:
        rows, looked_at = pooled_rows(pool, tasks[0].settings.pooled.validation_windows)
        if len({len(own) for own in looked_at}) > 1:
            # The mean over rows would not be the mean over markets.
            raise ValueError("markets of a stack need as many validation rows as each other")
        train[id(pool)] = torch.from_numpy(rows + first).to(device)
        validation[id(pool)] = torch.from_numpy(np.concatenate(looked_at) + first).to(device)
        first += len(pool.features)
    everything = WindowDataset(
        features.to(device),
        label.to(device),
        torch.arange(first, device=device),
        tasks[0].settings.lookback,
    )
    own = [train[id(task.pool)] for task in tasks]
    return everything, own, torch.stack([validation[id(task.pool)] for task in tasks])
