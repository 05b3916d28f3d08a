"""How one network learns from many markets, and how one market goes on with it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

from percoin.network import CnnLstm
from percoin.training.datamodule import (
    EVALUATION_BATCH_SIZE,
    Batch,
    BatchSampler,
    window_loader,
)
from percoin.training.lit_module import OptimizerSpec, SignalClassifier
from percoin.training.recipes.pool import Pool
from percoin.types import IntArray


class PooledDataModule(pl.LightningDataModule):
    """Train windows of many markets drawn afresh each epoch; validation windows of each.

    Windows are views of the pool's features, which lie in memory once.

    Args:
        pool: The markets; only those seen are touched.
        batch_size: Windows per training step; evaluation uses larger batches.
        seed: For the windows that are drawn.
        windows_per_epoch: Train windows of an epoch, or all if there are fewer.
        validation_windows: Validation windows in all, at most.
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
        self._market = (pool_name(len(pool.markets)), pool.seen[0].bars.timeframe.value)
        self._features = torch.from_numpy(pool.features)
        self._label = torch.from_numpy(np.concatenate([market.label for market in pool.seen]))
        self._train, self._validation = pooled_rows(pool, validation_windows)
        self._batch_size = batch_size
        self._seed = seed
        self._windows_per_epoch = windows_per_epoch

    @property
    def market(self) -> tuple[str, str]:
        """What messages call the pool, and its timeframe."""
        return self._market

    @property
    def n_validation_windows(self) -> list[int]:
        """Of each market."""
        return [len(rows) for rows in self._validation]

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled batches of a fresh draw."""
        sampler = BatchSampler(
            len(self._train), self._batch_size, self._seed, self._windows_per_epoch
        )
        return self._loader(self._train, sampler)

    def val_dataloader(self) -> list[DataLoader[Batch]]:
        """The same windows of each market every time, in time order; one loader a market."""
        return [
            self._loader(rows, BatchSampler(len(rows), EVALUATION_BATCH_SIZE))
            for rows in self._validation
        ]

    def _loader(self, rows: IntArray, sampler: BatchSampler) -> DataLoader[Batch]:
        return window_loader(self, self._features, self._label, rows, self._lookback, sampler)


def pool_name(n_markets: int) -> str:
    """What messages call a pool in place of a symbol."""
    return f"pool of {n_markets} markets"


def pooled_rows(pool: Pool, validation_windows: int) -> tuple[IntArray, list[IntArray]]:
    """Positions in ``pool.features`` of the train rows, and of each market's validation rows.

    Args:
        pool: The markets; only those seen count.
        validation_windows: At most, shared evenly by the markets.
    """
    ends = np.cumsum([len(market.bars) for market in pool.seen])
    starts = [0, *ends[:-1].tolist()]
    share = max(1, validation_windows // len(pool.seen))
    markets = list(zip(pool.seen, starts, strict=True))
    train = np.concatenate([market.rows("train") + start for market, start in markets])
    return train, [thinned(market.rows("validation"), share) + start for market, start in markets]


def thinned(rows: IntArray, n_most: int) -> IntArray:
    """At most so many of the rows, spread evenly, the first and the last among them."""
    if len(rows) <= n_most:
        return rows
    return rows[np.linspace(0, len(rows) - 1, n_most).round().astype(np.int64)]


class PooledClassifier(SignalClassifier):
    """Trains on windows of all markets; validates each market with the same weight.

    The validation loss, which chooses the epoch and ends the training, is the mean over
    the markets of each one's mean log-loss. The learning rate grows linearly and then
    falls to zero by a cosine over all epochs, stopped early or not.

    Args:
        network: Windows to logits.
        optimizer: Settings of AdamW and of clipping.
        lr: Largest learning rate.
        seed: As ``SignalClassifier``.
        warmup_epochs: Over which the learning rate grows.
        n_validation_windows: Of each market, in the order of the loaders.
    """

    def __init__(
        self,
        network: CnnLstm,
        optimizer: OptimizerSpec,
        lr: float,
        seed: int,
        warmup_epochs: float,
        n_validation_windows: Sequence[int],
    ) -> None:
        super().__init__(network, optimizer, lr, seed)
        self._warmup_epochs = warmup_epochs
        n_all, n_markets = sum(n_validation_windows), len(n_validation_windows)
        self._market_weights = [n_all / (n_markets * n_own) for n_own in n_validation_windows]

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW, its learning rate set anew for every step."""
        adamw = self._adamw()
        n_steps = int(self.trainer.estimated_stepping_batches)
        per_epoch = n_steps / int(self.trainer.max_epochs or 1)
        n_warmup = n_warmup_steps(self._warmup_epochs, per_epoch, n_steps)
        schedule = LambdaLR(adamw, lambda step: lr_share(step, n_warmup, n_steps))
        return {
            "optimizer": adamw,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Go to the next step's learning rate."""
        scheduler.step()

    def on_train_epoch_end(self) -> None:
        """Leave the learning rate to the schedule."""

    def validation_step(self, batch: Batch, batch_index: int = 0, dataloader_idx: int = 0) -> None:
        """Gather the figures of one market's windows, weighed so that all markets count alike."""
        self._weight = self._market_weights[dataloader_idx]
        super().validation_step(batch)
        self._weight = 1.0


def n_warmup_steps(warmup_epochs: float, steps_per_epoch: float, n_steps: int) -> int:
    """Steps over which the learning rate grows; at least one of all ``n_steps`` is left."""
    return min(round(warmup_epochs * steps_per_epoch), n_steps - 1)


def lr_share(step: int, n_warmup: int, n_steps: int) -> float:
    """The share of the largest learning rate that a step is taken with.

    Args:
        step: Counted from 0.
        n_warmup: Steps over which it grows linearly; the last of them takes all of it.
        n_steps: After which nothing is left.
    """
    if step < n_warmup:
        return (step + 1) / n_warmup
    done = (step - n_warmup) / max(1, n_steps - n_warmup)
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))


class GentleClassifier(SignalClassifier):
    """Trains a network further that has been trained before; batch normalisation stays as it is.

    The statistics of one market would replace those of the pool, which ruined the model in
    a study: so its layers stay in evaluation mode, and their factors and offsets fixed.

    Attributes:
        improved: Whether the validation loss fell; None until that is known.
    """

    improved: bool | None = None

    def on_train_batch_start(self, batch: Batch, batch_index: int) -> None:
        """As every training; the layers are held before each batch, whoever has woken them."""
        super().on_train_batch_start(batch, batch_index)
        hold_normalisation(self.network)


def hold_normalisation(network: nn.Module) -> None:
    """Keep the batch normalisation of a network from learning anything."""
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm1d):
            layer.eval()
            layer.requires_grad_(requires_grad=False)
