"""What every training needs, whatever it trains: bars, folds, rules, and where its result goes.

Nothing here imports Lightning, which a model without a network does without.
"""

from __future__ import annotations

import errno
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig

from percoin import json_codec
from percoin.assembly import bar_source, dataset_spec, trading_costs
from percoin.bars.gaps import describe_gaps, find_gaps
from percoin.bars.schema import Bars, format_time
from percoin.bars.store import BarStore
from percoin.cli.overrides import source_words
from percoin.commands import command
from percoin.config import BinanceConfig, BlendKind, EvaluationMode, LogisticConfig, TrainConfig
from percoin.dataset import MarketDataset, build_dataset, build_folds
from percoin.errors import TrainingError
from percoin.evaluation.baselines import LOGISTIC
from percoin.evaluation.blend import BLEND
from percoin.evaluation.judgement import JudgingRules
from percoin.evaluation.table import format_evaluation
from percoin.features.feature_set import history_bars
from percoin.registry.layout import MarketFolder
from percoin.run_folder import FINISHED_MARK
from percoin.training.manifest_draft import ExportedModel
from percoin.training.recipes.from_pool import PooledStart
from percoin.training.summary import TrainingSummary
from percoin.whole_file import write_whole

log = logging.getLogger(__name__)

SUMMARY_FILE = "summary.txt"
EVALUATION_FILE = "evaluation.txt"
_REFUSALS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}


@dataclass(frozen=True)
class RunContext:
    """Where one run leaves what it writes, and which options its settings were made of.

    Attributes:
        folder: For logs, checkpoints, pictures and the result.
        choices: The chosen option of each config group, for records.
    """

    folder: Path
    choices: Mapping[str, str]

    @classmethod
    def of_hydra(cls) -> RunContext:
        """The run that Hydra has made a folder for."""
        runtime = HydraConfig.get().runtime
        return cls(Path(runtime.output_dir), dict(runtime.choices))


def load_folds(settings: TrainConfig, start: PooledStart | None = None) -> list[MarketDataset]:
    """Fetch the bars, keep them in the store, and make them ready to train on.

    Returns:
        As ``make_folds``.
    """
    return make_folds(settings, load_bars(settings), start)


def make_folds(
    settings: TrainConfig, bars: Bars, start: PooledStart | None = None
) -> list[MarketDataset]:
    """Bars made ready to train on.

    One dataset for the single split; one per fold, oldest first, for a walk-forward. What
    begins with a pooled model, ``find_start``'s, has the cuts and the scaling of its pool.
    """
    assert (start is None) == (settings.init is None)
    spec = dataset_spec(settings)
    if start is not None:
        return [start.dataset(spec, bars)]
    if settings.evaluation == EvaluationMode.WALK_FORWARD:
        return build_folds(bars, spec, settings.folds)
    return [build_dataset(bars, spec)]


def n_bars_to_load(settings: TrainConfig) -> int:
    """How many of the newest bars a training makes use of, if there are no gaps."""
    return dataset_spec(settings).bars_to_load(settings.tf.timeframe)


def load_bars(settings: TrainConfig) -> Bars:
    """Bars of the market from its source; the store then holds them for predictions.

    A run that is resumed goes on with the bars that are stored: newer ones would make it
    another run.
    """
    store = BarStore(Path(settings.data_dir) / "bars")
    timeframe = settings.tf.timeframe
    source = bar_source(settings.source, store, n_bars_to_load(settings), replace=True)
    if settings.resume and isinstance(settings.source, BinanceConfig):
        source = store
    bars = source.load(settings.symbol, timeframe)
    store.write(bars)
    log.info(
        "%s %s: %d bars until %s from %s",
        bars.symbol,
        bars.timeframe.value,
        len(bars),
        bars.close_time(),
        bars.origin,
    )
    gaps = find_gaps(bars)
    if gaps:
        log.info("%s", describe_gaps(bars, gaps))
    if 0 < len(bars) < (needed := history_bars(settings.lookback)):
        log.warning(
            "%s %s: %d bars are fewer than the %d that a prediction takes: until there are so "
            "many, it needs bars that begin where these begin, at %s",
            bars.symbol,
            bars.timeframe.value,
            len(bars),
            needed,
            format_time(bars.frame.index[0]),
        )
    return bars


def judging_rules(settings: TrainConfig) -> JudgingRules:
    """What the settings have the judgement take for granted."""
    is_blend, name = settings.blend == BlendKind.LOGISTIC, JudgingRules.model_name
    if isinstance(settings.model, LogisticConfig):
        name = LOGISTIC
    return JudgingRules(
        costs=trading_costs(settings.costs),
        n_trials=settings.trials,
        n_looks=settings.looks,
        seed=settings.seed,
        model_name=BLEND if is_blend else name,
        blend=is_blend,
    )


def plain_settings(settings: TrainConfig, choices: Mapping[str, str]) -> dict[str, Any]:
    """The settings as JSON can say them, with the names of the chosen options."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(settings)))
    options = {group: choices[group] for group in ("source", "labels", "model") if group in choices}
    return {**plain, "choices": options}


def summarize(
    settings: TrainConfig,
    dataset: MarketDataset,
    exported: ExportedModel,
    run_folder: Path,
    secs: float,
    epochs: tuple[int, int] | None = None,
) -> TrainingSummary:
    """The screen of a finished run.

    Args:
        settings: What was asked for.
        dataset: What the exported model was trained on.
        exported: The version and its judgement.
        run_folder: Where logs and pictures lie.
        secs: Wall time of the training.
        epochs: How many there were, and which was kept; None where there are none.
    """
    market = MarketFolder(Path(settings.models_dir), settings.symbol, settings.tf.timeframe)
    return TrainingSummary(
        dataset=dataset,
        evaluation=exported.judgement.evaluation,
        blend=exported.judgement.blend,
        epochs=epochs,
        secs=secs,
        model_folder=market.link,
        version_id=exported.version.folder.name,
        is_served=exported.version.is_served,
        run_folder=run_folder,
        predict_command=command(
            "python predict.py",
            f"symbol={settings.symbol}",
            f"tf={settings.tf.name}",
            *source_words(settings.source),
            data_dir=settings.data_dir,
            models_dir=settings.models_dir,
        ),
    )


@contextmanager
def write_errors(settings: TrainConfig, folder: Path) -> Iterator[None]:
    """Say in one line that the run's folder takes no more, and why."""
    try:
        yield
    except OSError as error:
        if error.errno not in _REFUSALS:
            raise
        raise TrainingError(
            settings.title,
            settings.tf.name,
            f"cannot write to {error.filename or folder}: {error.strerror}",
            "free some space or make it writable, or choose another folder with outputs_dir=FOLDER",
        ) from error


def write_result(folder: Path, summary: TrainingSummary) -> None:
    """Mark the run as finished, with its figures for programs and its screen for people."""
    write_whole(folder / SUMMARY_FILE, summary.render())
    tables = format_evaluation(summary.evaluation)
    write_whole(folder / EVALUATION_FILE, tables + "\n")
    verdict = summary.evaluation.verdict
    result = {
        **summary.key_results(),
        "epochs": 0 if summary.epochs is None else summary.epochs[0],
        "secs": summary.secs,
        "version": summary.version_id,
        "is_served": summary.is_served,
        "verdict": verdict.outcome.value,
        "reasons": [*verdict.reasons, *verdict.cautions],
    }
    write_whole(folder / FINISHED_MARK, json_codec.dumps(result, nan_as_null=True))
