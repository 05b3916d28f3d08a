"""Which model of each market is served, read again whenever another one is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from percoin.errors import ModelNotFoundError, RegistryError
from percoin.registry.artifact import served_mark
from percoin.registry.contents import read_manifest
from percoin.registry.judged import JudgedSkill, TrainRows, judged_skill, train_rows
from percoin.registry.layout import MarketFolder
from percoin.registry.manifest import Manifest
from percoin.registry.publish import served_folder
from percoin.serving.discretion import Discretion
from percoin.serving.offer import Market


@dataclass(frozen=True)
class Card:
    """What is said of the served model of one market.

    Attributes:
        mark: Another one whenever another version is served; None if none is.
        manifest: None without a model that can be trusted.
        content: The same as one JSON object.
        train_rows: What it tells of the rows that it was trained on; None if it does not.
    """

    mark: str | None
    manifest: Manifest | None
    content: Mapping[str, object]
    train_rows: TrainRows | None = None


class ModelShelf:
    """The served models of some markets, by their manifests alone.

    Args:
        models_dir: The registry.
        markets: Which.
        discretion: Which folders are not spoken of.
    """

    def __init__(self, models_dir: Path, markets: Iterable[Market], discretion: Discretion) -> None:
        self._models_dir = models_dir
        self._discretion = discretion
        self._cards = {market: self._read(market) for market in markets}

    def look(self) -> None:
        """Read again what has changed: one ``readlink`` for each that has not."""
        for market, card in self._cards.items():
            if served_mark(self._models_dir, *market) != card.mark:
                self._cards[market] = self._read(market)

    def card(self, market: Market) -> Card | None:
        """Of one market; None for a market that is none of the shelf's."""
        return self._cards.get(market)

    def contents(self) -> list[Mapping[str, object]]:
        """What is said of each market's model."""
        return [card.content for card in self._cards.values()]

    def lookback(self, market: Market) -> int:
        """How many bars the market's model sees; 1 without a model."""
        card = self._cards.get(market)
        return card.manifest.lookback if card is not None and card.manifest is not None else 1

    def _read(self, market: Market) -> Card:
        # Asked before the files are read: what changes meanwhile is noticed next time.
        mark = served_mark(self._models_dir, *market)
        folder = MarketFolder(self._models_dir, *market)
        manifest: Manifest | RegistryError
        skill, learnt = None, None
        try:
            manifest = read_manifest(folder, served_folder(folder))
            skill = judged_skill(self._models_dir, manifest)
            learnt = train_rows(self._models_dir, manifest)
        except RegistryError as error:
            manifest = error
        content = self._discretion.content(describe(market, manifest, skill))
        trusted = manifest if isinstance(manifest, Manifest) else None
        return Card(mark, trusted, content, learnt)


def describe(
    market: Market, manifest: Manifest | RegistryError, skill: JudgedSkill | None = None
) -> dict[str, object]:
    """What the server says of a market's model, or why there is none, as one JSON object."""
    symbol, timeframe = market
    content: dict[str, object] = {
        "symbol": symbol,
        "tf": timeframe.value,
        "status": "missing" if isinstance(manifest, ModelNotFoundError) else "invalid",
        "problem": str(manifest) if isinstance(manifest, RegistryError) else None,
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
    if isinstance(manifest, RegistryError):
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
