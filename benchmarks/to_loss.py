"""How soon the network of a single market is as good, by the recipe of its training.

    python benchmarks/to_loss.py FOLDER ANSWERS [--symbols BTCUSDT SOLUSDT ETHUSDT DOGEUSDT]
        [--seeds 0 1 2] [--arms usual plateau slow] [--against bf16] [--days 150]

Every arm trains the network alone on real 15m bars of one market, in a plain loop on one thread,
from the same first weights. ``plateau`` is the default in 32 bits and ``bf16`` the default where
the processor has it; ``usual`` has batches of 16. The others draw 2,500 or 5,000 windows an epoch
and average the weights, in bf16. All make use of the faster attention, which changes no result:
what a window costs in the usual way is measured by ``benchmarks/training_speed.py``. Kept are, at
every validation, the windows trained on so far, the processor seconds spent on them, the
validation log-loss, and the test log-loss where the validation log-loss is the lowest so far.
Answers lie in ANSWERS, one file for each arm, market and seed; those that are there are not
computed again.

Printed are for each market, seed and arm the windows and processor seconds to the lowest validation
log-loss of ``--against``, the seconds of the whole training with its validations, and the lowest
validation log-loss of its own with the test log-loss there; then, over all pairs of an arm with
``--against``, the mean differences of both with their standard errors, and the ratio of seconds.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import ReduceLROnPlateau

from percoin.assembly import dataset_spec
from percoin.bars.sources.files import FilesSource
from percoin.cli import compose_config
from percoin.config import TrainConfig, typed
from percoin.dataset import MarketDataset, Part, build_dataset
from percoin.network import CnnLstm
from percoin.training.datamodule import EVALUATION_BATCH_SIZE, BatchSampler, WindowDataset
from percoin.training.memory import keep_freed_memory
from percoin.types import Timeframe

# What was measured at every validation.
Course = list[dict[str, Any]]


@dataclass(frozen=True)
class Recipe:
    """How an arm trains.

    Attributes:
        batch_size: Windows per step.
        lr: Learning rate to begin with.
        is_bf16: Autocast of the train steps; validation and test are always in 32 bits.
        windows: Windows between two validations, drawn afresh; None is all of them.
        rounds: Validations at most.
        average: Decay of a moving average of the weights, by step; 0 is none.
        patience: Validations without a better loss before the end.
        plateau: Validations without a better loss before the rate is halved.
    """

    batch_size: int = 64
    lr: float = 1e-3
    is_bf16: bool = False
    windows: int | None = None
    rounds: int = 50
    average: float = 0.0
    patience: int = 5
    plateau: int = 3


ARMS = {
    "usual": Recipe(batch_size=16),
    "plateau": Recipe(),
    "bf16": Recipe(is_bf16=True),
    "averaged": Recipe(lr=2e-3, is_bf16=True, windows=2500, average=0.99),
    "patient": Recipe(lr=2e-3, is_bf16=True, windows=2500, rounds=200, average=0.99, patience=16),
    "slow": Recipe(lr=1e-3, is_bf16=True, windows=2500, rounds=200, average=0.995, patience=16),
    "steady": Recipe(
        is_bf16=True, windows=2500, rounds=200, average=0.995, patience=12, plateau=12
    ),
    "drawn": Recipe(is_bf16=True, windows=5000, average=0.995, patience=10, plateau=6),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_trainings(parser)
    parser.add_argument("--arms", nargs="*", default=[*ARMS], choices=[*ARMS])
    parser.add_argument("--against", default="bf16", choices=[*ARMS])
    arguments = parser.parse_args()
    begin(arguments)
    for seed in arguments.seeds:
        for symbol in arguments.symbols:
            for arm in arguments.arms:
                answer(arguments, arm, symbol, seed)
    report(arguments)


def add_trainings(parser: argparse.ArgumentParser) -> None:
    """Where bars and answers lie, and which markets and seeds are trained on how many days."""
    parser.add_argument("folder", type=Path)
    parser.add_argument("answers", type=Path)
    parser.add_argument(
        "--symbols", nargs="+", default=["BTCUSDT", "SOLUSDT", "ETHUSDT", "DOGEUSDT"]
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--days", type=float, default=150)


def begin(arguments: argparse.Namespace) -> None:
    """Make the folder of answers, and train on one thread."""
    arguments.answers.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    keep_freed_memory()


def answer(arguments: argparse.Namespace, arm: str, symbol: str, seed: int) -> None:
    path = path_of(arguments, arm, symbol, seed)
    if path.is_file():
        return
    _, course = train(load(arguments.folder, symbol, arguments.days), ARMS[arm], seed)
    aside = path.with_suffix(".part")
    aside.write_text(json.dumps(course))
    aside.rename(path)


def path_of(arguments: argparse.Namespace, arm: str, symbol: str, seed: int) -> Path:
    folder: Path = arguments.answers
    return folder / f"{arm}-{symbol}-{arguments.days:g}-{seed}.json"


def report(arguments: argparse.Namespace) -> None:
    """Print what is known of every market and seed that ``--against`` has trained."""
    print("| market, seed | arm | to it: windows | seconds | in all | validation | test |")
    print("|---|---|---:|---:|---:|---:|---:|")
    pairs: dict[str, list[tuple[Course, Course]]] = {}
    for symbol, seed in itertools.product(arguments.symbols, arguments.seeds):
        paths = {arm: path_of(arguments, arm, symbol, seed) for arm in ARMS}
        known = {arm: json.loads(path.read_text()) for arm, path in paths.items() if path.is_file()}
        if arguments.against not in known:
            continue
        yardstick = known[arguments.against]
        wanted = lowest(yardstick)["val_loss"]
        for arm, course in known.items():
            pairs.setdefault(arm, []).append((course, yardstick))
            best = lowest(course)
            reached = next((row for row in course if row["val_loss"] <= wanted), None)
            spent = (
                "not reached | "
                if reached is None
                else f"{reached['windows']:,} | {reached['secs']:.0f}"
            )
            losses = f"{best['val_loss']:.4f} | {best['test_loss']:.4f}"
            print(f"| {symbol}, {seed} | {arm} | {spent} | {seconds(course):.0f} | {losses} |")
    print(f"\n| arm against {arguments.against} | pairs | validation | test | seconds |")
    print("|---|---:|---:|---:|---:|")
    for arm, both in pairs.items():
        if arm == arguments.against:
            continue
        cells = [arm, str(len(both))]
        for name in ("val_loss", "test_loss"):
            better = [float(lowest(b)[name]) - float(lowest(a)[name]) for a, b in both]
            cells.append(f"{np.mean(better):+.4f} ({standard_error(better):.4f})")
        cells.append(f"{sum(seconds(b) for _, b in both) / sum(seconds(a) for a, _ in both):.2f}")
        print(f"| {' | '.join(cells)} |")


def seconds(course: Course) -> float:
    """Processor seconds of a training with its validations."""
    return float(course[-1]["secs"]) + sum(row["val_secs"] for row in course)


def standard_error(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.nan


def lowest(course: Course) -> dict[str, Any]:
    return min(course, key=lambda row: float(row["val_loss"]))


def load(folder: Path, symbol: str, days: float) -> MarketDataset:
    settings = typed(compose_config("train", [f"symbol={symbol}", "tf=15m"]), TrainConfig)
    spec = replace(dataset_spec(settings), history_days=days)
    return build_dataset(FilesSource(folder).load(symbol, Timeframe.M15), spec)


def train(dataset: MarketDataset, recipe: Recipe, seed: int) -> tuple[CnnLstm, Course]:
    """The network where its validation log-loss is lowest, and every validation."""
    torch.manual_seed(seed)
    network = CnnLstm(dataset.features.shape[1])
    averaged = copy.deepcopy(network) if recipe.average else network
    optimizer = torch.optim.AdamW(network.parameters(), recipe.lr, weight_decay=1e-5, fused=True)
    plateau = ReduceLROnPlateau(optimizer, factor=0.5, patience=recipe.plateau)
    parts = {part: windows_of(dataset, part) for part in ("train", "validation", "test")}
    sampler = BatchSampler(len(parts["train"]), recipe.batch_size, seed, recipe.windows)
    course: Course = []
    step, secs, best, began = 0, 0.0, math.inf, time.perf_counter()
    kept = copy.deepcopy(network)
    for number in range(recipe.rounds):
        sampler.set_epoch(number)
        torch.manual_seed(seed * 1_000_003 + number)
        network.train()
        spent = time.process_time()
        for positions in sampler:
            step_on(network, optimizer, parts["train"][positions], recipe.is_bf16)
            step += 1
            if recipe.average:
                follow(averaged, network, min(recipe.average, step / (step + 10)))
        secs += time.process_time() - spent
        spent = time.process_time()
        loss = log_loss(averaged, parts["validation"])
        row = {
            "windows": step * recipe.batch_size,
            "secs": secs,
            "val_secs": time.process_time() - spent,
            "wall_secs": time.perf_counter() - began,
            "val_loss": loss,
            "test_loss": log_loss(averaged, parts["test"]) if loss < best else None,
        }
        course.append(row)
        plateau.step(loss)
        if loss < best:
            best, kept = loss, copy.deepcopy(averaged)
        if best < min((row["val_loss"] for row in course[-recipe.patience :]), default=0):
            break
    return kept, course


def step_on(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: tuple[Tensor, Tensor],
    is_bf16: bool,
) -> None:
    windows, labels = batch
    optimizer.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=is_bf16):
        loss = functional.cross_entropy(network(windows), labels)
    loss.backward()
    nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimizer.step()


@torch.no_grad()
def follow(averaged: nn.Module, network: nn.Module, decay: float) -> None:
    """Move an average of weights and of the statistics of normalisations towards a network."""
    states = averaged.state_dict().values(), network.state_dict().values()
    pairs = [(old, new) for old, new in zip(*states, strict=True) if old.is_floating_point()]
    torch._foreach_lerp_([old for old, _ in pairs], [new for _, new in pairs], 1 - decay)


def windows_of(dataset: MarketDataset, part: Part) -> WindowDataset:
    return WindowDataset(
        torch.tensor(dataset.features),
        torch.tensor(dataset.label),
        torch.from_numpy(np.asarray(dataset.rows(part))),
        dataset.lookback,
    )


@torch.inference_mode()
def log_loss(network: nn.Module, windows: WindowDataset) -> float:
    network.eval()
    total = 0.0
    for positions in BatchSampler(len(windows), EVALUATION_BATCH_SIZE):
        inputs, labels = windows[positions]
        total += float(functional.cross_entropy(network(inputs), labels, reduction="sum"))
    return total / len(windows)


if __name__ == "__main__":
    main()
