"""How fast a model trains, against the usual way of training the same architecture.

    python benchmarks/training_speed.py [--windows 3200] [--rounds 3]

The usual way holds all windows in memory and trains on batches of 16 from a ``DataLoader``,
asks the attention about every bar, computes in 32 bits, in a plain loop, with AdamW and
clipping as percoin has them, on all cores. Each variant trains in a process of its own, in
turn, ``rounds`` times; only the time in training batches counts, after a first epoch that is
not timed. percoin trains in the precision that it chooses on this machine, unless the row says
otherwise. Prints medians of windows per second, their ratios to the usual way, and how much
of the machine's matrix product in 32 bits, measured beside them, they reach: at 136 MFLOP a window,
forward and backward, and at 200 in the usual way, which makes a query, a key and a value of every
bar.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from percoin.assembly import dataset_spec
from percoin.bars.sources.simulated import SimulatedSource
from percoin.cli import PATIENCE_OF_THREADS, compose_config
from percoin.config import TrainConfig, typed
from percoin.config.trainer import AUTO_PRECISION, FULL_PRECISION, MIXED_PRECISION
from percoin.dataset import MarketDataset, build_dataset
from percoin.features.feature_set import FEATURE_NAMES
from percoin.network import CnnLstm
from percoin.training.datamodule import MarketDataModule
from percoin.training.memory import keep_freed_memory
from percoin.training.precision import choose_precision, with_precision
from percoin.training.recipes.network import plan_of
from percoin.training.run import fit
from percoin.types import Timeframe

FLOP_A_WINDOW, USUAL_FLOP_A_WINDOW = 136e6, 200e6
USUAL_BATCH = 16
# Seconds of training at the end of each epoch.
Course = list[float]


class UsualNetwork(CnnLstm):
    """The same network with attention from every bar to every bar, of which one is used."""

    def forward(self, windows: Tensor) -> Tensor:
        """Logits (B, C) of windows (B, L, F)."""
        local = self.convolution(windows.transpose(1, 2)).mean(dim=2)
        outputs, _ = self.lstm(windows)
        attended, _ = self.attention(outputs, outputs, outputs)
        logits: Tensor = self.head(torch.cat([local, attended[:, -1]], dim=1))
        return logits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--windows", type=int, default=3200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--variant", choices=[*VARIANTS, "product"], help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.variant:
        torch.set_num_threads(arguments.threads)
        print(json.dumps(measured(arguments)))
    else:
        compare_speeds(arguments)


def compare_speeds(arguments: argparse.Namespace) -> None:
    n_cores = len(os.sched_getaffinity(0))
    runs: dict[str, Callable[[], float]] = {
        "usual": lambda: speed(arguments, "usual", n_cores),
        "percoin": lambda: speed(arguments, "percoin", n_cores),
        "percoin in 32 bits": lambda: speed(arguments, "percoin-full", n_cores),
        "percoin without Lightning": lambda: speed(arguments, "bare", n_cores),
        f"percoin, {n_cores} jobs of 1 thread": lambda: side_by_side(arguments, n_cores),
    }
    speeds: dict[str, list[float]] = {name: [] for name in runs}
    products = []
    for _ in range(arguments.rounds):
        products.append(float(run(arguments, "product", n_cores)))
        for name, once in runs.items():
            speeds[name].append(once())
    product = statistics.median(products)
    print(f"matrix product of {n_cores} threads: {product / 1e9:.0f} GFLOP/s")
    print("| variant | windows/s | to the usual way | of the matrix product |")
    print("|---|---:|---:|---:|")
    for name, found in speeds.items():
        median = statistics.median(found)
        ratio = statistics.median(
            one / other for one, other in zip(found, speeds["usual"], strict=True)
        )
        flop = USUAL_FLOP_A_WINDOW if name == "usual" else FLOP_A_WINDOW
        share = median * flop / product
        print(f"| {name} | {median:.0f} | {ratio:.2f} | {share:.0%} |")


def speed(arguments: argparse.Namespace, variant: str, n_threads: int) -> float:
    return float(run(arguments, variant, n_threads))


def side_by_side(arguments: argparse.Namespace, n_jobs: int) -> float:
    """Windows per second of jobs that train at the same time, one thread each."""
    jobs = [begin(arguments, "percoin", 1) for _ in range(n_jobs)]
    return sum(float(answer(job)) for job in jobs)


def run(arguments: argparse.Namespace, variant: str, n_threads: int) -> Any:
    return answer(begin(arguments, variant, n_threads))


def begin(arguments: argparse.Namespace, variant: str, n_threads: int) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, f"--variant={variant}", f"--threads={n_threads}"]
    command.append(f"--windows={arguments.windows}")
    environment = os.environ | {"OMP_NUM_THREADS": str(n_threads)}
    if variant != "usual":
        environment |= PATIENCE_OF_THREADS
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def answer(process: subprocess.Popen[str]) -> Any:
    out, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{process.args} ended with {process.returncode}")
    return json.loads(out.splitlines()[-1])


def measured(arguments: argparse.Namespace) -> float:
    if arguments.variant == "product":
        return flop_per_sec()
    words = ["symbol=BTCUSDT", "tf=15m", "epochs=2"]
    settings = typed(compose_config("train", words), TrainConfig)
    dataset = load(arguments.windows, settings)
    course = VARIANTS[arguments.variant](dataset, settings)
    return len(dataset.rows("train")) / (course[1] - course[0])


def load(n_windows: int, settings: TrainConfig) -> MarketDataset:
    """One market with that many train windows."""
    source = SimulatedSource(0, int(n_windows / 0.7) + 200, 0.0)
    return build_dataset(source.load(settings.symbol, Timeframe.M15), dataset_spec(settings))


def flop_per_sec() -> float:
    """Of products of two 1,024 x 1,024 matrices, the median of ten times ten."""
    left, right = torch.randn(1024, 1024), torch.randn(1024, 1024)
    found = []
    for _ in range(11):
        began = time.perf_counter()
        for _ in range(10):
            left @ right
        found.append(10 * 2 * 1024**3 / (time.perf_counter() - began))
    return statistics.median(found[1:])


def train_usual(dataset: MarketDataset, settings: TrainConfig) -> Course:
    batches = list(MarketDataModule.of(dataset, USUAL_BATCH, settings.seed).train_dataloader())
    windows, labels = (torch.cat(parts).contiguous() for parts in zip(*batches, strict=True))
    torch.manual_seed(settings.seed)
    network = UsualNetwork(len(FEATURE_NAMES))
    loader = DataLoader(TensorDataset(windows, labels), USUAL_BATCH, shuffle=True, drop_last=True)
    settings = with_precision(settings, FULL_PRECISION)
    return loop(network, lambda _: loader, settings, fused=None)


def train_bare(dataset: MarketDataset, settings: TrainConfig) -> Course:
    """All that makes percoin fast, in a plain loop."""
    keep_freed_memory()
    data = MarketDataModule.of(dataset, settings.batch_size, settings.seed)
    batches = data.train_dataloader()

    def of_epoch(epoch: int) -> DataLoader[Any]:
        batches.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        return batches

    torch.manual_seed(settings.seed)
    network = CnnLstm(len(FEATURE_NAMES))
    return loop(network, of_epoch, chosen(settings), fused=True)


def loop(
    network: nn.Module,
    batches_of: Callable[[int], DataLoader[Any]],
    settings: TrainConfig,
    fused: bool | None,
) -> Course:
    decay = settings.optimizer.weight_decay
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=settings.lr, weight_decay=decay, fused=fused
    )
    is_mixed = settings.trainer.precision == MIXED_PRECISION
    course, spent = [], 0.0
    for epoch in range(settings.epochs):
        network.train()
        began = time.perf_counter()
        for windows, labels in batches_of(epoch):
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=is_mixed):
                loss = functional.cross_entropy(network(windows), labels)
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), settings.optimizer.gradient_clip_norm)
            optimizer.step()
        spent += time.perf_counter() - began
        course.append(spent)
    return course


def train_percoin(dataset: MarketDataset, settings: TrainConfig) -> Course:
    keep_freed_memory()
    watch = Watch()
    torch.manual_seed(settings.seed)
    network = CnnLstm(len(FEATURE_NAMES))
    fit(dataset, network, plan_of(chosen(settings)), [watch])
    return watch.spent


def train_percoin_full(dataset: MarketDataset, settings: TrainConfig) -> Course:
    return train_percoin(dataset, with_precision(settings, FULL_PRECISION))


def chosen(settings: TrainConfig) -> TrainConfig:
    """The settings in the precision that suits this machine, and its threads, unless they say."""
    if settings.trainer.precision != AUTO_PRECISION:
        return settings
    choice = choose_precision(settings)
    torch.set_num_threads(choice.threads or torch.get_num_threads())
    return choice.applied(settings)


class Watch(pl.Callback):
    """Seconds from an epoch's start to the end of its last batch, summed over the epochs."""

    def __init__(self) -> None:
        self.spent: list[float] = []
        self._began = self._ended = 0.0

    def on_train_epoch_start(self, *_: object) -> None:
        """An epoch begins."""
        self._began = time.perf_counter()

    def on_train_batch_end(self, *_: object) -> None:
        """Perhaps the epoch's last batch."""
        self._ended = time.perf_counter()

    def on_train_epoch_end(self, *_: object) -> None:
        """The validation is over too, and not counted."""
        before = self.spent[-1] if self.spent else 0.0
        self.spent.append(before + self._ended - self._began)


VARIANTS: dict[str, Callable[[MarketDataset, TrainConfig], Course]] = {
    "usual": train_usual,
    "percoin": train_percoin,
    "percoin-full": train_percoin_full,
    "bare": train_bare,
}


if __name__ == "__main__":
    main()
