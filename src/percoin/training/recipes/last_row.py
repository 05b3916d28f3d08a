"""The last-row recipe: a model on the newest bar alone, without a network, fitted in seconds."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from percoin.config import TrainConfig
from percoin.config.loggers import without_curves
from percoin.dataset import MarketDataset, Part, PreparedMarket
from percoin.evaluation.blend import AVERAGE
from percoin.evaluation.calibration import apply_calibration
from percoin.evaluation.fold_forecasts import (
    FoldForecasts,
    JudgingRules,
    PooledBaseline,
    baseline_inputs,
    fit_parts,
    forecast_average,
    forecast_last_row,
)
from percoin.evaluation.last_row import LastRowModel
from percoin.evaluation.metrics import row_log_loss, score
from percoin.registry.manifest import ModelSpec
from percoin.registry.training_record import TrainingHistory
from percoin.training.figures import draw_pictures
from percoin.training.fitted import Fitted, ModelParts, Refitted
from percoin.training.recipes.recipe import Fitting, OneMarket, Trained

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class LastRow(OneMarket):
    """One market with one of the judge's baselines, or an average of them, as its model."""

    can_resume: ClassVar[bool] = False

    def max_epochs(self, settings: TrainConfig) -> int:
        """0: such a model has no epochs."""
        return 0

    def fit(self, fitting: Fitting) -> Trained:
        """Fit the model of every fold, together with the other baselines."""
        loggers = loggers_of_many_runs(fitting)
        started, newest = time.monotonic(), self.folds[-1]
        name = fitting.settings.model.option
        log.info("fitting model=%s to %d train rows", name, len(newest.rows("train")))
        rules, fitter = fitting.rules, fitting.fitter
        forecasts = tuple(
            forecast_average(fold, rules, fitter=fitter)
            if name == AVERAGE
            else forecast_last_row(fold, name, rules, fitter)
            for fold in self.folds
        )
        secs = time.monotonic() - started
        market = FittedLastRow(
            dataset=newest,
            seed=fitting.settings.seed,
            secs=secs,
            name=name,
            ask=lambda: forecasts,
            loggers=loggers,
            fitter=fitting.fitter,
        )
        return Trained([market], secs)


def loggers_of_many_runs(fitting: Fitting) -> Sequence[Logger]:
    """Loggers of a store of many runs; without one Lightning is not imported."""
    stores = without_curves(fitting.settings.logger)
    if not stores:
        return ()
    from percoin.training.loggers import make_loggers

    return make_loggers(replace(fitting.settings, logger=stores), fitting.folder)


@dataclass(frozen=True, kw_only=True)
class FittedLastRow(Fitted):
    """A market with a fitted model on the newest bar alone.

    Attributes:
        name: Of the baseline that is the model, or ``average``.
        ask: Makes the forecasts of each fold; asked once.
        again: Fits again what learns from all markets of a pool, on all rows, and says this
            market's dataset of them.
    """

    name: str
    ask: Callable[[], tuple[FoldForecasts, ...]]
    again: Callable[[], tuple[MarketDataset, Sequence[PooledBaseline]]] | None = None

    @cached_property
    def forecasts(self) -> tuple[FoldForecasts, ...]:
        """Forecasts of each fold."""
        return self.ask()

    def forecast(self, rules: JudgingRules) -> tuple[FoldForecasts, ...]:
        """The forecasts, made under the same rules."""
        return self.forecasts

    def pictures(self) -> Mapping[str, Figure]:
        """Pictures of the newest fold's test rows."""
        labels = self.dataset.label[self.dataset.rows("test")]
        said = self.forecasts[-1].model.probabilities
        matrix = score(said, labels).confusion_matrix
        return draw_pictures(self.dataset, matrix, said, labels, "calibrated")

    def refit(self, names: Collection[str], seed: int) -> Refitted:
        """Fit the model again."""
        pooled: Sequence[PooledBaseline] = ()
        if self.again is None:
            dataset = PreparedMarket.again(self.dataset).without_holdout()
        else:
            dataset, pooled = self.again()
        numbers = fit_parts(dataset, names, seed, pooled, self.fitter)
        return Refitted(dataset=dataset, numbers=numbers)

    def parts(self, onnx: bool, refitted: Refitted | None = None) -> ModelParts:
        """Empty weights: the registry takes the numbers from the judgement."""
        history = TrainingHistory([], [], [], [])
        part = self.forecasts[-1].parts.get(self.name)
        if part is not None and part.numbers is not None:
            train, validation = (
                self._loss_and_accuracy(part.numbers, rows) for rows in ("train", "validation")
            )
            history = TrainingHistory([train[0]], [train[1]], [validation[0]], [validation[1]])
        return ModelParts(ModelSpec({}, self.name), {}, {}, history)

    def _loss_and_accuracy(self, model: LastRowModel, part: Part) -> tuple[float, float]:
        """Log-loss and accuracy before calibration, as in an epoch of a network."""
        columns = baseline_inputs(self.dataset).columns(model.columns)
        rows = self.dataset.rows(part)
        rows = rows[np.isfinite(columns[rows]).all(axis=1)]
        labels = self.dataset.label[rows]
        said = apply_calibration(model.logits(columns[rows]), {"method": "none"})
        accuracy = float(np.mean(said.argmax(axis=1) == labels))
        return float(row_log_loss(said, labels).mean()), accuracy
