"""How long features take, and how long until one market is ready to train on.

    python benchmarks/features.py [repetitions]

On one core: the 15 features of 32 markets of 35,000 bars of 15m; and from the store to a split
dataset of one such market, features, labels and scaling included. Simulated bars; medians.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from threadpoolctl import threadpool_limits

from percoin.assembly import dataset_spec
from percoin.bars.sources.simulated import SimulatedSource
from percoin.bars.store import BarStore
from percoin.cli import compose_config
from percoin.config import TrainConfig, typed
from percoin.dataset import build_dataset
from percoin.features.feature_set import compute_features
from percoin.types import Timeframe

N_MARKETS, N_BARS = 32, 35_000


def main() -> None:
    repetitions = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    settings = typed(compose_config("train", ["symbol=BTCUSDT", "tf=15m"]), TrainConfig)
    features = settings.features.feature_set
    source = SimulatedSource(0, N_BARS + 700, 0.0)
    names = [f"M{number:02}USDT" for number in range(N_MARKETS)]
    markets = [source.load(name, Timeframe.M15).slice(700) for name in names]
    with tempfile.TemporaryDirectory() as folder, threadpool_limits(1):
        store = BarStore(Path(folder))
        store.write(source.load("BTCUSDT", Timeframe.M15))

        def ready() -> None:
            build_dataset(
                store.load("BTCUSDT", Timeframe.M15),
                dataset_spec(settings),
            )

        tell(
            f"features of {N_MARKETS} markets of {N_BARS:,} bars",
            lambda: [compute_features(bars, features) for bars in markets],
            repetitions,
            5.0,
        )
        tell("one market from the store to its split", ready, repetitions, 0.5)
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


def tell(name: str, task: Callable[[], object], repetitions: int, aim: float) -> None:
    task()
    secs = []
    for _ in range(repetitions):
        began = time.perf_counter()
        task()
        secs.append(time.perf_counter() - began)
    print(f"{name:44} {statistics.median(secs):.3f} s, aim {aim:g} s")


if __name__ == "__main__":
    main()
