"""What only a GPU can show: a fleet's recorded steps, bf16, and exports in 32 bits from there."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from training_builders import learnable_dataset, make_dataset, make_plan, tiny_network

from percoin.training.datamodule import MarketDataModule
from percoin.training.fleet_network import StackedCnnLstm
from percoin.training.fleet_optimizer import StackedAdamW
from percoin.training.fleet_run import FleetModel, train_fleet
from percoin.training.fleet_steps import FleetSteps, step_runs
from percoin.training.run import train

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")


def doubled(dataset):
    return replace(dataset, features=dataset.features.astype(np.float64))


def networks(n_models: int, **kwargs):
    return [tiny_network(seed, dropout=0.0, **kwargs).double() for seed in range(n_models)]


def trained(accelerator: str) -> list[FleetModel]:
    # Of different lengths, enough for steps to be recorded, some with idle models.
    markets = [doubled(make_dataset(n_bars, seed)) for seed, n_bars in enumerate((900, 700, 600))]
    is_gpu = accelerator == "gpu"
    plan = make_plan(epochs=3, batch_size=16, accelerator=accelerator, record_steps=is_gpu)
    return train_fleet(markets, networks(3), plan)


def test_a_fleet_on_a_gpu_is_that_of_a_cpu():
    for one, other in zip(trained("gpu"), trained("cpu"), strict=True):
        assert one.best_epoch == other.best_epoch
        assert one.history["val_loss"] == pytest.approx(other.history["val_loss"], abs=1e-6)
        for name, tensor in other.state_dict.items():
            torch.testing.assert_close(one.state_dict[name], tensor, rtol=1e-5, atol=1e-6)


def stepped(records: bool, seed: int = 5) -> torch.Tensor:
    """Weights after 12 steps with dropout."""
    alike = [tiny_network(0, dropout=0.5)] * 2
    stack = StackedCnnLstm.from_networks(alike).train().to("cuda")
    adamw = StackedAdamW(stack.weights, weight_decay=0.1, clip_norm=1.0)
    generator = torch.Generator().manual_seed(0)
    windows = torch.randn(200, 8, 15, generator=generator).cuda()
    labels = torch.randint(3, (200,), generator=generator).cuda()
    lr = torch.full((2,), 0.01, dtype=torch.float64, device="cuda")

    def precision() -> torch.autocast:
        return torch.autocast("cuda", torch.bfloat16, enabled=False)

    steps = FleetSteps(stack, adamw, lambda at: (windows[at], labels[at]), precision, lr, records)
    torch.manual_seed(seed)
    batches = [torch.randperm(200, generator=generator)[:192].view(12, 16).cuda() for _ in "ab"]
    for run in step_runs(batches, 0.5):
        for _ in steps.run(run):
            pass
    return stack.weights.detach().cpu()


def test_recorded_steps_repeat_themselves_and_the_seed_decides_what_is_dropped():
    first, again, other = stepped(True), stepped(True), stepped(True, seed=6)
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
    # Each model has other values dropped, and so each step.
    assert not torch.allclose(first[0], first[1])


def test_recorded_steps_are_those_that_were_not():
    torch.testing.assert_close(stepped(True), stepped(False), rtol=1e-4, atol=1e-5)


def test_a_fleet_learns_in_bf16_on_a_gpu():
    on_gpu = {"precision": "bf16-mixed", "accelerator": "gpu", "record_steps": True}
    plan = make_plan(epochs=4, lr=0.02, **on_gpu)
    (model,) = train_fleet([learnable_dataset(700)], [tiny_network(dropout=0.0)], plan)
    assert model.history["val_loss"][-1] < model.history["val_loss"][0] - 0.1


def test_a_market_is_trained_in_bf16_and_tested_in_32_bits(tmp_path):
    dataset = learnable_dataset(700)
    plan = make_plan(epochs=2, lr=0.02, precision="bf16-mixed", accelerator="gpu")
    trained_model = train(dataset, tiny_network(), plan, tmp_path)
    network = trained_model.module.network.cpu().eval()
    with torch.inference_mode():
        batches = [
            network(windows) for windows, _ in MarketDataModule.of(dataset, 64, 0).test_dataloader()
        ]
    served = torch.cat(batches).softmax(dim=1)
    torch.testing.assert_close(trained_model.module.test_probabilities, served, rtol=0, atol=1e-5)
