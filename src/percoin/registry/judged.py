"""What the judgement of a model left for its use (``judging`` in ``metrics.json``)."""

from __future__ import annotations

from pathlib import Path

from percoin.errors import InvalidArtifactError
from percoin.registry import publish, typed_json
from percoin.registry.contents import sha256
from percoin.registry.layout import METRICS_FILE, MarketFolder
from percoin.registry.manifest import Manifest


def judged_threshold(root: Path, manifest: Manifest) -> float:
    """The least confidence that the backtest of the served model traded with.

    It was chosen on the model's validation rows.

    Args:
        root: The models folder.
        manifest: Of the model that is served.

    Raises:
        InvalidArtifactError: ``metrics.json`` is not the one of this manifest, or says no
            threshold, for example because the model was never judged.
    """
    market = MarketFolder(root, manifest.symbol, manifest.timeframe)
    content = publish.read_file(market, publish.served_folder(market), METRICS_FILE)
    if sha256(content) != manifest.files[METRICS_FILE]:
        raise _invalid(market, f"{METRICS_FILE} was changed after the export")
    document = typed_json.loads(content.decode())
    judging = document.get("judging") if isinstance(document, dict) else None
    threshold = judging.get("threshold") if isinstance(judging, dict) else None
    if not isinstance(threshold, float) or not 0 <= threshold <= 1:
        raise _invalid(market, f"{METRICS_FILE} says no threshold that a backtest traded with")
    return threshold


def _invalid(market: MarketFolder, found: str) -> InvalidArtifactError:
    action = "train the model again, or give min_confidence a number"
    return InvalidArtifactError(market.symbol, market.timeframe, found, action)
