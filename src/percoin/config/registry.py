"""The settings of ``python -m percoin.registry``."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from omegaconf import MISSING

from percoin.config.fields import MOST_DAYS, file_path, number, require
from percoin.config.output import OutputFormat
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

    action: str = MISSING
    symbol: str | None = None
    tf: TimeframeConfig | None = None
    source: SourceConfig = MISSING
    version: str | None = None
    why: str = MISSING
    force: bool = MISSING
    keep: int = number(0, 1_000_000)
    older_than_days: float | None = number(0, MOST_DAYS, default=None)
    dry_run: bool = MISSING
    output: str = MISSING
    data_dir: str = file_path()
    models_dir: str = file_path()

    def __post_init__(self) -> None:
        actions = [action.value for action in RegistryAction]
        require(self.action in actions, f"action={self.action} must be one of {', '.join(actions)}")
        if self.symbol is not None:
            check_symbol(self.symbol)
        known = [member.value for member in OutputFormat]
        require(self.output in known, f"output={self.output} must be one of {', '.join(known)}")
