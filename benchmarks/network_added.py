"""Whether a network adds to the best combination without it: pools of real markets.

    python benchmarks/network_added.py FOLDER ANSWERS [--groups later-scaled ...] [--seeds 0 1 2]

Reads what ``benchmarks/added_value.py FOLDER ANSWERS`` has fitted for the same groups (run it
first, with the same ``--tf`` and ``--days``), and trains one network for all markets of a group,
of half the width, in bfloat16 where the processor has it:

- ``own``: windows of the 15 features, volatility and clock;
- ``state``: the state of all markets too.

It is trained on top of what is known without it. The mean probability of the volatility
regression, the pooled boosting and ``moves`` is given as an offset to the logits, and the last
layer begins at zero, so the first forecast is that mean and every gradient is about what it does
not know. Train rows get it from fits on other days (five blocks of time, a day apart), or the
network would learn to mend what was overfitted. Batches of 256, weight decay .01, learning rate
by a cosine, an exponential mean of the weights (.995), the best epoch by the
validation loss.

``--variant`` changes one thing:

- ``plain``: without the offset, the recipe as ``recipe=pooled`` has it, 15 epochs of 30,000.
- ``range``: a second head forecasts the log of the range of the horizon's bars, as far as the
  forecasts of ``moves`` miss it, by squared error; both heads share everything below.
- ``full``: the full width.

The table has the network's skill over the train prior on test rows, and the lead in nats a row of
the combination with it over the same combination without, for each seed and for the one that
validation rows choose. Everything judged is computed in single precision.
"""

from __future__ import annotations

import argparse
import copy
import logging
import time
from dataclasses import dataclass
from pathlib import Path

import added_value as av
import numpy as np
import torch
from rivals import THRESHOLDS
from torch import Tensor, nn
from torch.nn import functional

from percoin.evaluation.baselines import make_boosting
from percoin.evaluation.joint import joint_lead, joint_skill
from percoin.evaluation.uncertainty import Bootstrap
from percoin.network import CnnLstm
from percoin.types import Timeframe

log = logging.getLogger("network_added")

INPUTS = {"own": "fvc", "state": "fvcm"}
# What the network stands on, and the combination that it is held against.
BASES = {
    "own": ("volatility", "boosting_vc", "moves"),
    "state": ("volatility", "boosting_vcm", "moves_m"),
}
BESIDE = {
    "own": ("volatility", "volatility_clock", "boosting_vc", "moves"),
    "state": ("volatility", "volatility_clock", "boosting_vc", "boosting_vcm", "moves_m"),
}
HALF = {"channels": (32, 64, 128), "hidden_size": 50, "head_sizes": (64, 32)}


@dataclass(frozen=True)
class Training:
    """How a network is trained.

    Attributes:
        is_on_top: Whether it is given the combination's log-probabilities as an offset.
        n_epochs: At most.
        n_windows: Train windows of an epoch, drawn anew each time.
        batch_size: Windows of a step.
        learning_rate: At the begin; falls to 0 by a cosine.
        weight_decay: Of AdamW.
        averaging: Of the exponential mean of weights; 0 for none.
        dropout: As in the network.
        range_weight: Of the second head's squared error beside the log-loss; 0 for no such head.
        is_half: Whether the network has half the width.
    """

    is_on_top: bool = True
    n_epochs: int = 5
    n_windows: int = 40_000
    batch_size: int = 256
    learning_rate: float = 5e-4
    weight_decay: float = 0.01
    averaging: float = 0.995
    dropout: float = 0.3
    range_weight: float = 0.0
    is_half: bool = True


VARIANTS = {
    "": Training(),
    "plain": Training(False, 15, 30_000, 64, 1e-3, 1e-5, 0.0),
    "range": Training(range_weight=0.5),
    "full": Training(is_half=False),
}
N_VALIDATION = 15_000


def out_of_sample(group: av.Group, ranges: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Probabilities of each part on all rows, of train rows by fits on other days."""
    rows = av.splits(group)
    found = {"volatility": av.answers_of(group, group.inputs("v"), av.regression, rows, False)}
    for name, kinds in av.BOOSTINGS.items():
        began = time.monotonic()
        inputs = group.inputs(kinds)
        found[name] = av.answers_of(group, inputs, lambda: make_boosting(0), rows, True)
        log.info("%s: %.0f s", name, time.monotonic() - began)
    for name, forecasts in av.MOVES.items():
        inputs = np.column_stack([group.inputs("v"), *(ranges[each] for each in forecasts)])
        found[name] = av.answers_of(group, inputs, av.regression, rows, False)
    return found


class Windows:
    """Scaled windows of rows, and what is known of each row without the network.

    Attributes:
        missed: What the forecasts of ``moves`` miss of the log range, in standard deviations of
            the train rows; 0 where it is not known.
    """

    def __init__(
        self, group: av.Group, kinds: str, offset: np.ndarray, ranges: dict[str, np.ndarray]
    ) -> None:
        values = group.inputs(kinds)
        train = values[group.rows["train"]]
        mean, scale = np.nanmean(train, axis=0), np.nanstd(train, axis=0)
        scaled = np.clip((values - mean) / np.where(scale > 0, scale, 1.0), -10, 10)
        is_complete = np.isfinite(scaled).all(axis=1) & np.isfinite(offset).all(axis=1)
        n_complete = np.cumsum(is_complete)
        is_whole = np.zeros(len(scaled), bool)
        last = np.arange(av.LOOKBACK, len(scaled))
        is_whole[last] = n_complete[last] - n_complete[last - av.LOOKBACK] == av.LOOKBACK
        is_whole[last] &= group.market[last] == group.market[last - av.LOOKBACK]
        self.is_whole = is_whole
        self.values = torch.from_numpy(np.nan_to_num(scaled).astype(np.float32))
        self.offset = torch.from_numpy(np.nan_to_num(offset).astype(np.float32))
        self.label = torch.from_numpy(group.label.astype(np.int64))
        self.n_features = scaled.shape[1]
        forecasts = [ranges[name] for name in av.MOVES["moves"]]
        missed = group.log_range - np.mean(forecasts, axis=0)
        missed /= np.nanstd(missed[group.rows["train"]])
        self.missed = torch.from_numpy(np.nan_to_num(missed).astype(np.float32))

    def batch(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Windows (B, L, F), offsets (B, C) and labels (B,) of rows."""
        at = rows[:, None] + torch.arange(1 - av.LOOKBACK, 1)
        return self.values[at], self.offset[rows], self.label[rows]


def outputs_of(
    network: nn.Module, windows: Windows, rows: np.ndarray
) -> tuple[Tensor, float | None]:
    """What a network says of rows, in single precision.

    Returns:
        Logits, offset included, shape (n_rows, C); and the share of the squares of what
        ``moves`` misses of the log range that the second head explains, if there is one.
    """
    network.eval()
    found = []
    with torch.inference_mode():
        for part in torch.from_numpy(rows).split(1024):
            inputs, offset, _ = windows.batch(part)
            said = network(inputs)
            found.append(torch.cat([said[:, :3] + offset, said[:, 3:]], dim=1))
    said, missed = torch.cat(found), windows.missed[torch.from_numpy(rows)]
    if said.shape[1] == 3:
        return said, None
    return said[:, :3], 1 - float((missed - said[:, 3]).square().sum() / missed.square().sum())


def train(
    windows: Windows, group: av.Group, how: Training, seed: int
) -> tuple[nn.Module, list[float]]:
    """The network of the best epoch, and the validation loss before training and after each."""
    torch.manual_seed(seed)
    generator = np.random.default_rng(seed)
    width = HALF if how.is_half else {}
    network = CnnLstm(windows.n_features, dropout=how.dropout, **width)  # type: ignore[arg-type]
    if how.range_weight:
        network.head[-1] = nn.Linear(network.head[-1].in_features, 4)
    if how.is_on_top:
        nn.init.zeros_(network.head[-1].weight)
        nn.init.zeros_(network.head[-1].bias)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=how.learning_rate, weight_decay=how.weight_decay
    )
    n_steps = how.n_epochs * -(-how.n_windows // how.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_steps)
    rows = group.rows["train"][windows.is_whole[group.rows["train"]]]
    validation = group.rows["validation"][windows.is_whole[group.rows["validation"]]]
    validation = validation[:: max(1, len(validation) // N_VALIDATION)]
    came = windows.label[torch.from_numpy(validation)]
    average = torch.optim.swa_utils.get_ema_multi_avg_fn(how.averaging)
    mean = torch.optim.swa_utils.AveragedModel(network, multi_avg_fn=average, use_buffers=True)
    best, losses = copy.deepcopy(network), []
    logits, _ = outputs_of(network, windows, validation)
    losses.append(float(functional.cross_entropy(logits, came)))
    for epoch in range(how.n_epochs):
        began, before, after = time.monotonic(), 0.0, 0.0
        drawn = torch.from_numpy(generator.choice(rows, how.n_windows, replace=False))
        network.train()
        for part in drawn.split(how.batch_size):
            inputs, offset, label = windows.batch(part)
            with torch.autocast("cpu", torch.bfloat16):
                said = network(inputs)
            said = said.float()
            loss = functional.cross_entropy(said[:, :3] + offset, label)
            whole = loss
            if how.range_weight:
                whole = loss + how.range_weight * functional.mse_loss(
                    said[:, 3], windows.missed[part]
                )
            optimizer.zero_grad()
            whole.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            mean.update_parameters(network)
            before += float(functional.cross_entropy(offset, label)) * len(part)
            after += float(loss) * len(part)
        asked = mean.module if how.averaging else network
        logits, explained = outputs_of(asked, windows, validation)
        loss_now = float(functional.cross_entropy(logits, came))
        if loss_now < min(losses):
            best = copy.deepcopy(asked)
        losses.append(loss_now)
        log.info(
            "seed %d epoch %d: train %.5f (without %.5f), validation %.5f (without %.5f)%s, %.0f s",
            seed,
            epoch + 1,
            after / how.n_windows,
            before / how.n_windows,
            loss_now,
            losses[0],
            "" if explained is None else f", of the range {explained:+.4f}",
            time.monotonic() - began,
        )
    return best, losses


def network_answers(
    group: av.Group,
    kind: str,
    base: dict[str, np.ndarray],
    ranges: dict[str, np.ndarray],
    how: Training,
    seed: int,
) -> dict[str, np.ndarray]:
    """Probabilities of validation and test rows; the base where a window is not whole."""
    offset = np.log(np.mean([base[name] for name in BASES[kind]], axis=0))
    prior = np.log(
        np.bincount(group.label[group.rows["train"]], minlength=3) / len(group.rows["train"])
    )
    known = offset if how.is_on_top else np.where(np.isfinite(offset), 0.0, np.nan)
    windows = Windows(group, INPUTS[kind], known, ranges)
    network, losses = train(windows, group, how, seed)
    found = {"losses": np.array(losses)}
    for part in ("validation", "test"):
        rows = group.rows[part]
        said = offset[rows] if how.is_on_top else np.tile(prior, (len(rows), 1))
        whole = windows.is_whole[rows]
        logits, explained = outputs_of(network, windows, rows[whole])
        said[whole] = logits.double().log_softmax(1).numpy()
        found[part] = said
        if explained is not None:
            log.info("seed %d: of the range of %s rows %+.4f", seed, part, explained)
    return found


def show(
    group: av.Group,
    name: str,
    kind: str,
    base: dict[str, np.ndarray],
    trained: dict[int, dict[str, np.ndarray]],
) -> None:
    """Print the table of a group."""
    bootstrap, rows = Bootstrap(1), group.rows
    label = group.label[rows["validation"]]
    said = {
        part: av.calibrated(
            group, np.log(base[part][rows["validation"]]), np.log(base[part][rows["test"]])
        )
        for part in BESIDE[kind]
    }
    for seed, answers in trained.items():
        said[f"network {seed}"] = av.calibrated(group, answers["validation"], answers["test"])
    means = {
        part: np.mean([answers[part] for answers in trained.values()], axis=0)
        for part in ("validation", "test")
    }
    said["mean of the networks"] = av.calibrated(group, means["validation"], means["test"])

    def combined(names: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
        came = [said[part]["validation"][np.arange(len(label)), label] for part in names]
        weights = av.convex_weights(came)
        return weights, np.asarray(
            sum(w * said[p]["test"] for w, p in zip(weights, names, strict=True))
        )

    _, other = combined(BESIDE[kind])
    daily = av.losses_by_day(group, other, other)
    print(f"\n### {name}, {kind}: {len(group.pool.seen)} markets\n")
    print(
        "| network | best epoch | skill alone | skill combined "
        "| lead over the combination without | ahead | weights |"
    )
    print("|---|---:|---:|---:|---:|---:|---|")
    print(f"| none | | | {av.shown(joint_skill(daily, bootstrap))} | | | |")
    chosen = min(trained, key=lambda seed: trained[seed]["losses"].min())
    for title in [key for key in said if "network" in key]:
        weights, mixed = combined((*BESIDE[kind], title))
        daily = av.losses_by_day(group, mixed, other)
        alone = av.losses_by_day(group, said[title]["test"], other)
        leads = [sum(day.best_baseline) - sum(day.model) for day in daily]
        epoch = ""
        if title.startswith("network"):
            seed = int(title.split()[1])
            epoch = (
                f"{int(trained[seed]['losses'].argmin())}{' (chosen)' if seed == chosen else ''}"
            )
        cells = [title, epoch]
        cells += [av.shown(joint_skill(each, bootstrap)) for each in (alone, daily)]
        cells += [av.shown(joint_lead(daily, bootstrap))]
        cells += [f"{sum(lead > 0 for lead in leads)} of {len(leads)}"]
        cells += [" ".join(f"{weight:.2f}" for weight in weights)]
        print(f"| {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Train what is missing and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("answers", type=Path)
    parser.add_argument("--tf", default="15m", choices=THRESHOLDS)
    parser.add_argument("--days", type=float, default=365, help="of history")
    parser.add_argument("--groups", nargs="+", default=av.GROUPS, choices=av.GROUPS)
    parser.add_argument("--kinds", nargs="+", default=tuple(INPUTS), choices=INPUTS)
    parser.add_argument("--seeds", nargs="+", type=int, default=(0, 1, 2))
    parser.add_argument("--variant", default="", choices=VARIANTS)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(options.threads)
    for name in options.groups:
        group = av.make_group(options.folder, name, Timeframe(options.tf), options.days)
        folder = options.answers / options.tf
        ranges = av.kept(folder / f"{name}-ranges.npz", lambda group=group: av.fit_ranges(group))
        base = av.kept(
            folder / f"{name}-base.npz",
            lambda group=group, ranges=ranges: out_of_sample(group, ranges),
        )
        parts = av.kept(
            folder / f"{name}-parts.npz",
            lambda group=group, ranges=ranges: av.fit_parts(group, ranges),
        )
        base = parts | base
        for kind in options.kinds:
            title = "-".join(filter(None, (name, kind, options.variant)))
            trained = {
                seed: av.kept(
                    folder / f"{title}-{seed}.npz",
                    lambda group=group, kind=kind, base=base, ranges=ranges, seed=seed: (
                        network_answers(group, kind, base, ranges, VARIANTS[options.variant], seed)
                    ),
                )
                for seed in options.seeds
            }
            show(group, f"{options.tf} {name} {options.variant}".strip(), kind, base, trained)


if __name__ == "__main__":
    main()
