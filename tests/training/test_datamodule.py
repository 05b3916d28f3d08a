from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from training_builders import LOOKBACK, make_dataset

from percoin.dataset import MarketDataset
from percoin.errors import ConfigError
from percoin.splits import Split
from percoin.training.datamodule import BatchSampler, MarketDataModule, WindowDataset

BATCH_SIZE = 64


@pytest.fixture(scope="module")
def dataset() -> MarketDataset:
    return make_dataset(1500)


@pytest.fixture(scope="module")
def data(dataset) -> MarketDataModule:
    return MarketDataModule.of(dataset, BATCH_SIZE, seed=3)


def loaders(data: MarketDataModule) -> dict:
    return {
        "train": data.train_dataloader(),
        "validation": data.val_dataloader(),
        "test": data.test_dataloader(),
    }


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_batches_hold_the_datasets_windows_and_labels(dataset, data, part):
    loader = loaders(data)[part]
    rows = dataset.rows(part)
    for indices, (windows, labels) in zip(loader.sampler, loader, strict=True):
        ends = rows[indices.numpy()]
        expected = dataset.windows[ends - LOOKBACK + 1]
        np.testing.assert_array_equal(windows.numpy(), expected)
        np.testing.assert_array_equal(windows[:, -1].numpy(), dataset.features[ends])
        assert labels.tolist() == dataset.label[ends].tolist()
        assert not torch.isnan(windows).any()


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_every_row_comes_once_in_an_epoch(dataset, data, part):
    loader = loaders(data)[part]
    batches = [labels for _, labels in loader]
    n_rows = len(dataset.rows(part))
    assert len(batches) == len(loader)
    if part == "train":
        # But for those that do not fill a batch; others stay out in the next epoch.
        assert {len(labels) for labels in batches} == {64}
        assert sum(len(labels) for labels in batches) == n_rows // 64 * 64 < n_rows
    else:
        # The last batch is a partial one, and it is there.
        assert len(batches[-1]) == n_rows % len(batches[0]) or len(batches) == 1
        assert torch.cat(batches).tolist() == dataset.label[dataset.rows(part)].tolist()


def test_windows_are_views_of_one_resident_tensor(dataset, data):
    storages = {
        loader.dataset.windows.untyped_storage().data_ptr() for loader in loaders(data).values()
    }
    assert len(storages) == 1
    windows = data.train_dataloader().dataset.windows
    assert windows.shape == (len(dataset.bars) - LOOKBACK + 1, LOOKBACK, 15)
    assert windows.untyped_storage().nbytes() == dataset.features.nbytes


@pytest.mark.parametrize("lookback", [2, 240])
def test_memory_grows_with_bars_and_not_with_the_lookback(lookback):
    n_bars = 5_000
    features = torch.zeros(n_bars, 15)
    rows = torch.arange(lookback - 1, n_bars)
    windows = WindowDataset(features, torch.zeros(n_bars, dtype=torch.long), rows, lookback)
    assert len(windows) == n_bars - lookback + 1
    assert windows.windows.untyped_storage().data_ptr() == features.untyped_storage().data_ptr()
    held = [value for value in vars(windows).values() if isinstance(value, torch.Tensor)]
    own = [tensor for tensor in held if tensor.untyped_storage().data_ptr() != features.data_ptr()]
    # Beside the features: one position and one label per row.
    assert sum(tensor.untyped_storage().nbytes() for tensor in own) <= 2 * 8 * n_bars


@given(n_rows=st.integers(1, 300), batch_size=st.integers(2, 70), seed=st.integers(0, 2**40))
@settings(max_examples=60)
def test_a_shuffle_leaves_out_what_does_not_fill_a_batch(n_rows, batch_size, seed):
    sampler = BatchSampler(n_rows, batch_size, shuffle_seed=seed)
    batches = list(sampler)
    assert len(batches) == len(sampler)
    indices = torch.cat(batches).tolist() if batches else []
    if n_rows >= batch_size:
        assert {len(batch) for batch in batches} == {batch_size}
        assert len(indices) == n_rows - n_rows % batch_size
    else:
        # All that there are, and batch normalisation needs two.
        assert len(indices) == (n_rows if n_rows > 1 else 0)
    assert len(set(indices)) == len(indices)
    assert all(0 <= index < n_rows for index in indices)


def test_other_rows_are_left_out_in_every_epoch():
    sampler, left_out = BatchSampler(100, 32, shuffle_seed=0), []
    for epoch in range(20):
        sampler.set_epoch(epoch)
        left_out.append(frozenset(range(100)) - set(torch.cat(list(sampler)).tolist()))
    assert {len(rows) for rows in left_out} == {4}
    assert len(set(left_out)) == 20


def test_evaluation_keeps_a_lone_last_row():
    batches = list(BatchSampler(129, 64))
    assert [len(batch) for batch in batches] == [64, 64, 1]
    assert torch.cat(batches).tolist() == list(range(129))


def test_a_shuffle_is_a_function_of_seed_and_epoch():
    def order(seed: int, epoch: int) -> list[int]:
        sampler = BatchSampler(100, 32, shuffle_seed=seed)
        sampler.set_epoch(epoch)
        torch.manual_seed(epoch + 17)  # of no influence
        return torch.cat(list(sampler)).tolist()

    orders = {(seed, epoch): tuple(order(seed, epoch)) for seed in range(4) for epoch in range(4)}
    assert len(set(orders.values())) == 16
    assert all(tuple(order(*key)) == found for key, found in orders.items())


def test_a_shuffle_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    list(BatchSampler(100, 32, shuffle_seed=1))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_lone_last_row_is_left_out_of_training_but_not_of_evaluation(dataset):
    split = dataset.split
    shortened = replace(
        dataset,
        split=Split(split.train[: BATCH_SIZE + 1], split.validation[:513], split.test[:1]),
    )
    data = MarketDataModule.of(shortened, BATCH_SIZE, seed=0)
    n_validation = len(shortened.rows("validation"))
    found = {name: [len(labels) for _, labels in loader] for name, loader in loaders(data).items()}
    assert found == {"train": [BATCH_SIZE], "validation": [n_validation], "test": [1]}


def test_an_epoch_has_the_windows_that_were_asked_for_drawn_anew_each_time(dataset):
    data = MarketDataModule.of(dataset, BATCH_SIZE, seed=3, windows_per_epoch=3 * BATCH_SIZE)
    epochs = []
    for epoch in range(2):
        loader = data.train_dataloader()
        loader.sampler.set_epoch(epoch)
        epochs.append([index.tolist() for index in loader.sampler])
    assert [len(batches) for batches in epochs] == [3, 3]
    assert epochs[0] != epochs[1]
    with pytest.raises(ConfigError, match="windows_per_epoch=1: an epoch takes at least 2"):
        MarketDataModule.of(dataset, windows_per_epoch=1)
