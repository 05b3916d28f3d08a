"""How often the gate errs, and what it finds: 128 markets of each kind, at full draws.

    python stress/gate_power.py                  some tens of minutes; writes gate_power.md
    python stress/gate_power.py --markets 8      a quick look; prints only

The quick version of this is ``tests/evaluation/test_judgement_power.py``.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binom

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from builders import make_bars  # noqa: E402
from market_judgements import (  # noqa: E402
    boosting,
    dataset_of,
    judge_market,
    logistic,
    network,
    shuffled_labels,
)

from percoin.bars.sources.simulated import SimulatedSource  # noqa: E402
from percoin.dataset import MarketDataset  # noqa: E402
from percoin.evaluation import fold_forecasts  # noqa: E402
from percoin.evaluation.baselines import TrainPrior  # noqa: E402
from percoin.evaluation.evaluate import Evaluation  # noqa: E402
from percoin.evaluation.gate import apply_false_discovery_control  # noqa: E402
from percoin.types import Timeframe  # noqa: E402

FULL = 128
N_BARS = 3000
REPETITIONS = 1000
ERROR_RATE = 0.025
RESULTS = Path(__file__).with_suffix(".md")


@dataclass(frozen=True)
class Sweep:
    """Markets of one kind judged with one model."""

    market: str
    model: str
    make_dataset: Callable[[int], MarketDataset]
    make_model: Callable[[int], Any]


def walk(seed: int) -> MarketDataset:
    """A random walk of even pace: nothing to know."""
    return dataset_of(make_bars(N_BARS, seed=seed))


def clusters(edge: float, shuffle: bool = False) -> Callable[[int], MarketDataset]:
    """A market with clustered volatility and, where ``edge`` is above 0, a direction."""

    def make(seed: int) -> MarketDataset:
        bars = SimulatedSource(seed, N_BARS, edge).load("BTCUSDT", Timeframe.M15)
        dataset = dataset_of(bars)
        return shuffled_labels(dataset, seed) if shuffle else dataset

    return make


SWEEPS = (
    Sweep("random walk", "logistic", walk, logistic),
    Sweep("random walk", "boosting", walk, boosting),
    Sweep("random walk", "small network", walk, network),
    Sweep("clusters, edge 0.5, labels shuffled", "logistic", clusters(0.5, True), logistic),
    Sweep("clusters, edge 0", "logistic", clusters(0.0), logistic),
    Sweep("clusters, edge 0.15", "logistic", clusters(0.15), logistic),
    Sweep("clusters, edge 0.3", "logistic", clusters(0.3), logistic),
)
COLUMNS = (
    "market",
    "model",
    "accepted",
    "after FDR control",
    "mean skill",
    "activity AUC",
    "direction AUC",
    "direction surely above .5",
)


def row_of(sweep: Sweep, evaluations: list[Evaluation]) -> tuple[str, ...]:
    """One line of the table."""
    verdicts = {str(seed): e.verdict for seed, e in enumerate(evaluations)}
    standing = apply_false_discovery_control(verdicts)
    directions = [e.model.direction.auc for e in evaluations]
    return (
        sweep.market,
        sweep.model,
        f"{sum(v.is_accepted for v in verdicts.values())} of {len(evaluations)}",
        str(sum(v.is_accepted for v in standing.values())),
        f"{np.mean([e.model.skill.value for e in evaluations]):+.4f}",
        f"{np.mean([e.model.activity.auc.value for e in evaluations]):.3f}",
        f"{np.mean([auc.value for auc in directions]):.3f}",
        str(sum(auc.lower > 0.5 for auc in directions)),
    )


def report(rows: list[tuple[str, ...]], n_markets: int) -> str:
    """The table in Markdown, with what it has to be held against."""
    bound = int(binom.ppf(0.99, n_markets, ERROR_RATE))
    lines = [
        "# The gate on simulated markets",
        "",
        f"{n_markets} markets of each kind, {N_BARS} bars of 15m (15 % of them to be judged on), "
        f"{REPETITIONS} bootstrap draws; written by `stress/gate_power.py`.",
        "",
        f"Where there is nothing to know (random walk, shuffled labels) an error rate of "
        f"{ERROR_RATE:.1%} allows {ERROR_RATE * n_markets:.1f} acceptances on average and {bound} "
        "in 99 sweeps of 100. With clustered volatility activity can be foreseen, so that "
        "acceptance is right even with edge 0; there the last column is the one that must stay "
        f"within {bound}.",
        "",
        f"| {' | '.join(COLUMNS)} |",
        f"|{'---|' * len(COLUMNS)}",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Judge every sweep; write the table if all markets were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--markets", type=int, default=FULL)
    n_markets = parser.parse_args().markets
    fold_forecasts.default_baselines = lambda seed: [TrainPrior()]
    rows = []
    for sweep in SWEEPS:
        started = time.monotonic()
        evaluations = [
            judge_market(
                sweep.make_dataset(seed), sweep.make_model, repetitions=REPETITIONS, seed=seed
            )
            for seed in range(n_markets)
        ]
        rows.append(row_of(sweep, evaluations))
        print(*rows[-1], f"{time.monotonic() - started:.0f} s", sep="  ", flush=True)
    if n_markets == FULL:
        RESULTS.write_text(report(rows, n_markets), encoding="utf-8")


if __name__ == "__main__":
    main()
