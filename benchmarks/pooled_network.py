"""What the network of a pool adds: the very pool of ``recipe=pooled`` without it.

    python train.py recipe=pooled symbol=A,B,... tf=15m source=files source.path=FOLDER \
        models_dir=MODELS [labels=volatility_scaled] [end=2025-07-16]
    python benchmarks/pooled_network.py FOLDER MODELS [MODELS ...] [--tf 15m] [--outputs O ...]

Each MODELS is the ``models_dir`` of one such training, with the default blend. The network comes
from the saved versions and is asked about their validation and test rows again; the other parts
are fitted again as the training fitted them. The weights of the default must come out as they are
saved, or the script ends with an error. Then the same parts without the network get weights on
the same validation rows.

A table for each folder: mean log-loss skill over the train prior on test rows; the lead in nats a
row, with joint intervals that draw days, and the number of markets ahead; mean weights. With
``--outputs``, the ``outputs_dir`` of the same trainings in the same order, the mean of the networks
of all their seeds takes the place of the one that validation rows chose, in rows of its own.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from combinations import SINGLE
from rivals import shown
from scipy.special import softmax

from percoin.audit.pooled import bars_as_known, rebuild_pooled
from percoin.bars.sources.files import FilesSource
from percoin.dataset import MarketDataset
from percoin.evaluation.baselines import class_shares
from percoin.evaluation.blend import NETWORK, blend_probabilities, choose_weights
from percoin.evaluation.calibration import apply_calibration, fit_calibration
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
from percoin.inference.networks import Network, load_network
from percoin.registry.artifact import Artifact, load_artifact
from percoin.registry.manifest import Manifest
from percoin.types import FloatArray, Timeframe

log = logging.getLogger("pooled_network")

_BATCH = 512
# The same parts on the same rows, but the network was asked in other batches.
_TOLERANCE = 2e-3
_MEAN = "mean of the seeds"


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

    def add_mean(self, logits: Sequence[Sequence[FloatArray]]) -> None:
        """Add the mean probability of several networks, calibrated as one.

        Args:
            logits: Of each network on validation and test rows.
        """
        known, asked = (
            np.log(np.mean([softmax(each[part], axis=1) for each in logits], axis=0))
            for part in (0, 1)
        )
        fitted = fit_calibration(known, self.labels[0])
        self.parts[_MEAN] = apply_calibration(known, fitted), apply_calibration(asked, fitted)

    def with_mean(self) -> tuple[str, ...]:
        """The parts of the default, with the mean of the networks for the chosen one."""
        return (_MEAN, *self.without())

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


def judge_pool(
    folder: Path, source: FilesSource, timeframe: Timeframe, outputs: Path | None = None
) -> list[Judged]:
    """Every market of a registry, with the mean of all seeds if their checkpoints are there."""
    shared, artifacts = SharedForecasters(), []
    for symbol in sorted(path.name for path in (folder / "per_coin").iterdir()):
        artifacts.append(load_artifact(folder, symbol, timeframe))
    datasets = [_dataset(artifact.manifest, source) for artifact in artifacts]
    first = artifacts[0].manifest
    log.info("%s: %d markets, seed %d", folder.name, len(datasets), first.seed)
    seeds = [] if outputs is None else _seeds_of(artifacts[0], outputs)
    pooled = fit_pooled_baselines(datasets, first.seed, has_moves=True)
    judged = []
    for artifact, dataset in zip(artifacts, datasets, strict=True):
        manifest, network = artifact.manifest, shared.network(artifact)
        blend = tuple(name for name in manifest.weights if name != NETWORK)
        rules = JudgingRules(
            seed=int(manifest.config["seed"]), blend=tuple(dict.fromkeys((*blend, *SINGLE)))
        )
        logits = _all_logits(network, dataset)
        judged.append(Judged(manifest, forecast_fold(dataset, *logits, rules, pooled)))
        if seeds:
            judged[-1].add_mean([_all_logits(each, dataset) for each in seeds])
    return judged


def _seeds_of(artifact: Artifact, outputs: Path) -> list[Network]:
    """The networks of all seeds at their best epochs; one of them must be the served one."""
    prefix, found = "network.", []
    is_served = False
    for path in sorted(outputs.glob("pooled/*/*/seed-*/checkpoints/best.ckpt")):
        state = torch.load(path, map_location="cpu", weights_only=False)["state_dict"]
        weights = {name.removeprefix(prefix): each for name, each in state.items()}
        found.append(load_network(replace(artifact, state_dict=weights)))
        is_served |= all(weights[n].equal(each) for n, each in artifact.state_dict.items())
    if not is_served:
        raise SystemExit(f"{outputs}: none of {len(found)} seeds is the network that is served")
    return found


def _all_logits(network: Network, dataset: MarketDataset) -> list[FloatArray]:
    return [_logits(network, dataset, part) for part in ("validation", "test")]


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
    if all(_MEAN in one.parts for one in judged):
        rows += [
            ("the mean of the seeds alone", lambda one: [_MEAN], lambda one: [one.best_single()]),
            ("the default with it", Judged.with_mean, lambda one: [one.best_single()]),
            ("the default with it, over the same without", Judged.with_mean, Judged.without),
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
    parser.add_argument("--outputs", type=Path, nargs="+", help="outputs_dir of each training")
    options = parser.parse_args()
    if options.outputs and len(options.outputs) != len(options.models):
        parser.error("--outputs needs one folder for each of MODELS")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    source = FilesSource(options.folder)
    outputs = options.outputs or [None] * len(options.models)
    for folder, checkpoints in zip(options.models, outputs, strict=True):
        judged = judge_pool(folder, source, options.tf, checkpoints)
        first, last = judged[0].opened[0], judged[0].opened[-1]
        days = np.array([first, last], "datetime64[ms]").astype("datetime64[D]")
        print(f"\n### {folder.name}: {len(judged)} markets, test {days[0]} to {days[1]}\n")
        print(table(judged), flush=True)


if __name__ == "__main__":
    main()
