"""How soon a single market's network is as good, by the recipe of its training.

    python benchmarks/to_loss.py FOLDER ANSWERS [--symbols BTCUSDT SOLUSDT ETHUSDT DOGEUSDT]
        [--seeds 0 1 2] [--arms usual plateau] [--days 150]

Every arm trains the network alone on real 15m bars of one market, in a plain loop on one thread,
from the same first weights. Kept are, at every validation, the windows trained on so far, the
processor seconds spent on them and on the validations, the validation log-loss, and the test
log-loss where the validation log-loss is the lowest so far. Answers lie in ANSWERS, one file for
each arm, market and seed; those that are there are not computed again. Seconds of a busy machine
vary, so the table takes the seconds of a window from ``benchmarks/training_speed.py`` where asked.

Printed is for each arm, over markets and seeds: windows and seconds to the best validation
log-loss of ``plateau``, the earlier default, and the validation and test log-losses it ends with.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
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
from percoin.features.feature_set import FEATURE_NAMES
from percoin.network import CnnLstm
from percoin.training.datamodule import EVALUATION_BATCH_SIZE, BatchSampler, WindowDataset
from percoin.training.memory import keep_freed_memory
from percoin.types import Timeframe

YARDSTICK = "plateau"


@dataclass(frozen=True)
class Recipe:
    """How an arm trains.

    Attributes:
        batch_size: Windows per step.
        lr: Learning rate to begin with, or the largest one.
        is_bf16: Autocast of the train steps; validation and test are always in 32 bits.
        windows: Windows between two validations, drawn afresh; None is all of them.
        rounds: Validations at most; a cosine covers all of them.
        warmup: Share of the steps in which the rate grows; None is the plateau schedule.
        average: Decay of a moving average of the weights, by step; 0 is none.
        patience: Validations without a better loss before the end.
        floor: The rate at the cosine's end, as a share of the largest.
    """

    batch_size: int = 64
    lr: float = 1e-3
    is_bf16: bool = False
    windows: int | None = None
    rounds: int = 50
    warmup: float | None = None
    average: float = 0.0
    patience: int = 5
    floor: float = 0.0


ARMS = {
    "usual": Recipe(batch_size=16),
    YARDSTICK: Recipe(),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("answers", type=Path)
    parser.add_argument(
        "--symbols", nargs="+", default=["BTCUSDT", "SOLUSDT", "ETHUSDT", "DOGEUSDT"]
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--arms", nargs="*", default=[*ARMS], choices=[*ARMS])
    parser.add_argument("--days", type=float, default=150)
    arguments = parser.parse_args()
    arguments.answers.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    keep_freed_memory()
    for seed in arguments.seeds:
        for symbol in arguments.symbols:
            for arm in arguments.arms:
                answer(arguments, arm, symbol, seed)


def answer(arguments: argparse.Namespace, arm: str, symbol: str, seed: int) -> None:
    path = arguments.answers / f"{arm}-{symbol}-{arguments.days:g}-{seed}.json"
    if path.is_file():
        return
    course = train(load(arguments.folder, symbol, arguments.days), ARMS[arm], seed)
    aside = path.with_suffix(".part")
    aside.write_text(json.dumps(course))
    aside.rename(path)
    best = min(course, key=lambda row: row["val_loss"])
    print(arm, symbol, seed, json.dumps(best), f"of {len(course)}", flush=True)


def load(folder: Path, symbol: str, days: float) -> MarketDataset:
    settings = typed(compose_config("train", [f"symbol={symbol}", "tf=15m"]), TrainConfig)
    spec = replace(dataset_spec(settings), history_days=days)
    return build_dataset(FilesSource(folder).load(symbol, Timeframe.M15), spec)


def train(dataset: MarketDataset, recipe: Recipe, seed: int) -> list[dict[str, Any]]:
    torch.manual_seed(seed)
    network = CnnLstm(len(FEATURE_NAMES))
    averaged = copy.deepcopy(network) if recipe.average else network
    optimizer = torch.optim.AdamW(network.parameters(), recipe.lr, weight_decay=1e-5, fused=True)
    plateau = ReduceLROnPlateau(optimizer, factor=0.5, patience=3)
    parts = {part: windows_of(dataset, part) for part in ("train", "validation", "test")}
    sampler = BatchSampler(len(parts["train"]), recipe.batch_size, seed, recipe.windows)
    course: list[dict[str, Any]] = []
    step, secs, best, began = 0, 0.0, math.inf, time.perf_counter()
    for number in range(recipe.rounds):
        sampler.set_epoch(number)
        torch.manual_seed(seed * 1_000_003 + number)
        network.train()
        spent = time.process_time()
        for positions in sampler:
            if recipe.warmup is not None:
                share = lr_share(step, recipe, len(sampler) * recipe.rounds)
                optimizer.param_groups[0]["lr"] = recipe.lr * share
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
        if recipe.warmup is None:
            plateau.step(loss)
        best = min(best, loss)
        if best < min((row["val_loss"] for row in course[-recipe.patience :]), default=0):
            break
    return course


def lr_share(step: int, recipe: Recipe, n_steps: int) -> float:
    n_warmup = max(1, round(n_steps * (recipe.warmup or 0)))
    if step < n_warmup:
        return (step + 1) / n_warmup
    done = (step - n_warmup) / max(1, n_steps - n_warmup)
    return recipe.floor + (1 - recipe.floor) * 0.5 * (1 + math.cos(math.pi * done))


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
