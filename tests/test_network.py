import json
import math
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from percoin.features.feature_set import FEATURE_NAMES
from percoin.network import CnnLstm, attend_newest
from percoin.types import Signal

N_FEATURES = len(FEATURE_NAMES)
GOLDEN = Path(__file__).with_name("golden") / "network_logits.json"
# Kernels differ between processors in the last bits of a float32.
TOLERANCE = 1e-5


@pytest.fixture(autouse=True, scope="module")
def _one_core() -> Iterator[None]:
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


def tiny_network(seed: int = 0, **kwargs) -> CnnLstm:
    torch.manual_seed(seed)
    sizes = {"channels": (4, 4, 4), "hidden_size": 4, "n_heads": 2, "head_sizes": (4, 4)}
    return CnnLstm(N_FEATURES, **{**sizes, **kwargs})


def make_input(n_windows: int, lookback: int, seed: int = 0) -> Tensor:
    rng = np.random.default_rng(seed)
    return torch.tensor(rng.normal(size=(n_windows, lookback, N_FEATURES)), dtype=torch.float32)


def full_attention(network: CnnLstm, outputs: Tensor) -> Tensor:
    """Every query of the multi-head attention, written out; shape (B, L, 2 * hidden_size)."""
    attention = network.attention
    n_windows, lookback, width = outputs.shape
    projected = functional.linear(outputs, attention.in_proj_weight, attention.in_proj_bias)
    query, key, value = (
        part.reshape(n_windows, lookback, attention.num_heads, -1).transpose(1, 2)
        for part in projected.split(width, dim=2)
    )
    scores = query @ key.transpose(2, 3) / math.sqrt(query.shape[3])
    mixed = (scores.softmax(dim=3) @ value).transpose(1, 2).reshape(n_windows, lookback, width)
    return attention.out_proj(mixed)


def test_the_default_network_has_689923_parameters():
    network = CnnLstm(15)
    assert sum(parameter.numel() for parameter in network.parameters()) == 689_923


@pytest.mark.parametrize(("n_windows", "lookback"), [(5, 60), (1, 60), (3, 1)])
@torch.inference_mode()
def test_asking_for_the_newest_bar_alone_equals_the_full_attention(n_windows, lookback):
    torch.manual_seed(1)
    network = CnnLstm(N_FEATURES).eval()
    # They begin as zeros, which would hide one that is left out.
    torch.nn.init.normal_(network.attention.in_proj_bias)
    torch.nn.init.normal_(network.attention.out_proj.bias)
    outputs, _ = network.lstm(make_input(n_windows, lookback))
    full = full_attention(network, outputs)
    assert full.shape == (n_windows, lookback, 200)
    newest = attend_newest(network.attention, outputs)
    torch.testing.assert_close(newest, full[:, -1], atol=2e-6, rtol=0)
    by_torch, _ = network.attention(outputs, outputs, outputs)
    torch.testing.assert_close(newest, by_torch[:, -1], atol=2e-6, rtol=0)


def test_the_gradients_of_the_newest_bar_alone_are_those_of_the_full_attention():
    torch.manual_seed(1)
    attention = CnnLstm(N_FEATURES).double().attention
    torch.nn.init.normal_(attention.in_proj_bias)
    outputs = torch.randn(4, 20, 200, dtype=torch.float64, requires_grad=True)
    wanted = torch.randn(4, 200, dtype=torch.float64)

    def gradients(newest: Tensor) -> list[Tensor]:
        (newest * wanted).sum().backward()
        leaves = [outputs, *attention.parameters()]
        found = [leaf.grad.clone() for leaf in leaves]
        for leaf in leaves:
            leaf.grad = None
        return found

    full = gradients(attention(outputs, outputs, outputs, need_weights=False)[0][:, -1])
    for one, other in zip(gradients(attend_newest(attention, outputs)), full, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize(("n_windows", "lookback"), [(1, 4), (2, 5), (3, 60), (7, 61), (2, 128)])
@torch.inference_mode()
def test_one_logit_per_class_for_any_batch_and_lookback(n_windows, lookback):
    logits = tiny_network().eval()(make_input(n_windows, lookback))
    assert logits.shape == (n_windows, len(Signal))
    assert bool(torch.isfinite(logits).all())


@torch.inference_mode()
def test_the_same_window_gets_the_same_logits_in_any_batch():
    network = tiny_network().eval()
    windows = make_input(6, 20)
    together = network(windows)
    assert torch.equal(network(windows), together)
    torch.testing.assert_close(network(windows[2:3]), together[2:3], atol=1e-6, rtol=0)


@torch.inference_mode()
def test_the_newest_and_the_oldest_bar_both_count():
    network = tiny_network().eval()
    windows = make_input(1, 20)
    for bar in (0, -1):
        changed = windows.clone()
        changed[:, bar] += 3
        assert not torch.allclose(network(changed), network(windows), atol=1e-6)


def test_dropout_acts_in_training_alone():
    network = tiny_network(dropout=0.5)
    windows = make_input(8, 20)
    assert not torch.equal(network(windows), network(windows))
    network.eval()
    assert torch.equal(network(windows), network(windows))


def test_one_lstm_layer_takes_a_dropout_without_a_warning():
    assert tiny_network(n_layers=1, dropout=0.3).lstm.dropout == 0.0


def test_the_gradient_reaches_every_parameter():
    network = tiny_network(dropout=0.0)
    labels = torch.arange(16) % len(Signal)
    functional.cross_entropy(network(make_input(16, 20)), labels).backward()
    dead = [
        name
        for name, parameter in network.named_parameters()
        if parameter.grad is None or not bool(parameter.grad.abs().max() > 0)
    ]
    assert dead == []


def measured_logits() -> dict[str, list[list[float]]]:
    """Logits of the default network after seeded init and after one AdamW update."""
    torch.manual_seed(2024)
    # Without dropout, whose draws are not part of what is to stay the same.
    network = CnnLstm(N_FEATURES, dropout=0.0)
    windows, labels = make_input(6, 60, seed=5), torch.tensor([0, 1, 2, 1, 1, 0])
    with torch.inference_mode():
        initial = network.eval()(windows)
    # A large eps: without it the first step is lr times the gradient's sign, and the
    # sign of a gradient near 0 is a matter of the order of summation.
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=1e-5, eps=1e-3)
    functional.cross_entropy(network.train()(windows), labels).backward()
    optimizer.step()
    with torch.inference_mode():
        updated = network.eval()(windows)
    return {"after_init": initial.tolist(), "after_one_update": updated.tolist()}


def test_logits_are_those_on_record():
    """PERCOIN_REGENERATE_GOLDEN=1 writes the record anew: a change every saved model feels."""
    measured = measured_logits()
    if os.environ.get("PERCOIN_REGENERATE_GOLDEN") == "1":
        GOLDEN.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
        pytest.skip(f"wrote {GOLDEN.name}; run again without PERCOIN_REGENERATE_GOLDEN")
    recorded = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert recorded.keys() == measured.keys()
    for name, logits in recorded.items():
        np.testing.assert_allclose(measured[name], logits, rtol=0, atol=TOLERANCE, err_msg=name)
    assert not np.allclose(recorded["after_init"], recorded["after_one_update"], atol=1e-3)
