"""Saved models as the report sees them: manifest and evaluation, or what is wrong."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from percoin.errors import ConfigError, InvalidArtifactError
from percoin.evaluation.evaluate import Evaluation
from percoin.evaluation.stored import evaluation_from_json
from percoin.registry import typed_json
from percoin.registry.catalogue import has_shown, markets_in
from percoin.registry.contents import read_files, read_manifest
from percoin.registry.layout import METRICS_FILE, MarketFolder
from percoin.registry.manifest import Manifest
from percoin.registry.publish import served_folder
from percoin.types import Timeframe


@dataclass(frozen=True)
class Judging:
    """How a model was judged.

    Attributes:
        n_folds: Folds of a walk-forward whose test rows were pooled; 1 for a single split.
        threshold: Least confidence for a trade, chosen on validation rows; None if unknown.
    """

    n_folds: int = 1
    threshold: float | None = None


@dataclass(frozen=True)
class SavedModel:
    """One market's served model.

    Attributes:
        symbol: Market.
        timeframe: Bar length.
        manifest: None if the model is broken.
        evaluation: None if it is broken or was never judged.
        judging: How it was judged.
        problem: Why there is no manifest or no evaluation; empty if there are both.
    """

    symbol: str
    timeframe: Timeframe
    manifest: Manifest | None = None
    evaluation: Evaluation | None = None
    judging: Judging = field(default_factory=Judging)
    problem: str = ""

    @property
    def name(self) -> str:
        """Market and bar length, as in ``BTCUSDT 15m``."""
        return f"{self.symbol} {self.timeframe.value}"


def read_models(
    root: Path, symbol: str | None = None, timeframe: Timeframe | None = None
) -> list[SavedModel]:
    """Read the served models of the registry, by symbol and then bar length.

    A broken model does not stop the others: it comes back with its problem.

    Args:
        root: The models folder.
        symbol: One market; None for all.
        timeframe: One bar length; None for all.

    Raises:
        ModelNotFoundError: One model was asked for and none was exported.
        ConfigError: There is no model at all among those asked for.
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
        raise ConfigError(
            f"models_dir={root} holds no model{f' of {wanted}' if wanted else ''}; train one "
            f"(python train.py symbol={symbol or 'BTCUSDT'}) or name another folder"
        )
    return [read_model(market) for market in markets]


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
    """Read one market's served model, every file checked against its manifest.

    Raises:
        ModelNotFoundError: No model has been exported for the market.
    """
    folder = served_folder_or_problem(market)
    if isinstance(folder, str):
        return SavedModel(market.symbol, market.timeframe, problem=folder)
    return read_saved(market, folder)


def read_saved(market: MarketFolder, folder: Path) -> SavedModel:
    """Read the version in ``folder``, every file checked against its manifest."""
    try:
        manifest = read_manifest(market, folder)
        metrics = read_files(market, folder, manifest)[METRICS_FILE]
    except InvalidArtifactError as error:
        return SavedModel(market.symbol, market.timeframe, problem=error.found)
    evaluation, judging, problem = _read_metrics(metrics)
    return SavedModel(market.symbol, market.timeframe, manifest, evaluation, judging, problem)


def _read_metrics(content: bytes) -> tuple[Evaluation | None, Judging, str]:
    try:
        document = typed_json.loads(content.decode())
    except ValueError as error:
        return None, Judging(), f"{METRICS_FILE} cannot be read: {error}"
    sections = document if isinstance(document, dict) else {}
    judging = _read_judging(sections.get("judging"))
    if "evaluation" not in sections:
        return None, judging, "it was exported before models were judged; train it again"
    try:
        return evaluation_from_json(sections["evaluation"]), judging, ""
    except ValueError as error:
        return None, judging, f"its evaluation cannot be read: {error}"


def _read_judging(section: object) -> Judging:
    """What is known of it: the figures stand without it."""
    entries = section if isinstance(section, dict) else {}
    n_folds, threshold = entries.get("folds"), entries.get("threshold")
    return Judging(
        n_folds if isinstance(n_folds, int) and n_folds > 1 else 1,
        threshold if isinstance(threshold, float) else None,
    )
