"""The settings of ``python -m percoin.registry``."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from percoin.config.fields import MOST_DAYS, allowed_code, choice, file_path, number, setting
from percoin.config.output import output_format
from percoin.config.source import SourceConfig
from percoin.config.timeframe import TimeframeConfig
from percoin.types import check_symbol


class RegistryAction(StrEnum):
    """What ``python -m percoin.registry`` does."""

    LIST = "list"
    SHOW = "show"
    VERIFY = "verify"
    PROMOTE = "promote"
    ROLLBACK = "rollback"
    PRUNE = "prune"
    REPRODUCE = "reproduce"


@dataclass
class RegistryConfig:
    """Everything ``python -m percoin.registry`` can be told."""

    action: str = choice(
        "list, show, verify, promote, rollback, prune or reproduce; the word alone will do",
        RegistryAction,
    )
    symbol: str | None = setting("one market; null is all of them", default=None)
    tf: TimeframeConfig | None = setting(default=None)
    source: SourceConfig = setting()
    version: str | None = setting("how its name begins; null is the served one", default=None)
    why: str = setting("with a change: the reason, kept in the history")
    force: bool = setting("with promote and rollback: also serve what the gate did not accept")
    keep: int = number(
        "with prune: how many of the newest versions of each market are always kept",
        0,
        1_000_000,
    )
    older_than_days: float | None = number(
        "with prune: only versions exported longer ago; null is all", 0, MOST_DAYS, default=None
    )
    dry_run: bool = setting("with prune: only say what would go")
    output: str = output_format()
    plugins: list[str] = allowed_code()
    data_dir: str = file_path("with reproduce: bars are stored here, in bars/")
    models_dir: str = file_path("the registry of trained models")

    def __post_init__(self) -> None:
        if self.symbol is not None:
            check_symbol(self.symbol)
