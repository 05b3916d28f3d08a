"""The settings of ``python -m percoin.serve``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING

from percoin.bars.renames import current_symbol
from percoin.config.answer import (
    AGE_OF_NEWEST,
    check_chain,
    check_device,
    check_predictor,
    read_confidence,
)
from percoin.config.fields import file_path, number, require
from percoin.config.source import SourceConfig
from percoin.types import check_timeframe


@dataclass
class RefreshConfig:
    """When a server asks for bars."""

    delay_secs: float = number(0, 60)
    jitter_secs: float = number(0, 60)
    retry_secs: float = number(0.1, 86_400)
    max_retry_secs: float = number(0.1, 86_400)
    workers: int = number(1, 64)


@dataclass
class LimitsConfig:
    """How much one client of a server may ask."""

    requests_per_sec: float = number(above=0, most=1_000_000)
    connections: int = number(1, 100_000)
    query_chars: int = number(1, 1_000_000)
    symbols: int = number(1, 100_000)


@dataclass
class ServeConfig:
    """Everything ``python -m percoin.serve`` can be told."""

    host: str = MISSING
    port: int = number(0, 65535)
    symbol: list[str] = MISSING
    symbols_file: str | None = file_path(default=None)
    timeframes: list[str] = MISSING
    default_tf: str = MISSING
    source: SourceConfig = MISSING
    predictor: str = MISSING
    device: str = MISSING
    chain: list[str] = MISSING
    use_ml: bool = MISSING
    use_pro: bool = MISSING
    min_confidence: Any = MISSING
    require_accepted: bool = MISSING
    max_age_bars: float | None = number(1, 1_000_000_000, note=AGE_OF_NEWEST, default=None)
    refresh: RefreshConfig = MISSING
    check_secs: float = number(0.1, 60)
    limits: LimitsConfig = MISSING
    stop_secs: float = number(1, 3600)
    record: bool = MISSING
    record_url: str | None = None
    data_dir: str = file_path()
    models_dir: str = file_path()

    def __post_init__(self) -> None:
        for symbol in self.symbol:
            current_symbol(symbol)
        require(bool(self.timeframes), "timeframes=[] names none; give one, for example tf=15m")
        for name in self.timeframes:
            check_timeframe(name)
        check_timeframe(self.default_tf)
        check_predictor(self.predictor)
        check_device(self.device)
        check_chain(self.chain)
        self.min_confidence = read_confidence(self.min_confidence)
