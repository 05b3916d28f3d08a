"""A logistic regression as the model of a market: fitted, judged and exported in seconds."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from percoin.config import TrainConfig
from percoin.dataset import MarketDataset, Part
from percoin.evaluation.calibration import apply_calibration
from percoin.evaluation.judgement import FoldForecasts, Judgement, forecast_regression, judge_folds
from percoin.evaluation.metrics import row_log_loss, score
from percoin.evaluation.regression import Regression
from percoin.registry.artifact import check_writable, export_artifact
from percoin.registry.manifest import LOGISTIC_KIND, ModelSpec
from percoin.registry.training_record import TrainingHistory
from percoin.training.figures import draw_pictures, write_picture
from percoin.training.manifest_draft import ExportedModel, draft_manifest, record_training
from percoin.training.run_files import (
    RunContext,
    judging_rules,
    load_folds,
    plain_settings,
    summarize,
    write_errors,
    write_result,
)
from percoin.training.summary import TrainingSummary

log = logging.getLogger(__name__)


def train_logistic_from_config(settings: TrainConfig) -> None:
    """Fit, judge and export the regression that the settings describe; print its screen.

    Raises:
        PercoinError: Anything that a user can mend; the registry is untouched.
    """
    check_writable(Path(settings.models_dir), settings.symbol, settings.tf.timeframe)
    print(train_logistic(settings, load_folds(settings), RunContext.of_hydra()).render())


def train_logistic(
    settings: TrainConfig, folds: Sequence[MarketDataset], run: RunContext
) -> TrainingSummary:
    """Fit on ready datasets, judge, export.

    Args:
        settings: What the folds were made by.
        folds: Of ``load_folds``; the last one's model is exported.
        run: Where the run leaves what it writes.

    Raises:
        PercoinError: Anything that a user can mend; the registry is untouched.
    """
    started, rules, dataset = time.monotonic(), judging_rules(settings), folds[-1]
    n_rows = len(dataset.rows("train"))
    log.info("fitting a logistic regression to %d train rows, in %s", n_rows, run.folder)
    with write_errors(settings, run.folder):
        forecasts = [forecast_regression(fold, rules) for fold in folds]
        secs = time.monotonic() - started
        log.info("judging it beside the baselines")
        judgement = judge_folds(forecasts, rules)
        exported = _export(settings, run, forecasts, judgement)
        _draw(forecasts[-1], run.folder / "figures")
        summary = summarize(settings, dataset, exported, run.folder, secs)
        write_result(run.folder, summary)
    return summary


def _export(
    settings: TrainConfig, run: RunContext, folds: Sequence[FoldForecasts], judgement: Judgement
) -> ExportedModel:
    newest, config = folds[-1], plain_settings(settings, run.choices)
    model = ModelSpec({}, LOGISTIC_KIND)
    draft = draft_manifest(newest.dataset, judgement, model, config, settings.seed)
    history = _history(newest.regression, newest.dataset)
    record = record_training(
        newest.dataset, config, history, judgement, len(folds), judging_rules(settings)
    )
    version = export_artifact(Path(settings.models_dir), draft, {}, {}, record)
    return ExportedModel(version, judgement)


def _history(regression: Regression, dataset: MarketDataset) -> TrainingHistory:
    """Losses and accuracies of the one fit, before calibration, as an epoch's are."""
    train, validation = (
        _loss_and_accuracy(regression, dataset, p) for p in ("train", "validation")
    )
    return TrainingHistory([train[0]], [train[1]], [validation[0]], [validation[1]])


def _loss_and_accuracy(
    regression: Regression, dataset: MarketDataset, part: Part
) -> tuple[float, float]:
    rows = dataset.rows(part)
    labels = dataset.label[rows]
    said = apply_calibration(regression.logits(dataset.features[rows]), {"method": "none"})
    accuracy = float(np.mean(said.argmax(axis=1) == labels))
    return float(row_log_loss(said, labels).mean()), accuracy


def _draw(fold: FoldForecasts, folder: Path) -> None:
    """The pictures that every training leaves."""
    folder.mkdir(parents=True, exist_ok=True)
    labels = fold.dataset.label[fold.dataset.rows("test")]
    said = fold.model.probabilities
    matrix = score(said, labels).confusion_matrix
    pictures = draw_pictures(fold.dataset, matrix, said, labels, "calibrated")
    for name, figure in pictures.items():
        write_picture(figure, folder / f"{name}.png")
