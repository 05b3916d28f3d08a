"""The outcome of a training: a summary for people and JSON for programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from percoin.commands import command
from percoin.errors import MarketsError
from percoin.expected_move.judging import sum_up
from percoin.registry.manifest import StoredVerdict
from percoin.run_record import MARKETS_FOLDER
from percoin.training.recipes.recipe import Trained
from percoin.training.results import MarketMeans, MarketResult, format_markets
from percoin.training.summary import TrainingSummary


@dataclass(frozen=True)
class TrainingOutcome:
    """The outcome of all markets of a run.

    Attributes:
        results: Result of each market with a new model.
        failed: Markets without a new model: symbol to reason.
        withdrawn: Markets that lost their acceptance because of the number of models tried.
        trained: Result of the training.
        means: Means over the results; None for a single market, or if no result is of a market
            in the training.
        is_pool: Whether the markets learn from each other.
        run_folder: Folder of logs, tables and pictures.
        alone: Summary of a single market; None for several markets.
    """

    results: tuple[MarketResult, ...]
    failed: Mapping[str, str]
    withdrawn: tuple[str, ...]
    trained: Trained
    means: MarketMeans | None
    is_pool: bool
    run_folder: Path
    alone: TrainingSummary | None = None

    def render(self) -> str:
        """The summary as plain text."""
        if self.alone is not None:
            return self.alone.render()
        if self.means is None:
            return ""
        by_symbol = {entry.symbol: entry for entry in self.results}
        moves = [entry.move for entry in self.results if entry.move is not None]
        minutes, secs = divmod(round(self.trained.secs), 60)
        accepted = [
            entry.symbol for entry in self.results if entry.verdict == StoredVerdict.ACCEPTED
        ]
        return "\n".join(
            [
                "",
                format_markets(self.results, self.means, self.is_pool),
                *([sum_up(moves)] if moves else []),
                *self.trained.notes,
                *(f"FAILED {symbol}: {reason}" for symbol, reason in self.failed.items()),
                *(
                    f"acceptance withdrawn from {symbol}: {by_symbol[symbol].reason}"
                    for symbol in self.withdrawn
                ),
                f"accepted: {', '.join(accepted) or 'none'}",
                f"trained in {minutes} min {secs} s: {self.trained.told}",
                f"tables and pictures: {self.run_folder / MARKETS_FOLDER}",
                *([self._logs()] if self._has_epochs else []),
            ]
        )

    @property
    def _has_epochs(self) -> bool:
        return any(market.epochs is not None for market in self.trained.markets)

    def _logs(self) -> str:
        return "logs: " + command("tensorboard --logdir", str(self.run_folder.parents[1]))

    def to_json(self) -> dict[str, Any]:
        """The outcome for programs, without losses by day, which are in each market's file."""
        markets = {}
        for entry in self.results:
            values = asdict(entry)
            del values["symbol"], values["daily"]
            markets[entry.symbol] = values
        return {
            "markets": markets,
            "failed": dict(self.failed),
            "means": None if self.means is None else asdict(self.means),
            "secs": self.trained.secs,
            **self.trained.facts,
        }

    def check(self) -> None:
        """Raise if any market has no new model.

        Raises:
            MarketsError: Some markets have no new model; the message names all of them.
        """
        if not self.failed:
            return
        reasons = ", ".join(f"{symbol} ({reason})" for symbol, reason in self.failed.items())
        n_all = len(self.results) + len(self.failed)
        others = "; the others have one" if self.results else ""
        raise MarketsError(
            f"{len(self.failed)} of {n_all} markets have no new model: {reasons}{others}"
        )
