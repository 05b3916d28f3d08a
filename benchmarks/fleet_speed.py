"""How fast a fleet trains: many markets' networks in one stacked one.

    python benchmarks/fleet_speed.py                          on the CPU, a small fleet
    python benchmarks/fleet_speed.py --models 32 --accelerator gpu --precision bf16-mixed
    python benchmarks/fleet_speed.py --jobs 2 --epochs 0      beside jobs of one model each

Simulated markets, so that any number of any length can be had: what they hold makes no
difference to the time. First the steps alone, by the code that trains (median of ``rounds``
rounds of ``steps`` steps, after those that set up and record), as windows per second, and
as a share of what the machine reaches in a large matrix product measured in the same run,
at 136 MFLOP a window of the full network. Then whole epochs of a training, validation included.
With ``--jobs`` the same steps of one model, by so many processes of one thread at once, as a sweep
runs its jobs.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace

import torch

from percoin.assembly import dataset_spec
from percoin.bars.sources.simulated import SimulatedSource
from percoin.cli import compose_config
from percoin.config import TrainConfig, typed
from percoin.dataset import MarketDataset, build_dataset
from percoin.features.feature_set import FEATURE_NAMES
from percoin.training.fleet_network import StackedCnnLstm
from percoin.training.fleet_optimizer import StackedAdamW
from percoin.training.fleet_run import FleetModel, train_fleet
from percoin.training.fleet_steps import FleetSteps, step_runs
from percoin.training.recipes.network import plan_of, seeded_network
from percoin.types import Timeframe

# Forward and backward, the products alone: LSTM 120, convolutions 14, the rest 2.
FLOP_A_WINDOW = 136e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=int, default=4)
    parser.add_argument("--model", default="cnn_lstm", choices=["cnn_lstm", "cnn_lstm_half"])
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--accelerator", default="cpu", choices=["cpu", "gpu"])
    parser.add_argument("--precision", default="32-true", choices=["32-true", "bf16-mixed"])
    parser.add_argument("--record", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--windows", type=int, default=640, help="train windows of a market")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--jobs", type=int, default=0, help="processes of one model each")
    arguments = parser.parse_args()
    device = torch.device("cuda" if arguments.accelerator == "gpu" else "cpu")
    dtype = torch.bfloat16 if arguments.precision == "bf16-mixed" else torch.float32
    product = flop_per_sec(device, dtype)
    speed = steps_alone(arguments, device)
    print(f"{arguments.models} models, batches of {arguments.batch_size}, {arguments.precision}")
    print(f"matrix product: {product / 1e12:.2f} TFLOP/s")
    share = f", {speed * FLOP_A_WINDOW / product:.1%} of the matrix product"
    print(f"steps alone: {speed:,.0f} windows/s{share if arguments.model == 'cnn_lstm' else ''}")
    if arguments.jobs:
        beside = side_by_side(arguments)
        print(
            f"{arguments.jobs} jobs of one model, one thread each: {beside:,.0f} windows/s in all"
        )
        print(f"the fleet is {speed / beside:.2f} times as fast")
    if arguments.epochs:
        whole_epochs(arguments)


def side_by_side(arguments: argparse.Namespace) -> float:
    """Windows per second of all jobs together."""
    command = [
        *(sys.executable, __file__, "--models", "1", "--epochs", "0"),
        *("--model", arguments.model, "--precision", arguments.precision),
        *("--batch-size", str(arguments.batch_size), "--rounds", str(arguments.rounds)),
        # As many windows as a step of the fleet has, so that the processes meet for as long.
        *("--steps", str(arguments.steps * arguments.models)),
    ]
    threads = {**os.environ, "OMP_NUM_THREADS": "1"}
    jobs = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=threads)
        for _ in range(arguments.jobs)
    ]
    said = [job.communicate()[0] for job in jobs]
    found = [re.search(r"steps alone: ([\d,]+) windows/s", text) for text in said]
    return sum(float(match[1].replace(",", "")) for match in found if match)


def steps_alone(arguments: argparse.Namespace, device: torch.device) -> float:
    n_models, size = arguments.models, arguments.batch_size
    torch.manual_seed(0)
    networks = [seeded_network(settings_of(arguments))] * n_models
    stack = StackedCnnLstm.from_networks(networks).train().to(device)
    adamw = StackedAdamW(stack.weights, weight_decay=1e-5, clip_norm=1.0)
    bars = torch.randn(20_000, len(FEATURE_NAMES), device=device)
    windows = bars.unfold(0, 60, 1).transpose(1, 2)
    labels = torch.randint(3, (len(windows),), device=device)
    lr = torch.full((n_models,), 1e-3, dtype=torch.float64, device=device)

    def precision() -> torch.autocast:
        is_mixed = arguments.precision == "bf16-mixed"
        return torch.autocast(device.type, torch.bfloat16, enabled=is_mixed)

    records = arguments.record and device.type == "cuda"
    steps = FleetSteps(stack, adamw, lambda at: (windows[at], labels[at]), precision, lr, records)
    n_steps = arguments.steps * arguments.rounds + 10
    drawn = [torch.randint(len(windows), (n_steps, size)) for _ in range(n_models)]
    (run,) = step_runs([own.to(device) for own in drawn], 0.0)
    taken = steps.run(run)
    take(taken, 10)
    found = []
    for _ in range(arguments.rounds):
        began = now(device)
        take(taken, arguments.steps)
        found.append(arguments.steps * n_models * size / (now(device) - began))
    return statistics.median(found)


def settings_of(arguments: argparse.Namespace) -> TrainConfig:
    asked = ["symbol=BTCUSDT", "tf=15m", f"model={arguments.model}"]
    return typed(compose_config("train", asked), TrainConfig)


def take(steps: Iterator[None], n_steps: int) -> None:
    for _ in range(n_steps):
        next(steps)


def whole_epochs(arguments: argparse.Namespace) -> None:
    settings = settings_of(arguments)
    settings.epochs = arguments.epochs
    settings.batch_size = arguments.batch_size
    settings.trainer.accelerator = arguments.accelerator
    settings.trainer.precision = arguments.precision
    settings.trainer.record_steps = arguments.record and arguments.accelerator == "gpu"
    datasets = [simulated(seed, arguments.windows, settings) for seed in range(arguments.models)]
    networks = [seeded_network(settings)] * len(datasets)
    ends: list[float] = []

    def note(model: FleetModel) -> None:
        if model.dataset is datasets[0]:
            ends.append(model.secs)

    began = time.perf_counter()
    train_fleet(datasets, networks, plan_of(settings), after_epoch=note)
    secs = [end - start for start, end in zip([0.0, *ends], ends, strict=False)]
    n_windows = sum(len(dataset.rows("train")) for dataset in datasets)
    last = statistics.median(secs[1:] or secs)
    print(
        f"epochs of {n_windows:,} windows: the first {secs[0]:.1f} s, then {last:.2f} s each, "
        f"validation included: {n_windows / last:,.0f} windows/s; "
        f"all {time.perf_counter() - began:.1f} s"
    )


def simulated(seed: int, n_windows: int, settings: TrainConfig) -> MarketDataset:
    source = SimulatedSource(seed, int(n_windows / 0.7) + 200, 0.0)
    return build_dataset(
        source.load("BTCUSDT", Timeframe.M15),
        replace(dataset_spec(settings), history_days=100_000),
    )


def flop_per_sec(device: torch.device, dtype: torch.dtype) -> float:
    """Of large matrix products, the median of ten."""
    n = 8192 if device.type == "cuda" else 1024
    left = torch.randn(n, n, device=device).to(dtype)
    right = torch.randn(n, n, device=device).to(dtype)
    found = []
    for _ in range(11):
        began = now(device)
        for _ in range(5):
            left @ right
        found.append(5 * 2 * n**3 / (now(device) - began))
    return statistics.median(found[1:])


def now(device: torch.device) -> float:
    """Seconds, when the device has done all that it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    main()
