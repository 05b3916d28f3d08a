"""Train networks by many recipes on many real markets, and keep what they answered.

    python benchmarks/recipes.py FOLDER ANSWERS [--only NAME ...] [--tf 15m] [--seeds 0 1 2]
    python benchmarks/recipe_table.py FOLDER ANSWERS

FOLDER holds real bars as ``source=files`` reads them. Every recipe is trained by the code that
``train.py`` calls, on the markets that have bars of all days (313 on 15m, 1,040 on slower bars),
with cuts that all markets share, for two test windows of 15 % of the days without a common row
(for the earlier one the bars end where it does) and for three seeds. What is kept of each is a
file in ANSWERS with the logits of all validation and test rows; one that is there is not trained
again. With ``--accelerator gpu`` all networks of one shape are trained together, in the same 32
bits, as ``stacked_pools.py`` says.

    ANSWERS/<tf>/<recipe>/<window>-<seed>.npz   logits by market, epochs, seconds
    ANSWERS/<tf>/<recipe>/<window>-<seed>.pth   weights of a pool, for recipes that go on with it

``--list`` prints the recipes.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from stacked_pools import PoolTask, train_together
from torch import nn

from percoin.assembly import dataset_spec
from percoin.bars.schema import Bars
from percoin.bars.sources.files import FilesSource
from percoin.cli import compose_config
from percoin.config import TrainConfig, typed
from percoin.dataset import MarketDataset
from percoin.errors import DataError
from percoin.features.scaling import Scaling
from percoin.network import CnnLstm
from percoin.training.fleet_run import train_fleet
from percoin.training.memory import keep_freed_memory
from percoin.training.pooled_run import PooledPlan, train_pool
from percoin.training.recipes.network import plan_of, seeded_network
from percoin.training.recipes.pool import Pool, build_pool
from percoin.training.run import train
from percoin.types import Timeframe

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

# By market and part, shape (n_rows, 2).
Logits = dict[str, np.ndarray]


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
    "weight decay 0.01": Recipe(("optimizer.weight_decay=0.01",)),
    "dropout 0.1": Recipe(("model.dropout=0.1",)),
    "lookback 30": Recipe(("lookback=30",)),
    "lookback 120": Recipe(("lookback=120",)),
    "per market": Recipe(("epochs=50",), kind="per_market", markets=10),
    "init=pooled": Recipe(("epochs=50",), kind="init", init=BASE, markets=10),
    "scaled labels": Recipe((SCALED_LABELS,)),
    "scaled labels, lr 0.003": Recipe((SCALED_LABELS, "lr=0.003")),
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
    parser.add_argument("--accelerator", choices=["cpu", "gpu"], default="cpu")
    parser.add_argument("--list", action="store_true")
    arguments = parser.parse_args()
    if arguments.list or arguments.answers is None:
        print("\n".join(RECIPES))
        return
    if arguments.accelerator == "gpu" and not torch.cuda.is_available():
        parser.error("torch finds no GPU here: --accelerator cpu")
    logging.basicConfig(level=logging.WARNING)
    log.setLevel(logging.INFO)
    torch.set_num_threads(arguments.threads)
    torch.backends.cudnn.allow_tf32 = False
    keep_freed_memory()
    bars = load_bars(arguments.folder, arguments.tf)
    answers = arguments.answers / arguments.tf.value
    asked = itertools.product(arguments.only, arguments.windows, arguments.seeds)
    runs = [run for run in (Run(bars, answers, *key) for key in asked) if not run.path.exists()]
    if arguments.accelerator == "gpu":
        answer_on_gpu(runs)
        return
    for run in runs:
        began = time.monotonic()
        answer(run)
        log.info("%s: %.0f s", run.path, time.monotonic() - began)


@dataclass(frozen=True)
class Run:
    """A recipe on one test window from one seed.

    Attributes:
        bars: Of all markets.
        answers: The folder of the timeframe.
        name: Of the recipe.
        window: Of the test.
        seed: Of everything random.
    """

    bars: dict[str, Bars]
    answers: Path
    name: str
    window: str
    seed: int

    @property
    def recipe(self) -> Recipe:
        """How it trains."""
        return RECIPES[self.name]

    @property
    def settings(self) -> TrainConfig:
        """Those of ``train.py``."""
        return settings_of(self.name, self.window, self.seed, self.bars)

    @property
    def path(self) -> Path:
        """Where its answer is kept."""
        return answer_path(self.answers, self.name, self.window, self.seed)

    @property
    def start(self) -> Path:
        """Weights that the training goes on with, if it does."""
        path = answer_path(self.answers, self.recipe.init, self.window, self.seed)
        return path.with_suffix(".pth")

    def keep(self, epochs: list[tuple[int, int]], secs: float, logits: Logits) -> None:
        """Write the answer, whole or not at all."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        aside = self.path.with_suffix(".tmp.npz")
        np.savez_compressed(aside, epochs=np.array(epochs), secs=np.array(secs), **logits)
        aside.replace(self.path)

    def keep_pooled(
        self, network: CnnLstm, epoch: tuple[int, int], secs: float, pool: Pool
    ) -> None:
        """Write the weights and the answer of one network for all markets."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(network.state_dict(), self.path.with_suffix(".pth"))
        networks = dict.fromkeys((dataset.bars.symbol for dataset in pool.seen), network)
        self.keep([epoch], secs, logits_of(networks, pool.seen))


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
    if not found:
        raise SystemExit(f"{folder} holds no bars of the symbols for {timeframe}")
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
    return RECIPES[name].change_pool(unchanged_pool(bars, window, settings))


def unchanged_pool(bars: dict[str, Bars], window: str, settings: TrainConfig) -> Pool:
    known = list(bars.values())
    until = window_of(known[0].timeframe, window).until
    if until is not None:
        end = pd.Timestamp(until, tz="UTC")
        known = [own.slice(0, int((own.frame.index < end).sum())) for own in known]
    return build_pool(known, settings.pooled.leave_out, dataset_spec(settings))


def answer(run: Run) -> None:
    """Train, and keep what the network says on validation and test rows."""
    recipe, settings = run.recipe, run.settings
    pool = pool_of(run.bars, run.name, run.window, settings)
    began = time.monotonic()
    found: dict[str, CnnLstm] = {}
    epochs = []
    with tempfile.TemporaryDirectory() as folder:
        if recipe.kind == ALL:
            network, epoch = pooled(settings, pool, Path(folder))
            run.keep_pooled(network, epoch, time.monotonic() - began, pool)
            return
        for dataset in own_markets(pool, recipe):
            place = Path(folder) / dataset.bars.symbol
            network, epoch = alone(settings, dataset, place, recipe, run.start)
            found[dataset.bars.symbol] = network
            epochs.append(epoch)
    secs = time.monotonic() - began
    run.keep(epochs, secs, logits_of(found, own_markets(pool, recipe)))


def answer_on_gpu(runs: Iterable[Run]) -> None:
    """The same of many runs, those together whose networks fit into one stack."""
    pools: dict[object, Pool] = {}
    groups: dict[object, list[tuple[Run, PoolTask]]] = {}
    for run in runs:
        settings = run.settings
        # What the markets are made by, the same for many recipes.
        made_by = run.window, str(settings.labels), str(settings.features), settings.lookback
        if made_by not in pools:
            pools[made_by] = unchanged_pool(run.bars, run.window, settings)
        if (changed := (run.name, run.window)) not in pools:
            pools[changed] = run.recipe.change_pool(pools[made_by])
        shape = str(settings.model), settings.epochs, settings.batch_size, settings.lookback
        key = (run.recipe.kind, *shape, str(settings.optimizer))
        groups.setdefault(key, []).append((run, PoolTask(settings, pools[changed])))
    for (kind, *_), group in groups.items():
        if kind == ALL:
            answer_stacked(group)
        elif kind == "per_market":
            for run, task in group:
                answer_fleet(run, task)
        else:
            for run, _ in group:
                answer(run)


def answer_stacked(group: list[tuple[Run, PoolTask]]) -> None:
    began = time.monotonic()
    found = train_together([task for _, task in group], torch.device("cuda"))
    secs = (time.monotonic() - began) / len(group)
    for (run, task), (network, epoch) in zip(group, found, strict=True):
        run.keep_pooled(network, epoch, secs, task.pool)


def answer_fleet(run: Run, task: PoolTask) -> None:
    settings, markets = task.settings, own_markets(task.pool, run.recipe)
    plan = replace(plan_of(settings), accelerator="gpu", record_steps=True)
    began = time.monotonic()
    models = train_fleet(markets, [seeded_network(settings) for _ in markets], plan)
    secs = time.monotonic() - began
    networks = {}
    for model in models:
        networks[model.symbol] = seeded_network(settings)
        networks[model.symbol].load_state_dict(model.state_dict)
    epochs = [(len(model.history["val_loss"]), model.best_epoch) for model in models]
    run.keep(epochs, secs, logits_of(networks, markets))


def own_markets(pool: Pool, recipe: Recipe) -> list[MarketDataset]:
    """Those that are answered for, as they are trained on."""
    markets = list(pool.seen[: recipe.markets])
    if recipe.kind == "per_market":
        return [scaled_by_itself(market) for market in markets]
    return markets


def pooled(settings: TrainConfig, pool: Pool, folder: Path) -> tuple[CnnLstm, tuple[int, int]]:
    chosen = settings.pooled
    plan = PooledPlan(
        plan_of(settings),
        chosen.windows_per_epoch,
        chosen.validation_windows,
        chosen.warmup_epochs,
    )
    network = seeded_network(settings)
    trained = train_pool(pool, lambda _: network, plan, folder).model
    return network, (trained.n_epochs, trained.best_epoch)


def alone(
    settings: TrainConfig, dataset: MarketDataset, folder: Path, recipe: Recipe, start: Path
) -> tuple[CnnLstm, tuple[int, int]]:
    network, plan = seeded_network(settings), plan_of(settings)
    if recipe.kind == "init":
        network.load_state_dict(torch.load(start, weights_only=True))
        plan = replace(plan, lr=settings.pooled.init_lr)
        trained = train(dataset, network, plan, folder, is_gentle=True)
    else:
        trained = train(dataset, network, plan, folder)
    return trained.module.network, (trained.n_epochs, trained.best_epoch)


@torch.inference_mode()
def logits_of(networks: dict[str, CnnLstm], markets: Iterable[MarketDataset]) -> Logits:
    """Of all validation and test rows, less those of the last class, in 16 bits to save room."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    found = {}
    for dataset in markets:
        network: nn.Module = networks[dataset.bars.symbol].eval().to(device)
        features = torch.tensor(dataset.features, device=device)
        windows = features.unfold(0, dataset.lookback, 1).transpose(1, 2)
        for part in ("validation", "test"):
            first = torch.from_numpy(dataset.rows(part)).to(device) - dataset.lookback + 1
            logits = torch.cat([network(windows[rows]) for rows in torch.split(first, 2048)])
            less = logits[:, :-1] - logits[:, -1:]
            found[f"{dataset.bars.symbol} {part}"] = less.half().cpu().numpy()
    return found


if __name__ == "__main__":
    main()
