"""The settings of ``python -m percoin.serve``."""

from __future__ import annotations

from dataclasses import dataclass

from percoin.bars.renames import current_symbol
from percoin.config.answer import AnswerConfig
from percoin.config.fields import allowed_code, file_path, number, require, setting
from percoin.config.source import SourceConfig
from percoin.serving.alerts import AlertKind
from percoin.types import check_timeframe


@dataclass
class RefreshConfig:
    """When a server asks for bars."""

    delay_secs: float = number("from the close of a bar to the first request for it", 0, 60)
    jitter_secs: float = number(
        "largest random delay on top, so that requests do not all come at once", 0, 60
    )
    retry_secs: float = number(
        "to the next request if the bar has not come; doubled after each", 0.1, 86_400
    )
    max_retry_secs: float = number("the longest time between two requests", 0.1, 86_400)
    workers: int = number("markets whose bars are requested at a time", 1, 64)


@dataclass
class LimitsConfig:
    """How much one client of a server may ask."""

    requests_per_sec: float = number(
        "for one client; twice as many may come at once", above=0, most=1_000_000
    )
    connections: int = number(
        "open connections of one client; more can only ask for /health", 1, 100_000
    )
    query_chars: int = number("of one request", 1, 1_000_000)
    symbols: int = number("of one request", 1, 100_000)


@dataclass
class AlertsConfig:
    """What a server tells the receivers that PERCOIN_ALERT_WEBHOOK and PERCOIN_ALERT_MESSAGES name.

    Their addresses hold secrets: they are in the environment alone, never among the settings.
    """

    tell: list[str] = setting("some of signal_changed, model_demoted, bars_stale")
    stale_bars: float = number(
        "bars are stale so many bar lengths after the newest one closed", above=1, most=1_000_000
    )
    timeout_secs: float = number("how long a webhook may take", 0.1, 3600)
    retry_secs: float = number(
        "to the next try if a receiver fails; doubled after each", 0.1, 86_400
    )
    max_retry_secs: float = number("the longest time between two tries", 0.1, 86_400)

    def __post_init__(self) -> None:
        for name in self.tell:
            require(
                name in {kind.value for kind in AlertKind},
                f"alerts.tell=[{','.join(self.tell)}]: {name!r} is none of {', '.join(AlertKind)}",
            )


@dataclass
class ServeConfig(AnswerConfig):
    """Everything ``python -m percoin.serve`` can be told."""

    host: str = setting("address to listen on; 0.0.0.0 is all addresses and needs PERCOIN_API_KEY")
    port: int = number("0 takes a free port; the first line of the output names it", 0, 65535)
    symbol: list[str] = setting("markets, with commas between them; none is all of symbols_file")
    symbols_file: str | None = file_path(
        "a line of markets with commas; null is the file symbols beside conf", default=None
    )
    timeframes: list[str] = setting("bar lengths to serve; tf=15m,1h means the same")
    default_tf: str = setting(
        "bar length of a request that names none; if it is not served, the first one"
    )
    source: SourceConfig = setting()
    refresh: RefreshConfig = setting("how bars are requested, in the background")
    check_secs: float = number("seconds between two checks for a new model", 0.1, 60)
    limits: LimitsConfig = setting("limits for one client")
    stop_secs: float = number("how long open responses may take when the server stops", 1, 3600)
    record: bool = setting("record every prediction before it is served, and later its outcome")
    record_url: str | None = setting(
        "where: sqlite:////folder/record.sqlite or postgresql://user@host/name "
        "(pip install '.[postgres]'); null is record.sqlite in data_dir",
        default=None,
    )
    alerts: AlertsConfig = setting(
        "messages about changes, to receivers that the environment names"
    )
    plugins: list[str] = allowed_code()
    data_dir: str = file_path("bars (in bars/) and the track record are stored here")
    models_dir: str = file_path("the registry of trained models")

    def __post_init__(self) -> None:
        for symbol in self.symbol:
            current_symbol(symbol)
        require(bool(self.timeframes), "timeframes=[] names none; give one, for example tf=15m")
        for name in self.timeframes:
            check_timeframe(name)
        check_timeframe(self.default_tf)
        super().__post_init__()
