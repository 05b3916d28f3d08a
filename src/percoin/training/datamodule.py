"""A market as a Lightning data module: batches of windows, taken from one tensor in memory."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from percoin.bars.panel import load_panel
from percoin.bars.renames import current_symbol
from percoin.bars.schema import Bars
from percoin.bars.sources.base import BarSource
from percoin.dataset import DatasetSpec, MarketDataset, Part, build_dataset
from percoin.errors import ConfigError
from percoin.types import IntArray, Timeframe, check_timeframe

log = logging.getLogger(__name__)

# Evaluation needs no gradients, so only the CPU cache limits a batch.
EVALUATION_BATCH_SIZE = 512
# The network halves the window length twice, so a shorter window becomes empty.
_FEWEST_LOOKBACK = 4

Batch = tuple[Tensor, Tensor]


class WindowDataset(Dataset[Batch]):
    """Windows and labels of some rows of a market, read one batch at a time.

    Args:
        features: Scaled features, shape (n_bars, F). Windows are views of it, so memory grows
            with n_bars only, not with n_bars * lookback.
        label: Class of each bar, shape (n_bars,).
        rows: Index of the last bar of each window, shape (n_rows,).
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
    """Index tensors, one per batch, in time order or shuffled anew each epoch.

    The shuffle depends only on seed and epoch, so a resumed run sees the same batches as an
    uninterrupted one. In time order the last batch may be smaller. A shuffle drops a smaller
    last batch: each of its rows would weigh more than other rows, and its batch normalisation
    would depend on few rows. Each epoch drops different rows.

    Args:
        n_rows: Number of rows.
        batch_size: Rows per batch.
        shuffle_seed: Seed of the shuffle; None keeps time order.
        n_drawn: Rows drawn per epoch; None means all.
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
        """Set the epoch; Lightning calls this before each one."""
        self._epoch = epoch

    def __len__(self) -> int:
        if self._shuffle_seed is None:
            return -(-self._n_used // self._batch_size)
        # Fewer rows than batch_size make one batch; batch normalisation needs two rows.
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


def window_loader(
    data: pl.LightningDataModule,
    features: Tensor,
    label: Tensor,
    rows: IntArray,
    lookback: int,
    sampler: BatchSampler,
) -> DataLoader[Batch]:
    """Batches of windows, built on the training device, which holds all rows.

    Args:
        data: Gives the trainer and so the device; without a trainer it is the CPU.
        features: As in ``WindowDataset``.
        label: As in ``WindowDataset``.
        rows: As in ``WindowDataset``.
        lookback: As in ``WindowDataset``.
        sampler: Yields positions in ``rows``.
    """
    trainer = data.trainer
    device = torch.device("cpu") if trainer is None else trainer.strategy.root_device
    windows = WindowDataset(
        features.to(device), label.to(device), torch.from_numpy(rows).to(device), lookback
    )
    # batch_size=None: each item of the sampler is already a whole batch.
    return DataLoader(windows, sampler=sampler, batch_size=None)


class MarketDataModule(pl.LightningDataModule):
    """Data module of one market: loads bars and gives train, validation and test loaders.

    ``MarketDataModule("BTCUSDT", "1h", SampleSource(), DatasetSpec(rule))`` loads the bars in
    ``prepare_data``. In ``setup`` it builds the features, the labels and the split, as
    ``train.py`` does. If you already have a dataset, use ``MarketDataModule.of``.

    Args:
        symbol: Market, as the exchange spells it.
        timeframe: Bar length, for example ``"15m"``.
        source: Where the bars come from.
        spec: The rules for features, labels and split.
        batch_size: Windows per training step; evaluation uses larger batches.
        seed: For the shuffle of the train windows.
        windows_per_epoch: Train windows of an epoch, drawn anew each time; None is all of them.

    Raises:
        ConfigError: An argument has the wrong type or is out of range.
    """

    def __init__(
        self,
        symbol: str,
        timeframe: Timeframe | str,
        source: BarSource,
        spec: DatasetSpec,
        batch_size: int = 64,
        seed: int = 0,
        windows_per_epoch: int | None = None,
    ) -> None:
        super().__init__()
        if batch_size < 2:
            raise ConfigError(f"batch_size={batch_size}: batch normalisation takes at least 2")
        if windows_per_epoch is not None and windows_per_epoch < 2:
            raise ConfigError(
                f"windows_per_epoch={windows_per_epoch}: an epoch takes at least 2, or None for all"
            )
        _check_kinds(source, spec)
        if spec.lookback < _FEWEST_LOOKBACK:
            raise ConfigError(
                f"lookback={spec.lookback}: the network takes windows of at least "
                f"{_FEWEST_LOOKBACK} bars"
            )
        self.symbol = current_symbol(symbol)
        self.timeframe = check_timeframe(timeframe)
        self.source = source
        self.spec = spec
        self.batch_size = batch_size
        self.seed = seed
        self.windows_per_epoch = windows_per_epoch

    @classmethod
    def of(
        cls,
        dataset: MarketDataset,
        batch_size: int = 64,
        seed: int = 0,
        windows_per_epoch: int | None = None,
    ) -> MarketDataModule:
        """Create the data module of a dataset that is already built."""
        bars, sizes = dataset.bars, (batch_size, seed, windows_per_epoch)
        data = cls(bars.symbol, bars.timeframe, _AtHand(bars), dataset.spec, *sizes)
        data.dataset = dataset
        return data

    @property
    def market(self) -> tuple[str, str]:
        """Symbol and timeframe, for messages."""
        return self.symbol, self.timeframe.value

    @property
    def n_features(self) -> int:
        """Number of features of a bar, F."""
        if self.spec.feature_set.own:
            # How many columns they have shows when they are computed.
            return len(self.dataset.feature_names)
        return len(self.spec.feature_set.names(self.timeframe))

    @cached_property
    def bars(self) -> Bars:
        """The market's bars, loaded once.

        Raises:
            DataError: The source has no bars, or they cannot be used.
        """
        bars = self.source.load(self.symbol, self.timeframe)
        if bars.panel is not None:
            return bars
        references = self.spec.feature_set.references
        return load_panel(bars, references, lambda name: self.source.load(name, self.timeframe))

    @cached_property
    def dataset(self) -> MarketDataset:
        """The dataset, built once.

        Raises:
            DataError: The bars cannot be loaded, or are too few.
            MissingClassError: The train rows lack one of the three classes.
        """
        return build_dataset(self.bars, self.spec)

    @cached_property
    def _tensors(self) -> tuple[Tensor, Tensor]:
        """Features (n_bars, F) and labels (n_bars,) of all bars."""
        return torch.tensor(self.dataset.features), torch.tensor(self.dataset.label)

    def prepare_data(self) -> None:
        """Load the bars."""
        log.debug("%s %s: %d bars of %s", *self.market, len(self.bars), self.bars.origin)

    def setup(self, stage: str | None = None) -> None:
        """Build features, labels and split."""
        log.debug("%s %s: %d train rows", *self.market, len(self.dataset.rows("train")))

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled batches of the train rows."""
        rows = self.dataset.rows("train")
        drawn = self.windows_per_epoch
        return self._loader(rows, BatchSampler(len(rows), self.batch_size, self.seed, drawn))

    def val_dataloader(self) -> DataLoader[Batch]:
        """The validation rows in time order, the last partial batch included."""
        return self._in_time_order("validation")

    def test_dataloader(self) -> DataLoader[Batch]:
        """The test rows in time order, the last partial batch included."""
        return self._in_time_order("test")

    def _in_time_order(self, part: Part) -> DataLoader[Batch]:
        rows = self.dataset.rows(part)
        return self._loader(rows, BatchSampler(len(rows), EVALUATION_BATCH_SIZE))

    def _loader(self, rows: IntArray, sampler: BatchSampler) -> DataLoader[Batch]:
        return window_loader(self, *self._tensors, rows, self.dataset.lookback, sampler)


def _check_kinds(source: object, spec: object) -> None:
    """Check the types of source and spec; notebooks have no type checker.

    Raises:
        ConfigError: One of the two has the wrong type.
    """
    if isinstance(source, type) or not hasattr(source, "load"):
        raise ConfigError(
            f"source={source!r} has no bars: give an object such as SampleSource() or "
            "FilesSource(Path(FOLDER))"
        )
    if not isinstance(spec, DatasetSpec):
        raise ConfigError(f"spec={spec!r} is no DatasetSpec: give DatasetSpec(label_rule)")


@dataclass(frozen=True)
class _AtHand:
    """A source for bars that are already loaded."""

    bars: Bars

    def load(self, symbol: str, timeframe: Timeframe) -> Bars:
        """Return the bars."""
        return self.bars
