"""The end of a training, for people and for programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from percoin.commands import command
from percoin.errors import MarketsError
from percoin.registry.manifest import StoredVerdict
from percoin.run_record import MARKETS_FOLDER
from percoin.training.recipes.recipe import Trained
from percoin.training.results import MarketMeans, MarketResult, format_markets
from percoin.training.summary import TrainingSummary


@dataclass(frozen=True)
class TrainingOutcome:
    """What came of every market.

    Attributes:
        results: Of each market that has a new model.
        failed: Why the others have none, by symbol.
        withdrawn: Those that lost their acceptance because so many were tried.
        trained: How the training went.
        means: Over the results; None of a market alone, or without any that was trained on.
        shares_network: Whether one network is that of all markets.
        run_folder: Where logs, tables and pictures lie.
        alone: The screen of a market that was trained alone.
    """

    results: tuple[MarketResult, ...]
    failed: Mapping[str, str]
    withdrawn: tuple[str, ...]
    trained: Trained
    means: MarketMeans | None
    shares_network: bool
    run_folder: Path
    alone: TrainingSummary | None = None

    def render(self) -> str:
        """The screen as plain text."""
        if self.alone is not None:
            return self.alone.render()
        if self.means is None:
            return ""
        by_symbol = {entry.symbol: entry for entry in self.results}
        minutes, secs = divmod(round(self.trained.secs), 60)
        accepted = [
            entry.symbol for entry in self.results if entry.verdict == StoredVerdict.ACCEPTED
        ]
        refused: Mapping[str, str] = self.trained.facts.get("refused", {})
        return "\n".join(
            [
                "",
                format_markets(self.results, self.means, self.shares_network),
                *(f"refused {symbol}: {reason}" for symbol, reason in refused.items()),
                *(f"FAILED {symbol}: {reason}" for symbol, reason in self.failed.items()),
                *(
                    f"acceptance withdrawn from {symbol}: {by_symbol[symbol].reason}"
                    for symbol in self.withdrawn
                ),
                *self.trained.notes,
                f"accepted: {', '.join(accepted) or 'none'}",
                f"trained in {minutes} min {secs} s: {self.trained.told}",
                f"tables and pictures: {self.run_folder / MARKETS_FOLDER}",
                "logs: " + command("tensorboard --logdir", str(self.run_folder.parents[1])),
            ]
        )

    def to_json(self) -> dict[str, Any]:
        """The same for programs, without the losses by day, which each market's file has."""
        markets = {}
        for entry in self.results:
            values = asdict(entry)
            del values["symbol"], values["beside_logistic"]
            markets[entry.symbol] = values
        return {
            "markets": markets,
            "failed": dict(self.failed),
            "means": None if self.means is None else asdict(self.means),
            "secs": self.trained.secs,
            **self.trained.facts,
        }

    def check(self) -> None:
        """Name the markets without a new model.

        Raises:
            MarketsError: There are any.
        """
        if not self.failed:
            return
        reasons = ", ".join(f"{symbol} ({reason})" for symbol, reason in self.failed.items())
        n_all = len(self.results) + len(self.failed)
        others = "; the others have theirs" if self.results else ""
        raise MarketsError(
            f"{len(self.failed)} of {n_all} markets have no new model: {reasons}{others}"
        )
