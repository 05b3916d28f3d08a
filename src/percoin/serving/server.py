"""The prediction server: puts the parts together, opens the socket, and stops cleanly."""

from __future__ import annotations

import errno
import ipaddress
import logging
import signal
import socket
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import uvicorn

from percoin.bars.schema import Bars
from percoin.bars.sources.base import BarSource, Renewed, RenewingSource
from percoin.errors import ServeError
from percoin.interruption import STOPPING
from percoin.labels import LabelRule
from percoin.monitoring.record import TrackRecord
from percoin.serving.alerting import Alerting, AlertSettings
from percoin.serving.answer_board import AnswerBoard
from percoin.serving.app import create_app
from percoin.serving.bar_keeper import BarKeeper, Rhythm
from percoin.serving.connections import make_protocol
from percoin.serving.discretion import Discretion
from percoin.serving.guard import Limits
from percoin.serving.health import Health
from percoin.serving.offer import Clock, Offer, utc_now
from percoin.serving.recorder import Recorder
from percoin.serving.served_models import ServedModels, TrustedModel
from percoin.serving.source_measuring import SourceMeasuring
from percoin.serving.telemetry import Telemetry
from percoin.signals.chain import RULES, Chain, build_chain
from percoin.signals.protocol import SignalSource
from percoin.signals.worth import WorthFiles
from percoin.types import Source, Timeframe

log = logging.getLogger(__name__)

_HEAD_BYTES = 16_384
# The thread that makes answers lets requests run after this time.
_SWITCH_SECS = 0.001


@dataclass(frozen=True, kw_only=True)
class Setup:
    """All parts and settings of a server.

    Attributes:
        offer: The served markets.
        make_source: Makes a bar source for the number of bars that a model needs.
        models_dir: Folder of the model registry.
        model: The source that answers as ``Source.MODEL``.
        sources: Sources in the order they are asked; the last is ``Source.HOLD``.
        use_pro: False skips the professional analyzer.
        max_age_bars: See ``find_staleness``.
        folders: Folders that responses must not reveal.
        rhythm: When bars are loaded.
        n_loaders: How many symbols load bars at the same time.
        check_secs: Seconds between two checks of the registry.
        limits: Limits per client and per request.
        api_key: Key that requests must send; None needs no key.
        hosts: Host names that a request may use if there is no key.
        clock: Gives the current time.
        record: Track record for every prediction; None writes nothing.
        default_rules: Label rule per timeframe, for sources without a model.
        worths: Measured skill of the rules per market; None leaves the rules unjudged.
        require_accepted: Skip a rule that was measured as worse than a coin.
        measured_bars: Stored bars, for measuring the rules and for labels that compare a market
            with others that are not served; None measures nothing.
        scores: See ``Recorder``.
        bars_from: Words that choose the source of the bars, as for ``ModelSource``.
        alerts: What is alerted, and where to; None alerts nobody.
    """

    offer: Offer
    make_source: Callable[[int], BarSource]
    models_dir: Path
    model: SignalSource
    sources: Sequence[Source]
    use_pro: bool = True
    max_age_bars: float | None = None
    folders: Sequence[str] = ()
    rhythm: Rhythm = field(default_factory=Rhythm)
    n_loaders: int = 4
    check_secs: float = 1.0
    limits: Limits = field(default_factory=Limits)
    api_key: str | None = None
    hosts: Collection[str] = ("127.0.0.1", "localhost", "[::1]")
    clock: Clock = utc_now
    record: TrackRecord | None = None
    default_rules: Mapping[Timeframe, LabelRule] = field(default_factory=dict)
    worths: WorthFiles | None = None
    require_accepted: bool = True
    measured_bars: BarSource | None = None
    scores: Path | None = None
    bars_from: Sequence[str] = ()
    alerts: AlertSettings | None = None


class PredictionServer:
    """Holds the parts of a server; work begins with ``start``.

    Attributes:
        app: The ASGI application for an HTTP server.
        limits: Limits per client.
    """

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self.limits = setup.limits
        offer, clock = setup.offer, setup.clock
        discretion = Discretion(setup.folders)
        kept = _kept_timeframes(setup)
        telemetry = Telemetry(kept)
        self.models = ServedModels(
            setup.models_dir, offer.markets(), discretion, clock, setup.bars_from
        )
        self.keeper = BarKeeper(
            self._load,
            offer.symbols,
            kept,
            setup.rhythm,
            clock,
            # A lambda, because the board is made later.
            on_change=lambda: self.board.wake(),
            on_load=telemetry.count_load,
            optional=set(kept) - set(offer.timeframes),
        )
        self.keeper.keep_also(self.models.compared_with())
        record = setup.record
        self.recorder: Recorder | None = None
        if record is not None:
            rules, count = setup.default_rules, telemetry.count_record
            stored = setup.measured_bars
            self.recorder = Recorder(record, self.models, rules, clock, count, stored, setup.scores)
        self.board = AnswerBoard(
            offer,
            self.keeper,
            self.models,
            self._chain(),
            discretion,
            clock,
            on_answer=telemetry.count_answer,
            recorder=self.recorder,
        )
        self.measuring = _measuring(setup, self.board)
        self.alerting: Alerting | None = None
        if setup.alerts is not None:
            parts = offer, self.board, self.models, clock
            self.alerting = Alerting(setup.alerts, *parts, telemetry.count_alerts)
        health = Health(
            offer, self.keeper, self.board, discretion, clock, self.recorder, setup.check_secs
        )
        telemetry.watch_markets(health.states)
        self.app = create_app(
            offer,
            self.board,
            self.keeper,
            self.models,
            health,
            telemetry,
            setup.limits,
            setup.api_key,
            setup.hosts,
            clock,
            self.recorder,
        )

    def _chain(self) -> Chain:
        setup = self._setup
        model, worths = TrustedModel(self.models, setup.model), setup.worths
        return Chain(
            build_chain(setup.sources, model, setup.use_pro, worths, setup.require_accepted),
            _asked_before_holding(setup.sources),
            setup.max_age_bars,
            worths,
        )

    def start(self) -> None:
        """Load bars and make answers in background threads."""
        self.keeper.start(self._setup.n_loaders)
        self.board.start(self._setup.check_secs)
        if self.measuring is not None:
            self.measuring.start()
        if self.recorder is not None:
            self.recorder.scoreboard.start()
        if self.alerting is not None:
            self.alerting.start(self._setup.check_secs)

    def stop(self, timeout_secs: float) -> bool:
        """Stop the background work; return whether the answer thread ended in time."""
        self.keeper.stop()
        if self.measuring is not None:
            self.measuring.stop()
        if self.recorder is not None:
            self.recorder.scoreboard.stop()
        if self.alerting is not None:
            self.alerting.stop(timeout_secs)
        has_ended = self.board.stop(timeout_secs)
        if self.recorder is not None and has_ended:
            self.recorder.record.close()
        return has_ended

    def _load(self, symbol: str, timeframe: Timeframe) -> Bars | Renewed:
        source = self._setup.make_source(self.models.bars_to_hold((symbol, timeframe)))
        if isinstance(source, RenewingSource):
            return source.renew(symbol, timeframe)
        return source.load(symbol, timeframe)


def _measuring(setup: Setup, board: AnswerBoard) -> SourceMeasuring | None:
    """Make the measuring of rules; None without rules, bars to measure on, or a result store."""
    has_rules = any(source in RULES for source in setup.sources)
    if setup.worths is None or setup.measured_bars is None or not has_rules:
        return None
    return SourceMeasuring(
        setup.offer, setup.measured_bars, setup.default_rules, setup.worths, board
    )


def _kept_timeframes(setup: Setup) -> list[Timeframe]:
    """The served timeframes and those that rules read, shortest first."""
    wanted = set(setup.offer.timeframes)
    for source in setup.sources:
        wanted |= set(RULES[source].timeframes) if source in RULES else set()
    return sorted(wanted, key=lambda timeframe: timeframe.milliseconds)


def _asked_before_holding(sources: Sequence[Source]) -> list[Source]:
    return [source for source in sources if source is not Source.HOLD]


def bind(host: str, port: int, has_key: bool) -> socket.socket:
    """Open the socket that the server listens on.

    Args:
        host: Name or address of this machine.
        port: 0 takes any free port.
        has_key: Whether requests must send an API key. Without a key, only programs on this
            machine may reach the server.

    Raises:
        ServeError: The port is in use, the host is no address of this machine, or other
            machines can reach it and there is no key.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise ServeError(f"host={host} is no name or address; try host=127.0.0.1") from error
    addresses = [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
    if not has_key and not all(address.is_loopback for address in addresses):
        raise ServeError(
            f"host={host} can be reached from other machines: set PERCOIN_API_KEY to a secret "
            "that requests then have to bring, or leave host=127.0.0.1"
        )
    family, kind, protocol, _, address = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(1024)
    except OSError as error:
        listener.close()
        advice = f"give another port, for example port={_another(port)}"
        if error.errno == errno.EADDRNOTAVAIL:
            advice = "give an address of this machine, for example host=127.0.0.1"
        problem = f"host={host} port={port}: {error.strerror or error}"
        raise ServeError(f"{problem}; {advice}") from error
    return listener


def _another(port: int) -> int:
    """A port that any user may open: ports below 1024 are kept for the system."""
    return port + 1 if 1024 <= port < 65535 else 8000


def serve(server: PredictionServer, listener: socket.socket, stop_secs: float) -> int:
    """Answer requests until a stop signal arrives, then finish the open responses.

    Args:
        server: The server.
        listener: Socket from ``bind``.
        stop_secs: Seconds that open responses may take after the signal.

    Returns:
        0, or 128 + signal number if a second signal cut responses off.
    """
    sys.setswitchinterval(_SWITCH_SECS)
    http = _StoppableServer(http_config(server, stop_secs))
    server.start()
    http.run(sockets=[listener])
    server.stop(stop_secs)
    log.info("STOPPED by signal %s", http.stopped_by)
    return 128 + http.stopped_by if http.force_exit else 0


def http_config(server: PredictionServer, stop_secs: float) -> uvicorn.Config:
    """The uvicorn settings of a server."""
    return uvicorn.Config(
        server.app,
        # uvicorn accepts any callable here, like asyncio's ``create_server``.
        http=make_protocol(server.limits.connections),  # type: ignore[arg-type]
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        # With proxy headers, a client could claim any address and avoid its limit.
        proxy_headers=False,
        h11_max_incomplete_event_size=_HEAD_BYTES,
        timeout_graceful_shutdown=max(1, round(stop_secs)),
    )


class _StoppableServer(uvicorn.Server):
    """Ends normally at a signal; uvicorn itself would raise the signal again at the end."""

    stopped_by: int = 0

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """While the server runs, SIGINT and SIGTERM stop it."""
        before = {number: signal.signal(number, self.handle_exit) for number in STOPPING}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal lets open responses finish, the second cuts them off."""
        self.force_exit = self.should_exit
        self.should_exit = True
        self.stopped_by = sig
