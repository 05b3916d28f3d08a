"""Build what the registry stores with a model's weights: the manifest and the training record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from percoin import json_codec
from percoin.bars.panel import hash_beside
from percoin.dataset import MarketDataset, Part
from percoin.evaluation.backtest import Exit
from percoin.evaluation.baselines import LOGISTIC, class_shares
from percoin.evaluation.blend import NETWORK, PartSkills
from percoin.evaluation.fold_forecasts import JudgingRules
from percoin.evaluation.judgement import JudgedPart, Judgement
from percoin.evaluation.last_row import LastRowModel
from percoin.evaluation.moves import Moves
from percoin.evaluation.regression import Regression
from percoin.evaluation.trees import Trees
from percoin.expected_move.judging import JudgedMoveModel
from percoin.features.drift import bin_features
from percoin.provenance import code_version, library_versions, machine_facts
from percoin.registry.artifact import Exported
from percoin.registry.contents import sha256
from percoin.registry.field_checks import open_time_text
from percoin.registry.judged import HIT_RATE, LEVELS, NETWORK_ADDS, TRAIN_ROWS, TrainRows
from percoin.registry.layout import trees_file
from percoin.registry.manifest import (
    BLEND_PARTS,
    LOGISTIC_KIND,
    VERSIONS,
    BarsInfo,
    Blend,
    DatasetInfo,
    Features,
    Gate,
    ManifestDraft,
    ModelSpec,
    Refit,
    ScalingNumbers,
    SplitSpan,
    StoredVerdict,
    TestMetrics,
)
from percoin.registry.parts import Calibration, Combination, StoredNumbers, StoredPart
from percoin.registry.training_record import TrainingHistory, TrainingRecord
from percoin.training.fitted import Refitted
from percoin.types import NO_TRADES, LevelsReached

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class ExportedModel:
    """A new version and its judgement.

    Attributes:
        version: The version written.
        judgement: Judgement on its test rows.
        move: Its forecast of the expected move; None if there are too few rows.
        levels_in_moves: How often stop and targets in units of that forecast were reached; None
            if too few.
        refit_text: As in the manifest, if the version is a refit.
    """

    version: Exported
    judgement: Judgement
    move: JudgedMoveModel | None = None
    levels_in_moves: LevelsReached | None = None
    refit_text: str | None = None


_SPLIT_NAMES: Mapping[str, Part] = {"train": "train", "val": "validation", "test": "test"}


def draft_manifest(
    dataset: MarketDataset,
    judgement: Judgement,
    model: ModelSpec,
    config: Mapping[str, object],
    seed: int,
) -> ManifestDraft:
    """Build the manifest, before the files are written.

    Args:
        dataset: The training data.
        judgement: Judgement on its test rows.
        model: Kind and arguments of the model.
        config: The whole training config, as plain containers.
        seed: Seed of the training.
    """
    bars, n_features = dataset.bars, len(dataset.feature_names)
    n_rows = {name: len(dataset.rows(part)) for name, part in _SPLIT_NAMES.items()}
    verdict = judgement.evaluation.verdict
    return ManifestDraft(
        symbol=bars.symbol,
        timeframe=bars.timeframe,
        model_version=VERSIONS[model.kind],
        lookback=dataset.lookback,
        num_features=n_features,
        dataset_info=DatasetInfo(
            n_features, n_rows["train"], n_rows["val"], judgement.evaluation.n_rows
        ),
        test_metrics=_test_metrics(judgement),
        features=Features.of(dataset.feature_set, bars.timeframe),
        scaling=ScalingNumbers.of(dataset.scaling),
        label_rule=dataset.label_rule.to_json(),
        calibration=Calibration(**judgement.calibration),
        gate=Gate(StoredVerdict(verdict.outcome.value), (*verdict.reasons, *verdict.cautions)),
        bars=BarsInfo(
            origin=bars.origin,
            sha256=bars.sha256(),
            first_open_time=open_time_text(int(bars.open_time[0])),
            last_open_time=open_time_text(int(bars.open_time[-1])),
            n_bars=len(bars),
            splits={name: _span(dataset, part) for name, part in _SPLIT_NAMES.items()},
            references=hash_references(dataset) or None,
        ),
        model=model,
        config=config,
        seed=seed,
        code_version=code_version(),
        libraries=library_versions(),
        machine=machine_facts(),
        **_parts(judgement, model.kind),
    )


def record_training(
    dataset: MarketDataset,
    config: Mapping[str, object],
    history: TrainingHistory,
    judgement: Judgement,
    n_folds: int,
    rules: JudgingRules,
) -> TrainingRecord:
    """Build the content of ``metrics.json``, which adds to the manifest.

    Args:
        dataset: The training data.
        config: The whole training config, as plain containers.
        history: Losses and accuracies by epoch.
        judgement: Judgement on the test rows.
        n_folds: Number of folds judged.
        rules: Rules of the judgement.
    """
    adds = None if judgement.blend is None else judgement.blend.network_adds
    return TrainingRecord(
        hyperparameters=config,
        training_history=history,
        test_metrics=_further_metrics(judgement),
        sections={
            "evaluation": judgement.evaluation.to_json(),
            "daily_losses": judgement.daily,
            "judging": {
                "threshold": judgement.threshold,
                "trades": judgement.threshold < NO_TRADES,
                "folds": n_folds,
                "fee_bps": rules.costs.fee_bps,
                "slippage_bps": rules.costs.slippage_bps,
                # Without it the exit is that of the labels, as in every older version.
                **({} if rules.exit is Exit.HORIZON else {"exit": rules.exit.value}),
            },
            TRAIN_ROWS: describe_train_rows(dataset),
            **({} if adds is None else {NETWORK_ADDS: adds.as_json()}),
            HIT_RATE: judgement.hit_rate,
            LEVELS: judgement.levels,
        },
    )


def describe_train_rows(dataset: MarketDataset) -> TrainRows:
    """What later rows are compared with: the rows that the served model was fitted to."""
    rows = dataset.rows("train")
    shares = class_shares(dataset.label[rows])
    return TrainRows(
        tuple(shares.tolist()), bin_features(dataset.feature_names, dataset.features[rows])
    )


def with_refit(
    draft: ManifestDraft,
    judgement: Judgement,
    refitted: Refitted,
    judged: Mapping[str, Tensor],
) -> ManifestDraft:
    """The manifest of a judged model whose refit is served.

    Args:
        draft: Of the judged model, with the parts of the refit.
        judgement: Of the judged model, with its own parts.
        refitted: What is served.
        judged: Weights of the judged network; empty without one.
    """
    dataset = refitted.dataset
    span = _span(dataset, "train")
    hashes = {name: sha256(_numbers_text(name, model)) for name, model in judgement.fitted.items()}
    if judged:
        from percoin.registry.weights import save_weights

        hashes = {NETWORK: sha256(save_weights(judged)), **hashes}
    refit = Refit(
        rows=span.rows,
        first_open_time=span.first,
        last_open_time=span.last,
        epochs=refitted.epochs,
        twin_scaling=draft.scaling,
        twin_sha256=hashes,
    )
    return replace(draft, scaling=ScalingNumbers.of(dataset.scaling), refit=refit)


def _numbers_text(name: str, model: LastRowModel) -> bytes:
    trees = "" if model.trees is None else model.trees.to_json()
    return (json_codec.dumps(_stored(name, model)) + trees).encode()


def _parts(judgement: Judgement, kind: str) -> dict[str, Any]:
    """The fields of the manifest that describe the parts, in the oldest format that can."""
    blend, numbers = judgement.blend, judgement.numbers
    if blend is None:
        if numbers is None:
            return {}
        if kind == LOGISTIC_KIND:
            return {"regression": numbers.numbers}
        return {"last_row": _stored(kind, numbers)}
    parts = blend.parts
    if list(parts) == [NETWORK, LOGISTIC]:
        return _network_and_regression(parts[NETWORK], parts[LOGISTIC], blend.skills)
    stored = {
        name: StoredPart(
            part.weight,
            Calibration(**part.calibration),
            part.skills,
            None if part.numbers is None or not part.weight else _stored(name, part.numbers),
        )
        for name, part in parts.items()
    }
    return {"combination": Combination(stored, blend.skills)}


def _network_and_regression(
    network: JudgedPart, beside: JudgedPart, skills: PartSkills
) -> dict[str, Any]:
    blend = Blend(
        network.weight,
        Calibration(**beside.calibration),
        dict(zip(BLEND_PARTS, (network.skills, beside.skills, skills), strict=True)),
    )
    return {
        "regression": None if beside.numbers is None else beside.numbers.numbers,
        "blend": blend,
    }


def _stored(name: str, model: LastRowModel) -> StoredNumbers:
    numbers = model.numbers
    if isinstance(numbers, Moves):
        return StoredNumbers(model.columns, numbers.classes, trees_file(name), numbers.ridge)
    if isinstance(numbers, Regression):
        return StoredNumbers(model.columns, numbers)
    return StoredNumbers(model.columns, trees=trees_file(name))


def trees_of(judgement: Judgement) -> dict[str, Trees]:
    """The boosted trees that the registry stores, by the name of their file."""
    models = {judgement.evaluation.model.name: judgement.numbers}
    if judgement.blend is not None:
        parts = judgement.blend.parts.items()
        models = {name: part.numbers for name, part in parts if part.weight}
    return {
        trees_file(name): model.trees
        for name, model in models.items()
        if model is not None and model.trees is not None
    }


def hash_references(dataset: MarketDataset) -> dict[str, str]:
    """Hashes of the bars of the markets that the features compare with."""
    return hash_beside(dataset.bars, dataset.feature_set.references)


def _span(dataset: MarketDataset, part: Part) -> SplitSpan:
    rows = dataset.rows(part)
    first, last = (int(dataset.bars.open_time[rows[end]]) for end in (0, -1))
    return SplitSpan(open_time_text(first), open_time_text(last), len(rows))


def _test_metrics(judgement: Judgement) -> TestMetrics:
    """The five metrics of the original project; its precision, recall and F1 are weighted too."""
    scores = judgement.evaluation.model.scores
    return TestMetrics(
        accuracy=scores.accuracy,
        precision=scores.weighted_precision,
        recall=scores.weighted_recall,
        f1=scores.weighted_f1,
        confusion_matrix=scores.confusion_matrix,
    )


def _further_metrics(judgement: Judgement) -> dict[str, Any]:
    """Metrics that the original project lacks, on the same rows and decisions."""
    model = judgement.evaluation.model
    scores = model.scores
    return {
        "log_loss": scores.log_loss,
        "log_loss_skill": model.skill.value,
        "f1_macro": scores.macro_f1,
        "balanced_accuracy": scores.balanced_accuracy,
        "mcc": scores.mcc,
        "brier": scores.brier,
        "calibration_error": scores.calibration_error,
        **{f"f1_{entry.name}": entry.f1 for entry in scores.classes},
    }
