"""Check a model of many markets: was its scaler fitted only on their train rows?"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

from percoin.audit.findings import Finding, FindingStatus
from percoin.audit.rows import same_scaling
from percoin.bars.panel import load_panel
from percoin.bars.schema import Bars
from percoin.dataset import DatasetSpec, MarketDataset, PreparedMarket
from percoin.errors import BarsNotFoundError, PercoinError
from percoin.features.scaling import Scaling
from percoin.labels import label_rule_from_json
from percoin.registry.manifest import Manifest
from percoin.registry.pool_record import PooledMarket, PoolRecord
from percoin.training.recipes.pool import (
    UNUSABLE,
    CalendarCuts,
    build_pooled_market,
    spec_of,
)
from percoin.types import FloatArray

LoadBars = Callable[[str], Bars]

_NAME = "scaler knows train only"
# Rows that a scaler may have been fitted on; the right choice comes first.
_CHOICES = {
    "the train rows": ("train",),
    "train and validation rows": ("train", "validation"),
    "train and test rows": ("train", "test"),
    "the rows of all three parts": ("train", "validation", "test"),
}


def rebuild_pooled(manifest: Manifest, pool: PoolRecord, bars: Bars) -> MarketDataset:
    """Build the dataset that a pooled model was judged on, from exactly the bars it names.

    The scaling comes from the manifest, because one market alone cannot give the pool's scaling.
    """
    cuts = CalendarCuts(*pool.moments())
    return build_pooled_market(bars, spec_of(manifest), cuts, manifest.judged_scaling.fitted())


def with_compared(manifest: Manifest, bars: Bars, load: LoadBars | None) -> Bars:
    """The bars that a model knew, with those of the markets that its labels or features compare.

    Args:
        manifest: Manifest of the model.
        bars: Exactly the bars that the manifest names.
        load: Loads bars by symbol; None if no bars can be loaded.

    Raises:
        BarsNotFoundError: Bars of another market are missing, or have changed.
    """
    beside = _beside(manifest, bars, load)
    first, last = (int(bars.open_time[end]) for end in (0, -1))
    for symbol, sha256 in (manifest.bars.references or {}).items():
        if beside.panel is None or beside.panel.sha256(symbol, first, last) != sha256:
            raise BarsNotFoundError(
                bars.symbol,
                bars.timeframe,
                f"the bars of {symbol}, which it is compared with, have changed",
                f"bring back those of {symbol}",
            )
    return beside


def _beside(manifest: Manifest, bars: Bars, load: LoadBars | None) -> Bars:
    """As ``with_compared``, for any market of the pool.

    The hashes of references are over the time of the manifest's own market, so they say nothing
    of a market with a shorter history.
    """
    markets = label_rule_from_json(manifest.label_rule).compared_with

    def found(symbol: str) -> Bars:
        if load is None:
            raise BarsNotFoundError(symbol, manifest.timeframe, "it is not stored here", "bring it")
        if manifest.pool is None or symbol not in manifest.pool.markets:
            return load(symbol)
        same = bars_as_known(manifest.pool.markets[symbol], symbol, load)
        if same is None:
            found = "its bars have changed or are missing"
            raise BarsNotFoundError(symbol, manifest.timeframe, found, "bring them back")
        return same

    return load_panel(bars, list(dict.fromkeys((*markets, *manifest.references))), found)


def check_pooled_scaling(manifest: Manifest, pool: PoolRecord, load: LoadBars | None) -> Finding:
    """Fit the scaling again on the train rows of every market that the network saw.

    Args:
        manifest: Manifest of the model.
        pool: Pool of the model.
        load: Loads bars by symbol; None if no bars can be loaded.
    """
    if load is None:
        return Finding(
            _NAME, FindingStatus.CANNOT_TELL, "the bars of the pool's markets are not stored here"
        )
    try:
        spec, cuts = spec_of(manifest), CalendarCuts(*pool.moments())
        parts, strange = _rows_of_parts(manifest, pool, (spec, cuts), load)
    except UNUSABLE as error:
        evidence = f"the pool cannot be built again from the manifest: {error!r}"
        return Finding(_NAME, FindingStatus.CANNOT_TELL, evidence)
    if strange:
        evidence = (
            f"the bars of {', '.join(strange)} have changed or are missing: the scaler of "
            f"{len(pool.seen)} markets cannot be computed again"
        )
        return Finding(_NAME, FindingStatus.CANNOT_TELL, evidence)
    return _compare(manifest.judged_scaling.fitted(), parts)


def _rows_of_parts(
    manifest: Manifest, pool: PoolRecord, rules: tuple[DatasetSpec, CalendarCuts], load: LoadBars
) -> tuple[dict[str, list[FloatArray]], list[str]]:
    """Return the features of each part of each market seen, and markets with changed bars."""
    parts: dict[str, list[FloatArray]] = {part: [] for part in ("train", "validation", "test")}
    (spec, cuts), known = rules, dict[str, Bars]()

    def kept(symbol: str) -> Bars:
        return known[symbol] if symbol in known else load(symbol)

    found = {symbol: bars_as_known(pool.markets[symbol], symbol, load) for symbol in pool.seen}
    known |= {symbol: bars for symbol, bars in found.items() if bars is not None}
    strange = [symbol for symbol in found if symbol not in known]
    for bars in () if strange else known.values():
        market = PreparedMarket.prepare(_beside(manifest, bars, kept), spec, cuts.first_time)
        split = cuts.split(market)
        for part, rows in parts.items():
            rows.append(market.features[getattr(split, part)])
    return parts, strange


def bars_as_known(known: PooledMarket, symbol: str, load: LoadBars) -> Bars | None:
    """Return the bars of a market that a training knew; None if missing or changed."""
    try:
        bars = load(symbol)
    except PercoinError:
        return None
    index = bars.frame.index
    first = int(index.searchsorted(pd.Timestamp(known.first_open_time)))
    last = int(index.searchsorted(pd.Timestamp(known.last_open_time), side="right"))
    bars = bars.slice(first, last)
    return bars if bars.sha256() == known.sha256 else None


def _compare(scaling: Scaling, parts: Mapping[str, list[FloatArray]]) -> Finding:
    n_markets = len(parts["train"])
    for described, names in _CHOICES.items():
        rows = [features for name in names for features in parts[name]]
        if same_scaling(scaling, Scaling.fit_together(rows)):
            n_rows = sum(map(len, rows))
            if names == ("train",):
                evidence = f"refitted on {n_rows} train rows of {n_markets} markets: the same"
                return Finding(_NAME, FindingStatus.OK, evidence)
            return Finding(
                _NAME, FindingStatus.LEAK, f"fitted on {described} of {n_markets} markets"
            )
    fitted = Scaling.fit_together(parts["train"])
    distance = float((np.abs(scaling.mean_ - fitted.mean_) / scaling.scale_).max())
    evidence = (
        f"means are up to {distance:.2g} deviations off those of the train rows of "
        f"{n_markets} markets"
    )
    return Finding(_NAME, FindingStatus.LEAK, evidence)
