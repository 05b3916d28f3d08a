"""What the network of a pool adds: the very pool of ``recipe=pooled`` without it.

    python train.py recipe=pooled symbol=A,B,... tf=15m source=files source.path=FOLDER \
        models_dir=MODELS [labels=volatility_scaled] [end=2025-07-16]
    python benchmarks/pooled_network.py FOLDER MODELS [MODELS ...] [--tf 15m]

Each MODELS is the ``models_dir`` of one such training, with the default blend. The network comes
from the saved versions and is asked about their validation and test rows again; the other parts
are fitted again as the training fitted them. The weights of the default must come out as they are
saved, or the script ends with an error. Then the same parts without the network get weights on
the same validation rows.

A table for each folder: mean log-loss skill over the train prior on test rows; the lead in nats a
row, with joint intervals that draw days, and the number of markets ahead; mean weights.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from combinations import SINGLE
from rivals import shown

from percoin.audit.pooled import bars_as_known, rebuild_pooled
from percoin.bars.sources.files import FilesSource
from percoin.dataset import MarketDataset
from percoin.evaluation.baselines import class_shares
from percoin.evaluation.blend import NETWORK, blend_probabilities, choose_weights
from percoin.evaluation.daily import DailyLosses, sum_by_day
from percoin.evaluation.fold_forecasts import (
    FoldForecasts,
    JudgingRules,
    fit_pooled_baselines,
    forecast_fold,
)
from percoin.evaluation.joint import joint_lead, joint_skill
from percoin.evaluation.metrics import row_log_loss
from percoin.evaluation.uncertainty import Bootstrap
from percoin.inference.forecasters import SharedForecasters
from percoin.inference.networks import Network
from percoin.registry.artifact import load_artifact
from percoin.registry.manifest import Manifest
from percoin.types import FloatArray, Timeframe

log = logging.getLogger("pooled_network")

_BATCH = 512
# The same parts on the same rows, but the network was asked in other batches.
_TOLERANCE = 2e-3


class Judged:
    """A market's default, the same without the network, and each part alone."""

    def __init__(self, manifest: Manifest, fold: FoldForecasts) -> None:
        dataset = fold.dataset
        self.rows = dataset.rows("test")
        self.opened = dataset.bars.open_time[self.rows]
        self.labels = [dataset.label[dataset.rows(part)] for part in ("validation", "test")]
        self.shares = class_shares(dataset.label[dataset.rows("train")])
        self.parts = {name: (part.validation, part.test) for name, part in fold.parts.items()}
        self.names = tuple(manifest.weights)
        self.weights = self._choose(self.names)
        saved = [manifest.weights[name] for name in self.names]
        if not np.allclose(self.weights, saved, atol=_TOLERANCE):
            found = ", ".join(f"{weight:.4f}" for weight in self.weights)
            raise SystemExit(
                f"{manifest.symbol}: the weights of {', '.join(self.names)} are {found}, and "
                f"saved are {', '.join(f'{weight:.4f}' for weight in saved)}: other bars?"
            )

    def without(self) -> tuple[str, ...]:
        """The parts of the default but the network."""
        return tuple(name for name in self.names if name != NETWORK)

    def best_single(self) -> str:
        """The model without a network that validation rows prefer, among nine."""
        known = self.labels[0]
        # A market whose bars begin late may have no part of a pool.
        names = [name for name in SINGLE if name in self.parts]
        return min(names, key=lambda name: row_log_loss(self.parts[name][0], known).mean())

    def losses(self, names: Sequence[str]) -> FloatArray:
        """Of the average of parts on test rows, with weights chosen on validation rows."""
        said = [self.parts[name][1] for name in names]
        return row_log_loss(blend_probabilities(said, self._choose(names)), self.labels[1])

    def daily(self, losses: FloatArray, beside: FloatArray) -> DailyLosses:
        """With the train prior, and another forecast in the place of the best baseline."""
        prior = np.tile(self.shares, (len(losses), 1))
        return sum_by_day(self.opened, [losses, row_log_loss(prior, self.labels[1]), beside])

    def _choose(self, names: Sequence[str]) -> tuple[float, ...]:
        return choose_weights([self.parts[name][0] for name in names], self.labels[0])


def judge_pool(folder: Path, source: FilesSource, timeframe: Timeframe) -> list[Judged]:
    """Every market of a registry."""
    shared, artifacts = SharedForecasters(), []
    for symbol in sorted(path.name for path in (folder / "per_coin").iterdir()):
        artifacts.append(load_artifact(folder, symbol, timeframe))
    datasets = [_dataset(artifact.manifest, source) for artifact in artifacts]
    first = artifacts[0].manifest
    log.info("%s: %d markets, seed %d", folder.name, len(datasets), first.seed)
    pooled = fit_pooled_baselines(datasets, first.seed, has_moves=True)
    judged = []
    for artifact, dataset in zip(artifacts, datasets, strict=True):
        manifest, network = artifact.manifest, shared.network(artifact)
        blend = tuple(name for name in manifest.weights if name != NETWORK)
        rules = JudgingRules(
            seed=int(manifest.config["seed"]), blend=tuple(dict.fromkeys((*blend, *SINGLE)))
        )
        logits = [_logits(network, dataset, part) for part in ("validation", "test")]
        judged.append(Judged(manifest, forecast_fold(dataset, *logits, rules, pooled)))
    return judged


def _dataset(manifest: Manifest, source: FilesSource) -> MarketDataset:
    pool = manifest.pool
    if pool is None:
        raise SystemExit(f"{manifest.symbol}: {manifest.version_id} is not of recipe=pooled")
    bars = bars_as_known(
        pool.markets[manifest.symbol],
        manifest.symbol,
        lambda symbol: source.load(symbol, Timeframe(manifest.timeframe)),
    )
    if bars is None:
        raise SystemExit(f"{manifest.symbol}: its bars have changed or are missing")
    return rebuild_pooled(manifest, pool, bars)


def _logits(network: Network, dataset: MarketDataset, part: str) -> FloatArray:
    starts = dataset.rows(part) - dataset.lookback + 1
    n_batches = -(-len(starts) // _BATCH)
    return np.concatenate(
        [network(dataset.windows[batch]) for batch in np.array_split(starts, n_batches)]
    )


def table(judged: list[Judged]) -> str:
    """Markdown."""
    bootstrap = Bootstrap(1)
    rows = [
        ("the network alone", lambda one: [NETWORK], lambda one: [one.best_single()]),
        ("the default without it", lambda one: one.without(), lambda one: [one.best_single()]),
        ("the default", lambda one: one.names, lambda one: [one.best_single()]),
        ("the default, over the same without the network", lambda one: one.names, Judged.without),
    ]
    lines = ["| | skill | over the best of nine, or as said | ahead |", "|---|---:|---:|---:|"]
    for title, names, beside in rows:
        daily = [one.daily(one.losses(names(one)), one.losses(beside(one))) for one in judged]
        ahead = sum(sum(day.best_baseline) > sum(day.model) for day in daily)
        skill, lead = joint_skill(daily, bootstrap), joint_lead(daily, bootstrap)
        lines.append(f"| {title} | {shown(skill)} | {shown(lead)} | {ahead} of {len(judged)} |")
    each = [dict(zip(one.names, one.weights, strict=True)) for one in judged]
    means = {name: np.mean([one.get(name, 0.0) for one in each]) for name in max(each, key=len)}
    weights = ", ".join(f"{name} {mean:.2f}" for name, mean in means.items())
    return "\n".join([*lines, "", f"Mean weights: {weights}."])


def main() -> None:
    """Print a table for each folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="of bars")
    parser.add_argument("models", type=Path, nargs="+", help="models_dir of a training")
    parser.add_argument("--tf", type=Timeframe, default=Timeframe.M15)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    source = FilesSource(options.folder)
    for folder in options.models:
        judged = judge_pool(folder, source, options.tf)
        first, last = judged[0].opened[0], judged[0].opened[-1]
        days = np.array([first, last], "datetime64[ms]").astype("datetime64[D]")
        print(f"\n### {folder.name}: {len(judged)} markets, test {days[0]} to {days[1]}\n")
        print(table(judged), flush=True)


if __name__ == "__main__":
    main()
