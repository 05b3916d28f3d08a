"""Models that one run has tried side by side: which acceptances stand among so many."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

from percoin.errors import MarketsError, RegistryError
from percoin.evaluation.gate import control_false_discoveries, why_not_standing
from percoin.registry.layout import MarketFolder
from percoin.registry.manifest import StoredVerdict
from percoin.registry.publish import served_id
from percoin.registry.revision import withdraw_acceptance
from percoin.training.results import MarketResult
from percoin.types import Timeframe


def withdraw_false_discoveries(
    results: Mapping[str, MarketResult],
    models_dir: Path,
    timeframe: Timeframe,
    unknown: Collection[str] = (),
) -> dict[str, MarketResult]:
    """Withdraw acceptances that do not stand among so many models tried, as a sweep does.

    Args:
        results: Of every market of the run.
        models_dir: The registry that they were exported to.
        timeframe: Of all of them.
        unknown: Markets that were trained and not judged yet. They count as models that show
            nothing, so that an acceptance which stands now stands whatever they turn out to be.

    Returns:
        Those that lost their acceptance, as they are now.

    Raises:
        MarketsError: Some could not lose it; names them all. The others have lost it.
    """
    if not results:
        return {}
    p_values = {symbol: entry.p_value for symbol, entry in results.items()}
    p_values |= dict.fromkeys(unknown, 1.0)
    stands = control_false_discoveries(p_values)
    n_tested = sum(p_value is not None for p_value in p_values.values())
    withdrawn, kept = {}, list[str]()
    for symbol, entry in results.items():
        if entry.verdict != StoredVerdict.ACCEPTED or stands[symbol]:
            continue
        reason = why_not_standing(n_tested, entry.p_value)
        try:
            withdraw_acceptance(models_dir, symbol, timeframe, entry.version, reason)
        except RegistryError as error:
            kept.append(f"{symbol} ({error.found}; {error.action})")
            continue
        served = served_id(MarketFolder(models_dir, symbol, timeframe))
        withdrawn[symbol] = replace(
            entry,
            verdict=StoredVerdict.REJECTED.value,
            reason=reason,
            is_served=served == entry.version,
        )
    if kept:
        raise MarketsError(
            f"accepted models that do not stand among {n_tested} tried could not lose "
            f"their acceptance: {', '.join(kept)}; the same command with resume=true tries again"
        )
    return withdrawn
