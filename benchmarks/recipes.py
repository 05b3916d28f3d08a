"""Train networks by many recipes on many real markets, and keep what they answered.

    python benchmarks/recipes.py FOLDER ANSWERS [--only NAME ...] [--tf 15m] [--seeds 0 1 2]
    python benchmarks/recipe_table.py FOLDER ANSWERS

FOLDER holds real bars as ``source=files`` reads them. Every recipe is trained by the code that
``train.py`` calls, on the markets that have bars of all days (313 on 15m, 1,040 on slower bars),
with cuts that all markets share, for two test windows of 15 % of the days without a common row
(for the earlier one the bars end where it does) and for three seeds. What is kept of each is a
file in ANSWERS with the logits of all validation and test rows; one that is there is not trained
again.

    ANSWERS/<tf>/<recipe>/<window>-<seed>.npz   logits by market, epochs, seconds
    ANSWERS/<tf>/<recipe>/<window>-<seed>.pth   weights of a pool, for recipes that go on with it

``--list`` prints the recipes.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from percoin.bars.schema import Bars
from percoin.bars.sources.files import FilesSource
from percoin.cli import compose_config
from percoin.config import TrainConfig, typed
from percoin.dataset import MarketDataset
from percoin.errors import DataError
from percoin.features.scaling import Scaling
from percoin.network import CnnLstm
from percoin.pool import Pool
from percoin.training.build import plan_of, seeded_network
from percoin.training.memory import keep_freed_memory
from percoin.training.pooled_build import make_pool
from percoin.training.pooled_run import PooledPlan, train_pool
from percoin.training.run import train, train_further
from percoin.types import FloatArray, Timeframe

log = logging.getLogger("recipes")

ROOT = Path(__file__).parents[1]
DAY_MILLISECONDS = 86_400_000
WINDOWS = ("later", "earlier")
OF_ALL = [
    "model=cnn_lstm_half",
    "epochs=15",
    "pooled.windows_per_epoch=30000",
    "pooled.validation_windows=10000",
]
ALL = "pooled"


@dataclass(frozen=True)
class Window:
    """Where the rows of a test window and of what comes before it lie.

    Attributes:
        days: Of history.
        shares: Of train, validation and test.
        until: Bars end before it; None keeps all.
    """

    days: float
    shares: tuple[float, float, float]
    until: str | None = None


def window_of(timeframe: Timeframe, name: str) -> Window:
    whole = (0.7, 0.15, 0.15)
    if timeframe is Timeframe.M15:
        earlier = Window(266, (0.646, 0.177, 0.177), "2025-07-15")
        return Window(313, whole) if name == "later" else earlier
    earlier = Window(884, (0.646, 0.177, 0.177), "2025-03-29")
    return Window(1040, whole) if name == "later" else earlier


@dataclass(frozen=True)
class Recipe:
    """A way to train.

    Attributes:
        changes: Settings of ``train.py`` beyond those of all recipes.
        change_pool: What is made of the pool before the training.
        kind: ``pooled``, or of single markets: ``per_market``, ``init``.
        init: Of ``init``: the recipe whose pool it goes on with.
        markets: How many markets are trained; None is all.
    """

    changes: tuple[str, ...] = ()
    change_pool: Callable[[Pool], Pool] = lambda pool: pool
    kind: str = ALL
    init: str = ""
    markets: int | None = None


def scaled_alone(pool: Pool) -> Pool:
    """A scaler of its own for each market."""
    return with_markets(pool, [scaled_by_itself(dataset) for dataset in pool.seen])


def scaled_by_itself(dataset: MarketDataset) -> MarketDataset:
    # Of what is scaled already: two linear maps are one.
    scaling = Scaling.fit(dataset.features[dataset.rows("train")].astype(np.float64))
    return replace(dataset, features=scaling.transform(dataset.features))


def scaled_robustly(pool: Pool) -> Pool:
    """Median and interquartile range of all train rows, values cut off at five of these."""
    rows = np.concatenate([dataset.features[dataset.rows("train")] for dataset in pool.seen])
    lower, middle, upper = np.percentile(rows, [25, 50, 75], axis=0)
    spread = (upper - lower) / 1.349

    def robust(dataset: MarketDataset) -> MarketDataset:
        features = np.clip((dataset.features - middle) / spread, -5, 5).astype(np.float32)
        return replace(dataset, features=features)

    return with_markets(pool, [robust(dataset) for dataset in pool.seen])


def newest_half(pool: Pool) -> Pool:
    """Half of the train rows of each market, the newest."""

    def half(dataset: MarketDataset) -> MarketDataset:
        rows = dataset.rows("train")
        return replace(dataset, split=replace(dataset.split, train=rows[len(rows) // 2 :]))

    return with_markets(pool, [half(dataset) for dataset in pool.seen])


def with_markets(pool: Pool, seen: list[MarketDataset]) -> Pool:
    features = np.concatenate([dataset.features for dataset in seen])
    return replace(pool, seen=tuple(seen), features=features)


SCALED_LABELS = "labels=volatility_scaled"
BASE = "half, 15 epochs"
RECIPES = {
    BASE: Recipe(),
    "half, 5 epochs": Recipe(("epochs=5",)),
    "half, 40 epochs": Recipe(("epochs=40",)),
    "full, 5 epochs": Recipe(("model=cnn_lstm", "epochs=5")),
    "full, 15 epochs": Recipe(("model=cnn_lstm",)),
    "lr 0.0003": Recipe(("lr=0.0003",)),
    "lr 0.003": Recipe(("lr=0.003",)),
    "batches of 256, lr 0.003": Recipe(("batch_size=256", "lr=0.003")),
    "a scaler for each market": Recipe(change_pool=scaled_alone),
    "robust scaler": Recipe(change_pool=scaled_robustly),
    "newest half of the train rows": Recipe(change_pool=newest_half),
    "raw features": Recipe(("features=raw",)),
    "lookback 120": Recipe(("lookback=120",)),
    "per market": Recipe(("epochs=50",), kind="per_market", markets=10),
    "init=pooled": Recipe(("epochs=50",), kind="init", init=BASE, markets=10),
    "scaled labels": Recipe((SCALED_LABELS,)),
    "scaled labels, full": Recipe((SCALED_LABELS, "model=cnn_lstm")),
    "scaled labels, a scaler for each market": Recipe((SCALED_LABELS,), change_pool=scaled_alone),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("answers", type=Path, nargs="?")
    parser.add_argument("--only", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--windows", nargs="+", choices=WINDOWS, default=list(WINDOWS))
    parser.add_argument("--tf", type=Timeframe, default=Timeframe.M15)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--list", action="store_true")
    arguments = parser.parse_args()
    if arguments.list or arguments.answers is None:
        print("\n".join(RECIPES))
        return
    logging.basicConfig(level=logging.WARNING)
    log.setLevel(logging.INFO)
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    bars = load_bars(arguments.folder, arguments.tf)
    answers = arguments.answers / arguments.tf.value
    for name in arguments.only:
        for seed in arguments.seeds:
            for window in arguments.windows:
                path = answer_path(answers, name, window, seed)
                if not path.exists():
                    began = time.monotonic()
                    answer(bars, answers, name, window, seed)
                    log.info("%s: %.0f s", path, time.monotonic() - began)


def answer_path(answers: Path, name: str, window: str, seed: int) -> Path:
    return answers / name / f"{window}-{seed}.npz"


def load_bars(folder: Path, timeframe: Timeframe) -> dict[str, Bars]:
    """Markets whose bars fill the days up to the newest bar of all."""
    source, found = FilesSource(folder), {}
    for symbol in (ROOT / "symbols").read_text(encoding="ascii").strip().split(","):
        try:
            found[symbol] = source.load(symbol, timeframe)
        except DataError as error:
            log.info("left out: %s", error)
    newest = max(int(bars.open_time[-1]) for bars in found.values())
    first = newest - (window_of(timeframe, "later").days - 7) * DAY_MILLISECONDS
    return {
        symbol: bars
        for symbol, bars in found.items()
        if bars.open_time[0] <= first and bars.open_time[-1] == newest
    }


def settings_of(name: str, window: str, seed: int, bars: dict[str, Bars]) -> TrainConfig:
    timeframe = next(iter(bars.values())).timeframe
    own = window_of(timeframe, window)
    parts = zip(("train", "validation", "test"), own.shares, strict=True)
    overrides = [
        *(f"symbol='{','.join(bars)}'", f"tf={timeframe}", "recipe=pooled", f"seed={seed}"),
        *(f"history_days={own.days}", *(f"split.{part}={share}" for part, share in parts)),
        *(*OF_ALL, *RECIPES[name].changes),
    ]
    # A setting that comes twice is the recipe's, which comes later.
    by_key = {text.partition("=")[0]: text for text in overrides}
    return typed(compose_config("train", list(by_key.values())), TrainConfig)


def pool_of(bars: dict[str, Bars], name: str, window: str, settings: TrainConfig) -> Pool:
    """The markets as the recipe has them, for one test window."""
    known = list(bars.values())
    until = window_of(known[0].timeframe, window).until
    if until is not None:
        end = pd.Timestamp(until, tz="UTC")
        known = [own.slice(0, int((own.frame.index < end).sum())) for own in known]
    return RECIPES[name].change_pool(make_pool(settings, known))


def answer(bars: dict[str, Bars], answers: Path, name: str, window: str, seed: int) -> None:
    """Train, and keep what the network says on validation and test rows."""
    recipe = RECIPES[name]
    settings = settings_of(name, window, seed, bars)
    pool = pool_of(bars, name, window, settings)
    path = answer_path(answers, name, window, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    kept: dict[str, FloatArray] = {}
    epochs = []
    with tempfile.TemporaryDirectory() as folder:
        if recipe.kind == ALL:
            network, epoch = pooled(settings, pool, Path(folder))
            torch.save(network.state_dict(), path.with_suffix(".pth"))
            epochs.append(epoch)
            secs = time.monotonic() - began
            for dataset in pool.seen:
                kept |= logits_of(network, dataset)
        else:
            start = answer_path(answers, recipe.init, window, seed).with_suffix(".pth")
            for dataset in pool.seen[: recipe.markets]:
                place = Path(folder) / dataset.bars.symbol
                own = dataset if recipe.kind == "init" else scaled_by_itself(dataset)
                network, epoch = alone(settings, own, place, recipe, start)
                kept |= logits_of(network, own)
                epochs.append(epoch)
            secs = time.monotonic() - began
    aside = path.with_suffix(".tmp.npz")
    np.savez_compressed(aside, epochs=np.array(epochs), secs=np.array(secs), **kept)
    aside.replace(path)


def pooled(settings: TrainConfig, pool: Pool, folder: Path) -> tuple[CnnLstm, tuple[int, int]]:
    chosen = settings.pooled
    plan = PooledPlan(
        plan_of(settings),
        chosen.windows_per_epoch,
        chosen.validation_windows,
        chosen.warmup_epochs,
    )
    network = seeded_network(settings)
    trained = train_pool(pool, lambda _: network, plan, folder, lambda _: ()).model
    return network, (trained.n_epochs, trained.best_epoch)


def alone(
    settings: TrainConfig, dataset: MarketDataset, folder: Path, recipe: Recipe, start: Path
) -> tuple[CnnLstm, tuple[int, int]]:
    network, plan = seeded_network(settings), plan_of(settings)
    if recipe.kind == "init":
        network.load_state_dict(torch.load(start, weights_only=True))
        plan = replace(plan, lr=settings.pooled.init_lr)
        trained = train_further(dataset, network, plan, folder)
    else:
        trained = train(dataset, network, plan, folder)
    return trained.module.network, (trained.n_epochs, trained.best_epoch)


@torch.inference_mode()
def logits_of(network: nn.Module, dataset: MarketDataset) -> dict[str, FloatArray]:
    network.eval()
    windows, found = (
        torch.tensor(dataset.features).unfold(0, dataset.lookback, 1).transpose(1, 2),
        {},
    )
    for part in ("validation", "test"):
        first = torch.from_numpy(dataset.rows(part)) - dataset.lookback + 1
        logits = torch.cat([network(windows[rows]) for rows in torch.split(first, 512)])
        found[f"{dataset.bars.symbol} {part}"] = logits.numpy()
    return found


if __name__ == "__main__":
    main()
