"""Show the scores of sources as text for people and as JSON containers for programs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from percoin.bars.schema import format_time
from percoin.dataset import Part
from percoin.evaluation.backtest import BacktestResult
from percoin.evaluation.table import MONEY_COLUMNS, align, money_rows
from percoin.intervals import interval_text
from percoin.printable import printable
from percoin.signals.market_scores import SourceTable
from percoin.signals.scores import SourceScore, Tally
from percoin.signals.worth import MarketWorth, SourceVerdict
from percoin.types import CLASS_NAMES

SKILL_COLUMNS = (
    *("source", "log-loss", "skill [95 %]", "over last days [95 %]"),
    *("activity AUC", "direction AUC [95 %]"),
)
HIT_COLUMNS = ("source", "answers", "moves after them", "right way [95 %]", "the way it points")


def format_table(table: SourceTable, worth: MarketWorth) -> str:
    """Format all scores for a terminal, and the verdicts that decide which rules may answer."""
    dataset = table.dataset
    counts = dataset.class_counts("test")
    shares = ", ".join(f"{n} {name}" for n, name in zip(counts, CLASS_NAMES, strict=True))
    market = f"{dataset.bars.symbol} {dataset.bars.timeframe}"
    hold_test, hold_everywhere = table.hold
    everywhere = [score for score in table.scores if score.everywhere is not None]
    parts = [
        f"{market}, {_dates(table, 'test', 'test')}: {counts.sum()} test rows ({shares})",
        *(
            f"no score for {source}: {printable(reason)}"
            for source, reason in table.missing.items()
        ),
        "",
        _skills(table.scores),
        "skill: share of the log-loss of the train prior that is removed, and of the rolling prior",
        "(the class shares of the last days); a rule's probabilities are how often each class",
        "followed its answer on the train rows",
        "",
        _hits(table.scores, lambda score: score.test),
        "",
        _money(table.scores, lambda score: score.test, hold_test),
        "",
        f"all rows, {_dates(table, 'train', 'test')}: rules learn from no rows",
        "",
        _hits(everywhere, lambda score: score.everywhere),
        "",
        _money(everywhere, lambda score: score.everywhere, hold_everywhere),
        _note(hold_test),
        "",
        *_worth(worth),
    ]
    return "\n".join(parts)


def to_json(table: SourceTable, worth: MarketWorth) -> dict[str, Any]:
    """Return the scores as plain containers, without equity curves."""
    dataset = table.dataset
    tested = dataset.rows("test")
    test, everywhere = table.hold
    return {
        "symbol": dataset.bars.symbol,
        "tf": dataset.bars.timeframe.value,
        "bars": dataset.bars.origin,
        "label_rule": dataset.label_rule.to_json(),
        # Of programs that read this: when those bars closed.
        "test_from": dataset.bars.close_time(int(tested[0])).isoformat(),
        "test_until": dataset.bars.close_time(int(tested[-1])).isoformat(),
        "missing": table.missing,
        "sources": [_without_curves(asdict(score)) for score in table.scores],
        "buy_and_hold": {
            "test": _without_curves(asdict(test)),
            "everywhere": _without_curves(asdict(everywhere)),
        },
        "worth": asdict(worth),
    }


def _skills(scores: Sequence[SourceScore]) -> str:
    rows = [
        (
            score.name,
            f"{line.scores.log_loss:.4f}",
            interval_text(line.skill),
            interval_text(line.recent_skill),
            "-" if line.activity.auc is None else f"{line.activity.auc.value:.3f}",
            interval_text(line.direction.auc, 3, signed=False),
        )
        for score in scores
        for line in [score.assessment]
    ]
    return align(SKILL_COLUMNS, rows)


def _worth(worth: MarketWorth) -> list[str]:
    """Lines with the verdict on each rule over all bars; answers depend on it."""
    title = f"all {worth.bars.n_bars:,} bars, which decide who may answer:"
    level = f"{worth.confidence:.1%} interval, for {len(worth.sources)} sources"
    lines = []
    for name, source in worth.sources.items():
        rate = interval_text(source.hit_rate, decimals=3, signed=False)
        end = "; it gives no answers here" if source.verdict is SourceVerdict.WORSE else ""
        moves = f"{source.n_moves:,} moves after them"
        if source.hit_rate is not None:
            moves += f", {rate} right"
        lines.append(f"  {name}: {source.verdict.words} ({moves}){end}")
    return [f"{title} ({level})", *lines]


def _hits(scores: Sequence[SourceScore], part: Callable[[SourceScore], Tally | None]) -> str:
    rows = [
        (
            score.name,
            f"{tally.n_answers} ({tally.n_answers / tally.n_rows:.1%})",
            str(tally.n_moves),
            interval_text(tally.hit_rate, 3, signed=False),
            SourceVerdict.of(tally.hit_rate).words,
        )
        for score in scores
        if (tally := part(score)) is not None
    ]
    return align(HIT_COLUMNS, rows)


def _money(
    scores: Sequence[SourceScore],
    part: Callable[[SourceScore], Tally | None],
    hold: BacktestResult,
) -> str:
    results = [tally.money for score in scores if (tally := part(score)) is not None]
    return align(MONEY_COLUMNS, money_rows([*results, hold]))


def _note(result: BacktestResult) -> str:
    return (
        f"after {result.fee_bps:g} bps fee and {result.slippage_bps:g} bps slippage a side, "
        "in at the next open, out when the label is settled; every LONG and SHORT is traded, "
        "whatever its confidence"
    )


def _dates(table: SourceTable, first: Part, last: Part) -> str:
    start, end = table.dataset.dates(first)[0], table.dataset.dates(last)[1]
    return f"{format_time(start)} to {format_time(end)} UTC (when bars open)"


def _without_curves(content: Any) -> Any:
    if isinstance(content, dict):
        return {name: _without_curves(entry) for name, entry in content.items() if name != "equity"}
    if isinstance(content, list | tuple):
        return [_without_curves(entry) for entry in content]
    return content
