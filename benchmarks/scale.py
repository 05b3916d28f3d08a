"""What a training takes for more and more bars: time and memory, which ought to grow with them.

    python benchmarks/scale.py [--bars 35000 105000 1000000] [--windows 6400]

Each number of bars is a training in a process of its own, on one core, from simulated bars in
the store: everything that ``train.py`` does before the first step (bars, features, labels,
split, scaling), one epoch of ``windows`` train windows and one pass over as many validation
windows, so that the time in the network is the same for all; none with ``--windows 0``.
Printed are the processor seconds before the first step, the seconds of the epoch, the largest
memory, and how much of both a bar adds.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from percoin.assembly import dataset_spec
from percoin.bars.sources.simulated import SimulatedSource
from percoin.bars.store import BarStore
from percoin.cli import compose_config
from percoin.config import TrainConfig, typed
from percoin.dataset import MarketDataset, build_dataset
from percoin.splits import Split
from percoin.training.memory import keep_freed_memory
from percoin.training.pooled_module import thinned
from percoin.training.recipes.network import fit_trial
from percoin.types import Timeframe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bars", type=int, nargs="+", default=[35_000, 105_000, 1_000_000])
    parser.add_argument("--windows", type=int, default=6400)
    parser.add_argument("--store", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.store:
        print(json.dumps(measured(arguments.store, arguments.windows)))
        return
    print("| bars | before the first step | one epoch | largest memory |")
    print("|---:|---:|---:|---:|")
    found = {n_bars: train(n_bars, arguments.windows) for n_bars in arguments.bars}
    for n_bars, (ready, epoch, memory) in found.items():
        print(f"| {n_bars:,} | {ready:.2f} s | {epoch:.1f} s | {memory / 2**20:,.0f} MiB |")
    (few, least), *_, (many, most) = [*found.items(), *found.items()]
    if many > few:
        more = many - few
        secs, memory = (most[0] - least[0]) / more, (most[2] - least[2]) / more
        print(f"each further million bars: {secs * 1e6:.1f} s, {memory:.0f} bytes a bar")


def train(n_bars: int, n_windows: int) -> tuple[float, float, float]:
    with tempfile.TemporaryDirectory() as folder:
        bars = SimulatedSource(0, n_bars, 0.0).load("BTCUSDT", Timeframe.M15)
        BarStore(Path(folder)).write(bars)
        del bars
        command = [sys.executable, __file__, "--store", folder, "--windows", str(n_windows)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    ready, epoch, memory = json.loads(done.stdout.splitlines()[-1])
    return ready, epoch, memory


def measured(store: Path, n_windows: int) -> tuple[float, float, float]:
    torch.set_num_threads(1)
    keep_freed_memory()
    settings = typed(compose_config("train", ["symbol=BTCUSDT", "tf=15m"]), TrainConfig)
    settings.epochs = 1
    began = time.process_time()
    dataset = build_dataset(
        BarStore(store).load("BTCUSDT", Timeframe.M15),
        replace(dataset_spec(settings), history_days=100_000),
    )
    ready = time.process_time() - began
    began = time.perf_counter()
    if n_windows:
        fit_trial(settings, with_rows(dataset, n_windows))
    epoch = time.perf_counter() - began
    return ready, epoch, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def with_rows(dataset: MarketDataset, n_windows: int) -> MarketDataset:
    """At most so many rows of each part, spread over all of its time."""
    split = dataset.split
    parts = (thinned(rows, n_windows) for rows in (split.train, split.validation, split.test))
    return replace(dataset, split=Split(*parts))


if __name__ == "__main__":
    main()
