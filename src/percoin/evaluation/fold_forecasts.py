"""The forecasts of one fold: the model calibrated, blended if asked, and every baseline beside it.

This module connects a market (``dataset``) with the calculations (``evaluation``). What it makes
is judged in ``judgement``.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from percoin.dataset import MarketDataset
from percoin.errors import NotEnoughBarsError
from percoin.evaluation.backtest import Costs, Exit
from percoin.evaluation.baselines import (
    MOVES,
    POOLED,
    UNCALIBRATED,
    BaselineInputs,
    FittedBaseline,
    ServableBaseline,
    default_baselines,
    last_known_labels,
    pooled_baselines,
    rolling_prior_bars,
    settled_class_counts,
)
from percoin.evaluation.blend import NETWORK, blend_probabilities, choose_weights
from percoin.evaluation.calibration import apply_calibration, fit_calibration
from percoin.evaluation.evaluate import Forecast
from percoin.evaluation.last_row import LastRowModel
from percoin.evaluation.metrics import N_CLASSES, PROBABILITY_FLOOR, row_log_loss
from percoin.evaluation.moves_fitting import RangeBoosting, RangeRows, fit_moves
from percoin.evaluation.threshold import choose_threshold
from percoin.evaluation.trading import exit_rule_of, prices_of
from percoin.features.rules import read_momentum, read_rsi_ma
from percoin.features.volatility import clock_columns, volatility_columns
from percoin.types import FloatArray

log = logging.getLogger(__name__)

# Fitted on many markets: a baseline, or the first stage of one that each market completes.
PooledBaseline = FittedBaseline | RangeBoosting


@dataclass(frozen=True)
class JudgingRules:
    """Settings of a judgement.

    Attributes:
        costs: Costs of each side of a trade.
        n_trials: Number of models and settings tried, for the deflated Sharpe ratio and the
            gate.
        n_looks: Number of chosen models that these test rows have judged, including this one.
        n_shown: Number of models shown together, such as those of one model trained on many
            markets (a pool). The deflated Sharpe ratio uses it.
        repetitions: Bootstrap draws for each interval.
        seed: For the bootstrap and the boosting baseline.
        model_name: Name of the model in tables.
        blend: Baselines to average, with the network if there is one, by name.
        exit: Where positions of the backtests close.
    """

    costs: Costs = field(default_factory=Costs)
    n_trials: int = 1
    n_looks: int = 1
    n_shown: int = 1
    repetitions: int = 2000
    seed: int = 0
    model_name: str = "cnn_lstm"
    blend: tuple[str, ...] = ()
    exit: Exit = Exit.HORIZON


@dataclass(frozen=True, eq=False)
class Part:
    """Calibrated probabilities of one forecaster of a fold; it can be served alone.

    Attributes:
        validation: Probabilities on the validation rows, shape (n_rows, C).
        test: Probabilities on the test rows, shape (n_rows, C).
        calibration: Fitted on the validation rows.
        numbers: What it computes with; None for the network.
    """

    validation: FloatArray
    test: FloatArray
    calibration: Mapping[str, Any]
    numbers: LastRowModel | None = None


@dataclass(frozen=True, eq=False)
class AskedBaselines:
    """What the baselines of one fold say; it depends on the fold and not on the model.

    Attributes:
        forecasts: Of the test rows, calibrated on the validation rows, like the model.
        validation_losses: Mean log-loss of each on the validation rows, by name.
        parts: Those that can be parts of the model, by name.
        refusals: Why others that were to be parts cannot, by name.
    """

    forecasts: tuple[Forecast, ...]
    validation_losses: Mapping[str, float]
    parts: Mapping[str, Part]
    refusals: Mapping[str, str]

    def with_others(self, others: AskedBaselines) -> AskedBaselines:
        """These, then others of the same fold."""
        return AskedBaselines(
            (*self.forecasts, *others.forecasts),
            {**self.validation_losses, **others.validation_losses},
            {**self.parts, **others.parts},
            {**self.refusals, **others.refusals},
        )

    def without(self, name: str) -> AskedBaselines:
        """The baselines but one."""
        forecasts = tuple(forecast for forecast in self.forecasts if forecast.name != name)
        losses = {key: loss for key, loss in self.validation_losses.items() if key != name}
        return replace(self, forecasts=forecasts, validation_losses=losses)


@dataclass(frozen=True, eq=False)
class FoldForecasts:
    """Forecasts of the model and of every baseline on the test rows of one fold.

    Attributes:
        dataset: The fold.
        model: The model's forecast: of its one part, or the weighted mean of its parts.
        validation: The model's probabilities on the validation rows, shape (n_rows, C); empty
            for forecasts of others.
        baselines: Fitted on the fold's train rows. Calibrated on its validation rows, like the
            model.
        validation_losses: Mean log-loss of each baseline on the validation rows, by name.
        threshold: Minimum confidence for a trade, chosen on the validation rows.
        parts: The forecasters of the model, by name: the network, baselines. None for forecasts
            of others.
        weights: Weight of each part, chosen on the validation rows.
    """

    dataset: MarketDataset
    model: Forecast
    validation: FloatArray
    baselines: tuple[Forecast, ...]
    validation_losses: Mapping[str, float]
    threshold: float
    parts: Mapping[str, Part]
    weights: Mapping[str, float]

    @property
    def calibration(self) -> Mapping[str, Any]:
        """Calibration of the network, or of the model's one part if it has no network."""
        return next((part.calibration for part in self.parts.values()), {"method": "none"})

    def without_network(self) -> FloatArray | None:
        """What the same model without its network says of the test rows, shape (n_rows, C).

        The other parts are averaged with weights chosen anew on the validation rows. None if the
        model has no network, or nothing else.
        """
        others = [part for name, part in self.parts.items() if name != NETWORK]
        if NETWORK not in self.parts or not others:
            return None
        if self.weights[NETWORK] == 0:
            return self.model.probabilities
        labels = self.dataset.label[self.dataset.rows("validation")]
        weights = choose_weights([part.validation for part in others], labels)
        return blend_probabilities([part.test for part in others], weights)

    def log_ranges(self) -> dict[str, FloatArray]:
        """``Moves.log_range`` at each bar of the parts that are served and have it, by name.

        Of train rows it is told by trees that have seen them.
        """
        models = {
            name: part.numbers
            for name, part in self.parts.items()
            if part.numbers is not None and part.numbers.forecasts_range and self.weights[name] > 0
        }
        if not models:
            return {}
        inputs = baseline_inputs(self.dataset)
        return {
            name: model.log_range(inputs.columns(model.columns)) for name, model in models.items()
        }


class BaselineFitter:
    """Fits the baselines of one market; the jobs of a sweep share what they fit."""

    def ask(self, dataset: MarketDataset, seed: int, parts: tuple[str, ...]) -> AskedBaselines:
        """Fit the baselines of a fold on its train rows, and ask them about the others.

        Args:
            dataset: The fold.
            seed: For the boosting baseline.
            parts: Those to try as parts of the model.
        """
        inputs = baseline_inputs(dataset)
        return _ask(dataset, inputs, _fit_baselines(dataset, inputs, seed, parts), parts)

    def fit_parts(
        self, dataset: MarketDataset, seed: int, parts: tuple[str, ...]
    ) -> dict[str, LastRowModel]:
        """Fit parts of a model to train rows alone, as plain numbers.

        Args:
            dataset: Its train rows are used.
            seed: For the boosting baseline.
            parts: The baselines that are parts of the model.

        Raises:
            ValueError: A part cannot be served.
        """
        own = _fit_baselines(dataset, baseline_inputs(dataset), seed, parts, only_parts=True)
        return _plain(own, parts)


def forecast_fold(
    dataset: MarketDataset,
    validation_logits: FloatArray,
    test_logits: FloatArray,
    rules: JudgingRules,
    pooled: Sequence[PooledBaseline] = (),
    fitter: BaselineFitter | None = None,
) -> FoldForecasts:
    """Calibrate the network and fit the baselines of one fold; blend if the rules say so.

    Args:
        dataset: The fold.
        validation_logits: Logits of the validation rows in order, shape (n_rows, C).
        test_logits: Logits of the test rows in order, shape (n_rows, C).
        rules: Settings of the judgement.
        pooled: More baselines, fitted on the train rows of many markets, including this one.
        fitter: Fits the baselines of this market alone.
    """
    asked = _ask_all(dataset, rules, pooled, fitter)
    network = _calibrated(dataset, validation_logits, test_logits)
    parts = {NETWORK: network, **_parts_of(dataset, asked, rules)}
    return _forecast_with(dataset, parts, asked, rules)


def forecast_average(
    dataset: MarketDataset,
    rules: JudgingRules,
    pooled: Sequence[PooledBaseline] = (),
    fitter: BaselineFitter | None = None,
) -> FoldForecasts:
    """As ``forecast_fold``, for the average of the baselines alone, without a network.

    Raises:
        NotEnoughBarsError: Fewer than two of them can be fitted.
    """
    asked = _ask_all(dataset, rules, pooled, fitter)
    parts = _parts_of(dataset, asked, rules)
    if len(parts) < 2:
        bars, reasons = dataset.bars, "; ".join(dict.fromkeys(asked.refusals.values()))
        raise NotEnoughBarsError(
            bars.symbol,
            bars.timeframe,
            f"of blend={'+'.join(rules.blend)} {' and '.join(parts) or 'nothing'} is left to "
            f"average: {reasons}",
            f"load more bars or use {dataset.spec.longer_history}",
        )
    return _forecast_with(dataset, parts, asked, rules)


def forecast_last_row(
    dataset: MarketDataset, name: str, rules: JudgingRules, fitter: BaselineFitter | None = None
) -> FoldForecasts:
    """Use a baseline as the model of one fold, and drop it from the baselines.

    Args:
        dataset: The fold.
        name: Name of the baseline.
        rules: Settings of the judgement.
        fitter: Fits the baselines.

    Raises:
        NotEnoughBarsError: Its inputs are not known on enough of the rows.
    """
    asked = (fitter or BaselineFitter()).ask(dataset, rules.seed, (name,))
    if name not in asked.parts:
        bars = dataset.bars
        raise NotEnoughBarsError(
            bars.symbol,
            bars.timeframe,
            f"{len(bars)} bars are too few for model={name}: {asked.refusals[name]}",
            f"load more bars or use {dataset.spec.longer_history}",
        )
    return _forecast_with(dataset, {name: asked.parts[name]}, asked.without(name), rules)


def forecast_given(
    dataset: MarketDataset, forecast: Forecast, rules: JudgingRules, threshold: float = 0.0
) -> FoldForecasts:
    """Compare external forecasts of the test rows with the baselines, without calibration.

    Args:
        dataset: The fold.
        forecast: Forecast of the test rows in order.
        rules: Settings of the judgement.
        threshold: Minimum confidence for a trade: the probability of what is decided.
    """
    asked = BaselineFitter().ask(dataset, rules.seed, ())
    return FoldForecasts(
        dataset,
        forecast,
        np.empty((0, N_CLASSES)),
        asked.forecasts,
        asked.validation_losses,
        threshold,
        {},
        {},
    )


def forecast_baselines(
    dataset: MarketDataset, seed: int = 0, pooled: Sequence[PooledBaseline] = ()
) -> AskedBaselines:
    """Fit and calibrate the baselines of one market and make their forecasts, without a model.

    Args:
        dataset: The fold.
        seed: For the boosting baseline.
        pooled: As in ``forecast_fold``.
    """
    inputs = baseline_inputs(dataset)
    fitted = [*_fit_baselines(dataset, inputs, seed), *_fitted_to(dataset, inputs, pooled)]
    return _ask(dataset, inputs, fitted)


def fit_pooled_baselines(
    markets: Sequence[MarketDataset], seed: int = 0, has_moves: bool = False
) -> list[PooledBaseline]:
    """Fit the baselines that learn from the train rows of many markets at once.

    Args:
        markets: At least one; all with the same split times and the same feature scaling.
        seed: For the boosting baselines.
        has_moves: Whether ``pooled_moves`` is one of them.
    """
    rows = [dataset.rows("train") for dataset in markets]
    everything = [baseline_inputs(dataset) for dataset in markets]
    known = [inputs.take(train) for inputs, train in zip(everything, rows, strict=True)]
    labels = [dataset.label[train] for dataset, train in zip(markets, rows, strict=True)]
    inputs, came = BaselineInputs.joined(known), np.concatenate(labels)
    baselines = pooled_baselines(seed)
    for baseline in baselines:
        baseline.fit(inputs, came)
    if not has_moves:
        return [*baselines]
    of_range = [RangeRows.of(*market) for market in zip(markets, everything, strict=True)]
    return [*baselines, RangeBoosting.fit(of_range, seed)]


def fit_parts(
    dataset: MarketDataset,
    names: Collection[str],
    seed: int = 0,
    pooled: Sequence[PooledBaseline] = (),
    fitter: BaselineFitter | None = None,
) -> dict[str, LastRowModel]:
    """Fit parts of a model to train rows alone, as plain numbers.

    Args:
        dataset: Its train rows are used.
        names: The baselines that are parts of the model.
        seed: Of the judgement.
        pooled: More of them, fitted already on the rows of many markets.
        fitter: Fits the others.

    Raises:
        ValueError: A part cannot be served.
    """
    own = tuple(name for name in names if name not in POOLED)
    parts = (fitter or BaselineFitter()).fit_parts(dataset, seed, own)
    if not pooled:
        return parts
    return {**parts, **_plain(_fitted_to(dataset, baseline_inputs(dataset), pooled), names)}


def baseline_inputs(dataset: MarketDataset) -> BaselineInputs:
    """Inputs of the baselines at each bar, shape (n_bars, ...).

    The first bars are NaN, because indicators need earlier bars.
    """
    return BaselineInputs(
        features=dataset.features.astype(np.float64),
        last_known_label=last_known_labels(dataset.label, dataset.label_rule.horizon),
        rsi_ma=read_rsi_ma(dataset.bars).signal,
        momentum=read_momentum(dataset.bars).signal,
        settled_counts=settled_class_counts(
            dataset.label, dataset.label_rule.horizon, rolling_prior_bars(dataset.bars.timeframe)
        ),
        volatility=volatility_columns(dataset.bars),
        clock=clock_columns(dataset.bars),
    )


def _plain(baselines: Iterable[FittedBaseline], names: Collection[str]) -> dict[str, LastRowModel]:
    return {
        baseline.name: baseline.plain()
        for baseline in baselines
        if baseline.name in names and isinstance(baseline, ServableBaseline)
    }


def _ask_all(
    dataset: MarketDataset,
    rules: JudgingRules,
    pooled: Sequence[PooledBaseline],
    fitter: BaselineFitter | None,
) -> AskedBaselines:
    """Ask the baselines of a market alone, then those of its pool."""
    own = tuple(name for name in rules.blend if name not in POOLED)
    asked = (fitter or BaselineFitter()).ask(dataset, rules.seed, own)
    if not pooled:
        return asked
    inputs = baseline_inputs(dataset)
    others = tuple(name for name in rules.blend if name in POOLED)
    return asked.with_others(_ask(dataset, inputs, [*_fitted_to(dataset, inputs, pooled)], others))


def _parts_of(
    dataset: MarketDataset, asked: AskedBaselines, rules: JudgingRules
) -> dict[str, Part]:
    """Those of the rules' blend that can be parts; a warning says why another cannot."""
    parts = {}
    for name in rules.blend:
        if name in asked.parts:
            parts[name] = asked.parts[name]
            continue
        market = dataset.bars.symbol, dataset.bars.timeframe.value
        log.warning("%s %s: %s takes no part in the blend: %s", *market, name, asked.refusals[name])
    return parts


def _forecast_with(
    dataset: MarketDataset, parts: Mapping[str, Part], asked: AskedBaselines, rules: JudgingRules
) -> FoldForecasts:
    labels = dataset.label[dataset.rows("validation")]
    weights: tuple[float, ...] = (1.0,)
    if len(parts) > 1:
        weights = choose_weights([part.validation for part in parts.values()], labels)
    validation, test = (
        blend_probabilities([getattr(part, rows) for part in parts.values()], weights)
        for rows in ("validation", "test")
    )
    return FoldForecasts(
        dataset,
        Forecast(rules.model_name, test),
        validation,
        asked.forecasts,
        asked.validation_losses,
        _threshold(dataset, validation, rules),
        parts,
        dict(zip(parts, weights, strict=True)),
    )


def _fit_baselines(
    dataset: MarketDataset,
    inputs: BaselineInputs,
    seed: int,
    parts: Collection[str] = (),
    only_parts: bool = False,
) -> list[FittedBaseline]:
    """Those of every report, or the parts of the model alone; ``moves`` only as such a part."""
    train, baselines = dataset.rows("train"), default_baselines(seed)
    if only_parts:
        baselines = [baseline for baseline in baselines if baseline.name in parts]
    known = inputs.take(train)
    for baseline in baselines:
        baseline.fit(known, dataset.label[train])
    return [*baselines, *([fit_moves(dataset, inputs, seed)] if MOVES in parts else [])]


def _fitted_to(
    dataset: MarketDataset, inputs: BaselineInputs, pooled: Sequence[PooledBaseline]
) -> Iterator[FittedBaseline]:
    for baseline in pooled:
        if isinstance(baseline, RangeBoosting):
            yield baseline.moves_of(RangeRows.of(dataset, inputs))
        else:
            yield baseline


def _ask(
    dataset: MarketDataset,
    inputs: BaselineInputs,
    baselines: Sequence[FittedBaseline],
    wanted: Collection[str] = (),
) -> AskedBaselines:
    """Ask fitted baselines of a fold, and make parts of those that are wanted as such."""
    validation, test = (inputs.take(dataset.rows(part)) for part in ("validation", "test"))
    labels = dataset.label[dataset.rows("validation")]
    forecasts, losses = [], {}
    parts, refusals = {}, {}
    for baseline in baselines:
        known, asked = baseline.predict_proba(validation), baseline.predict_proba(test)
        if baseline.name not in UNCALIBRATED:
            logits = [np.log(np.maximum(said, PROBABILITY_FLOOR)) for said in (known, asked)]
            part = _calibrated(dataset, *logits)
            known, asked = part.validation, part.test
        forecasts.append(Forecast(baseline.name, asked, baseline.predict(test)))
        losses[baseline.name] = float(row_log_loss(known, labels).mean())
        if baseline.name in wanted:
            try:
                parts[baseline.name] = _part_of(baseline, dataset, validation, test)
            except ValueError as error:
                refusals[baseline.name] = str(error)
    return AskedBaselines(tuple(forecasts), losses, parts, refusals)


def _part_of(
    baseline: FittedBaseline,
    dataset: MarketDataset,
    validation: BaselineInputs,
    test: BaselineInputs,
) -> Part:
    """A fitted baseline as a part of the model, computed as a prediction computes it.

    Raises:
        ValueError: It is no such baseline, or its inputs are not known on enough of the rows.
    """
    if not isinstance(baseline, ServableBaseline):
        raise ValueError(f"{baseline.name} is no model that can be served")
    numbers, logits = baseline.plain(), []
    for part, inputs in (("validation", validation), ("test", test)):
        rows = inputs.columns(baseline.columns)
        n_unknown = int((~np.isfinite(rows).all(axis=1)).sum())
        if n_unknown:
            raise ValueError(f"its inputs are not known on {n_unknown} of {len(rows)} {part} rows")
        logits.append(numbers.logits(rows))
    return replace(_calibrated(dataset, *logits), numbers=numbers)


def _calibrated(
    dataset: MarketDataset, validation_logits: FloatArray, test_logits: FloatArray
) -> Part:
    labels = dataset.label[dataset.rows("validation")]
    calibration = fit_calibration(validation_logits, labels)
    validation = apply_calibration(validation_logits, calibration)
    return Part(validation, apply_calibration(test_logits, calibration), calibration)


def _threshold(dataset: MarketDataset, probabilities: FloatArray, rules: JudgingRules) -> float:
    """Choose the confidence threshold on the validation rows, for the served probabilities."""
    validation = dataset.rows("validation")
    first, last = int(validation[0]), int(validation[-1]) + dataset.label_rule.horizon + 1
    choice = choose_threshold(
        probabilities,
        validation - first,
        prices_of(dataset, first, last),
        exit_rule_of(dataset, first, last, rules.exit),
        rules.costs,
    )
    return choice.threshold
