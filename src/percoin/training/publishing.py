"""From a fitted market to what the registry keeps of it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from percoin.evaluation.baselines import LOGISTIC, TRAIN_PRIOR
from percoin.evaluation.blend import BLEND, NETWORK, REGRESSION
from percoin.evaluation.judgement import (
    FoldForecasts,
    Judgement,
    JudgingRules,
    daily_beside,
    judge_folds,
)
from percoin.evaluation.metrics import row_log_loss
from percoin.registry.artifact import export_artifact
from percoin.training.fitted import Fitted
from percoin.training.manifest_draft import ExportedModel, draft_manifest, record_training

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Judged:
    """What a market's test rows said, by which rules.

    Attributes:
        folds: Forecasts of each fold.
        judgement: Of all of them.
        rules: What was taken for granted.
    """

    folds: tuple[FoldForecasts, ...]
    judgement: Judgement
    rules: JudgingRules

    def validation_skill(self) -> float:
        """Log-loss skill over the train prior on the validation rows of the newest fold.

        By it settings can be chosen among without a look at their test rows, whatever the label
        rule of each.
        """
        fold = self.folds[-1]
        name = NETWORK if NETWORK in fold.parts else REGRESSION
        said = fold.parts[name if fold.weight is None else BLEND].validation
        labels = fold.dataset.label[fold.dataset.rows("validation")]
        loss = float(row_log_loss(said, labels).mean())
        return 1 - loss / fold.validation_losses[TRAIN_PRIOR]


def judge(fitted: Fitted, rules: JudgingRules) -> Judged:
    """Hold a fitted market against the baselines on its test rows.

    Raises:
        MarketError: It cannot be tested.
    """
    n_rows = len(fitted.dataset.rows("test"))
    log.info("judging %d test rows beside the baselines", n_rows)
    folds = fitted.forecast(rules)
    return Judged(folds, judge_folds(folds, rules), rules)


def publish(
    fitted: Fitted,
    judged: Judged,
    config: Mapping[str, object],
    models_dir: Path,
    onnx: bool = False,
    sections: Mapping[str, object] | None = None,
) -> ExportedModel:
    """Write a judged market as a new version.

    Args:
        fitted: What was judged.
        judged: What was found.
        config: The whole training config, as plain containers.
        models_dir: The registry.
        onnx: Export the network for ONNX Runtime as well.
        sections: Further parts of ``metrics.json``.

    Raises:
        RegistryWriteError: The models folder refuses it; the old version stays.
        InvalidArtifactError: As ONNX it does not answer as it does here.
    """
    dataset, judgement = fitted.dataset, judged.judgement
    parts = fitted.parts(onnx)
    record = record_training(
        dataset, config, parts.history, judgement, len(judged.folds), judged.rules
    )
    record = replace(record, sections={**record.sections, **(sections or {})})
    draft = draft_manifest(dataset, judgement, parts.spec, config, fitted.seed)
    draft = replace(draft, pool=fitted.pool)
    # The served weights are those of the best epoch; both files are of the contract.
    version = export_artifact(
        models_dir, draft, parts.state_dict, parts.state_dict, record, parts.onnx
    )
    return ExportedModel(version, judgement, daily_beside(judged.folds, LOGISTIC))
