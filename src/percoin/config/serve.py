"""The settings of ``python -m percoin.serve``."""

from __future__ import annotations

from dataclasses import dataclass

from percoin.bars.renames import current_symbol
from percoin.config.answer import AnswerConfig
from percoin.config.fields import file_path, number, require, setting
from percoin.config.source import SourceConfig
from percoin.types import check_timeframe


@dataclass
class RefreshConfig:
    """When a server asks for bars."""

    delay_secs: float = number("from the close of a bar to the first question for it", 0, 60)
    jitter_secs: float = number(
        "at most so much later, so that not everything is asked for at once", 0, 60
    )
    retry_secs: float = number(
        "to the next question if the bar did not come; doubled after each", 0.1, 86_400
    )
    max_retry_secs: float = number("the longest time between two questions", 0.1, 86_400)
    workers: int = number("markets that are asked for at a time", 1, 64)


@dataclass
class LimitsConfig:
    """How much one client of a server may ask."""

    requests_per_sec: float = number(
        "of one client; twice as many may come at once", above=0, most=1_000_000
    )
    connections: int = number(
        "of one client at a time; further ones can only ask for /health", 1, 100_000
    )
    query_chars: int = number("of one request", 1, 1_000_000)
    symbols: int = number("of one request", 1, 100_000)


@dataclass
class ServeConfig(AnswerConfig):
    """Everything ``python -m percoin.serve`` can be told."""

    host: str = setting("where to listen; 0.0.0.0 is everywhere, with PERCOIN_API_KEY only")
    port: int = number("0 is any that is free; the first line of the output names it", 0, 65535)
    symbol: list[str] = setting("markets, with commas between them; none is all of symbols_file")
    symbols_file: str | None = file_path(
        "a line of markets with commas; null is the file symbols beside conf", default=None
    )
    timeframes: list[str] = setting("that are answered for; tf=15m,1h means the same")
    default_tf: str = setting(
        "of a request that names none; if it is not served, the first that is"
    )
    source: SourceConfig = setting()
    refresh: RefreshConfig = setting("of the bars, in the background")
    check_secs: float = number("how often to look whether another model is served", 0.1, 60)
    limits: LimitsConfig = setting("how much one client may ask")
    stop_secs: float = number(
        "how long unfinished responses may take once it is told to stop", 1, 3600
    )
    record: bool = setting(
        "write down every prediction before it is served, and later what became of it"
    )
    record_url: str | None = setting(
        "where: sqlite:////folder/record.sqlite or postgresql://user@host/name "
        "(pip install '.[postgres]'); null is record.sqlite in data_dir",
        default=None,
    )
    data_dir: str = file_path("bars, below bars/, and the track record")
    models_dir: str = file_path("the registry of trained models")

    def __post_init__(self) -> None:
        for symbol in self.symbol:
            current_symbol(symbol)
        require(bool(self.timeframes), "timeframes=[] names none; give one, for example tf=15m")
        for name in self.timeframes:
            check_timeframe(name)
        check_timeframe(self.default_tf)
        super().__post_init__()
