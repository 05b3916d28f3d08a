"""Markets trained together against the same markets trained one by one."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from training_builders import OPTIMIZER, learnable_dataset, make_dataset, make_plan, tiny_network

from percoin.dataset import MarketDataset
from percoin.errors import ConfigError
from percoin.features.feature_set import FeatureSet
from percoin.network import CnnLstm
from percoin.training import fleet_run
from percoin.training.datamodule import MarketDataModule
from percoin.training.fleet_run import FleetModel, train_fleet
from percoin.training.run import TrainedModel, TrainingPlan, train

# 64-bit weights: AdamW makes steps of full size of a gradient that is rounding alone.
DOUBLE = {"rtol": 1e-6, "atol": 1e-7}


def doubled(dataset: MarketDataset) -> MarketDataset:
    return replace(dataset, features=dataset.features.astype(np.float64))


def market(n_bars: int, seed: int = 0) -> MarketDataset:
    return doubled(make_dataset(n_bars, seed))


def network(seed: int = 0) -> CnnLstm:
    return tiny_network(seed, dropout=0.0).double()


def train_alone(dataset: MarketDataset, plan: TrainingPlan, folder, seed: int = 0) -> TrainedModel:
    return train(dataset, network(seed), plan, folder)


def assert_as_alone(model: FleetModel, alone: TrainedModel) -> None:
    assert model.error is None
    assert model.best_epoch == alone.best_epoch
    for name, values in alone.module.history.items():
        # Lightning notes validation figures in 32 bits.
        assert model.history[name] == pytest.approx(values, abs=1e-5), name
    for name, tensor in alone.module.network.state_dict().items():
        torch.testing.assert_close(model.state_dict[name], tensor, **DOUBLE)


def n_train_rows(dataset: MarketDataset) -> int:
    return len(dataset.rows("train"))


@pytest.fixture(scope="module")
def markets() -> list[MarketDataset]:
    """Two of one length, two shorter ones."""
    return [market(700), market(700, 1), market(420, 2), market(600, 3)]


def test_markets_of_any_length_come_out_as_if_each_were_trained_alone(markets, tmp_path):
    plan = make_plan(epochs=2)
    # Or nothing would be known of batches that are over.
    n_batches = [n_train_rows(dataset) // plan.batch_size for dataset in markets]
    assert n_batches[0] == n_batches[1]
    assert len(set(n_batches)) == 3
    models = train_fleet(markets, [network(seed) for seed in range(4)], plan)
    assert [model.dataset for model in models] == markets
    for seed, model in enumerate(models):
        alone = train_alone(markets[seed], plan, tmp_path / str(seed), seed)
        assert_as_alone(model, alone)
        count = model.state_dict["convolution.2.num_batches_tracked"]
        assert int(count) == model.best_epoch * n_batches[seed]


def test_markets_with_extra_columns_come_out_as_if_each_were_trained_alone(tmp_path):
    features = FeatureSet(extra=("volatility", "clock"))
    markets = [doubled(make_dataset(n_bars, n_bars, features)) for n_bars in (1200, 1300)]
    networks = [tiny_network(seed, 27, dropout=0.0).double() for seed in range(2)]
    models = train_fleet(markets, networks, make_plan(epochs=2))
    for seed, model in enumerate(models):
        wanted = tiny_network(seed, 27, dropout=0.0).double()
        alone = train(markets[seed], wanted, make_plan(epochs=2), tmp_path / str(seed))
        assert_as_alone(model, alone)


def test_a_market_of_less_than_a_batch_comes_out_as_if_trained_alone(markets, tmp_path):
    plan = make_plan(epochs=2, batch_size=n_train_rows(markets[2]) + 1)
    models = train_fleet([markets[0], markets[2]], [network(), network()], plan)
    for place, model in enumerate(models):
        assert_as_alone(model, train_alone(model.dataset, plan, tmp_path / str(place)))


def test_each_learning_rate_falls_and_each_training_ends_by_its_own_validation(tmp_path):
    # One market has something to learn; of random walks validation gets worse.
    markets = [market(420, 2), market(420, 1), doubled(learnable_dataset(420))]
    optimizer = replace(OPTIMIZER, plateau_patience=0, early_stopping_patience=2)
    plan = make_plan(epochs=9, lr=0.02, optimizer=optimizer)
    rates: dict[int, list[float]] = {0: [], 1: [], 2: []}

    def note(model: FleetModel) -> None:
        rates[next(k for k in rates if markets[k] is model.dataset)].append(model.lr)

    models = train_fleet(markets, [network()] * 3, plan, after_epoch=note)
    n_epochs = [len(model.history["val_loss"]) for model in models]
    # The second one still improves when its row has become another one.
    assert models[1].best_epoch > n_epochs[0]
    assert len(set(n_epochs)) > 1
    assert min(n_epochs) < plan.epochs
    assert [len(own) for own in rates.values()] == n_epochs
    assert len({tuple(own) for own in rates.values()}) > 1
    for number, model in enumerate(models):
        assert_as_alone(model, train_alone(markets[number], plan, tmp_path / str(number)))


@torch.no_grad()
def unstacked_loss(model: FleetModel) -> float:
    fresh = network(5).eval()
    fresh.load_state_dict(model.state_dict)
    data = MarketDataModule.of(model.dataset, 64, 0).val_dataloader()
    batches = [(fresh(windows), labels) for windows, labels in data]
    logits, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    return float(torch.nn.functional.cross_entropy(logits, labels))


def test_the_unstacked_network_has_the_validation_loss_of_its_best_epoch(markets):
    for model in train_fleet(markets, [network()] * 4, make_plan(epochs=3)):
        assert unstacked_loss(model) == pytest.approx(min(model.history["val_loss"]), rel=1e-6)
        assert model.history["val_loss"][model.best_epoch - 1] == min(model.history["val_loss"])


def test_a_model_that_diverges_takes_no_other_with_it(markets):
    broken = network()
    with torch.no_grad():
        broken.head[0].weight[0, 0] = np.inf
    plan = make_plan(epochs=2)
    first, second = train_fleet(markets[:2], [broken, network()], plan)
    assert "loss became nan in epoch 1; nothing was saved" in str(first.error)
    assert (first.state_dict, len(first.history["val_loss"])) == ({}, 1)
    (alone,) = train_fleet(markets[1:2], [network()], plan)
    assert second.history["val_loss"] == pytest.approx(alone.history["val_loss"], rel=1e-6)
    assert second.error is None


def test_a_fleet_repeats_itself_with_dropout_and_the_seed_decides(markets):
    def fitted(seed: int, drawn_before: int) -> list[dict[str, torch.Tensor]]:
        plan = make_plan(epochs=2, seed=seed)
        alike = [tiny_network(dropout=0.5).double()] * 2
        torch.rand(drawn_before)
        return [model.state_dict for model in train_fleet(markets[:2], alike, plan)]

    first, again, other = fitted(1, 0), fitted(1, 5), fitted(2, 0)
    for one, two, three in zip(first, again, other, strict=True):
        assert all(torch.equal(one[name], two[name]) for name in one)
        assert not all(torch.equal(one[name], three[name]) for name in one)


def test_a_fleet_learns_in_bf16():
    plan = make_plan(epochs=4, lr=0.02, precision="bf16-mixed")
    (model,) = train_fleet([learnable_dataset(700)], [tiny_network(dropout=0.0)], plan)
    assert model.history["val_loss"][-1] < model.history["val_loss"][0] - 0.1
    assert {tensor.dtype for tensor in model.state_dict.values()} == {torch.float32, torch.int64}


def test_what_the_check_raises_ends_the_training_between_two_batches(markets):
    n_calls = []

    def check() -> None:
        n_calls.append(1)
        if len(n_calls) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_fleet(markets, [network()] * 4, make_plan(epochs=2), check)
    assert len(n_calls) == 5


def test_a_state_that_is_long_to_write_is_kept_less_often(tmp_path, monkeypatch):
    now, takes = [0.0], [0.0]
    monkeypatch.setattr(fleet_run.time, "monotonic", lambda: now[0])

    def write(_state, _path) -> None:
        now[0] += takes[0]

    monkeypatch.setattr(fleet_run, "save_whole", write)
    for secs, epochs in ((0.1, 1), (2.0, 4)):
        takes[0], keeper, kept = secs, fleet_run._Keeper(), []
        for epoch in range(9):
            now[0] += 5.0
            if keeper.is_due():
                keeper.keep({}, tmp_path)
                kept.append(epoch)
        assert kept == list(range(0, 9, epochs))


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": replace(OPTIMIZER, averaging=0.9)},
        {"windows_per_epoch": 100},
        {"train_batches": 1},
        {"overfit_batches": 1},
    ],
)
def test_a_plan_that_a_fleet_cannot_follow_is_refused(markets, changes):
    (name, value), *_ = changes.items()
    named = "optimizer.averaging" if name == "optimizer" else name
    with pytest.raises(ConfigError, match=f"a fleet does not take {named}; leave it out"):
        train_fleet(markets[:1], [network()], replace(make_plan(epochs=1), **{name: value}))
