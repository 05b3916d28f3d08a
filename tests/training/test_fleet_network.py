"""Networks in a stack against the same networks one by one."""

import pytest
import torch
from torch.nn import functional
from training_builders import LOOKBACK, tiny_network

from percoin.features.feature_set import FEATURE_NAMES
from percoin.network import CnnLstm
from percoin.training.fleet_network import StackedCnnLstm
from percoin.training.fleet_optimizer import StackedAdamW

N_MODELS, N_ROWS = 3, 32
CLOSE = {"rtol": 1e-5, "atol": 1e-5}
RATES, CLIP_NORM = (0.01, 0.002, 0.05), 1.5
EXACT = {"rtol": 1e-9, "atol": 1e-9}


def networks(dtype: torch.dtype = torch.float32, **kwargs) -> list[CnnLstm]:
    """Three with different weights and statistics of their own."""
    made = [tiny_network(seed, **{"dropout": 0.0, **kwargs}) for seed in range(N_MODELS)]
    for seed, network in enumerate(made):
        network(windows(seed)[0])
    return [network.to(dtype) for network in made]


def windows(seed: int = 9, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    made = torch.randn(N_MODELS, N_ROWS, LOOKBACK, len(FEATURE_NAMES), generator=generator)
    return made.to(dtype)


def labels() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(3, (N_MODELS, N_ROWS), generator=generator)


def stacked_loss(logits: torch.Tensor, asked: torch.Tensor) -> torch.Tensor:
    return sum(functional.cross_entropy(own, its) for own, its in zip(logits, asked, strict=True))


def assert_same_states(stack: StackedCnnLstm, others: list[CnnLstm], **close: float) -> None:
    for model, network in enumerate(others):
        found, wanted = stack.unstack(model), network.state_dict()
        assert list(found) == list(wanted)
        for name, tensor in wanted.items():
            torch.testing.assert_close(found[name], tensor, **close, msg=lambda m, n=name: n + m)


@pytest.mark.parametrize("is_training", [True, False])
@pytest.mark.parametrize("shape", [{}, {"n_layers": 1}, {"n_layers": 3, "n_heads": 4}])
def test_a_stack_answers_as_its_networks_do_and_keeps_the_same_statistics(is_training, shape):
    alone = [network.train(is_training) for network in networks(**shape)]
    stack = StackedCnnLstm.from_networks(alone).train(is_training)
    asked = windows()
    wanted = torch.stack([network(own) for network, own in zip(alone, asked, strict=True)])
    torch.testing.assert_close(stack(asked), wanted, **CLOSE)
    assert_same_states(stack, alone, **CLOSE)


def test_stacking_and_unstacking_changes_no_bit():
    alone = networks()
    stack = StackedCnnLstm.from_networks(alone)
    assert_same_states(stack, alone, rtol=0, atol=0)
    fresh = tiny_network(seed=77, dropout=0.0)
    fresh.load_state_dict(stack.unstack(1))
    asked = windows()[1]
    assert torch.equal(fresh.eval()(asked), alone[1].eval()(asked))


def test_the_network_of_full_size_is_stacked_as_well():
    torch.manual_seed(0)
    alone = [CnnLstm(len(FEATURE_NAMES)).eval() for _ in range(2)]
    stack = StackedCnnLstm.from_networks(alone).eval()
    assert stack.weights.shape == (2, 689_923)
    asked = windows()[:2]
    wanted = torch.stack([network(own) for network, own in zip(alone, asked, strict=True)])
    torch.testing.assert_close(stack(asked), wanted, **CLOSE)


def updated_alone(alone: list[CnnLstm], n_updates: int) -> None:
    for model, network in enumerate(alone):
        adamw = torch.optim.AdamW(network.parameters(), lr=RATES[model], weight_decay=0.1)
        for update in range(n_updates):
            adamw.zero_grad()
            dtype = next(network.parameters()).dtype
            logits = network(windows(update, dtype)[model])
            functional.cross_entropy(logits, labels()[model]).backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), CLIP_NORM)
            adamw.step()


def test_gradients_of_a_stack_are_those_of_its_networks():
    alone = networks()
    stack = StackedCnnLstm.from_networks(alone)
    stacked_loss(stack(windows()), labels()).backward()
    for model, network in enumerate(alone):
        functional.cross_entropy(network(windows()[model]), labels()[model]).backward()
        wanted = torch.cat([parameter.grad.flatten() for parameter in network.parameters()])
        assert wanted.norm() > 0.01
        # Sums in 32 bits of many terms; how they are rounded depends on the processor.
        torch.testing.assert_close(stack.weights.grad[model], wanted, rtol=1e-4, atol=1e-5)


def test_one_clipped_update_of_a_stack_in_32_bits_is_that_of_its_networks():
    alone = networks()
    stack = StackedCnnLstm.from_networks(alone)
    adamw = StackedAdamW(stack.weights, weight_decay=0.1, clip_norm=CLIP_NORM)
    stacked_loss(stack(windows(0)), labels()).backward()
    # Some gradients are rounding alone, such as that of the keys' bias, which softmax takes
    # away: AdamW makes a step of full size of it, whose sign is chance.
    tells = stack.weights.grad.abs() > 1e-6
    assert tells.double().mean() > 0.9
    adamw.step(torch.tensor(RATES, dtype=torch.float64))
    updated_alone(alone, 1)
    for model, network in enumerate(alone):
        wanted = torch.cat([parameter.flatten() for parameter in network.parameters()])
        told = tells[model]
        torch.testing.assert_close(stack.weights[model][told], wanted[told], **CLOSE)


def test_several_clipped_updates_of_a_stack_are_those_of_its_networks():
    alone = networks(torch.float64)
    stack = StackedCnnLstm.from_networks(alone)
    adamw = StackedAdamW(stack.weights, weight_decay=0.1, clip_norm=CLIP_NORM)
    is_clipped = []
    for update in range(5):
        stacked_loss(stack(windows(update, torch.float64)), labels()).backward()
        is_clipped += (stack.weights.grad.norm(dim=1) > CLIP_NORM).tolist()
        adamw.step(torch.tensor(RATES, dtype=torch.float64))
    assert set(is_clipped) == {True, False}
    updated_alone(alone, 5)
    assert_same_states(stack, alone, **EXACT)


def test_some_models_are_trained_and_nothing_of_the_others_moves():
    alone = networks(torch.float64)
    stack = StackedCnnLstm.from_networks(alone)
    adamw = StackedAdamW(stack.weights, weight_decay=0.1, clip_norm=CLIP_NORM)
    some, rates = torch.tensor([0, 2]), torch.tensor(RATES, dtype=torch.float64)
    before = stack.unstack(1)
    for update in range(2):
        logits = stack(windows(update, torch.float64)[some], some)
        stacked_loss(logits, labels()[some]).backward()
        adamw.step(rates, some)
    assert all(torch.equal(before[name], tensor) for name, tensor in stack.unstack(1).items())
    updated_alone(alone, 2)
    alone[1].load_state_dict(before)
    assert_same_states(stack, alone, **EXACT)
    # Its first update comes later than those of the others, and is a first one.
    stacked_loss(stack(windows(0, torch.float64)), labels()).backward()
    adamw.step(rates)
    late = networks(torch.float64)
    updated_alone(late, 1)
    for name, tensor in late[1].state_dict().items():
        torch.testing.assert_close(stack.unstack(1)[name], tensor, **EXACT)


def test_models_taken_out_go_on_as_they_would_have():
    def begin() -> tuple[StackedCnnLstm, StackedAdamW]:
        stack = StackedCnnLstm.from_networks(networks(torch.float64))
        return stack, StackedAdamW(stack.weights, weight_decay=0.1, clip_norm=CLIP_NORM)

    (whole, whole_adamw), (stack, adamw) = begin(), begin()
    left, rates = torch.tensor([1, 2]), torch.tensor(RATES, dtype=torch.float64)
    for update in range(3):
        asked, kept = windows(update, torch.float64), left if update else slice(None)
        stacked_loss(whole(asked), labels()).backward()
        whole_adamw.step(rates)
        if update == 1:
            stack = stack.take(left)
            adamw.narrow(stack.weights, left)
        stacked_loss(stack(asked[kept]), labels()[kept]).backward()
        adamw.step(rates[kept])
    torch.testing.assert_close(stack.weights, whole.weights[left], **EXACT)
    torch.testing.assert_close(stack.statistics, whole.statistics[left], **EXACT)
    assert stack.n_batches.tolist() == whole.n_batches[left].tolist()


def test_models_put_into_a_stack_replace_those_alone():
    stack = StackedCnnLstm.from_networks(networks())
    others = StackedCnnLstm.from_networks([tiny_network(seed) for seed in (50, 51)])
    before = stack.weights.clone()
    stack.put(torch.tensor([2, 0]), others)
    assert torch.equal(stack.weights[2], others.weights[0])
    assert torch.equal(stack.weights[0], others.weights[1])
    assert torch.equal(stack.weights[1], before[1])
    assert torch.equal(stack.statistics[2], others.statistics[0])


def test_dropout_drops_other_values_in_every_model_and_none_in_evaluation():
    one = tiny_network(dropout=0.5)
    stack = StackedCnnLstm.from_networks([one, one])
    asked = windows()[:1].expand(2, -1, -1, -1)
    first, second = stack(asked)
    assert not torch.allclose(first, second)
    first, second = StackedCnnLstm.from_networks([one, one]).eval()(asked)
    torch.testing.assert_close(first, second, **CLOSE)
    torch.testing.assert_close(first, one.eval()(asked[0]), **CLOSE)


def test_every_layer_that_drops_values_does_so_in_a_stack():
    """The share of values dropped, place by place, as the network is told."""
    torch.manual_seed(0)
    seen = []
    drop = functional.dropout
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(functional, "dropout", lambda *args: (seen.append(args[1:]), drop(*args))[1])
        StackedCnnLstm.from_networks([tiny_network(dropout=0.25)] * 2)(windows()[:2])
    # Two in the convolutions, one between the layers of the LSTM, two in the head.
    assert seen == [(0.25, True)] * 5
