"""Batches of windows, gathered from one resident tensor."""

from __future__ import annotations

from collections.abc import Iterator

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from percoin.dataset import MarketDataset, Part
from percoin.training.recipes.pool import Pool
from percoin.types import IntArray

# Gradients are not kept in evaluation, so a batch only has to fit the cache.
_EVALUATION_BATCH_SIZE = 512

Batch = tuple[Tensor, Tensor]


def _device_of(data: pl.LightningDataModule) -> torch.device:
    """Where its trainer trains: all rows fit there, and a batch is gathered where it is used."""
    return torch.device("cpu") if data.trainer is None else data.trainer.strategy.root_device


class WindowDataset(Dataset[Batch]):
    """Windows and labels of some rows of a market, taken a batch at a time.

    Args:
        features: Scaled features, shape (n_bars, F). Windows are views of it:
            memory grows with the bars, not with bars times lookback.
        label: Class of each bar, shape (n_bars,).
        rows: Positions of the bars on which the windows end, shape (n_rows,).
        lookback: Window length in bars, L.
    """

    def __init__(self, features: Tensor, label: Tensor, rows: Tensor, lookback: int) -> None:
        self.windows = features.unfold(0, lookback, 1).transpose(1, 2)  # (n_windows, L, F)
        self._first_bars = rows - lookback + 1
        self._label = label[rows]

    def __len__(self) -> int:
        return len(self._label)

    def __getitem__(self, indices: Tensor) -> Batch:
        """Windows (B, L, F) and labels (B,) of the rows at ``indices``."""
        return self.windows[self._first_bars[indices]], self._label[indices]


class BatchSampler(Sampler[Tensor]):
    """Index tensors, one per batch, in time order or freshly shuffled each epoch.

    The shuffle depends on the seed and the epoch alone, so a resumed run sees
    the batches that the uninterrupted one would have seen. In time order the last batch is
    what is left; of a shuffle that is left out, since so few rows would count for more than
    all others and batch normalisation would be by them alone. It is other rows every time.

    Args:
        n_rows: Rows there are.
        batch_size: Rows in a batch.
        shuffle_seed: Of the shuffle; None keeps the order of time.
        n_drawn: Rows of the shuffle that an epoch gets; None is all of them.
    """

    def __init__(
        self,
        n_rows: int,
        batch_size: int,
        shuffle_seed: int | None = None,
        n_drawn: int | None = None,
    ) -> None:
        self._n_rows = n_rows
        self._n_used = n_rows if n_drawn is None else min(n_rows, n_drawn)
        self._batch_size = batch_size
        self._shuffle_seed = shuffle_seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self._epoch = epoch

    def __len__(self) -> int:
        if self._shuffle_seed is None:
            return -(-self._n_used // self._batch_size)
        # Of fewer rows than a batch has, all are one; batch normalisation needs two.
        return max(self._n_used // self._batch_size, int(self._n_used > 1))

    def __iter__(self) -> Iterator[Tensor]:
        if self._shuffle_seed is None:
            order = torch.arange(self._n_rows)
        else:
            words = np.random.SeedSequence([self._shuffle_seed, self._epoch]).generate_state(1)
            generator = torch.Generator().manual_seed(int(words[0]))
            order = torch.randperm(self._n_rows, generator=generator)[: self._n_used]
        batches = torch.split(order, self._batch_size)
        yield from batches[: len(self)]


class MarketDataModule(pl.LightningDataModule):
    """The three parts of a market as data loaders.

    Args:
        dataset: The market.
        batch_size: Windows per training step; evaluation uses larger batches.
        seed: Of the shuffle.
    """

    def __init__(self, dataset: MarketDataset, batch_size: int, seed: int) -> None:
        super().__init__()
        self._dataset = dataset
        self._features = torch.tensor(dataset.features)
        self._label = torch.tensor(dataset.label)
        self._batch_size = batch_size
        self._seed = seed

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled batches of the train rows."""
        rows = self._dataset.rows("train")
        return self._loader(rows, BatchSampler(len(rows), self._batch_size, self._seed))

    def val_dataloader(self) -> DataLoader[Batch]:
        """The validation rows in time order, the last partial batch included."""
        return self._in_time_order("validation")

    def test_dataloader(self) -> DataLoader[Batch]:
        """The test rows in time order, the last partial batch included."""
        return self._in_time_order("test")

    def _in_time_order(self, part: Part) -> DataLoader[Batch]:
        rows = self._dataset.rows(part)
        return self._loader(rows, BatchSampler(len(rows), _EVALUATION_BATCH_SIZE))

    def _loader(self, rows: IntArray, sampler: BatchSampler) -> DataLoader[Batch]:
        device = _device_of(self)
        windows = WindowDataset(
            self._features.to(device),
            self._label.to(device),
            torch.from_numpy(rows).to(device),
            self._dataset.lookback,
        )
        # batch_size=None: the sampler's indices are whole batches already.
        return DataLoader(windows, sampler=sampler, batch_size=None)


class PooledDataModule(pl.LightningDataModule):
    """Train windows of many markets drawn afresh each epoch; validation windows of each.

    Windows are views of the pool's features, which are held once: a batch is the only
    place where they are written out.

    Args:
        pool: The markets; only those seen are touched.
        batch_size: Windows per training step; evaluation uses larger batches.
        seed: Of what is drawn.
        windows_per_epoch: Train windows of an epoch; no more than there are.
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
        self._features = torch.from_numpy(pool.features)
        self._label = torch.from_numpy(np.concatenate([market.label for market in pool.seen]))
        self._train, self._validation = pooled_rows(pool, validation_windows)
        self._batch_size = batch_size
        self._seed = seed
        self._windows_per_epoch = windows_per_epoch

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
            self._loader(rows, BatchSampler(len(rows), _EVALUATION_BATCH_SIZE))
            for rows in self._validation
        ]

    def _loader(self, rows: IntArray, sampler: BatchSampler) -> DataLoader[Batch]:
        device = _device_of(self)
        windows = WindowDataset(
            self._features.to(device),
            self._label.to(device),
            torch.from_numpy(rows).to(device),
            self._lookback,
        )
        return DataLoader(windows, sampler=sampler, batch_size=None)


def pooled_rows(pool: Pool, validation_windows: int) -> tuple[IntArray, list[IntArray]]:
    """Positions in ``pool.features`` of the train rows, and of each market's validation rows.

    Args:
        pool: The markets; only those seen.
        validation_windows: In all, at most; every market has the same share of them.
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
