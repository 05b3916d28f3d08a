"""A prediction server: its parts put together, its socket, and how it stops."""

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
from percoin.bars.sources.base import BarSource
from percoin.errors import ServeError
from percoin.interruption import STOPPING
from percoin.labels import LabelRule
from percoin.monitoring.record import TrackRecord
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
# The thread that makes answers gives way to requests after so long.
_SWITCH_SECS = 0.001


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What a server is made of.

    Attributes:
        offer: The markets.
        make_source: Gives the bars for models that see so many of them.
        models_dir: The registry.
        model: Answers as ``Source.MODEL``.
        sources: Who is asked; the last is ``Source.HOLD``.
        use_pro: False passes the professional analyzer over.
        max_age_bars: As for ``find_staleness``.
        folders: That responses do not speak of.
        rhythm: When bars are asked for.
        n_loaders: Symbols whose bars are asked for at a time.
        check_secs: How often the registry is looked at.
        limits: Of one client and one request.
        api_key: That is demanded; None demands none.
        hosts: Names by which the server may be called without a key.
        clock: The time.
        record: Where every prediction is written; None writes none.
        default_rules: What the right answer to a source without a model will be by.
        worths: What the rules are worth on each market; None leaves them unjudged.
        require_accepted: Pass over a rule where it is measured as worse than a coin.
        measured_bars: Where the bars are that the rules are measured on; None measures nothing.
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


class PredictionServer:
    """The parts of a server; nothing happens before ``start``.

    Attributes:
        app: The application, for an HTTP server.
        limits: Of one client.
    """

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self.limits = setup.limits
        offer, clock = setup.offer, setup.clock
        discretion = Discretion(setup.folders)
        telemetry = Telemetry()
        self.models = ServedModels(setup.models_dir, offer.markets(), discretion, clock)
        self.keeper = BarKeeper(
            self._load,
            offer.symbols,
            _kept_timeframes(setup),
            setup.rhythm,
            clock,
            # The board is not there yet.
            on_change=lambda: self.board.wake(),
            on_load=telemetry.count_load,
        )
        record = setup.record
        self.recorder: Recorder | None = None
        if record is not None:
            rules, count = setup.default_rules, telemetry.count_record
            self.recorder = Recorder(record, self.models, rules, clock, count)
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
        health = Health(
            offer, self.keeper, self.board, discretion, clock, self.recorder, setup.check_secs
        )
        telemetry.watch_ages(health.ages)
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
        """Bring the bars and make the answers, in the background."""
        self.keeper.start(self._setup.n_loaders)
        self.board.start(self._setup.check_secs)
        if self.measuring is not None:
            self.measuring.start()

    def stop(self, timeout_secs: float) -> bool:
        """Begin nothing more; whether the answer in the making ended in time."""
        self.keeper.stop()
        if self.measuring is not None:
            self.measuring.stop()
        has_ended = self.board.stop(timeout_secs)
        if self.recorder is not None and has_ended:
            self.recorder.record.close()
        return has_ended

    def _load(self, symbol: str, timeframe: Timeframe) -> Bars:
        lookback = self.models.lookback((symbol, timeframe))
        return self._setup.make_source(lookback).load(symbol, timeframe)


def _measuring(setup: Setup, board: AnswerBoard) -> SourceMeasuring | None:
    """What measures the rules, if there is one, and somewhere to keep what is found."""
    has_rules = any(source in RULES for source in setup.sources)
    if setup.worths is None or setup.measured_bars is None or not has_rules:
        return None
    return SourceMeasuring(
        setup.offer, setup.measured_bars, setup.default_rules, setup.worths, board
    )


def _kept_timeframes(setup: Setup) -> list[Timeframe]:
    """Those that are answered for, and those that rules look at."""
    wanted = set(setup.offer.timeframes)
    for source in setup.sources:
        wanted |= set(RULES[source].timeframes) if source in RULES else set()
    return sorted(wanted, key=lambda timeframe: timeframe.milliseconds)


def _asked_before_holding(sources: Sequence[Source]) -> list[Source]:
    return [source for source in sources if source is not Source.HOLD]


def bind(host: str, port: int, has_key: bool) -> socket.socket:
    """The socket that a server listens on.

    Args:
        host: A name or an address of this machine.
        port: 0 is any that is free.
        has_key: Whether requests will have to bring one; without, only programs of this
            machine may reach the server.

    Raises:
        ServeError: The port is in use, the host is none of this machine's, or it can be
            reached from others and there is no key.
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
    """One that anybody may listen on: those below 1024 are kept for the system."""
    return port + 1 if 1024 <= port < 65535 else 8000


def serve(server: PredictionServer, listener: socket.socket, stop_secs: float) -> int:
    """Answer requests until a signal says to stop; begun responses are finished.

    Args:
        server: The server.
        listener: From ``bind``.
        stop_secs: How long unfinished responses may take once it is to stop.

    Returns:
        0, or 128 + signal if a second one cut responses off.
    """
    sys.setswitchinterval(_SWITCH_SECS)
    http = _StoppableServer(http_config(server, stop_secs))
    server.start()
    http.run(sockets=[listener])
    server.stop(stop_secs)
    log.info("STOPPED by signal %s", http.stopped_by)
    return 128 + http.stopped_by if http.force_exit else 0


def http_config(server: PredictionServer, stop_secs: float) -> uvicorn.Config:
    """How requests for a server are taken from its socket."""
    return uvicorn.Config(
        server.app,
        # Any callable will do, as for asyncio's own ``create_server``.
        http=make_protocol(server.limits.connections),  # type: ignore[arg-type]
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        # Whoever asks could name any client in a header, and never meet its limit.
        proxy_headers=False,
        h11_max_incomplete_event_size=_HEAD_BYTES,
        timeout_graceful_shutdown=max(1, round(stop_secs)),
    )


class _StoppableServer(uvicorn.Server):
    """Ends quietly at a signal, where uvicorn would raise it again afterwards."""

    stopped_by: int = 0

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Have SIGINT and SIGTERM end the server while it runs."""
        before = {number: signal.signal(number, self.handle_exit) for number in STOPPING}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal lets responses end, the second does not."""
        self.force_exit = self.should_exit
        self.should_exit = True
        self.stopped_by = sig
