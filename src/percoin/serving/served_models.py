"""Which model of each market is served, read again whenever another one is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from percoin.errors import ConfigError, ModelNotFoundError
from percoin.labels import LabelRule, label_rule_from_json
from percoin.registry.artifact import served_mark
from percoin.registry.contents import read_manifest
from percoin.registry.judged import JudgedSkill, TrainRows, judged_skill, train_rows
from percoin.registry.layout import MarketFolder
from percoin.registry.manifest import Manifest
from percoin.registry.publish import served_folder
from percoin.serving.discretion import Discretion
from percoin.serving.each_market import EachMarket
from percoin.serving.offer import Clock, Market, utc_now
from percoin.signals.protocol import MarketBars, SignalSource
from percoin.types import Passed, Prediction, Source


@dataclass(frozen=True)
class ModelStatus:
    """What is said of the served model of one market.

    Attributes:
        mark: Another one whenever another version is served; None if none is.
        manifest: None without a model that can be trusted.
        content: The same as one JSON object.
        train_rows: What it tells of the rows that it was trained on; None if it does not.
        label_rule: By which it is right or wrong; None without a model, or if there is no
            such rule.
        problem: Why a model that is there cannot be trusted; empty if it can, or is not there.
    """

    mark: str | None
    manifest: Manifest | None
    content: Mapping[str, object]
    train_rows: TrainRows | None = None
    label_rule: LabelRule | None = None
    problem: str = ""


class ServedModels:
    """The served models of some markets, by their manifests alone.

    Args:
        models_dir: The registry.
        markets: Which.
        discretion: Which folders are not spoken of.
        clock: The time.
    """

    def __init__(
        self,
        models_dir: Path,
        markets: Iterable[Market],
        discretion: Discretion,
        clock: Clock = utc_now,
    ) -> None:
        self._models_dir = models_dir
        self._discretion = discretion
        self._steps = EachMarket("MODEL", "its model cannot be read", clock)
        self._statuses: dict[Market, ModelStatus] = {}
        for market in markets:
            self._statuses[market] = self._told(market)

    def look(self) -> None:
        """Read again what has changed: one ``readlink`` for each that has not.

        What could not be read is tried again after a while: it may only have been on its way.
        """
        for market, status in self._statuses.items():
            is_due = bool(status.problem) and self._steps.may_try(market)
            if is_due or served_mark(self._models_dir, *market) != status.mark:
                self._statuses[market] = self._told(market)

    def status(self, market: Market) -> ModelStatus | None:
        """Of one market; None for a market that is not served."""
        return self._statuses.get(market)

    def contents(self) -> list[Mapping[str, object]]:
        """What is said of each market's model."""
        return [status.content for status in list(self._statuses.values())]

    def lookback(self, market: Market) -> int:
        """How many bars the market's model sees; 1 without a model."""
        status = self._statuses.get(market)
        return status.manifest.lookback if status is not None and status.manifest is not None else 1

    def _told(self, market: Market) -> ModelStatus:
        # Asked before the files are read: what changes meanwhile is noticed next time.
        mark = served_mark(self._models_dir, *market)
        status = self._steps.run(market, partial(self._read, market, mark), None)
        if status is not None:
            return status
        problem = self._steps.failure(market)
        return ModelStatus(
            mark, None, self._discretion.content(describe(market, problem)), problem=problem
        )

    def _read(self, market: Market, mark: str | None) -> ModelStatus:
        """What is served, or that there is nothing.

        Raises:
            InvalidArtifactError: There is something, and it cannot be trusted.
        """
        folder = MarketFolder(self._models_dir, *market)
        try:
            manifest = read_manifest(folder, served_folder(folder))
            skill = judged_skill(self._models_dir, manifest)
            learnt = train_rows(self._models_dir, manifest)
        except ModelNotFoundError as error:
            return ModelStatus(mark, None, self._discretion.content(describe(market, error)))
        content = self._discretion.content(describe(market, manifest, skill))
        return ModelStatus(mark, manifest, content, learnt, _label_rule(manifest))


class TrustedModel:
    """The model as a source of the chain, if its files can be trusted.

    So an answer never comes from a model that ``/api/models`` calls invalid.

    Args:
        models: Has read every file that it describes.
        model: The source itself.
    """

    def __init__(self, models: ServedModels, model: SignalSource) -> None:
        self._models = models
        self._model = model

    def answer(self, market: MarketBars) -> Prediction | Passed:
        """As ``SignalSource.answer``."""
        status = self._models.status((market.asked.symbol, market.asked.timeframe))
        if status is not None and status.problem:
            return Passed(Source.MODEL, "model_invalid", status.problem)
        return self._model.answer(market)


def _label_rule(manifest: Manifest) -> LabelRule | None:
    try:
        return label_rule_from_json(manifest.label_rule)
    except ConfigError:
        # Of a newer percoin: what it says is served, and never settled.
        return None


def describe(
    market: Market,
    manifest: Manifest | ModelNotFoundError | str,
    skill: JudgedSkill | None = None,
) -> dict[str, object]:
    """What the server says of a market's model as one JSON object.

    Args:
        market: Whose it is.
        manifest: Of the model; an error if there is none, and the problem of an invalid one.
        skill: What its test showed.
    """
    symbol, timeframe = market
    content: dict[str, object] = {
        "symbol": symbol,
        "tf": timeframe.value,
        "status": "invalid" if isinstance(manifest, str) else "missing",
        "problem": None if isinstance(manifest, Manifest) else str(manifest),
        "version_id": None,
        "model_version": None,
        "created_at": None,
        "verdict": None,
        "reasons": [],
        "skill": None,
        "lookback": None,
        "features": None,
        "label_rule": None,
        "trained_on": None,
    }
    if not isinstance(manifest, Manifest):
        return content
    bars = manifest.bars
    return content | {
        "status": "served",
        "version_id": manifest.version_id,
        "model_version": manifest.model_version,
        "created_at": manifest.created_at,
        "verdict": manifest.gate.verdict.value,
        "reasons": list(manifest.gate.reasons),
        "skill": None if skill is None else asdict(skill),
        "lookback": manifest.lookback,
        "features": manifest.features.definition.value,
        "label_rule": dict(manifest.label_rule),
        "trained_on": {
            "bars": bars.origin,
            "n_bars": bars.n_bars,
            "first_open_time": bars.first_open_time,
            "last_open_time": bars.last_open_time,
        },
    }
