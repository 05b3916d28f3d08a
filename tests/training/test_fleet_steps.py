"""Who takes part in which step of a fleet's epoch, and what a step leaves alone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from training_builders import LOOKBACK, tiny_network

from percoin.features.feature_set import FEATURE_NAMES
from percoin.training.fleet_network import StackedCnnLstm
from percoin.training.fleet_optimizer import StackedAdamW
from percoin.training.fleet_steps import Batches, FleetSteps, Sums, step_runs

SIZE = 4


def batches_of(lengths: list[int], sizes: list[int]) -> list[torch.Tensor]:
    """Batches whose positions tell model and place: 1000 * model + counter."""
    return [
        1000 * model + torch.arange(n * size).view(n, size)
        for model, (n, size) in enumerate(zip(lengths, sizes, strict=True))
    ]


@given(
    lengths=st.lists(st.integers(0, 12), min_size=1, max_size=9),
    is_small=st.lists(st.booleans(), min_size=9, max_size=9),
    most_idle=st.sampled_from([0.0, 0.3, 0.5, 0.99]),
)
@settings(max_examples=80)
def test_every_batch_comes_once_in_order_and_few_are_computed_for_nothing(
    lengths, is_small, most_idle
):
    sizes = [3 if small else SIZE for small in is_small[: len(lengths)]]
    batches = batches_of(lengths, sizes)
    seen: list[list[torch.Tensor]] = [[] for _ in lengths]
    for run in step_runs(batches, most_idle):
        assert len({sizes[row] for row in run.rows}) == 1
        for step in run.batches:
            n_idle = int((~step.is_active).sum())
            assert n_idle <= most_idle * len(run.rows)
            assert n_idle < len(run.rows)
            for row, positions, is_active in zip(run.rows, *step, strict=True):
                if is_active:
                    seen[row].append(positions)
                assert set(positions.tolist()) <= set(batches[row].flatten().tolist())
    for wanted, found in zip(batches, seen, strict=True):
        assert torch.equal(torch.stack(found) if found else wanted[:0], wanted)


def test_half_of_the_models_may_be_idle_so_that_kinds_of_steps_are_few():
    lengths = [100, 100, *range(60, 90)]
    assert len(step_runs(batches_of(lengths, [SIZE] * 32), 0.0)) == 31
    # Of 32, of 16, of 8, of 4, of the last 2.
    assert len(step_runs(batches_of(lengths, [SIZE] * 32), 0.5)) <= 6


def steps_of_three(dtype: torch.dtype = torch.float64) -> tuple[FleetSteps, StackedCnnLstm]:
    networks = [tiny_network(seed, dropout=0.0).to(dtype) for seed in range(3)]
    stack = StackedCnnLstm.from_networks(networks).train()
    adamw = StackedAdamW(stack.weights, weight_decay=0.1, clip_norm=1.0)
    generator = torch.Generator().manual_seed(0)
    shape = 20, LOOKBACK, len(FEATURE_NAMES)
    windows = torch.randn(shape, generator=generator, dtype=dtype)
    labels = torch.randint(3, (20,), generator=generator)
    lr = torch.full((3,), 0.01, dtype=torch.float64)

    def precision() -> torch.autocast:
        return torch.autocast("cpu", torch.bfloat16, enabled=False)

    steps = FleetSteps(stack, adamw, lambda at: (windows[at], labels[at]), precision, lr)
    return steps, stack


def take(steps: FleetSteps, lengths: list[int], most_idle: float) -> None:
    generator = torch.Generator().manual_seed(1)
    batches = [torch.randint(20, (n, 16), generator=generator) for n in lengths]
    for run in step_runs(batches, most_idle):
        for _ in steps.run(run):
            pass


def test_idle_models_are_left_as_they_are_and_the_others_go_on_as_ever():
    (exact, wanted), (steps, stack) = steps_of_three(), steps_of_three()
    take(exact, [5, 2, 1], 0.0)
    take(steps, [5, 2, 1], 0.99)
    torch.testing.assert_close(stack.weights, wanted.weights, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(stack.statistics, wanted.statistics, rtol=1e-9, atol=1e-11)
    assert torch.equal(stack.n_batches, wanted.n_batches)
    assert stack.n_batches[:, 0].tolist() == [5, 2, 1]
    for one, other in zip(steps.sums.means(), exact.sums.means(), strict=True):
        assert one == pytest.approx(other, rel=1e-9)


def test_an_idle_model_that_has_never_learnt_stays_whole():
    steps, stack = steps_of_three(torch.float32)
    before = stack.unstack(2)
    everyone = Batches(torch.arange(16).expand(3, 16), torch.tensor([True, True, False]))
    run = step_runs([everyone.positions[:1]] * 2, 0.0)[0]
    run = type(run)((0, 1, 2), (everyone, everyone))
    for _ in steps.run(run):
        pass
    assert all(torch.equal(before[name], tensor) for name, tensor in stack.unstack(2).items())
    assert bool(torch.isfinite(stack.weights).all())


def test_sums_take_in_what_counts_and_begin_again():
    sums = Sums(2, torch.device("cpu"))
    losses = torch.tensor([[1.0, torch.inf], [2.0, 4.0]])
    logits = torch.tensor([[[2.0, 1.0], [2.0, 1.0]], [[1.0, 2.0], [2.0, 1.0]]])
    labels = torch.tensor([[0, 1], [1, 1]])
    counts = torch.tensor([[True, False], [True, True]])
    sums.add(losses, logits, labels, counts=counts)
    assert sums.means() == [(1.0, 1.0), (3.0, 0.5)]
    sums.add(losses[1:], logits[1:], labels[1:], models=torch.tensor([0]))
    assert sums.means() == [(7 / 3, 2 / 3), (3.0, 0.5)]
    sums.reset()
    sums.add(losses[1:], logits[1:], labels[1:], models=torch.tensor([0]))
    sums.add(losses[1:], logits[1:], labels[1:], models=torch.tensor([1]))
    assert sums.means() == [(3.0, 0.5)] * 2
