"""Reads saved models for the report: manifest and evaluation, or the problem."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from percoin.commands import train_command
from percoin.errors import ConfigError, InvalidArtifactError, UnreadableArtifactError
from percoin.evaluation.backtest import Exit
from percoin.evaluation.daily import DailyLosses
from percoin.evaluation.evaluate import Evaluation
from percoin.evaluation.stored import evaluation_from_json
from percoin.intervals import Interval
from percoin.registry.catalogue import Version, has_shown, markets_in, read_versions
from percoin.registry.contents import parse_metrics, read_files, read_manifest, read_section
from percoin.registry.judged import LEVELS, NETWORK_ADDS
from percoin.registry.layout import METRICS_FILE, MarketFolder
from percoin.registry.manifest import Manifest
from percoin.registry.publish import served_folder, served_id, version_folder
from percoin.types import LevelsReached, Timeframe


@dataclass(frozen=True)
class Judging:
    """How a model was judged.

    Attributes:
        n_folds: Folds of a walk-forward, whose test rows were pooled; 1 for a single split.
        threshold: Lowest probability for a trade, chosen on validation rows; None if unknown.
        exit: Where positions of the backtests close.
        levels: How often stop and targets were reached; None if unknown or too few.
        network_adds: What the network adds to the other parts, in nats a row; None if unknown,
            or if there is not both.
    """

    n_folds: int = 1
    threshold: float | None = None
    exit: Exit = Exit.HORIZON
    levels: LevelsReached | None = None
    network_adds: Interval | None = None


@dataclass(frozen=True)
class Course:
    """Training history and test losses, in addition to the evaluation.

    Attributes:
        daily: Losses on the test rows by day; None if the export has none.
        val_loss: Validation loss after each epoch.
    """

    daily: DailyLosses | None = None
    val_loss: tuple[float, ...] = ()


@dataclass(frozen=True)
class SavedModel:
    """One version of a market's model, served or not, or the reason why it is missing.

    Attributes:
        symbol: Market.
        timeframe: Bar length.
        manifest: None if the model is broken.
        evaluation: None if the model is broken or was never judged.
        judging: How it was judged.
        problem: Why manifest or evaluation is missing; empty if both exist.
        course: Training history and daily test losses.
        variant: Settings that differ from other models of the same market; may be empty.
        standing: Note on another version that is served or newer; empty if there is none.
        exists: False if the training ended without a model; ``problem`` then says why.
        tested: First and last day of the test rows, for forecasts without a manifest.
    """

    symbol: str
    timeframe: Timeframe
    manifest: Manifest | None = None
    evaluation: Evaluation | None = None
    judging: Judging = field(default_factory=Judging)
    problem: str = ""
    course: Course = field(default_factory=Course)
    variant: str = ""
    standing: str = ""
    exists: bool = True
    tested: tuple[str, str] | None = None

    @property
    def name(self) -> str:
        """Market, bar length and variant, such as ``BTCUSDT 15m lr=0.01``."""
        return " ".join(filter(None, (self.symbol, self.timeframe.value, self.variant)))


def read_models(
    root: Path, symbol: str | None = None, timeframe: Timeframe | None = None
) -> list[SavedModel]:
    """Read the served models of the registry, sorted by symbol and then bar length.

    A broken model is returned with its problem; the others are read as usual.

    Args:
        root: The models folder.
        symbol: One market; None for all.
        timeframe: One bar length; None for all.

    Raises:
        ModelNotFoundError: One model was requested and none was exported.
        ConfigError: No model matches the request.
    """
    if symbol is not None and timeframe is not None:
        served_folder_or_problem(MarketFolder(root, symbol, timeframe))
    markets = [
        market
        for market in markets_in(root)
        if has_shown(market)
        and symbol in (None, market.symbol)
        and timeframe in (None, market.timeframe)
    ]
    if not markets:
        wanted = " ".join(filter(None, [symbol, timeframe and timeframe.value]))
        line = train_command(symbol or "BTCUSDT", timeframe or Timeframe.M15, root)
        raise ConfigError(
            f"models_dir={root} holds no model{f' of {wanted}' if wanted else ''}; train one "
            f"({line}) or name another folder"
        )
    return [with_standing(read_model(market), market) for market in markets]


def read_version(market: MarketFolder, version_id: str) -> SavedModel:
    """Read one version, served or not; a broken one is returned with its problem."""
    try:
        folder = version_folder(market, version_id)
    except InvalidArtifactError as error:
        return SavedModel(market.symbol, market.timeframe, problem=error.found)
    return with_standing(read_saved(market, folder), market)


def with_standing(model: SavedModel, market: MarketFolder) -> SavedModel:
    """The model with a note on another version that is served or newer."""
    if model.manifest is None:
        return model
    try:
        return replace(model, standing=_standing(model.manifest.version_id, market))
    except UnreadableArtifactError as error:
        return replace(model, standing=error.found)


def _standing(own: str, market: MarketFolder) -> str:
    """Note on the version that is served instead of ``own``, or is newer; may be empty."""
    versions, shown = read_versions(market), served_id(market)
    served = next((version for version in versions if version.version_id == shown), None)
    if served is None or served.version_id == own:
        newer = [v for v in versions if v.version_id > own]
        return f"{_described(newer[-1])} is not served" if newer else ""
    said = f"it is not served, {_described(served)} is"
    withdrawn_by = next((v.withdrawn_by for v in versions if v.version_id == own), "")
    return f"{said}; its acceptance was withdrawn" if withdrawn_by else said


def _described(version: Version) -> str:
    verdict = "broken" if version.manifest is None else version.manifest.gate.verdict.value
    return (
        f"version {version.version_id} of {version.created_at:%Y-%m-%d %H:%M} "
        f"({verdict.replace('_', ' ')})"
    )


def served_folder_or_problem(market: MarketFolder) -> Path | str:
    """The served folder, or why it cannot be served.

    Raises:
        ModelNotFoundError: No model has been exported for the market.
    """
    try:
        return served_folder(market)
    except InvalidArtifactError as error:
        return error.found


def read_model(market: MarketFolder) -> SavedModel:
    """Read one market's served model, and check every file against its manifest.

    Raises:
        ModelNotFoundError: No model has been exported for the market.
    """
    while True:
        folder = served_folder_or_problem(market)
        if isinstance(folder, str):
            return SavedModel(market.symbol, market.timeframe, problem=folder)
        model = read_saved(market, folder)
        # Meanwhile another version may be served and this one removed.
        if not model.problem or served_folder_or_problem(market) == folder:
            return model


def read_saved(market: MarketFolder, folder: Path) -> SavedModel:
    """Read the version in ``folder``, and check every file against its manifest."""
    try:
        manifest = read_manifest(market, folder)
        metrics = read_files(market, folder, manifest)[METRICS_FILE]
    except InvalidArtifactError as error:
        return SavedModel(market.symbol, market.timeframe, problem=error.found)
    bare = SavedModel(market.symbol, market.timeframe, manifest)
    try:
        sections = parse_metrics(market, metrics)
    except InvalidArtifactError as error:
        return replace(bare, problem=error.found)
    evaluation, problem = _read_evaluation(sections)
    return replace(
        bare,
        evaluation=evaluation,
        judging=_read_judging(sections),
        problem=problem,
        # The report mentions losses that cannot be read.
        course=Course(
            read_section(DailyLosses, sections, "daily_losses"), _read_val_loss(sections)
        ),
    )


def _read_evaluation(sections: Mapping[str, object]) -> tuple[Evaluation | None, str]:
    if "evaluation" not in sections:
        return None, "it was exported before models were judged; train it again"
    try:
        return evaluation_from_json(sections["evaluation"]), ""
    except ValueError as error:
        return None, f"its evaluation cannot be read: {error}"


def _read_val_loss(sections: Mapping[str, object]) -> tuple[float, ...]:
    history = sections.get("training_history")
    losses = history.get("val_loss") if isinstance(history, dict) else None
    entries = losses if isinstance(losses, list) else []
    return tuple(float(entry) for entry in entries if isinstance(entry, int | float))


def _read_judging(sections: Mapping[str, object]) -> Judging:
    """How the model was judged; defaults for values that cannot be read."""
    section = sections.get("judging")
    entries = section if isinstance(section, dict) else {}
    n_folds, threshold = entries.get("folds"), entries.get("threshold")
    return Judging(
        n_folds if isinstance(n_folds, int) and n_folds > 1 else 1,
        threshold if isinstance(threshold, float) else None,
        Exit.LEVELS if entries.get("exit") == Exit.LEVELS else Exit.HORIZON,
        read_section(LevelsReached, sections, LEVELS),
        read_section(Interval, sections, NETWORK_ADDS),
    )
