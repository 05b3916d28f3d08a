"""The logistic recipe: a logistic regression as the model, fitted in seconds."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from matplotlib.figure import Figure

from percoin.config import TrainConfig
from percoin.dataset import Part
from percoin.evaluation.calibration import apply_calibration
from percoin.evaluation.judgement import FoldForecasts, JudgingRules, forecast_regression
from percoin.evaluation.metrics import row_log_loss, score
from percoin.registry.manifest import LOGISTIC_KIND, ModelSpec
from percoin.registry.training_record import TrainingHistory
from percoin.training.figures import draw_pictures
from percoin.training.fitted import Fitted, ModelParts
from percoin.training.recipes.recipe import Fitting, OneMarket, Trained

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Logistic(OneMarket):
    """One market with a logistic regression as its model."""

    can_resume: ClassVar[bool] = False

    def max_epochs(self, settings: TrainConfig) -> int:
        """0: a regression has no epochs."""
        return 0

    def fit(self, fitting: Fitting) -> Trained:
        """Fit the regression of every fold, together with the baselines."""
        started, newest = time.monotonic(), self.folds[-1]
        log.info("fitting a logistic regression to %d train rows", len(newest.rows("train")))
        forecasts = tuple(forecast_regression(fold, fitting.rules) for fold in self.folds)
        secs = time.monotonic() - started
        market = FittedRegression(
            dataset=newest, seed=fitting.settings.seed, secs=secs, forecasts=forecasts
        )
        return Trained([market], secs)


@dataclass(frozen=True, kw_only=True)
class FittedRegression(Fitted):
    """A market with a fitted regression.

    Attributes:
        forecasts: Forecasts of each fold.
    """

    forecasts: tuple[FoldForecasts, ...]

    def forecast(self, rules: JudgingRules) -> tuple[FoldForecasts, ...]:
        """The forecasts made at fitting time, under the same rules."""
        return self.forecasts

    def pictures(self) -> Mapping[str, Figure]:
        """Pictures of the newest fold's test rows."""
        labels = self.dataset.label[self.dataset.rows("test")]
        said = self.forecasts[-1].model.probabilities
        matrix = score(said, labels).confusion_matrix
        return draw_pictures(self.dataset, matrix, said, labels, "calibrated")

    def parts(self, onnx: bool) -> ModelParts:
        """Empty weights: the manifest holds the regression's coefficients."""
        train, validation = (self._loss_and_accuracy(part) for part in ("train", "validation"))
        history = TrainingHistory([train[0]], [train[1]], [validation[0]], [validation[1]])
        return ModelParts(ModelSpec({}, LOGISTIC_KIND), {}, history)

    def _loss_and_accuracy(self, part: Part) -> tuple[float, float]:
        """Log-loss and accuracy before calibration, as in an epoch of a network."""
        dataset, regression = self.dataset, self.forecasts[-1].regression
        rows = dataset.rows(part)
        labels = dataset.label[rows]
        said = apply_calibration(regression.logits(dataset.features[rows]), {"method": "none"})
        accuracy = float(np.mean(said.argmax(axis=1) == labels))
        return float(row_log_loss(said, labels).mean()), accuracy
