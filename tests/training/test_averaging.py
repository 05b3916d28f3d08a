"""The moving average of the weights, and epochs of a fresh draw of the windows."""

from dataclasses import replace

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.nn import functional
from training_builders import OPTIMIZER, learnable_dataset, make_plan, tiny_network

from percoin.dataset import MarketDataset
from percoin.errors import InterruptedRunError
from percoin.training.datamodule import MarketDataModule
from percoin.training.export import settings_of
from percoin.training.lit_module import SignalClassifier
from percoin.training.run import data_of, fit, train, train_again

DECAY = 0.9
PLAN = make_plan(
    epochs=3,
    optimizer=replace(OPTIMIZER, averaging=DECAY),
    windows_per_epoch=192,
)


@pytest.fixture(scope="module")
def dataset() -> MarketDataset:
    return learnable_dataset()


class Seen(pl.Callback):
    """The weights after each step, and the windows of each epoch."""

    def __init__(self, ends_after: int | None = None) -> None:
        self.states, self.windows = [], []
        self._ends_after = ends_after

    def on_train_epoch_start(self, trainer, pl_module) -> None:
        self.windows.append([])

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, *_) -> None:
        self.states.append(floats(pl_module.network))
        self.windows[-1].append(batch[0])
        if len(self.states) == self._ends_after:
            raise InterruptedRunError("BTCUSDT", "15m", "interrupted", "", signal_number=2)


def floats(network) -> dict[str, torch.Tensor]:
    state = network.state_dict()
    return {name: each.clone() for name, each in state.items() if each.is_floating_point()}


def averages(first: dict[str, torch.Tensor], states: list[dict[str, torch.Tensor]]):
    """The average after each step, in 64 bits."""
    average = {name: each.double() for name, each in first.items()}
    for n_steps, state in enumerate(states, start=1):
        decay = min(DECAY, n_steps / (n_steps + 10))
        average = {name: decay * each + (1 - decay) * state[name] for name, each in average.items()}
        yield average


def loss_of(dataset: MarketDataset, state: dict[str, torch.Tensor]) -> float:
    network = tiny_network().eval()
    network.load_state_dict({name: each.float() for name, each in state.items()}, strict=False)
    batches = list(MarketDataModule.of(dataset).val_dataloader())
    with torch.inference_mode():
        losses = [functional.cross_entropy(network(x), y, reduction="sum") for x, y in batches]
    return float(sum(losses)) / sum(len(labels) for _, labels in batches)


def test_the_average_of_all_steps_is_validated_and_is_what_the_network_ends_with(dataset):
    seen, network = Seen(), tiny_network()
    first = floats(network)
    module = fit(dataset, network, PLAN, [seen])
    *_, last = expected = list(averages(first, seen.states))
    for name, each in floats(module.network).items():
        torch.testing.assert_close(each.double(), last[name], rtol=1e-4, atol=1e-5)
    at_ends = [loss_of(dataset, state) for state in expected[2::3]]
    assert module.history["val_loss"] == pytest.approx(at_ends, abs=1e-5)
    assert loss_of(dataset, seen.states[-1]) != pytest.approx(at_ends[-1], abs=1e-4)


def test_an_epoch_draws_so_many_windows_afresh(dataset):
    seen = Seen()
    fit(dataset, tiny_network(), PLAN, [seen])
    drawn = [torch.cat(batches) for batches in seen.windows]
    assert [len(each) for each in drawn] == [192] * 3
    assert len(torch.unique(drawn[0], dim=0)) == 192
    assert not torch.equal(drawn[0], drawn[1])


@pytest.mark.parametrize("n_steps", [4, 5, 9])
def test_a_resumed_run_ends_with_the_same_average(dataset, tmp_path, n_steps):
    whole = train(dataset, tiny_network(), PLAN, tmp_path / "whole")
    with pytest.raises(InterruptedRunError):
        train(dataset, tiny_network(), PLAN, tmp_path / "cut", callbacks=[Seen(n_steps)])
    resumed = train(dataset, tiny_network(), PLAN, tmp_path / "cut", resume=True)
    assert resumed.module.history == whole.module.history
    assert resumed.best_epoch == whole.best_epoch
    expected = whole.module.network.state_dict()
    for name, each in resumed.module.network.state_dict().items():
        assert torch.equal(each, expected[name]), name
    assert torch.equal(resumed.module.test_probabilities, whole.module.test_probabilities)


def test_the_kept_epoch_is_the_average_that_had_the_best_loss(dataset, tmp_path):
    trained = train(dataset, tiny_network(), PLAN, tmp_path)
    losses = trained.module.history["val_loss"]
    assert trained.best_epoch == 1 + losses.index(min(losses))
    kept = floats(trained.module.network)
    assert loss_of(dataset, kept) == pytest.approx(min(losses), abs=1e-5)


def test_a_refit_ends_with_the_average_also_when_nothing_is_left_of_it(dataset, tmp_path):
    twin = train(dataset, tiny_network(), PLAN, tmp_path)
    found = []
    for resume in (False, True):
        module = type(twin.module)(tiny_network(), PLAN.optimizer, PLAN.lr, PLAN.seed)
        train_again(twin, module, MarketDataModule.of(dataset), PLAN, tmp_path, resume)
        found.append(floats(module.network))
    for name, each in found[0].items():
        assert torch.equal(each, found[1][name]), name


@pytest.fixture
def data(dataset) -> MarketDataModule:
    return data_of(dataset, PLAN)


@pytest.mark.filterwarnings(
    "ignore:.*does not have many workers:UserWarning",
    "ignore:.*LeafSpec.*is deprecated:FutureWarning",
    "ignore:Found .* module.s. in eval mode:UserWarning",
    "ignore:ReduceLROnPlateau conditioned on metric:UserWarning",
)
def test_a_trainer_of_ones_own_averages_too_and_tests_the_average(dataset, data, tmp_path):
    expected = train(dataset, tiny_network(), PLAN, tmp_path / "expected")
    module = SignalClassifier(tiny_network(), PLAN.optimizer, PLAN.lr, PLAN.seed)
    best = ModelCheckpoint(tmp_path / "own", monitor="loss/val", save_on_train_epoch_end=True)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=PLAN.epochs,
        callbacks=[best],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, datamodule=data)
    assert module.history == expected.module.history
    trainer.test(datamodule=data, ckpt_path="best", verbose=False)
    loaded = SignalClassifier.load_from_checkpoint(best.best_model_path, network=tiny_network(1))
    for network in (module.network, loaded.network):
        for name, each in expected.module.network.state_dict().items():
            assert torch.equal(network.state_dict()[name], each), name
    assert torch.equal(module.test_probabilities, expected.module.test_probabilities)
    settings = settings_of(module, dataset)
    assert settings["windows_per_epoch"] == PLAN.windows_per_epoch
    assert settings["optimizer"]["averaging"] == DECAY


class Masked(nn.Module):
    """Two layers with one weight, and masks that no checkpoint keeps."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(15, 15), nn.Linear(15, 15)
        self.second.weight = self.first.weight
        self.head = nn.Linear(15, 3)
        mask = torch.full((8, 8), -torch.inf).triu(1)
        self.register_buffer("mask", mask, persistent=False)
        self.register_buffer("scale", torch.ones(1, 1).expand(8, 8), persistent=False)

    def forward(self, windows):
        shares = ((windows @ windows.transpose(1, 2)) * self.scale + self.mask).softmax(2)
        return self.head(shares @ self.second(self.first(windows).relu())).mean(1)


def test_a_weight_with_two_names_is_averaged_once_and_what_is_no_weight_never(dataset, tmp_path):
    seen, network = Seen(), Masked()
    first = floats(network)
    trained = train(dataset, network, PLAN, tmp_path, callbacks=[seen])
    best = list(averages(first, seen.states))[3 * trained.best_epoch - 1]
    for name, each in floats(trained.module.network).items():
        torch.testing.assert_close(each.double(), best[name], rtol=1e-4, atol=1e-5)
    assert torch.equal(network.mask, Masked().mask)
