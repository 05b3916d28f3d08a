"""Whether volatility and clock beside the 15 features make the network of one market better.

    python benchmarks/network_inputs.py FOLDER ANSWERS [--symbols BTCUSDT SOLUSDT ...]
        [--groups later-fixed ...] [--seeds 0 1 2] [--arm bf16] [--days 150]

A *group* is one test window (``later``: the newest bars; ``earlier``: 47 days before) and one
label rule (``fixed``, ``scaled``). In each, for every market and seed, the network alone is
trained twice as ``benchmarks/to_loss.py`` trains it (``--arm``): on windows of the 15 features
(``15``), and on these and ``features.extra=[volatility,clock]`` (``27``), with the same seed and
rows. Each is calibrated on validation rows and averaged with the market's own five models as a
training averages it, at weights of validation rows.

For each group the table has the log-loss of validation rows that 15 columns have more than 27, for
the network alone and averaged, then the same of test rows with joint intervals that draw days;
positive is better with 27 columns. Answers lie in ANSWERS and are not computed again.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
import torch
from refit import FUTURE_DAYS, GROUPS, shown
from rivals import HORIZON, rule_of
from to_loss import ARMS, add_trainings, begin, windows_of
from to_loss import train as train_network

from percoin.bars.sources.files import FilesSource
from percoin.dataset import DatasetSpec, MarketDataset, Part, SplitSpec, build_dataset
from percoin.evaluation.baselines import BESIDE, class_shares
from percoin.evaluation.blend import blend_probabilities, choose_weights
from percoin.evaluation.calibration import apply_calibration, fit_calibration
from percoin.evaluation.daily import DailyLosses, sum_by_day
from percoin.evaluation.fold_forecasts import baseline_inputs, fit_parts
from percoin.evaluation.joint import joint_lead
from percoin.evaluation.metrics import row_log_loss
from percoin.evaluation.uncertainty import Bootstrap
from percoin.features.feature_set import FeatureSet
from percoin.training.datamodule import EVALUATION_BATCH_SIZE, BatchSampler
from percoin.types import FloatArray, Timeframe

log = logging.getLogger("network_inputs")

STEP = pd.Timedelta(days=FUTURE_DAYS)
EXTRA = {"15": (), "27": ("volatility", "clock")}
FORECASTS = ("network", "averaged")


@dataclass(frozen=True)
class Answer:
    """What 15 and 27 columns are worth for one market and seed.

    Attributes:
        validation: By forecast, the mean log-loss of validation rows with 15 and with 27 columns.
        test: By forecast, the losses of test rows by day: the model is the one with 27 columns,
            the best baseline the one with 15.
    """

    validation: Mapping[str, Sequence[float]]
    test: Mapping[str, DailyLosses]


def main() -> None:
    """Train what is missing and print a line for each group and forecast."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_trainings(parser)
    parser.add_argument("--groups", nargs="+", default=GROUPS, choices=GROUPS)
    parser.add_argument("--arm", default="bf16", choices=[*ARMS])
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    log.setLevel(logging.INFO)
    begin(options)
    print("| group | forecast | better on validation rows | by | better on test rows | by |")
    print("|---|---|---:|---:|---:|---:|")
    for group in options.groups:
        answers = [
            answer(options, group, symbol, seed)
            for seed in options.seeds
            for symbol in options.symbols
        ]
        for forecast in FORECASTS:
            print(line(group, forecast, answers), flush=True)


def line(group: str, forecast: str, answers: Sequence[Answer]) -> str:
    gains = [before - after for before, after in (each.validation[forecast] for each in answers)]
    daily = [each.test[forecast] for each in answers]
    leads = [sum(each.best_baseline) - sum(each.model) for each in daily]
    cells = [group, forecast]
    cells += [f"{sum(gain > 0 for gain in gains)} of {len(gains)}", f"{np.mean(gains):+.4f}"]
    cells += [f"{sum(lead > 0 for lead in leads)} of {len(leads)}"]
    cells += [shown(joint_lead(daily, Bootstrap(1)))]
    return f"| {' | '.join(cells)} |"


def answer(options: argparse.Namespace, group: str, symbol: str, seed: int) -> Answer:
    """Of one market and seed, trained before or now; a file is whole or not there."""
    path = options.answers / f"{group}-{symbol}-{options.arm}-{options.days:g}-{seed}.json"
    if not path.is_file():
        began = time.monotonic()
        made = asdict(compare(options, group, symbol, seed))
        aside = path.with_suffix(".part")
        aside.write_text(json.dumps(made))
        aside.rename(path)
        log.info("%s: %.0f s", path.stem, time.monotonic() - began)
    read = json.loads(path.read_text())
    return Answer(
        read["validation"],
        {
            forecast: DailyLosses(**{k: v and tuple(v) for k, v in losses.items()})
            for forecast, losses in read["test"].items()
        },
    )


def compare(options: argparse.Namespace, group: str, symbol: str, seed: int) -> Answer:
    """Train with 15 and with 27 columns."""
    datasets = {name: dataset_of(options, group, symbol, extra) for name, extra in EXTRA.items()}
    plain = datasets["15"]
    for part in ("train", "validation", "test"):
        if not np.array_equal(plain.rows(part), datasets["27"].rows(part)):
            raise SystemExit(f"{symbol} {group}: the {part} rows differ between 15 and 27 columns")
    labels = {part: plain.label[plain.rows(part)] for part in ("validation", "test")}
    beside = forecasts_beside(plain)
    said = {
        name: forecasts(dataset, beside, options.arm, seed) for name, dataset in datasets.items()
    }
    prior = np.tile(class_shares(plain.label[plain.rows("train")]), (len(labels["test"]), 1))
    opened = plain.bars.open_time[plain.rows("test")]
    validation, test = {}, {}
    for forecast in FORECASTS:
        old, new = (said[name][forecast] for name in EXTRA)
        validation[forecast] = [
            float(row_log_loss(each["validation"], labels["validation"]).mean())
            for each in (old, new)
        ]
        three = (new["test"], prior, old["test"])
        losses = [row_log_loss(each, labels["test"]) for each in three]
        test[forecast] = sum_by_day(opened, losses)
    return Answer(validation, test)


def dataset_of(
    options: argparse.Namespace, group: str, symbol: str, extra: tuple[str, ...]
) -> MarketDataset:
    window, label = group.split("-")
    bars = FilesSource(options.folder).load(symbol, Timeframe.M15)
    if window == "earlier":
        until = bars.frame.index[-1] - STEP
        bars = bars.slice(0, int((bars.frame.index <= until).sum()))
    rule = rule_of(label, Timeframe.M15)
    split = SplitSpec(purge_bars=HORIZON, embargo_bars=HORIZON)
    feature_set = FeatureSet(extra=extra)
    return build_dataset(bars, DatasetSpec(rule, feature_set, 60, split, options.days))


def forecasts_beside(dataset: MarketDataset) -> list[dict[str, FloatArray]]:
    """Calibrated probabilities of the market's own five models on validation and test rows."""
    fitted, inputs = fit_parts(dataset, BESIDE, 0, ()), baseline_inputs(dataset)
    said = []
    for name in BESIDE:
        columns = inputs.columns(fitted[name].columns)
        logits = {
            part: fitted[name].logits(columns[dataset.rows(part)])
            for part in ("validation", "test")
        }
        said.append(calibrated(dataset, logits))
    return said


def forecasts(
    dataset: MarketDataset, beside: list[dict[str, FloatArray]], arm: str, seed: int
) -> dict[str, dict[str, FloatArray]]:
    """Train a network; what it says alone and averaged, on validation and test rows."""
    network, _ = train_network(dataset, ARMS[arm], seed)
    logits = {part: logits_of(network, dataset, part) for part in ("validation", "test")}
    parts = [calibrated(dataset, logits), *beside]
    labels = dataset.label[dataset.rows("validation")]
    weights = choose_weights([part["validation"] for part in parts], labels)
    averaged = {
        part: blend_probabilities([each[part] for each in parts], weights)
        for part in ("validation", "test")
    }
    return {"network": parts[0], "averaged": averaged}


def calibrated(dataset: MarketDataset, logits: dict[str, FloatArray]) -> dict[str, FloatArray]:
    labels = dataset.label[dataset.rows("validation")]
    calibration = fit_calibration(logits["validation"], labels)
    return {part: apply_calibration(each, calibration) for part, each in logits.items()}


@torch.inference_mode()
def logits_of(network: torch.nn.Module, dataset: MarketDataset, part: Part) -> FloatArray:
    """In 32 bits, shape (n_rows, C)."""
    network.eval()
    windows = windows_of(dataset, part)
    batches = BatchSampler(len(windows), EVALUATION_BATCH_SIZE)
    found: FloatArray = torch.cat([network(windows[at][0]).double() for at in batches]).numpy()
    return found


if __name__ == "__main__":
    main()
