"""Control false discoveries among the models that one run has tried together."""

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
    """Withdraw acceptances that do not hold, given the number of models tried, as a sweep does.

    Args:
        results: Results of all markets of the run.
        models_dir: Registry of the exported models.
        timeframe: Bar length of all markets.
        unknown: Markets that are trained but not judged yet. They count with a p-value of 1,
            so an acceptance that holds now holds whatever their results will be.

    Returns:
        New results of the markets that lost their acceptance.

    Raises:
        MarketsError: Some acceptances could not be withdrawn; the message names all of them.
            The others are withdrawn.
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
            kept.append(f"{symbol} ({error.without_market})")
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
            f"accepted models that are not significant among {n_tested} tried could not lose "
            f"their acceptance: {', '.join(kept)}; the same command with resume=true tries again"
        )
    return withdrawn
