"""How fast a model trains, against the usual way of training the same architecture.

    python benchmarks/training_speed.py [--windows 3200] [--rounds 3]
    python benchmarks/training_speed.py --to-loss FOLDER [--symbol BTCUSDT] [--days 120]

The usual way holds all windows in memory and trains on batches of 16 from a ``DataLoader``,
asks the attention about every bar, computes in 32 bits, in a plain loop, with AdamW and
clipping as percoin has them, on all cores. Each variant trains in a process of its own, in
turn, ``rounds`` times; only the time in training batches counts, after a first epoch that is
not timed. percoin trains in the precision that it chooses on this machine, unless the row says
otherwise. Prints medians of windows per second, their ratios to the usual way, and how much
of the machine's matrix product in 32 bits, measured beside them, they reach: at 136 MFLOP a window,
forward and backward, and at 200 in the usual way, which makes a query, a key and a value of every
bar.

With ``--to-loss`` the usual way and percoin train one market of real 15m bars from the same
first weights; printed is how long each takes to the worse one of their best validation
log-losses, so that a fast epoch that learns less gains nothing.
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
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from percoin.assembly import dataset_spec
from percoin.bars.sources.files import FilesSource
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
# (seconds of training so far, validation log-loss), one an epoch.
Course = list[tuple[float, float]]


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
    parser.add_argument("--to-loss", type=Path)
    parser.add_argument("--symbol", default="BTCUSDT")
    parser.add_argument("--days", type=int, default=120)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--variant", choices=[*VARIANTS, "product"], help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.variant:
        torch.set_num_threads(arguments.threads)
        print(json.dumps(measured(arguments)))
    elif arguments.to_loss:
        compare_losses(arguments)
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


def compare_losses(arguments: argparse.Namespace) -> None:
    n_cores = len(os.sched_getaffinity(0))
    courses: dict[str, Course] = {
        name: run(arguments, name, n_cores) for name in ("usual", "percoin")
    }
    wanted = max(min(loss for _, loss in course) for course in courses.values())
    secs = {
        name: next(spent for spent, loss in course if loss <= wanted)
        for name, course in courses.items()
    }
    for name, course in courses.items():
        shown = ", ".join(f"{spent:.0f} s {loss:.4f}" for spent, loss in course)
        print(f"{name}: {shown}")
    print(
        f"to a validation log-loss of {wanted:.4f}: usual {secs['usual']:.0f} s, percoin "
        f"{secs['percoin']:.0f} s, {secs['usual'] / secs['percoin']:.2f} times as fast"
    )


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
    for name in ("windows", "to_loss", "symbol", "days", "epochs"):
        value = getattr(arguments, name)
        if value is not None:
            command.append(f"--{name.replace('_', '-')}={value}")
    environment = os.environ | {"OMP_NUM_THREADS": str(n_threads)}
    if variant != "usual":
        environment |= PATIENCE_OF_THREADS
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def answer(process: subprocess.Popen[str]) -> Any:
    out, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{process.args} ended with {process.returncode}")
    return json.loads(out.splitlines()[-1])


def measured(arguments: argparse.Namespace) -> float | Course:
    if arguments.variant == "product":
        return flop_per_sec()
    settings = typed(compose_config("train", [f"symbol={arguments.symbol}", "tf=15m"]), TrainConfig)
    settings.epochs = arguments.epochs if arguments.to_loss else 2
    dataset = load(arguments, settings)
    course = VARIANTS[arguments.variant](dataset, settings)
    if arguments.to_loss:
        return course
    n_windows = len(dataset.rows("train"))
    return n_windows / (course[1][0] - course[0][0])


def load(arguments: argparse.Namespace, settings: TrainConfig) -> MarketDataset:
    """One market of real bars, or one with that many train windows."""
    n_bars = int(arguments.windows / 0.7) + 200
    source = (
        FilesSource(arguments.to_loss) if arguments.to_loss else SimulatedSource(0, n_bars, 0.0)
    )
    return build_dataset(
        source.load(arguments.symbol, Timeframe.M15),
        replace(dataset_spec(settings), history_days=arguments.days)
        if arguments.to_loss
        else dataset_spec(settings),
    )


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
    data = MarketDataModule.of(dataset, USUAL_BATCH, settings.seed)
    parts = []
    for loader in (data.train_dataloader(), data.val_dataloader()):
        batches = list(loader)
        parts.append(
            TensorDataset(
                torch.cat([b[0] for b in batches]).contiguous(), torch.cat([b[1] for b in batches])
            )
        )
    train, validation = parts
    torch.manual_seed(settings.seed)
    network = UsualNetwork(len(FEATURE_NAMES))
    batches = DataLoader(train, USUAL_BATCH, shuffle=True, drop_last=True)
    settings = with_precision(settings, FULL_PRECISION)
    return loop(network, lambda _: batches, DataLoader(validation, 512), settings, fused=None)


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
    return loop(network, of_epoch, data.val_dataloader(), chosen(settings), fused=True)


def loop(
    network: nn.Module,
    batches_of: Callable[[int], DataLoader[Any]],
    validation: DataLoader[Any],
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
        course.append((spent, validation_loss(network, validation)))
    return course


@torch.inference_mode()
def validation_loss(network: nn.Module, batches: DataLoader[Any]) -> float:
    network.eval()
    pairs = [
        (float(functional.cross_entropy(network(windows), labels, reduction="sum")), len(labels))
        for windows, labels in batches
    ]
    return sum(loss for loss, _ in pairs) / sum(n_rows for _, n_rows in pairs)


def train_percoin(dataset: MarketDataset, settings: TrainConfig) -> Course:
    keep_freed_memory()
    watch = Watch()
    torch.manual_seed(settings.seed)
    network = CnnLstm(len(FEATURE_NAMES))
    module = fit(dataset, network, plan_of(chosen(settings)), [watch])
    return list(zip(watch.spent, module.history["val_loss"], strict=True))


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
