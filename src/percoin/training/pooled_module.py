"""Lightning modules to train one network on several markets, and to fine-tune it on one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import lightning.pytorch as pl
import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from torch.utils.data import DataLoader

from percoin.training.datamodule import (
    EVALUATION_BATCH_SIZE,
    Batch,
    BatchSampler,
    window_loader,
)
from percoin.training.lit_module import OptimizerSpec, OwnTraining, SignalClassifier
from percoin.training.recipes.pool import Pool
from percoin.types import IntArray

_NORMALISATIONS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class PooledDataModule(pl.LightningDataModule):
    """Data module of a pool: a new draw of train windows each epoch, and validation windows.

    Windows are views of the pool's features, which are in memory once.

    Args:
        pool: The markets; only the seen ones are used.
        batch_size: Windows per training step; evaluation uses larger batches.
        seed: For the draw of train windows.
        windows_per_epoch: Train windows per epoch; all if there are fewer.
        validation_windows: Largest number of validation windows, over all markets.
    """

    def __init__(
        self,
        pool: Pool,
        batch_size: int,
        seed: int,
        windows_per_epoch: int,
        validation_windows: int,
    ) -> None:
        super().__init__()
        self._lookback = pool.seen[0].lookback
        self._market = pool.name
        self._features = torch.from_numpy(pool.features)
        self._label = torch.from_numpy(np.concatenate([market.label for market in pool.seen]))
        self._train, self._validation = pooled_rows(pool, validation_windows)
        self._batch_size = batch_size
        self._seed = seed
        self._windows_per_epoch = windows_per_epoch

    @property
    def market(self) -> tuple[str, str]:
        """Name of the pool and its timeframe, for messages."""
        return self._market

    @property
    def n_validation_windows(self) -> list[int]:
        """Number of validation windows of each market."""
        return [len(rows) for rows in self._validation]

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled batches of a new draw each epoch."""
        sampler = BatchSampler(
            len(self._train), self._batch_size, self._seed, self._windows_per_epoch
        )
        return self._loader(self._train, sampler)

    def val_dataloader(self) -> list[DataLoader[Batch]]:
        """One loader per market: the same windows each time, in time order."""
        return [
            self._loader(rows, BatchSampler(len(rows), EVALUATION_BATCH_SIZE))
            for rows in self._validation
        ]

    def _loader(self, rows: IntArray, sampler: BatchSampler) -> DataLoader[Batch]:
        return window_loader(self, self._features, self._label, rows, self._lookback, sampler)


def pooled_rows(pool: Pool, validation_windows: int) -> tuple[IntArray, list[IntArray]]:
    """Positions in ``pool.features`` of the train rows, and of each market's validation rows.

    Args:
        pool: The markets; only the seen ones are used.
        validation_windows: Largest number over all markets, divided evenly among them.
    """
    ends = np.cumsum([len(market.bars) for market in pool.seen])
    starts = [0, *ends[:-1].tolist()]
    share = max(1, validation_windows // len(pool.seen))
    markets = list(zip(pool.seen, starts, strict=True))
    train = np.concatenate([market.rows("train") + start for market, start in markets])
    return train, [thinned(market.rows("validation"), share) + start for market, start in markets]


def thinned(rows: IntArray, n_most: int) -> IntArray:
    """Keep at most ``n_most`` rows, evenly spread, including the first and the last."""
    if len(rows) <= n_most:
        return rows
    return rows[np.linspace(0, len(rows) - 1, n_most).round().astype(np.int64)]


class PooledClassifier(SignalClassifier):
    """Trains on windows of all markets; in validation all markets have the same weight.

    The validation loss is the mean over markets of each market's mean log-loss. It chooses the
    best epoch and triggers early stopping. The learning rate rises linearly (warm-up), then
    falls to zero as a cosine. The schedule covers all planned epochs, even if training stops
    early.

    Args:
        network: Maps windows to logits.
        optimizer: Settings of AdamW and clipping.
        lr: Largest learning rate.
        seed: As in ``SignalClassifier``.
        warmup_epochs: Epochs over which the learning rate rises.
        n_validation_windows: Validation windows of each market, in the order of the loaders.
        own: As in ``SignalClassifier``.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: OptimizerSpec,
        lr: float,
        seed: int,
        warmup_epochs: float,
        n_validation_windows: Sequence[int],
        own: OwnTraining = OwnTraining(),
    ) -> None:
        super().__init__(network, optimizer, lr, seed, own)
        self._warmup_epochs = warmup_epochs
        n_all, n_markets = sum(n_validation_windows), len(n_validation_windows)
        self._market_weights = [n_all / (n_markets * n_own) for n_own in n_validation_windows]

    def _usual_schedule(self, optimizer: Optimizer) -> tuple[LRScheduler, bool]:
        """Sets the learning rate of every step."""
        n_steps = self._planned_steps()
        n_warmup = n_warmup_steps(self._warmup_epochs, n_steps / self._n_epochs, n_steps)
        return LambdaLR(optimizer, lambda step: lr_share(step, n_warmup, n_steps)), True

    def validation_step(self, batch: Batch, batch_index: int = 0, dataloader_idx: int = 0) -> None:
        """Add a batch of one market, weighted so that all markets count equally."""
        self._weight = self._market_weights[dataloader_idx]
        super().validation_step(batch)
        self._weight = 1.0


def n_warmup_steps(warmup_epochs: float, steps_per_epoch: float, n_steps: int) -> int:
    """Number of warm-up steps; at least one of ``n_steps`` remains after them."""
    return min(round(warmup_epochs * steps_per_epoch), n_steps - 1)


def lr_share(step: int, n_warmup: int, n_steps: int) -> float:
    """Learning rate of a step, as a share of the largest one.

    Args:
        step: Counted from 0.
        n_warmup: Steps of linear rise; the last of them has share 1.
        n_steps: The step at which the share reaches 0.
    """
    if step < n_warmup:
        return (step + 1) / n_warmup
    done = (step - n_warmup) / max(1, n_steps - n_warmup)
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))


class GentleClassifier(SignalClassifier):
    """Fine-tunes a trained network, with batch normalisation frozen.

    Without freezing, the statistics of one market replace those of the pool; in a study this
    ruined the model. So these layers stay in eval mode, with fixed scale and shift.
    """

    lr_setting: ClassVar[str] = "pooled.init_lr"

    def on_train_batch_start(self, batch: Batch, batch_index: int) -> None:
        """Seed dropout as usual, then put batch normalisation back in eval mode."""
        super().on_train_batch_start(batch, batch_index)
        hold_normalisation(self.network)


def hold_normalisation(network: nn.Module) -> None:
    """Freeze the batch normalisation of a network: eval mode, no gradients."""
    for layer in network.modules():
        if isinstance(layer, _NORMALISATIONS):
            layer.eval()
            layer.requires_grad_(requires_grad=False)
