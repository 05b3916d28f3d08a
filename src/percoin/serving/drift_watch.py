"""Feature drift of the served markets, measured at most once per new bar."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from threading import Lock

from percoin.monitoring.drift import FeatureDrift, measure_drift
from percoin.registry.manifest import Manifest
from percoin.serving.bar_keeper import BarKeeper
from percoin.serving.each_market import EachMarket
from percoin.serving.offer import Market
from percoin.serving.served_models import ModelStatus, ServedModels
from percoin.signals.market import SourcedBars
from percoin.types import Timeframe


class DriftWatch:
    """Measures feature drift on request; several threads may use it.

    Args:
        models: Give the feature histograms of each model's train rows.
        keeper: Holds the bars.
    """

    def __init__(self, models: ServedModels, keeper: BarKeeper) -> None:
        self._models = models
        self._keeper = keeper
        self._steps = EachMarket("DRIFT", "the drift cannot be measured")
        self._known: dict[Market, tuple[str | None, int, FeatureDrift]] = {}
        self._lock = Lock()

    def contents(self, symbols: Sequence[str], timeframe: Timeframe) -> list[dict[str, object]]:
        """The drift of each market that has a model, as JSON objects."""
        found = []
        for symbol in symbols:
            status = self._models.status((symbol, timeframe))
            if status is None or status.manifest is None:
                continue
            market, manifest = (symbol, timeframe), status.manifest
            nothing = FeatureDrift(0, unknown="it cannot be measured; the log says why")
            drift = self._steps.run(
                market, partial(self._measured, market, status, manifest), nothing
            )
            content: dict[str, object] = {
                "symbol": symbol,
                "tf": timeframe.value,
                "version_id": manifest.version_id,
                "worst": drift.worst,
            }
            found.append(content | asdict(drift))
        return found

    def _measured(self, market: Market, status: ModelStatus, manifest: Manifest) -> FeatureDrift:
        held = self._keeper.held(market[0])[market[1]]
        if held.bars is None:
            return FeatureDrift(0, unknown="there are no bars")
        newest = int(held.close_times[-1])
        with self._lock:
            known = self._known.get(market)
            if known is None or known[:2] != (status.mark, newest):
                bins = None if status.train_rows is None else status.train_rows.feature_bins
                sourced = SourcedBars(held.bars, self._keeper.source())
                drift = measure_drift(manifest, bins, sourced.beside(manifest.references))
                known = (status.mark, newest, drift)
                self._known[market] = known
        return known[2]
