"""The networks behind docs/RECIPES.md: a stack of pools is trained as train.py trains each pool."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from training_builders import TINY

from percoin.assembly import dataset_spec
from percoin.bars.sources.simulated import SimulatedSource
from percoin.cli import compose_config
from percoin.config import TrainConfig, typed
from percoin.training.pooled_run import PooledPlan, train_pool
from percoin.training.recipes.network import plan_of, seeded_network
from percoin.training.recipes.pool import Pool, build_pool
from percoin.types import Timeframe

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def settings(*overrides: str) -> TrainConfig:
    shape = {
        name: list(value) if isinstance(value, tuple) else value for name, value in TINY.items()
    }
    tiny = [f"model.{name}={value}" for name, value in shape.items()]
    asked = ["symbol='BTCUSDT,ETHUSDT'", "tf=1h", "recipe=pooled", "lookback=8", *tiny]
    sizes = ["batch_size=32", "pooled.windows_per_epoch=320", "pooled.validation_windows=100"]
    asked += [*sizes, "model.dropout=0", "epochs=3", *overrides]
    return typed(compose_config("train", asked), TrainConfig)


def doubled(pool: Pool) -> Pool:
    """In 64 bits, in which rounding shows nowhere."""
    seen = [replace(own, features=own.features.astype(np.float64)) for own in pool.seen]
    return replace(pool, seen=tuple(seen), features=pool.features.astype(np.float64))


@pytest.fixture
def stacked_pools(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import stacked_pools

    monkeypatch.setattr(stacked_pools, "seeded_network", lambda own: seeded_network(own).double())
    return stacked_pools


def make(own: TrainConfig) -> Pool:
    source = SimulatedSource(seed=0, n_bars=700, edge=0.9)
    markets = [source.load(symbol, Timeframe.H1) for symbol in own.symbols]
    return doubled(build_pool(markets, own.pooled.leave_out, dataset_spec(own)))


def test_networks_of_a_stack_are_those_of_pools_trained_alone(stacked_pools, tmp_path):
    tasks = []
    for overrides in (("seed=1",), ("seed=2", "lr=0.01", "labels=volatility_scaled")):
        own = settings(*overrides)
        tasks.append(stacked_pools.PoolTask(own, make(own)))
    together = stacked_pools.train_together(tasks, torch.device("cpu"))

    for number, (task, (network, epochs)) in enumerate(zip(tasks, together, strict=True)):
        sizes = task.settings.pooled
        plan = PooledPlan(
            plan_of(task.settings),
            sizes.windows_per_epoch,
            sizes.validation_windows,
            sizes.warmup_epochs,
        )
        alone = seeded_network(task.settings).double()
        trained = train_pool(
            task.pool, lambda _, own=alone: own, plan, tmp_path / str(number), lambda _: ()
        ).model
        assert epochs == (trained.n_epochs, trained.best_epoch)
        for name, tensor in alone.state_dict().items():
            torch.testing.assert_close(network.state_dict()[name], tensor, rtol=1e-6, atol=1e-6)


def test_markets_of_a_stack_must_count_alike(stacked_pools):
    own = settings("pooled.validation_windows=400")
    pool = make(own)
    first, second = pool.seen
    split = replace(second.split, validation=second.split.validation[5:])
    pool = replace(pool, seen=(first, replace(second, split=split)))
    with pytest.raises(ValueError, match="as many validation rows as each other"):
        stacked_pools.train_together([stacked_pools.PoolTask(own, pool)], torch.device("cpu"))
