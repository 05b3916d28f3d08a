"""Does a network add anything to the best combination without one? Pools of real markets.

    python benchmarks/added_value.py FOLDER ANSWERS [--only VARIANT ...] [--groups later-scaled ...]
    python benchmarks/added_value.py FOLDER ANSWERS --table

For each of two test windows and two label rules (a *group*) all markets of FOLDER are cut at the
same times. First the parts without a network are fitted on train rows: ``volatility`` and
``volatility_clock`` of each market, and boosting pooled over the markets on volatility and clock,
with and without the state of all markets (``market``). Then a network of half width is trained by
each variant. A variant names the inputs and what the network starts from:

- ``15``, ``15+vc``, ``15+vcm``: the 15 features; with volatility and clock; with the state of all
  markets too. Cross-entropy from scratch.
- ``on ...``: the logits are added to the log of the mean of the volatility regression and pooled
  boosting, and the last layer begins at zero, so training begins at what these know. What they
  say of a train row comes from fits on other days (five blocks of time, a day apart).
- ``... range``: a second head forecasts the log range of the horizon's bars, by squared error.

All networks have batches of 256, AdamW with a decay of .01, a warm-up of one epoch and a cosine,
six epochs of 40,000 windows, bf16, and exponentially averaged weights (.998); the epoch is chosen
on 12,000 of the validation rows. Answers are kept in ANSWERS; what is there is not made again.

The table has each part's skill over the train prior on test rows, and the lead in nats a row of a
combination with the network over the same combination without it. Weights of a combination are
convex, one vector for all markets, solved on their validation rows; every part is calibrated on
them. Intervals draw days, the same for all markets.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import logging
import math
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from rivals import HORIZON, THRESHOLDS, load
from torch import Tensor, nn
from torch.nn import functional

from percoin.bars.schema import COLUMNS, Bars
from percoin.dataset import DatasetSpec, SplitSpec
from percoin.evaluation.baselines import BaselineInputs, class_shares, make_boosting
from percoin.evaluation.calibration import apply_calibration, fit_calibration
from percoin.evaluation.daily import DailyLosses, sum_by_day
from percoin.evaluation.joint import joint_lead, joint_skill
from percoin.evaluation.judgement import baseline_inputs
from percoin.evaluation.metrics import row_log_loss
from percoin.evaluation.uncertainty import Bootstrap
from percoin.features.feature_set import FeatureSet
from percoin.labels import FixedHorizon, LabelRule, VolatilityScaled
from percoin.network import CnnLstm
from percoin.training.recipes.pool import Pool, build_pool
from percoin.types import Timeframe

log = logging.getLogger("added_value")

UNTIL = {"later": None, "earlier": "2025-07-16"}
LABELS = ("scaled", "fixed")
GROUPS = tuple(f"{window}-{label}" for label in LABELS for window in UNTIL)
PARTS = ("volatility", "volatility_clock", "boosting_vc")
WITH_MARKET = (*PARTS, "boosting_vcm")
LOOKBACK = 60
N_BLOCKS = 5
BATCH, EPOCHS, WINDOWS, LR, DECAY, EMA = 256, 6, 40_000, 3e-4, 0.01, 0.998
HALF = {"channels": (32, 64, 128), "hidden_size": 50, "head_sizes": (64, 32)}
RANGE_WEIGHT = 0.3


@dataclass(frozen=True)
class Variant:
    """A way to train: columns beyond the 15, and what the network is given or taught.

    Attributes:
        extra: ``v`` volatility, ``c`` clock, ``m`` state of all markets.
        on_parts: Whether its logits are added to those of the parts.
        with_range: Whether a second head forecasts the range.
    """

    extra: str = ""
    on_parts: bool = False
    with_range: bool = False


VARIANTS = {
    "on 15+vcm": Variant("vcm", on_parts=True),
    "on 15+vcm range": Variant("vcm", on_parts=True, with_range=True),
    "on 15": Variant(on_parts=True),
    "on 15+vc": Variant("vc", on_parts=True),
    "15": Variant(),
    "15+vc": Variant("vc"),
    "15+vcm": Variant("vcm"),
    "15+vcm range": Variant("vcm", with_range=True),
}


@dataclass(eq=False)
class Group:
    """Everything of one window and label rule, rows of all markets stacked.

    Attributes:
        pool: The markets.
        columns: Per kind of input (``v``, ``c``, ``m``), shape (n_bars of all, n).
        label: Shape (n_bars of all,).
        log_range: Log of the range of the horizon's bars, standardized on train rows.
        rows: Positions of the rows by part, in order of the markets.
        counts: Rows of each market by part.
        given: Probabilities of each part on all rows of train (from other days), validation and
            test, by part's name, shape (n_bars of all, C).
    """

    pool: Pool
    columns: dict[str, np.ndarray]
    label: np.ndarray
    log_range: np.ndarray
    rows: dict[str, np.ndarray]
    counts: dict[str, list[int]]
    given: dict[str, np.ndarray]


def market_state(markets: list[Bars], volatility: list[np.ndarray]) -> list[np.ndarray]:
    """State of all markets at each bar's close, by market, shape (n_bars, 12).

    Mean over markets of the log volatility of 4, 16 and 96 bars; mean and spread over markets of
    the log returns over 1, 4 and 16 bars, each return divided by its market's volatility of 96
    bars and the root of its bars; and the market's own such returns less the mean.
    """
    times = np.unique(np.concatenate([bars.open_time for bars in markets]))
    known, returns = [], []
    for bars, spans in zip(markets, volatility, strict=True):
        at = np.searchsorted(times, bars.open_time)
        close = np.full(len(times), np.nan)
        close[at] = np.log(bars.values[:, COLUMNS.index("close")])
        own = np.full((len(times), 3), np.nan)
        own[at] = spans[:, 1:4]
        moved = [np.full(len(times), np.nan) for _ in range(3)]
        for column, n_bars in zip(moved, (1, 4, 16), strict=True):
            column[n_bars:] = (close[n_bars:] - close[:-n_bars]) / math.sqrt(n_bars)
        known.append(own)
        returns.append(np.clip(np.stack(moved, axis=1) / np.exp(own[:, 2:3]), -10, 10))
    with warnings.catch_warnings():
        # Bars before any market has 96 of them: mean of nothing.
        warnings.simplefilter("ignore", RuntimeWarning)
        mean_volatility = np.nanmean(known, axis=0)
        mean, spread = np.nanmean(returns, axis=0), np.nanstd(returns, axis=0)
    found = []
    for bars, own in zip(markets, returns, strict=True):
        at = np.searchsorted(times, bars.open_time)
        found.append(np.hstack([mean_volatility, mean, spread, own - mean])[at])
    return found


def future_log_range(bars: Bars) -> np.ndarray:
    """Log of the range of the next ``HORIZON`` bars, shape (n_bars,); NaN at the end."""
    high, low = (bars.values[:, COLUMNS.index(name)] for name in ("high", "low"))
    found = np.full(len(high), np.nan)
    windows = np.lib.stride_tricks.sliding_window_view
    highest = windows(high[1:], HORIZON).max(axis=1)
    lowest = windows(low[1:], HORIZON).min(axis=1)
    found[: len(highest)] = np.log(np.maximum(np.log(highest / lowest), 1e-5))
    return found


def standardized(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Less the mean of some rows and by their deviation, cut off at five of it; 0 for NaN."""
    mean, deviation = np.nanmean(values[rows], axis=0), np.nanstd(values[rows], axis=0)
    return np.nan_to_num(np.clip((values - mean) / deviation, -5, 5)).astype(np.float32)


def make_group(folder: Path, name: str, timeframe: Timeframe, days: float) -> Group:
    """Build the markets of a group."""
    window, label = name.split("-")
    until = UNTIL[window]
    markets = load(folder, timeframe, until and pd.Timestamp(until, tz="UTC"))
    rule: LabelRule = (
        VolatilityScaled(HORIZON, 0.4, 50, None)
        if label == "scaled"
        else FixedHorizon(HORIZON, THRESHOLDS[timeframe.value])
    )
    spec = SplitSpec(purge_bars=HORIZON, embargo_bars=HORIZON)
    pool = build_pool(markets, [], DatasetSpec(rule, FeatureSet(), LOOKBACK, spec, days))
    inputs = [baseline_inputs(dataset) for dataset in pool.seen]
    state = market_state([dataset.bars for dataset in pool.seen], [i.volatility for i in inputs])
    starts = np.cumsum([0, *(len(dataset.features) for dataset in pool.seen)])
    rows, counts = {}, {}
    for part in ("train", "validation", "test"):
        own = [
            dataset.rows(part) + first for dataset, first in zip(pool.seen, starts, strict=False)
        ]
        rows[part], counts[part] = np.concatenate(own), [len(each) for each in own]
    everything = BaselineInputs.joined(inputs)
    log_range = np.concatenate([future_log_range(dataset.bars) for dataset in pool.seen])
    return Group(
        pool,
        {"v": everything.volatility, "c": everything.clock, "m": np.concatenate(state)},
        np.concatenate([dataset.label for dataset in pool.seen]),
        standardized(log_range, rows["train"]),
        rows,
        counts,
        {},
    )


def fit_parts(group: Group) -> dict[str, np.ndarray]:
    """Probabilities of the parts without a network; those of train rows are of other days."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def regression() -> object:
        return make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=2000))

    columns = group.columns
    per_market = {"volatility": "v", "volatility_clock": "vc"}
    pooled = {"boosting_vc": "vc", "boosting_vcm": "vcm"}
    opened = np.concatenate([dataset.bars.open_time for dataset in group.pool.seen])
    train = group.rows["train"]
    later = np.concatenate([group.rows["validation"], group.rows["test"]])
    edges = np.quantile(opened[train], np.linspace(0, 1, N_BLOCKS + 1))
    ends = np.cumsum([len(dataset.features) for dataset in group.pool.seen])
    market = np.searchsorted(ends, np.arange(ends[-1]), side="right")
    given = {name: np.full((len(group.label), 3), np.nan) for name in WITH_MARKET}

    def fit(fitted: np.ndarray, asked: np.ndarray) -> None:
        for name, kinds in (per_market | pooled).items():
            began = time.monotonic()
            x = np.hstack([columns[kind] for kind in kinds])
            groups = range(len(ends)) if name in per_market else (None,)
            for one in groups:
                mine = fitted if one is None else fitted[market[fitted] == one]
                hers = asked if one is None else asked[market[asked] == one]
                mine = mine[np.isfinite(x[mine]).all(axis=1)]
                given[name][hers] = class_shares(group.label[mine])
                hers = hers[np.isfinite(x[hers]).all(axis=1)]
                if len(hers) == 0 or len(mine) == 0:
                    continue
                estimator = make_boosting(0) if one is None else regression()
                estimator.fit(x[mine], group.label[mine])
                given[name][hers] = estimator.predict_proba(x[hers])
            log.info("%s: %.0f s", name, time.monotonic() - began)

    fit(train, later)
    day = 86_400_000
    for first, last in itertools.pairwise(edges):
        is_asked = (opened[train] >= first) & (opened[train] <= last)
        is_near = (opened[train] >= first - day) & (opened[train] <= last + day)
        fit(train[~is_near], train[is_asked])
    return given


class Network(nn.Module):
    """A ``CnnLstm`` with a second head, and logits that begin at zero if they are added to some."""

    def __init__(self, n_features: int, begins_at_zero: bool) -> None:
        super().__init__()
        self.network = CnnLstm(n_features, **HALF)  # type: ignore[arg-type]
        self.last = self.network.head[-1]
        self.network.head[-1] = nn.Identity()
        self.range = nn.Linear(self.last.in_features, 1)
        if begins_at_zero:
            nn.init.zeros_(self.last.weight)
            nn.init.zeros_(self.last.bias)

    def forward(self, windows: Tensor) -> tuple[Tensor, Tensor]:
        """Logits, shape (B, C), and the forecast of the range, shape (B,)."""
        hidden = self.network(windows).float()
        return self.last(hidden), self.range(hidden).squeeze(1)


def train_variant(group: Group, variant: Variant, seed: int) -> dict[str, np.ndarray]:
    """Logits of all validation and test rows, with those of the parts if it builds on them."""
    torch.manual_seed(seed)
    train = group.rows["train"]
    extra = [standardized(group.columns[kind], train) for kind in variant.extra]
    features = torch.from_numpy(np.hstack([group.pool.features, *extra]))
    label, log_range = torch.from_numpy(group.label), torch.from_numpy(group.log_range)
    mean = (group.given["volatility"] + group.given["boosting_vc"]) / 2
    offset = torch.from_numpy(np.log(mean) * variant.on_parts).float()
    network = Network(features.shape[1], variant.on_parts)
    averaged = copy.deepcopy(network)
    decays = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decays, "weight_decay": DECAY}, {"params": others, "weight_decay": 0.0}], lr=LR
    )
    steps = WINDOWS // BATCH
    draws = np.random.default_rng(seed)
    looked_at = group.rows["validation"][:: max(1, len(group.rows["validation"]) // 12_000)]
    best, kept, n_steps = math.inf, copy.deepcopy(averaged.state_dict()), 0
    if variant.on_parts:
        begun = functional.nll_loss(offset[looked_at].log_softmax(1), label[looked_at])
        log.info("before: validation %.5f", begun.item())
    for epoch in range(EPOCHS):
        network.train()
        began = time.monotonic()
        for rows in torch.from_numpy(draws.choice(train, (steps, BATCH), replace=False)):
            done = n_steps / (EPOCHS * steps)
            warm = min(1.0, (n_steps + 1) / steps)
            for entry in optimizer.param_groups:
                entry["lr"] = LR * warm * (0.02 + 0.98 * (1 + math.cos(math.pi * done)) / 2)
            with torch.autocast("cpu", torch.bfloat16):
                logits, ranged = network(windows_of(features, rows))
            loss = functional.cross_entropy(logits.float() + offset[rows], label[rows])
            if variant.with_range:
                loss = loss + RANGE_WEIGHT * functional.mse_loss(ranged.float(), log_range[rows])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            n_steps += 1
            average(averaged, network, min(EMA, n_steps / (n_steps + 10)))
        logits = ask(averaged, features, looked_at) + offset[looked_at]
        losses = functional.cross_entropy(logits, label[looked_at]).item()
        log.info("epoch %d: validation %.5f, %.0f s", epoch, losses, time.monotonic() - began)
        if losses < best:
            best, kept = losses, copy.deepcopy(averaged.state_dict())
    averaged.load_state_dict(kept)
    return {
        part: (ask(averaged, features, group.rows[part]) + offset[group.rows[part]]).numpy()
        for part in ("validation", "test")
    }


def windows_of(features: Tensor, rows: Tensor) -> Tensor:
    """The windows that end on the rows, shape (B, L, F)."""
    return features[rows.unsqueeze(1) + torch.arange(1 - LOOKBACK, 1)]


@torch.no_grad()
def average(averaged: nn.Module, network: nn.Module, share: float) -> None:
    """Move averaged weights a little towards the network's."""
    for mean, new in zip(
        averaged.state_dict().values(), network.state_dict().values(), strict=True
    ):
        if mean.is_floating_point():
            mean.lerp_(new, 1 - share)
        else:
            mean.copy_(new)


@torch.no_grad()
def ask(network: nn.Module, features: Tensor, rows: np.ndarray) -> Tensor:
    """Logits of rows, shape (n, C), in fp32."""
    network.eval()
    said = []
    for batch in torch.from_numpy(rows).split(1024):
        with torch.autocast("cpu", torch.bfloat16):
            said.append(network(windows_of(features, batch))[0].float())
    return torch.cat(said)


def convex_weights(parts: list[np.ndarray]) -> np.ndarray:
    """Weights of a mixture with the highest likelihood; ``parts`` are its factors at each row.

    Expectation maximization (Dempster et al., 1977): the likelihood is concave in the weights.
    """
    said = np.stack(parts, axis=1)
    weights = np.full(said.shape[1], 1 / said.shape[1])
    for _ in range(500):
        shares = said * weights
        new = (shares / shares.sum(axis=1, keepdims=True)).mean(axis=0)
        if np.abs(new - weights).max() < 1e-6:
            break
        weights = new
    return weights


def by_market(values: np.ndarray, counts: list[int]) -> list[np.ndarray]:
    """The stacked rows of all markets, one array a market."""
    return np.split(values, np.cumsum(counts)[:-1])


def calibrated(group: Group, validation: np.ndarray, test: np.ndarray) -> dict[str, np.ndarray]:
    """Each market's probabilities, calibrated on its validation rows, stacked again."""
    said: dict[str, list[np.ndarray]] = {"validation": [], "test": []}
    label = by_market(group.label[group.rows["validation"]], group.counts["validation"])
    for known, asked, came in zip(
        by_market(validation, group.counts["validation"]),
        by_market(test, group.counts["test"]),
        label,
        strict=True,
    ):
        calibration = fit_calibration(known.astype(np.float64), came)
        said["validation"].append(apply_calibration(known.astype(np.float64), calibration))
        said["test"].append(apply_calibration(asked.astype(np.float64), calibration))
    return {part: np.concatenate(all_of) for part, all_of in said.items()}


def losses_by_day(group: Group, model: np.ndarray, rival: np.ndarray) -> list[DailyLosses]:
    """Of each market, on test rows: of a model and of what it is compared with."""
    counts = group.counts["test"]
    opened = np.concatenate([d.bars.open_time[d.rows("test")] for d in group.pool.seen])
    label = group.label[group.rows["test"]]
    prior = np.concatenate(
        [
            np.tile(class_shares(d.label[d.rows("train")]), (len(d.rows("test")), 1))
            for d in group.pool.seen
        ]
    )
    losses = [row_log_loss(said, label) for said in (model, prior, rival)]
    split = [by_market(column, counts) for column in (opened, *losses)]
    return [sum_by_day(times, own) for times, *own in zip(*split, strict=True)]


def show(group: Group, name: str, answers: dict[str, dict[str, np.ndarray]]) -> None:
    """Print the table of a group."""
    bootstrap, rows = Bootstrap(1), group.rows
    label = group.label[rows["validation"]]
    said = {
        part: calibrated(group, np.log(given[rows["validation"]]), np.log(given[rows["test"]]))
        for part, given in group.given.items()
    }
    said |= {part: calibrated(group, **answer) for part, answer in answers.items()}

    def combined(parts: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
        came = [said[part]["validation"][np.arange(len(label)), label] for part in parts]
        weights = convex_weights(came)
        mixed = sum(w * said[p]["test"] for w, p in zip(weights, parts, strict=True))
        return weights, np.asarray(mixed)

    print(f"\n### {name}: {len(group.pool.seen)} markets\n")
    print("| | skill | lead of the combination with it | markets ahead | weights |")
    print("|---|---:|---:|---:|---|")
    for title, parts in (("without market", PARTS), ("with market", WITH_MARKET)):
        _, without = combined(parts)
        daily = losses_by_day(group, without, without)
        print(f"| **combination {title}** | {shown(joint_skill(daily, bootstrap))} | | | |")
        for part in (
            (*parts, *answers) if title == "without market" else (WITH_MARKET[-1], *answers)
        ):
            alone = losses_by_day(group, said[part]["test"], without)
            cells = [f"{part} ({title})", shown(joint_skill(alone, bootstrap)), "", "", ""]
            if part in answers:
                weights, mixed = combined((*parts, part))
                daily = losses_by_day(group, mixed, without)
                leads = [sum(day.best_baseline) - sum(day.model) for day in daily]
                cells[2] = shown(joint_lead(daily, bootstrap))
                cells[3] = f"{sum(lead > 0 for lead in leads)} of {len(leads)}"
                cells[4] = " ".join(f"{weight:.2f}" for weight in weights)
            print(f"| {' | '.join(cells)} |")


def shown(mean) -> str:
    """With its interval."""
    return f"{mean.value:+.4f} [{mean.lower:+.4f}, {mean.upper:+.4f}]"


def main() -> None:
    """Train what is missing, or print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("answers", type=Path)
    parser.add_argument("--tf", default="15m", choices=THRESHOLDS)
    parser.add_argument("--days", type=float, default=365, help="of history")
    parser.add_argument("--only", nargs="+", default=list(VARIANTS), choices=VARIANTS)
    parser.add_argument("--groups", nargs="+", default=GROUPS, choices=GROUPS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    timeframe = Timeframe(options.tf)
    for name in options.groups:
        folder = options.answers / options.tf / name
        wanted = [(variant, seed) for seed in options.seeds for variant in options.only]
        paths = {each: folder / f"{each[0]}-{each[1]}.npz" for each in wanted}
        missing = [each for each, path in paths.items() if not path.is_file()]
        if not missing and not options.table:
            continue
        group = make_group(options.folder, name, timeframe, options.days)
        group.given = kept_parts(group, folder)
        if options.table:
            there = {
                f"{variant}, seed {seed}": dict(np.load(path))
                for (variant, seed), path in paths.items()
                if path.is_file()
            }
            show(group, f"{options.tf} {name}", there)
            continue
        for variant, seed in missing:
            log.info("%s: %s, seed %d", name, variant, seed)
            answer = train_variant(group, VARIANTS[variant], seed)
            save(paths[variant, seed], answer)


def kept_parts(group: Group, folder: Path) -> dict[str, np.ndarray]:
    """What the parts without a network say, as it was computed before or now."""
    path = folder / "parts.npz"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        save(path, fit_parts(group))
    return dict(np.load(path))


def save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write a whole file or none."""
    aside = path.with_suffix(".part.npz")
    np.savez(aside, **arrays)  # type: ignore[arg-type]
    aside.replace(path)


if __name__ == "__main__":
    main()
