"""Show a round as text for people and as JSON containers for programs."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator
from typing import Any

from percoin.printable import printable
from percoin.retrain.decisions import Verb
from percoin.retrain.round import MarketOutcome, Round

_WIDTH = 100
_MOST_CHARS = 2000
_DRY = "dry run: nothing was done"


def to_text(found: Round) -> str:
    """Format a round: one line a market, then its reasons and result; the last line counts."""
    if not found.outcomes:
        return (
            "no market in the registry; name symbol and tf to train a first one, or another "
            "models_dir"
        )
    width = max(len(outcome.state.name) for outcome in found.outcomes)
    lines = [line for outcome in found.outcomes for line in _lines(outcome, width)]
    counts = Counter(outcome.decisions[0].verb for outcome in found.outcomes)
    counted = ", ".join(f"{counts[verb]} {verb.value}" for verb in Verb if counts[verb])
    n_markets = "1 market" if len(found.outcomes) == 1 else f"{len(found.outcomes)} markets"
    closing = [*map(printable, found.notes), *([_DRY] if found.is_dry else [])]
    return "\n".join([*lines, f"{n_markets}: {counted}", *closing])


def to_json(found: Round) -> dict[str, Any]:
    """Return the round as plain containers for programs."""
    return {
        "dry_run": found.is_dry,
        "markets": [_outcome_as_json(outcome) for outcome in found.outcomes],
        "notes": list(found.notes),
    }


def _lines(outcome: MarketOutcome, width: int) -> Iterator[str]:
    for decision in outcome.decisions:
        first, *others = decision.reasons
        yield from _wrapped(
            first.text, f"{outcome.state.name:<{width}}  {decision.verb.value:<6}  "
        )
        for reason in others:
            yield from _wrapped(reason.text, " " * (width + 10))
    if outcome.result:
        label = "failed" if outcome.failed else "result"
        yield from _wrapped(f"{label}: {outcome.result}", " " * (width + 10))


def _wrapped(text: str, start: str) -> list[str]:
    further = " " * (len(start) + 2)
    # Reasons can contain text from manifests, files and servers.
    text = printable(text, _MOST_CHARS)
    return textwrap.wrap(text, _WIDTH, initial_indent=start, subsequent_indent=further)


def _outcome_as_json(outcome: MarketOutcome) -> dict[str, Any]:
    state = outcome.state
    return {
        "symbol": state.symbol,
        "tf": state.timeframe.value,
        "decisions": [
            {
                "decision": decision.verb.value,
                "reasons": [
                    {"cause": r.cause.value, "due": r.is_due, "text": r.text}
                    for r in decision.reasons
                ],
            }
            for decision in outcome.decisions
        ],
        "result": outcome.result or None,
        "version": outcome.version,
        "failed": outcome.failed,
    }
