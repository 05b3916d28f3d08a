"""The command ``python -m percoin.serve``: serves predictions for many markets over HTTP."""

from __future__ import annotations

import hashlib
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from percoin.assembly import (
    default_label_rules,
    find_min_confidence,
    live_bar_source,
    newest_bars,
    stored_bars,
)
from percoin.bars.renames import current_symbol
from percoin.bars.store import BarStore
from percoin.cli import compose_config, explain, run_command
from percoin.cli.options import joined
from percoin.cli.overrides import bars_from, quoted, split_lists
from percoin.config import CONF_DIR, FilesConfig, ServeConfig, typed
from percoin.errors import ConfigError, RecordError
from percoin.features.levels import LevelUnit
from percoin.inference import Predictor
from percoin.printable import printable, printable_lines
from percoin.signals.model import ModelSource
from percoin.signals.worth import WorthFiles
from percoin.types import Source, Timeframe

if TYPE_CHECKING:
    from percoin.monitoring.record import TrackRecord
    from percoin.serving.alerting import AlertSettings
    from percoin.serving.offer import Offer
    from percoin.serving.server import Setup

log = logging.getLogger(__name__)

API_KEY = "PERCOIN_API_KEY"
ALERT_WEBHOOK = "PERCOIN_ALERT_WEBHOOK"
ALERT_MESSAGES = "PERCOIN_ALERT_MESSAGES"
_LEAST_KEY_CHARS = 16
_LIBRARIES = ("fastapi", "uvicorn", "prometheus_client")
# These loggers would repeat the same line at every refresh of a market's bars.
_ON_EVERY_REFRESH = (
    "percoin.bars.sources.files",
    "percoin.bars.renames",
    "percoin.monitoring.resolution",
)


class OneLine(logging.Formatter):
    """Keeps each log message on one line, even if a name in it holds line breaks.

    Names of files, exchanges and requests can hold any character.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Like ``logging.Formatter``, with a printable message."""
        record.message = printable(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        """Make a traceback printable and keep its line breaks."""
        return printable_lines(super().formatException(ei))


class Once(logging.Filter):
    """Passes each message once per market and timeframe, even if its other numbers change."""

    def __init__(self) -> None:
        super().__init__()
        self._said: set[tuple[object, ...]] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the message is new."""
        about = record.args if isinstance(record.args, tuple) else ()
        said = (record.msg, *map(str, about[:2]))
        is_new = said not in self._said
        self._said.add(said)
        return is_new


def main(arguments: Sequence[str]) -> int:
    """Serve until a stop signal arrives; return the exit code."""
    codes: list[int] = []

    def command() -> None:
        settings = read_settings(arguments)
        codes.append(run(settings, os.environ))

    code = run_command(command, "serve")
    return code or next(iter(codes), 0)


def read_settings(arguments: Sequence[str]) -> ServeConfig:
    """Read and check the settings of a command line.

    Raises:
        ConfigError: A setting is invalid.
    """
    overrides = _overrides(arguments)
    try:
        return typed(compose_config("serve", overrides), ServeConfig)
    except (HydraException, OmegaConfBaseException) as error:
        # The explanation needs the rewritten overrides: Hydra's error is about those.
        raise ConfigError(explain(error, "serve", overrides)) from error


def run(settings: ServeConfig, environment: Mapping[str, str]) -> int:
    """Listen, serve and stop; return the exit code.

    Args:
        settings: All that is no secret.
        environment: Holds the secrets: the key, and where alerts go.

    Raises:
        ServeError: The server cannot listen on this host and port.
        ConfigError: A setting is invalid, or this machine lacks something, such as a library.
    """
    if missing := [name for name in _LIBRARIES if find_spec(name) is None]:
        raise ConfigError(f"a server needs {', '.join(missing)}: pip install 'percoin[serve]'")
    to_stderr = logging.StreamHandler(sys.stderr)
    to_stderr.setFormatter(OneLine("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[to_stderr])
    for name in _ON_EVERY_REFRESH:
        logging.getLogger(name).addFilter(Once())
    # Torch is loaded later and reads this. One thread computes these networks in milliseconds;
    # more threads would take the cores that answer requests.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # Imported here because only servers have its libraries.
    from percoin.serving.server import PredictionServer, bind, serve

    api_key = read_key(environment.get(API_KEY))
    setup = replace(make_setup(settings, api_key), alerts=make_alerts(settings, environment))
    if setup.record is not None:
        _open_record(setup.record)
    listener = bind(settings.host, settings.port, api_key is not None)
    with listener:
        server = PredictionServer(setup)
        host, port = listener.getsockname()[:2]
        name = f"[{host}]" if ":" in host else host
        print(f"serving {_told(setup.offer)} at http://{name}:{port}", flush=True)
        return serve(server, listener, settings.stop_secs)


def make_setup(settings: ServeConfig, api_key: str | None) -> Setup:
    """Make the objects of a server from its settings.

    Raises:
        ConfigError: The device, the predictor's library, the symbols file or the folder of
            bars is missing.
    """
    from percoin.serving.bar_keeper import Rhythm
    from percoin.serving.guard import Limits
    from percoin.serving.server import Setup

    models_dir, data_dir = Path(settings.models_dir), Path(settings.data_dir)
    refresh, limits = settings.refresh, settings.limits
    # One thread: with more, requests would only wait longer for Python's interpreter lock.
    predictor = Predictor(models_dir, settings.device, settings.backend, workers=1)
    store = BarStore(data_dir / "bars")
    make_source = live_bar_source(settings.source, store)
    folders = [models_dir, data_dir, Path.cwd()]
    if isinstance(settings.source, FilesConfig):
        path = Path(settings.source.path).expanduser()
        if not path.exists():
            raise ConfigError(f"source.path={path} does not exist; give the folder of the bars")
        folders.append(path)
    record = make_record(settings)
    words = bars_from(settings.source, settings.data_dir)
    return Setup(
        offer=_offer(settings),
        make_source=lambda n_bars: make_source(newest_bars(n_bars)),
        models_dir=models_dir,
        model=ModelSource(
            predictor,
            settings.use_ml,
            find_min_confidence(settings.min_confidence, models_dir),
            settings.require_accepted,
            words,
            LevelUnit(settings.levels),
        ),
        sources=[Source.of_option(name) for name in settings.chain],
        use_pro=settings.use_pro,
        max_age_bars=settings.max_age_bars,
        folders=[str(form) for folder in folders for form in (folder, folder.absolute())],
        rhythm=Rhythm(
            refresh.delay_secs, refresh.jitter_secs, refresh.retry_secs, refresh.max_retry_secs
        ),
        n_loaders=refresh.workers,
        check_secs=settings.check_secs,
        limits=Limits(
            limits.requests_per_sec, limits.query_chars, limits.symbols, limits.connections
        ),
        api_key=api_key,
        hosts=("127.0.0.1", "localhost", "[::1]", settings.host),
        record=record,
        default_rules=default_label_rules(),
        worths=WorthFiles(data_dir),
        require_accepted=settings.require_accepted,
        measured_bars=stored_bars(settings.source, store),
        scores=None if record is None else data_dir / _scores_file(record),
        bars_from=words,
    )


def _scores_file(record: TrackRecord) -> str:
    """Each record has a file of its own."""
    return f"scores-{hashlib.sha256(str(record).encode()).hexdigest()[:12]}.bin"


def make_record(settings: ServeConfig) -> TrackRecord | None:
    """Make the track record from the settings; None if it is switched off.

    Raises:
        ConfigError: The URL is invalid, or a newer percoin made the record.
    """
    if not settings.record:
        return None
    from percoin.monitoring.record import RECORD_FILE, TrackRecord, sqlite_url

    default = sqlite_url(Path(settings.data_dir) / RECORD_FILE)
    return TrackRecord(settings.record_url or default)


def make_alerts(settings: ServeConfig, environment: Mapping[str, str]) -> AlertSettings | None:
    """Make what alerts need; None if the environment names no receiver.

    Raises:
        ConfigError: An address is none, or Apprise is not installed; never tells the address.
    """
    from percoin.serving.alerting import AlertSettings
    from percoin.serving.alerts import AlertKind
    from percoin.serving.receivers import Send, message, webhook

    alerts, receivers = settings.alerts, dict[str, Send]()
    if address := environment.get(ALERT_WEBHOOK, "").strip():
        receivers["webhook"] = webhook(_check_web_address(address), alerts.timeout_secs)
    addresses = environment.get(ALERT_MESSAGES, "").split()
    if addresses and find_spec("apprise") is None:
        raise ConfigError(f"{ALERT_MESSAGES} needs apprise: pip install 'percoin[alerts]'")
    for number, address in enumerate(addresses, 1):
        try:
            receivers[f"messages-{number}"] = message(address)
        except ConfigError as error:
            raise ConfigError(f"{ALERT_MESSAGES}: of address {number}: {error}") from None
    if not receivers:
        return None
    log.info("ALERTS go to %s: %s", ", ".join(receivers), ", ".join(alerts.tell))
    return AlertSettings(
        receivers,
        Path(settings.data_dir),
        frozenset(map(AlertKind, alerts.tell)),
        alerts.stale_bars,
        alerts.retry_secs,
        alerts.max_retry_secs,
    )


def _check_web_address(address: str) -> str:
    try:
        parts = urlsplit(address)
        is_one = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_one = False
    if not is_one or not address.isprintable() or " " in address:
        raise ConfigError(f"{ALERT_WEBHOOK} must be one address that begins with https://")
    return address


def _open_record(record: TrackRecord) -> None:
    """Refuse a record of a newer percoin; if the database is away, serve and try again later."""
    try:
        record.open()
    except RecordError as error:
        log.warning("RECORD failed: %s", error)


def read_key(text: str | None) -> str | None:
    """Check the API key that requests must send; None if no key is set.

    Raises:
        ConfigError: The key is too short to be a secret, or cannot be sent in a header.
    """
    if not text:
        return None
    if len(text) < _LEAST_KEY_CHARS or not text.isascii() or not text.isprintable() or " " in text:
        raise ConfigError(
            f"{API_KEY} must be {_LEAST_KEY_CHARS} characters or more, without spaces, of ASCII; "
            "python -c 'import secrets; print(secrets.token_urlsafe())' makes one"
        )
    return text


def read_symbols_file(path: Path) -> list[str]:
    """Read the symbols in a file, separated by commas or white space.

    Raises:
        ConfigError: The file cannot be read, is empty, or holds a word that is no symbol.
    """
    try:
        words = path.read_text(encoding="utf-8").replace(",", " ").split()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"symbols_file={path} cannot be read; name another one, or give symbol=BTCUSDT,ETHUSDT"
        ) from error
    if not words:
        raise ConfigError(
            f"symbols_file={path} names no market; write them as BTCUSDT,ETHUSDT into it"
        )
    return [current_symbol(word) for word in dict.fromkeys(words)]


def _overrides(arguments: Sequence[str]) -> list[str]:
    """Turn ``symbol=A,B`` and ``tf=15m,1h`` into Hydra lists; keep the other arguments."""
    lists, others = split_lists(joined(arguments))
    if lists["symbol"]:
        others.append(
            "symbol=[" + ",".join(f"'{current_symbol(s)}'" for s in lists["symbol"]) + "]"
        )
    if lists["tf"]:
        others.append("timeframes=[" + ",".join(map(quoted, lists["tf"])) + "]")
    return others


def _offer(settings: ServeConfig) -> Offer:
    from percoin.serving.offer import Offer

    path = settings.symbols_file
    file = CONF_DIR.parent / "symbols" if path is None else Path(path)
    symbols = tuple(dict.fromkeys(settings.symbol)) or tuple(read_symbols_file(file))
    timeframes = tuple(dict.fromkeys(map(Timeframe, settings.timeframes)))
    default = Timeframe(settings.default_tf)
    return Offer(symbols, timeframes, default if default in timeframes else timeframes[0])


def _told(offer: Offer) -> str:
    timeframes = ", ".join(offer.timeframes)
    count = len(offer.symbols)
    return f"{count} market{'s' if count > 1 else ''} ({timeframes})"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
