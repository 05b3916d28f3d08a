"""What the recipes of ``recipes.py`` are worth: a line of Markdown for each run, and their means.

    python benchmarks/recipe_table.py FOLDER ANSWERS [--only NAME ...] [--summary]

Network and logistic regression are calibrated on validation rows and averaged with the weight
that is best there, as ``blend=logistic`` does; all skills are log-loss skills over the train
prior, means over markets. ``ahead`` counts the markets on which the average has the smaller
log-loss on test rows than the regression (as the baseline that every model is judged beside,
not calibrated), ``lead`` is that difference in nats a row, with a 95 % interval that draws the
same days for all markets. ``--rival validated`` puts in the regression's place, market by market,
the model without a network that is best on validation rows: the regression, gradient boosting, or
a regression that also sees means and spreads of the bars before, each as it was fitted and
calibrated. ``--rival strongest`` takes the one that turned out best on the test rows themselves,
which nobody could have known. Two lines follow the seeds of a recipe: the seed whose network is
best on validation rows, and the mean of the networks' probabilities of all seeds.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from recipes import BASE, RECIPES, WINDOWS, answer_path, load_bars, pool_of, settings_of
from simple_models import fit, rolling

from percoin.bars.schema import Bars
from percoin.config import TrainConfig
from percoin.dataset import MarketDataset, Part
from percoin.evaluation.baselines import LOGISTIC, Baseline, class_shares, default_baselines
from percoin.evaluation.blend import blend_probabilities, choose_weights
from percoin.evaluation.calibration import apply_calibration, fit_calibration
from percoin.evaluation.daily import DailyLosses, sum_by_day
from percoin.evaluation.fold_forecasts import baseline_inputs
from percoin.evaluation.joint import JointMean, days_of, joint_lead, joint_skill
from percoin.evaluation.metrics import row_log_loss
from percoin.evaluation.skills import activity, direction
from percoin.evaluation.uncertainty import Bootstrap
from percoin.types import FloatArray, Timeframe

LATER_PARTS: tuple[Part, ...] = ("validation", "test")
COLUMNS = (
    "recipe",
    "test window",
    "seed",
    "network: validation, test",
    "averaged: validation, test",
    "ahead",
    "lead",
    "activity AUC",
    "direction AUC",
    "epochs",
    "minutes",
)


@dataclass(frozen=True)
class MarketAnswer:
    """A market: what its network and its regression say, calibrated, and what came.

    Attributes:
        dataset: The market.
        network: Probabilities of the validation rows and of the test rows.
        regression: The same of the regression.
        rival: Probabilities of the test rows by what the average is held against.
    """

    dataset: MarketDataset
    network: tuple[FloatArray, FloatArray]
    regression: tuple[FloatArray, FloatArray]
    rival: FloatArray


@dataclass(frozen=True)
class Line:
    """What one run is worth; means over markets."""

    name: str
    window: str
    seed: str
    network: tuple[float, float]
    averaged: tuple[float, float]
    n_ahead: int
    n_markets: int
    skill: JointMean
    lead: JointMean
    aucs: tuple[float, float]
    epochs: str
    minutes: float

    def cells(self) -> tuple[str, ...]:
        """As the columns have them."""
        lead = f"{self.lead.value:+.4f} [{self.lead.lower:+.4f}, {self.lead.upper:+.4f}]"
        return (
            *(self.name, self.window, self.seed, pair(self.network), pair(self.averaged)),
            *(f"{self.n_ahead} of {self.n_markets}", lead),
            *(f"{auc:.3f}" for auc in self.aucs),
            *(self.epochs, f"{self.minutes:.0f}" if self.minutes else ""),
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("answers", type=Path)
    parser.add_argument("--only", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--tf", type=Timeframe, default=Timeframe.M15)
    parser.add_argument("--rival", choices=RIVALS, default="logistic")
    parser.add_argument("--markets", type=int, help="only so many, as recipes of single markets")
    parser.add_argument("--summary", action="store_true", help="means over the seeds alone")
    arguments = parser.parse_args()
    if not any((arguments.answers / arguments.tf.value).glob("*/*.npz")):
        parser.error(f"{arguments.answers} holds no answers on {arguments.tf}: see recipes.py")
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * 4}{'---:|' * (len(COLUMNS) - 4)}")
    rival = RIVALS[arguments.rival]
    desk = Desk(arguments.folder, arguments.answers, arguments.tf, rival, arguments.markets)
    for name in arguments.only:
        for window in WINDOWS:
            lines = list(desk.lines(name, window))
            if arguments.summary and lines:
                print_line(summary(lines))
            elif lines:
                for line in lines:
                    print_line(line.cells())


def print_line(cells: Sequence[str]) -> None:
    print(f"| {' | '.join(cells)} |", flush=True)


def summary(lines: Sequence[Line]) -> tuple[str, ...]:
    """Means over the seeds; of the leads, the lowest lower end."""
    own = [line for line in lines if line.seed.isdigit()]

    def mean(values: Iterator[float]) -> float:
        return statistics.mean(values)

    lowest = min(line.lead.lower for line in own)
    return (
        *(own[0].name, own[0].window, f"{len(own)} seeds"),
        pair((mean(line.network[0] for line in own), mean(line.network[1] for line in own))),
        pair((mean(line.averaged[0] for line in own), mean(line.averaged[1] for line in own))),
        " ".join(str(line.n_ahead) for line in own) + f" of {own[0].n_markets}",
        f"{mean(line.lead.value for line in own):+.4f}, from {lowest:+.4f}",
        *(f"{mean(line.aucs[k] for line in own):.3f}" for k in (0, 1)),
        "",
        f"{mean(line.minutes for line in own):.0f}",
    )


class Desk:
    """Reads answers, and keeps the markets and regressions that many of them share."""

    def __init__(
        self,
        folder: Path,
        answers: Path,
        timeframe: Timeframe,
        fit_rival: Callable[[MarketDataset], FloatArray],
        n_markets: int | None,
    ) -> None:
        self._fit_rival, self._n_markets = fit_rival, n_markets
        self._bars: dict[str, Bars] = load_bars(folder, timeframe)
        self._answers = answers / timeframe.value
        self._regressions: dict[tuple[str, ...], dict[str, tuple[FloatArray, ...]]] = {}

    def lines(self, name: str, window: str) -> Iterator[Line]:
        """One for each seed that has answered, then the best one and the mean of them."""
        paths = {seed: answer_path(self._answers, name, window, seed) for seed in range(9)}
        paths = {seed: path for seed, path in paths.items() if path.exists()}
        if not paths:
            return
        markets, own = self._markets(name, window)
        kept = {seed: read_answer(path) for seed, path in paths.items()}
        answers = {
            seed: [
                answered(market, own[market.bars.symbol], [logits])
                for market in markets
                if f"{market.bars.symbol} test" in logits
            ]
            for seed, logits in kept.items()
        }
        made = {
            seed: line(name, window, str(seed), answers[seed], logits)
            for seed, logits in kept.items()
        }
        yield from made.values()
        if len(made) > 1:
            # As pooled.seeds chooses.
            best = max(made, key=lambda seed: made[seed].network[0])
            yield line(name, window, f"best by validation: {best}", answers[best])
            together = [
                answered(market, own[market.bars.symbol], list(kept.values()))
                for market in markets
                if all(f"{market.bars.symbol} test" in logits for logits in kept.values())
            ]
            yield line(name, window, "all averaged", together)

    def _markets(
        self, name: str, window: str
    ) -> tuple[list[MarketDataset], dict[str, tuple[FloatArray, ...]]]:
        settings = settings_of(name, window, 0, self._bars)
        pool = pool_of(self._bars, name, window, settings)
        key = (window, *kind_of_rows(name, settings))
        if key not in self._regressions:
            self._regressions[key] = {
                dataset.bars.symbol: (*regression(dataset), self._fit_rival(dataset))
                for dataset in pool.seen[: self._n_markets]
            }
        return list(pool.seen[: self._n_markets]), self._regressions[key]


def read_answer(path: Path) -> dict[str, FloatArray]:
    """Logits of all classes by market and part, and what else is in the file."""
    found: dict[str, FloatArray] = dict(np.load(path))
    for name, values in found.items():
        if name.endswith((" validation", " test")):
            found[name] = np.pad(values.astype(np.float64), [(0, 0), (0, 1)])
    return found


def kind_of_rows(name: str, settings: TrainConfig) -> tuple[str, ...]:
    """What a regression hangs on: it is the same for recipes of which this is the same."""
    recipe = RECIPES[name]
    has_other_rows = recipe.change_pool is not RECIPES[BASE].change_pool
    return (
        str(settings.labels),
        str(settings.features.feature_set),
        str(settings.lookback),
        name if has_other_rows else "",
    )


def regression(dataset: MarketDataset) -> tuple[FloatArray, FloatArray]:
    """Logits of validation and test rows."""
    model = fitted(LOGISTIC, dataset).plain()  # type: ignore[attr-defined]
    validation, test = (
        model.logits(dataset.features[dataset.rows(part)]) for part in ("validation", "test")
    )
    return validation, test


def fitted(name: str, dataset: MarketDataset) -> Baseline:
    (found,) = (each for each in default_baselines(0) if each.name == name)
    train = dataset.rows("train")
    found.fit(baseline_inputs(dataset).take(train), dataset.label[train])
    return found


def as_fitted(dataset: MarketDataset) -> FloatArray:
    """Probabilities of the test rows by the regression."""
    rows = baseline_inputs(dataset).take(dataset.rows("test"))
    return fitted(LOGISTIC, dataset).predict_proba(rows)


def best_on(part: Part, dataset: MarketDataset) -> FloatArray:
    """Probabilities of the test rows by the model without a network that is best on a part."""
    own, train = dataset.features.astype(np.float64), dataset.rows("train")
    history = np.hstack([own, np.abs(own), rolling(own, 5, np.mean), rolling(own, 20, np.std)])
    seen = fit(history[train], dataset.label[train], is_boosted=False)
    tried = [{part: seen(history[dataset.rows(part)]) for part in LATER_PARTS}]
    for name in (LOGISTIC, "boosting"):
        model, inputs = fitted(name, dataset), baseline_inputs(dataset)
        tried.append(
            {part: model.predict_proba(inputs.take(dataset.rows(part))) for part in LATER_PARTS}
        )
    for found in list(tried):
        logits = [np.log(np.maximum(found[part], 1e-9)) for part in LATER_PARTS]
        tried.append(dict(zip(LATER_PARTS, calibrated(dataset, *logits), strict=True)))
    came = dataset.label[dataset.rows(part)]
    return min(tried, key=lambda found: row_log_loss(found[part], came).sum())["test"]


RIVALS = {
    "logistic": as_fitted,
    "validated": partial(best_on, "validation"),
    "strongest": partial(best_on, "test"),
}


def answered(
    dataset: MarketDataset, own: tuple[FloatArray, ...], answers: Sequence[dict[str, FloatArray]]
) -> MarketAnswer:
    """Calibrate; of several networks each alone, then their mean."""
    symbol = dataset.bars.symbol
    networks = [
        calibrated(dataset, logits[f"{symbol} validation"], logits[f"{symbol} test"])
        for logits in answers
    ]
    network = tuple(np.mean([each[part] for each in networks], axis=0) for part in (0, 1))
    return MarketAnswer(dataset, network, calibrated(dataset, own[0], own[1]), own[2])


def calibrated(
    dataset: MarketDataset, validation: FloatArray, test: FloatArray
) -> tuple[FloatArray, FloatArray]:
    labels = dataset.label[dataset.rows("validation")]
    calibration = fit_calibration(validation.astype(np.float64), labels)
    return (
        apply_calibration(validation.astype(np.float64), calibration),
        apply_calibration(test.astype(np.float64), calibration),
    )


def line(
    name: str,
    window: str,
    seed: str,
    answers: Sequence[MarketAnswer],
    kept: dict[str, FloatArray] | None = None,
) -> Line:
    rows, daily, ahead, aucs = [], [], 0, []
    for answer in answers:
        dataset = answer.dataset
        known = dataset.label[dataset.rows("validation")]
        came = dataset.label[dataset.rows("test")]
        weights = choose_weights([answer.network[0], answer.regression[0]], known)
        averaged = [
            blend_probabilities(both, weights)
            for both in zip(answer.network, answer.regression, strict=True)
        ]
        shares = class_shares(dataset.label[dataset.rows("train")])
        rows.append(
            [
                skill(probabilities, labels, shares)
                for forecast in (answer.network, averaged)
                for probabilities, labels in zip(forecast, (known, came), strict=True)
            ]
        )
        daily.append(losses_by_day(dataset, averaged[1], shares, answer.rival))
        ahead += sum(daily[-1].model) < sum(daily[-1].best_baseline)
        aucs.append([view(averaged[1], came).auc() or np.nan for view in (activity, direction)])
    first = answers[0].dataset
    bars_per_day = first.bars.timeframe.bars_per_day
    bootstrap = Bootstrap(days_of(first.label_rule.horizon, bars_per_day))
    means = np.mean(rows, axis=0).tolist()
    return Line(
        *(name, window, seed, (means[0], means[1]), (means[2], means[3])),
        *(ahead, len(answers), joint_skill(daily, bootstrap), joint_lead(daily, bootstrap)),
        (float(np.nanmean(aucs, axis=0)[0]), float(np.nanmean(aucs, axis=0)[1])),
        "" if kept is None else epochs_of(kept["epochs"]),
        0.0 if kept is None else float(kept["secs"]) / 60,
    )


def skill(probabilities: FloatArray, labels: FloatArray, shares: FloatArray) -> float:
    prior = row_log_loss(np.tile(shares, (len(labels), 1)), labels)
    return float(1 - row_log_loss(probabilities, labels).sum() / prior.sum())


def losses_by_day(
    dataset: MarketDataset, model: FloatArray, shares: FloatArray, rival: FloatArray
) -> DailyLosses:
    rows = dataset.rows("test")
    labels = dataset.label[rows]
    prior = np.tile(shares, (len(labels), 1))
    forecasts = (model, prior, rival)
    return sum_by_day(
        dataset.bars.open_time[rows], [row_log_loss(each, labels) for each in forecasts]
    )


def epochs_of(epochs: FloatArray) -> str:
    """Trained and kept; of many markets the medians."""
    trained, best = np.median(epochs, axis=0)
    return f"{trained:g}, {best:g} kept"


def pair(values: tuple[float, float]) -> str:
    return f"{values[0]:+.4f}, {values[1]:+.4f}"


if __name__ == "__main__":
    main()
