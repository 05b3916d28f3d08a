"""Judge a fitted market and write it to the registry."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from percoin.bars.tick import find_ticks
from percoin.dataset import PARTS
from percoin.evaluation.baselines import TRAIN_PRIOR
from percoin.evaluation.fold_forecasts import FoldForecasts, JudgingRules
from percoin.evaluation.judgement import Judgement, judge_folds
from percoin.evaluation.level_reach import levels_reached
from percoin.evaluation.metrics import row_log_loss
from percoin.evaluation.threshold import decide
from percoin.evaluation.uncertainty import Bootstrap
from percoin.expected_move.judging import JudgedMoveModel, fit_and_judge
from percoin.features.levels import level_prices
from percoin.registry.artifact import export_artifact
from percoin.registry.judged import LEVELS_IN_MOVES, TRAIN_ROWS
from percoin.registry.layout import EXPECTED_MOVE
from percoin.training.fitted import Fitted, Refitted
from percoin.training.manifest_draft import (
    ExportedModel,
    describe_train_rows,
    draft_manifest,
    record_training,
    trees_of,
    with_refit,
)
from percoin.types import FloatArray, LevelsReached, Signal

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Judged:
    """The judgement of a market, with the forecasts and rules behind it.

    Attributes:
        folds: Forecasts of each fold.
        judgement: Judgement over all folds.
        rules: Rules of the judgement, such as trading costs.
        move: Forecast of the expected move, fitted and tested on the newest fold; None if it
            has too few rows.
        levels_in_moves: How often stop and targets in units of that forecast were reached on the
            test rows of the newest fold; None if too few.
    """

    folds: tuple[FoldForecasts, ...]
    judgement: Judgement
    rules: JudgingRules
    move: JudgedMoveModel | None = None
    levels_in_moves: LevelsReached | None = None

    def validation_skill(self) -> float:
        """Log-loss skill over the train prior on the validation rows of the newest fold.

        It allows a choice among settings without a look at test rows, even if their label rules
        differ.
        """
        fold = self.folds[-1]
        labels = fold.dataset.label[fold.dataset.rows("validation")]
        loss = float(row_log_loss(fold.validation, labels).mean())
        return 1 - loss / fold.validation_losses[TRAIN_PRIOR]


def judge(fitted: Fitted, rules: JudgingRules) -> Judged:
    """Judge a fitted market against the baselines on its test rows.

    Raises:
        MarketError: The market cannot be tested.
    """
    n_rows = len(fitted.dataset.rows("test"))
    log.info("judging %d test rows beside the baselines", n_rows)
    folds = fitted.forecast(rules)
    judgement = judge_folds(folds, rules)
    bootstrap = judgement.evaluation.bootstrap
    dataset = folds[-1].dataset
    train, validation, test = (dataset.rows(part) for part in PARTS)
    log_ranges = folds[-1].log_ranges()
    move = fit_and_judge(
        dataset.bars,
        dataset.label_rule.horizon,
        (train, validation, test),
        bootstrap,
        log_ranges,
    )
    reached = None
    if move is not None and not dataset.label_rule.compared_with:
        deviations = move.model.deviations(dataset.bars, log_ranges)
        reached = _reached_in_moves(folds[-1], deviations, bootstrap)
    return Judged(folds, judgement, rules, move, reached)


def _reached_in_moves(
    fold: FoldForecasts, deviations: FloatArray, bootstrap: Bootstrap
) -> LevelsReached | None:
    bars, rows = fold.dataset.bars, fold.dataset.rows("test")
    decided = decide(fold.model.probabilities)
    has_direction = decided != Signal.NO_TRADE
    rows, is_long = rows[has_direction], decided[has_direction] == Signal.LONG
    close = bars.column("close")[rows]
    unit = close * deviations[rows]
    levels = level_prices(close, unit, find_ticks(bars).take(rows), is_long)
    return levels_reached(bars, rows, levels, bootstrap)


def publish(
    fitted: Fitted,
    judged: Judged,
    config: Mapping[str, object],
    models_dir: Path,
    onnx: bool = False,
    sections: Mapping[str, object] | None = None,
    refitted: Refitted | None = None,
) -> ExportedModel:
    """Write a judged market as a new version.

    Args:
        fitted: The fitted market.
        judged: Its judgement.
        config: The whole training config, as plain containers.
        models_dir: Folder of the registry.
        onnx: Export the network for ONNX Runtime as well.
        sections: Extra sections of ``metrics.json``.
        refitted: What to serve in place of the judged model.

    Raises:
        RegistryWriteError: The version cannot be written; the old version stays.
        InvalidArtifactError: The ONNX network gives other outputs than the PyTorch one.
    """
    dataset, judgement = fitted.dataset, judged.judgement
    parts = fitted.parts(onnx, refitted)
    record = record_training(
        dataset, config, parts.history, judgement, len(judged.folds), judged.rules
    )
    further: dict[str, object] = {
        EXPECTED_MOVE: judged.move,
        LEVELS_IN_MOVES: judged.levels_in_moves,
        **(sections or {}),
    }
    served = judgement if refitted is None else judgement.served_with(refitted.numbers)
    draft = draft_manifest(dataset, served, parts.spec, config, fitted.seed)
    # The manifest's model names the code of its network.
    sources = {group: each for group, each in fitted.sources.items() if group != "model"}
    draft = replace(draft, pool=fitted.pool, sources=sources or None)
    if refitted is not None:
        draft = with_refit(draft, judgement, refitted, parts.judged)
        further[TRAIN_ROWS] = describe_train_rows(refitted.dataset)
    record = replace(record, sections={**record.sections, **further})
    version = export_artifact(
        models_dir, draft, parts.judged, parts.served, record, parts.onnx, trees_of(served)
    )
    return ExportedModel(version, judgement, judged.move, judged.levels_in_moves, draft.refit_text)
