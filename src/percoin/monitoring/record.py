"""The track record: every served prediction, written once and before its outcome is known.

One table in SQLite or PostgreSQL holds one row per prediction. The database itself enforces the
unique key below, so a restart, a second server or a repeated write adds no second row.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any, cast

from sqlalchemy import (
    URL,
    BigInteger,
    Boolean,
    Column,
    Connection,
    Engine,
    Float,
    Index,
    Integer,
    MetaData,
    Select,
    String,
    Table,
    Text,
    UniqueConstraint,
    create_engine,
    event,
    func,
    insert,
    make_url,
    select,
    text,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    IntegrityError,
    NoSuchModuleError,
    SQLAlchemyError,
)
from sqlalchemy.schema import CreateIndex, CreateTable

from percoin.bars.schema import SIMULATED, kind_of_origin
from percoin.errors import ConfigError, RecordError
from percoin.labels import label_rule_from_json
from percoin.printable import printable, without_passwords
from percoin.types import UNKNOWN_LABEL, Band, ExpectedMove, Signal, Timeframe, is_symbol

log = logging.getLogger(__name__)

RECORD_FILE = "record.sqlite"
SCHEMA_VERSION = 1

_WAIT_SECS = 5
# Rows and row numbers of one query.
_PAGE_ROWS, _MOST_IDS = 10_000, 500
_LONGEST_KIND = 200
# PostgreSQL lock for making the tables. Any number works, if every percoin uses the same.
_ADVISORY_LOCK = 0x7065_7263
# End of the year 9999 in milliseconds: ``datetime`` cannot represent later times.
_LAST_MOMENT = 253_402_300_799_999
# Beyond all that an expected move that can be scored comes to.
_LEAST_VARIANCE, _MOST_VARIANCE = 1e-60, 1e60
# The log names at most this many unreadable rows, each once.
_MOST_NAMED = 1000
_DRIVERS = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg"}

_metadata = MetaData()
_schema = Table("percoin_record", _metadata, Column("version", Integer, nullable=False))
_predictions = Table(
    "percoin_predictions",
    _metadata,
    Column(
        "id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True
    ),
    Column("symbol", String(20), nullable=False),
    Column("tf", String(4), nullable=False),
    Column("ts", BigInteger, nullable=False),
    Column("bars", String(_LONGEST_KIND), nullable=False),
    Column("source", String(32), nullable=False),
    # Empty text instead of NULL: a unique key treats two NULLs as different.
    Column("model_version", String(64), nullable=False),
    Column("version_id", String(64), nullable=False),
    Column("label_rule", String(300), nullable=False),
    Column("signal", Integer, nullable=False),
    Column("confidence", Float(53), nullable=False),
    Column("probabilities", Text),
    Column("close", Float(53), nullable=False),
    Column("baselines", Text, nullable=False),
    Column("is_live", Boolean, nullable=False),
    Column("written_at", BigInteger, nullable=False),
    Column("label", Integer),
    Column("forward_return", Float(53)),
    Column("void", String(200), nullable=False, default=""),
    Column("resolved_at", BigInteger),
    UniqueConstraint(
        *("symbol", "tf", "ts", "bars", "source", "model_version", "version_id", "label_rule"),
        name="percoin_predictions_once",
    ),
)
# A table of its own: an older percoin reads and writes the other one beside it.
_moves = Table(
    "percoin_moves",
    _metadata,
    Column(
        "prediction_id",
        BigInteger().with_variant(Integer, "sqlite"),
        primary_key=True,
        autoincrement=False,
    ),
    Column("move_percent", Float(53), nullable=False),
    Column("move_horizon_bars", Integer, nullable=False),
    Column("move_bands", Text, nullable=False),
    Column("move_range_factor", Float(53), nullable=False),
    Column("realized_variance", Float(53)),
)
# Label rules that are too long for the key, such as one with the names of a pool's markets; the
# key has ``_rule_name`` in their place.
_rules = Table(
    "percoin_rules",
    _metadata,
    Column("name", String(100), primary_key=True),
    Column("long_rule", Text, nullable=False),
)
# Text columns of the key and their maximum length in characters.
_LONGEST = {
    name: cast(String, _predictions.c[name].type).length or 0
    for name in ("bars", "source", "model_version", "version_id", "label_rule")
}
_MOST_RULE_CHARS = 300_000
_open_ones = Index(
    "percoin_predictions_open", *(_predictions.c[name] for name in ("resolved_at", "symbol", "tf"))
)


@dataclass(frozen=True)
class BaselineForecast:
    """The forecast of a baseline at the same moment; a useful model beats it.

    Attributes:
        signal: The baseline's signal; ``UNKNOWN_LABEL`` if it has none.
        probabilities: How often each class followed that signal before, in class order.
    """

    signal: int
    probabilities: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class RecordedPrediction:
    """One served prediction as the record stores it.

    Attributes:
        ts: Close time of the prediction's bar, milliseconds since 1970-01-01 UTC.
        bars: Kind of bar source, see ``kind_of_bars``. Other kinds count as another market.
        model_version: Empty without a model.
        version_id: The exported version; empty without one.
        label_rule: As JSON text; empty if no rule defines the right answer.
        signal: ``Signal`` as an integer.
        probabilities: In class order, or None.
        close: Close price of the bar.
        baselines: Forecasts by name, from bars that were closed at ``ts``.
        expected_move: How far the price was expected to move over the label's horizon; None if
            nothing was said of that.
        is_live: Whether the prediction was written before its outcome could be known.
        written_at: Milliseconds since 1970-01-01 UTC.
    """

    symbol: str
    tf: Timeframe
    ts: int
    bars: str
    source: str
    model_version: str
    version_id: str
    label_rule: str
    signal: int
    confidence: float
    probabilities: tuple[float, ...] | None
    close: float
    baselines: Mapping[str, BaselineForecast] = field(default_factory=dict)
    expected_move: ExpectedMove | None = None
    is_live: bool
    written_at: int


@dataclass(frozen=True, kw_only=True)
class Kept(RecordedPrediction):
    """A stored prediction with its outcome.

    Attributes:
        id: Row number.
        label: The right answer; None while the prediction is open, or if it is void.
        forward_return: Return over the label's horizon, as a fraction; None like ``label``.
        void: Why there will never be a label; empty otherwise.
        resolved_at: When the outcome was written, milliseconds since 1970-01-01 UTC; None
            while the prediction is open.
        realized_variance: What the variance of the expected move came to, by the ranges of the
            horizon's bars; None like ``label``, or without an expected move.
    """

    id: int
    label: int | None = None
    forward_return: float | None = None
    void: str = ""
    resolved_at: int | None = None
    realized_variance: float | None = None


@dataclass(frozen=True)
class PredictionOutcome:
    """The outcome of one prediction; ``void`` says why it has no label and no return."""

    id: int
    label: int | None
    forward_return: float | None
    void: str = ""
    realized_variance: float | None = None


class TrackRecord:
    """The predictions of all markets in one database; processes and threads may share it.

    An invalid row (a time after the year 9999, a probability that is no number, half a
    character) is left out of every result and named in the log. All other rows stay usable.

    The database opens at the first query. SQLite runs in WAL mode, where readers do not wait
    for writers, and with ``synchronous=FULL``. WAL alone survives a killed process; FULL also
    survives a power loss between two checkpoints.

    Args:
        url: A SQLAlchemy URL, for example ``sqlite:////data/record.sqlite`` or
            ``postgresql://user@host/name``.

    Raises:
        ConfigError: The URL is invalid, or its driver is not installed.
    """

    def __init__(self, url: str) -> None:
        self._url = _checked_url(url)
        self._engine: Engine | None = None
        self._opening = Lock()
        self._is_ready = False
        self._named: set[int] = set()

    def __str__(self) -> str:
        return without_passwords(self._url.render_as_string(hide_password=True))

    @property
    def place(self) -> str:
        """The path of the SQLite file, or the URL without its password."""
        return str(self._url.database if self._url.get_backend_name() == "sqlite" else self)

    def exists(self) -> bool:
        """Whether the SQLite file exists; always true for a database server."""
        return self._url.get_backend_name() != "sqlite" or Path(self.place).is_file()

    def open(self) -> None:
        """Make the folder and the tables if they are missing, and check their version.

        Raises:
            ConfigError: A newer percoin made them.
            RecordError: The database cannot be used now.
        """
        with self._opening:
            if self._is_ready:
                return
            with self._told_errors():
                if self._engine is None:
                    self._engine = _make_engine(self._url)
                with _first_transaction(self._engine) as connection:
                    version = _make_tables(connection)
            if not isinstance(version, int):
                raise RecordError(str(self), "its version is no number: another program made it")
            if version > SCHEMA_VERSION:
                raise ConfigError(
                    f"{self} holds a track record of version {version}, newer than "
                    f"{SCHEMA_VERSION}: upgrade percoin or give another record_url"
                )
            self._is_ready = True

    def close(self) -> None:
        """Close the database; the next query opens it again."""
        with self._opening:
            if self._engine is not None:
                self._engine.dispose()
            self._engine, self._is_ready = None, False

    def write(self, entry: RecordedPrediction) -> bool:
        """Write one prediction; return False if the record has it already.

        Raises:
            RecordError: The database cannot be used now; nothing was written.
            ValueError: The database can never store a value of it, such as a text that is
                too long or NaN.
        """
        return self.write_all([entry])[0]

    def write_all(self, entries: Sequence[RecordedPrediction]) -> list[bool]:
        """Write all predictions in one transaction, or none; return whether each was new.

        Raises:
            RecordError: The database cannot be used now; nothing was written.
            ValueError: The database can never store one of them; see ``write``.
        """
        for entry in entries:
            _check(entry)
        with self._connected() as connection:
            dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
            statement = dialect.insert(_predictions).on_conflict_do_nothing()
            # A new row returns its id. Row counts would not do: some drivers do not give them.
            statement = statement.returning(_predictions.c.id)
            rules = {_rule_name(entry.label_rule): entry.label_rule for entry in entries}
            for name, rule in rules.items():
                if name != rule:
                    row = {"name": name, "long_rule": rule}
                    connection.execute(dialect.insert(_rules).on_conflict_do_nothing(), row)
            ids = [connection.execute(statement, _to_row(entry)).scalar() for entry in entries]
            for new_id, entry in zip(ids, entries, strict=True):
                if new_id is not None and entry.expected_move is not None:
                    move = _to_move_row(new_id, entry.expected_move)
                    # SQLite gives the id of a row that was deleted by hand again.
                    connection.execute(
                        dialect.insert(_moves)
                        .values(move)
                        .on_conflict_do_update(index_elements=["prediction_id"], set_=move)
                    )
            return [new_id is not None for new_id in ids]

    def resolve(self, outcomes: Iterable[PredictionOutcome], now_ms: int) -> int:
        """Write the outcomes of open predictions; an outcome in the record stays as it is.

        Args:
            outcomes: Outcomes of open predictions.
            now_ms: Milliseconds since 1970-01-01 UTC.

        Returns:
            How many predictions were open until now.

        Raises:
            RecordError: The database cannot be used now; nothing was written.
        """
        table, n_resolved = _predictions, 0
        with self._connected() as connection:
            for outcome in outcomes:
                was_open = connection.execute(
                    update(table)
                    .where(table.c.id == outcome.id, table.c.resolved_at.is_(None))
                    .values(
                        label=outcome.label,
                        forward_return=outcome.forward_return,
                        void=outcome.void,
                        resolved_at=now_ms,
                    )
                ).rowcount
                n_resolved += was_open
                if was_open and outcome.realized_variance is not None:
                    connection.execute(
                        update(_moves)
                        .where(_moves.c.prediction_id == outcome.id)
                        .values(realized_variance=outcome.realized_variance)
                    )
        return n_resolved

    def open_predictions(
        self, symbol: str, timeframe: Timeframe, bars: str, until_ts: int
    ) -> list[Kept]:
        """Read a market's predictions that have a label rule but no outcome, oldest first.

        Args:
            symbol: Symbol of the market.
            timeframe: Timeframe of the market.
            bars: Kind of bar source, see ``kind_of_bars``.
            until_ts: Newest close time to read, milliseconds since 1970-01-01 UTC.

        Raises:
            RecordError: The database cannot be used now.
        """
        columns = _predictions.c
        return self._read(
            _everything()
            .where(
                columns.resolved_at.is_(None),
                columns.symbol == symbol,
                columns.tf == timeframe.value,
                columns.bars == bars,
                columns.ts <= until_ts,
                columns.label_rule != "",
            )
            .order_by(columns.ts, columns.id)
        )

    def predictions(
        self,
        symbols: Sequence[str] | None = None,
        timeframe: Timeframe | None = None,
        newest: int | None = None,
        simulated: bool | None = None,
    ) -> list[Kept]:
        """Read stored predictions, oldest first.

        Args:
            symbols: None reads all symbols.
            timeframe: None reads all timeframes.
            newest: Read only this many of the newest; None reads all.
            simulated: Read only those on simulated bars, or only those on real ones; None
                reads both.

        Raises:
            RecordError: The database cannot be used now.
        """
        columns = _predictions.c
        statement = _everything().order_by(columns.ts.desc(), columns.id.desc())
        if symbols is not None:
            statement = statement.where(columns.symbol.in_(symbols))
        if timeframe is not None:
            statement = statement.where(columns.tf == timeframe.value)
        if simulated is not None:
            is_wanted = columns.bars.startswith(SIMULATED)
            statement = statement.where(is_wanted if simulated else ~is_wanted)
        if newest is not None:
            statement = statement.limit(newest)
        return self._read(statement)[::-1]

    def after(self, row_id: int) -> Iterator[Kept]:
        """Read the rows with a larger number, in that order and some thousands at a time.

        Raises:
            RecordError: The database cannot be used now.
        """
        columns = _predictions.c
        while True:
            page = _everything().where(columns.id > row_id).order_by(columns.id).limit(_PAGE_ROWS)
            with self._connected() as connection:
                rows = [row._asdict() for row in connection.execute(page)]
            yield from (kept for row in rows if (kept := self._from_row(row)) is not None)
            if len(rows) < _PAGE_ROWS:
                return
            row_id = rows[-1]["id"]

    def resolved_among(self, ids: Sequence[int]) -> Iterator[Kept]:
        """Read those of the rows with these numbers that have an outcome.

        Raises:
            RecordError: The database cannot be used now.
        """
        columns = _predictions.c
        for start in range(0, len(ids), _MOST_IDS):
            wanted = columns.id.in_(ids[start : start + _MOST_IDS])
            yield from self._read(_everything().where(wanted, columns.resolved_at.is_not(None)))

    def revision(self) -> tuple[int, int]:
        """Count the predictions and those with an outcome; both numbers only grow.

        Raises:
            RecordError: The database cannot be used now.
        """
        counted = select(func.count(), func.count(_predictions.c.resolved_at)).select_from(
            _predictions
        )
        with self._connected() as connection:
            n_written, n_resolved = connection.execute(counted).one()
        return int(n_written), int(n_resolved)

    def market_revision(self, symbol: str, timeframe: Timeframe) -> tuple[int, int]:
        """Count one market's predictions and those with an outcome, by indexes alone.

        Raises:
            RecordError: The database cannot be used now.
        """
        columns = _predictions.c
        of_market = columns.symbol == symbol, columns.tf == timeframe.value
        written = select(func.count()).select_from(_predictions).where(*of_market)
        still_open = written.where(columns.resolved_at.is_(None))
        # In one statement: of one moment.
        both = select(written.scalar_subquery(), still_open.scalar_subquery())
        with self._connected() as connection:
            n_written, n_open = connection.execute(both).one()
        return int(n_written), int(n_written - n_open)

    def place_of(self, row_id: int) -> tuple[int, str]:
        """How many rows there are up to a number, and the newest of them in one phrase.

        Of an unchanged database both stay the same, once no row with a smaller number comes.

        Raises:
            RecordError: The database cannot be used now.
        """
        columns = _predictions.c
        names = ("id", "symbol", "tf", "ts", "source", "version_id", "written_at")
        newest = select(*(columns[name] for name in names)).where(columns.id <= row_id)
        # Both counts are of an index or of few rows; that of all up to a number would not be.
        beyond = select(func.count()).where(columns.id > row_id)
        with self._connected() as connection:
            n_rows = connection.execute(select(func.count()).select_from(_predictions)).scalar_one()
            n_beyond = connection.execute(beyond).scalar_one()
            found = connection.execute(newest.order_by(columns.id.desc()).limit(1)).first()
        return int(n_rows) - int(n_beyond), json.dumps(None if found is None else list(found))

    def _read(self, statement: Select[Any]) -> list[Kept]:
        with self._connected() as connection:
            rows = [row._asdict() for row in connection.execute(statement)]
        return [kept for row in rows if (kept := self._from_row(row)) is not None]

    def _from_row(self, row: dict[str, Any]) -> Kept | None:
        try:
            return _from_row(dict(row))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as e:
            if row["id"] not in self._named and len(self._named) < _MOST_NAMED:
                self._named.add(row["id"])
                market = printable(f"{row['symbol']} {row['tf']}", max_chars=40)
                reason = printable(str(e) or type(e).__name__, max_chars=200)
                log.warning("%s: row %s of %s is left out: %s", market, row["id"], self, reason)
            return None

    @contextmanager
    def _connected(self) -> Iterator[Connection]:
        """A transaction that commits unless an exception is raised."""
        self.open()
        engine = self._engine
        with self._told_errors():
            if engine is None:
                raise RecordError(str(self), "it was closed")
            with engine.begin() as connection:
                yield connection

    @contextmanager
    def _told_errors(self) -> Iterator[None]:
        """Turn database errors into a ``ValueError`` or a ``RecordError`` of one line."""
        try:
            yield
        except (DataError, IntegrityError, OverflowError) as error:
            raise ValueError(_reason(error)) from error
        except (SQLAlchemyError, OSError) as error:
            raise RecordError(str(self), _reason(error)) from error


def _reason(error: Exception) -> str:
    """The first line of the database's error message."""
    return str(getattr(error, "orig", None) or error).strip().partition("\n")[0]


def sqlite_url(path: Path) -> str:
    """The SQLite URL of a file, with its absolute path: valid from any working directory."""
    url = URL.create("sqlite", database=str(path.expanduser().absolute()))
    return url.render_as_string(hide_password=False)


def kind_of_bars(origin: str) -> str:
    """The kind of bar source; later bars of the same kind can resolve a prediction.

    As ``kind_of_origin``, short and printable.
    """
    return printable(kind_of_origin(origin), _LONGEST_KIND)


def written_at(entry: RecordedPrediction, now_ms: int, is_live: bool) -> RecordedPrediction:
    """Copy a prediction with another write time, in milliseconds since 1970-01-01 UTC."""
    return replace(entry, written_at=now_ms, is_live=is_live)


def _checked_url(text_url: str) -> URL:
    try:
        url = make_url(text_url)
        driver = _DRIVERS.get(url.get_backend_name())
    except (ArgumentError, NoSuchModuleError, ValueError) as error:
        raise ConfigError(_no_url("it is no URL of a database")) from error
    if driver is None:
        raise ConfigError(_no_url(f"{url.get_backend_name()} is not supported"))
    if driver == "sqlite":
        if not url.database or url.database == ":memory:":
            raise ConfigError(_no_url("it names no file, and a record in memory would be lost"))
        return url.set(database=str(Path(url.database).expanduser().absolute()))
    try:
        import psycopg  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "record_url: PostgreSQL needs psycopg: pip install 'percoin[postgres]'"
        ) from error
    return url.set(drivername=driver)


def _no_url(problem: str) -> str:
    # The message leaves out the URL, which may hold a password.
    return (
        f"record_url cannot be used: {problem}; give sqlite:////folder/record.sqlite or "
        "postgresql://user@host/name"
    )


def _make_engine(url: URL) -> Engine:
    if url.get_backend_name() == "postgresql":
        options = f"-c statement_timeout={_WAIT_SECS}s -c lock_timeout={_WAIT_SECS}s"
        # A host that is gone says nothing; without these, reading waits for it for hours.
        alive = {
            "keepalives_idle": _WAIT_SECS,
            "keepalives_interval": 2,
            "keepalives_count": 2,
            "tcp_user_timeout": 1000 * _WAIT_SECS,
        }
        own = {name: value for name, value in alive.items() if name not in url.query}
        arguments = {"connect_timeout": _WAIT_SECS, "options": options, **own}
        return create_engine(url, connect_args=arguments, pool_pre_ping=True)
    Path(str(url.database)).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, connect_args={"timeout": _WAIT_SECS})

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: object) -> None:
        connection.execute("PRAGMA synchronous=FULL")
        # By default, one row with bytes that are not UTF-8 makes every row unreadable.
        connection.text_factory = _decoded

    return engine


def _decoded(content: bytes) -> str:
    return content.decode(errors="surrogateescape")


@contextmanager
def _first_transaction(engine: Engine) -> Iterator[Connection]:
    """A transaction that keeps other processes from making tables meanwhile."""
    if engine.dialect.name == "postgresql":
        with engine.begin() as connection:
            connection.execute(text(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})"))
            yield connection
        return
    with engine.connect() as connection:
        _patiently(lambda: _set_wal(connection))
        connection.rollback()
        # Explicit, because Python's SQLite driver begins no transaction before CREATE TABLE.
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        yield connection
        connection.commit()


def _set_wal(connection: Connection) -> None:
    mode = connection.exec_driver_sql("PRAGMA journal_mode=WAL").scalar()
    if mode != "wal":
        raise OSError(f"the file system does not allow WAL mode (journal_mode is {mode})")


def _patiently(act: Callable[[], None]) -> None:
    """Try again while another process switches the same new file to WAL mode.

    SQLite does not wait for a lock during this switch, so the caller has to.
    """
    until = time.monotonic() + _WAIT_SECS
    while True:
        try:
            return act()
        except SQLAlchemyError as error:
            if "locked" not in str(error) or time.monotonic() > until:
                raise
            time.sleep(0.02)


def _make_tables(connection: Connection) -> object:
    """Make missing tables; return the stored schema version, which may not be a number."""
    connection.execute(CreateTable(_schema, if_not_exists=True))
    version = connection.execute(select(func.max(_schema.c.version))).scalar()
    if version is not None and (not isinstance(version, int) or version > SCHEMA_VERSION):
        return version
    connection.execute(CreateTable(_predictions, if_not_exists=True))
    connection.execute(CreateTable(_moves, if_not_exists=True))
    connection.execute(CreateTable(_rules, if_not_exists=True))
    connection.execute(CreateIndex(_open_ones, if_not_exists=True))
    if version is None:
        connection.execute(insert(_schema).values(version=SCHEMA_VERSION))
    return SCHEMA_VERSION


def _everything() -> Select[Any]:
    """Every column of the predictions, each with its expected move and long rule, if it has one."""
    moves = [column for column in _moves.c if column is not _moves.c.prediction_id]
    beside = _predictions.c.id == _moves.c.prediction_id
    found = select(_predictions, *moves, _rules.c.long_rule).outerjoin(_moves, beside)
    return found.outerjoin(_rules, _predictions.c.label_rule == _rules.c.name)


def _rule_name(rule: str) -> str:
    """What the key has of a label rule: the rule itself, or the hash of a long one."""
    if len(rule) <= _LONGEST["label_rule"]:
        return rule
    return json.dumps({"sha256": hashlib.sha256(rule.encode()).hexdigest()})


def _to_move_row(prediction_id: int, move: ExpectedMove) -> dict[str, object]:
    return {
        "prediction_id": prediction_id,
        "move_percent": move.percent,
        "move_horizon_bars": move.horizon_bars,
        "move_bands": json.dumps([[band.level, band.lower, band.upper] for band in move.bands]),
        "move_range_factor": move.range_factor,
        "realized_variance": None,
    }


def _to_move(entries: dict[str, Any]) -> ExpectedMove | None:
    """Take the columns of the expected move out of a row."""
    names = ("move_percent", "move_horizon_bars", "move_bands", "move_range_factor")
    percent, horizon_bars, bands, factor = (entries.pop(name) for name in names)
    if percent is None:
        return None
    return ExpectedMove(
        percent, horizon_bars, tuple(Band(*band) for band in json.loads(bands)), factor
    )


def _to_row(entry: RecordedPrediction) -> dict[str, object]:
    row: dict[str, object] = {
        name.name: getattr(entry, name.name)
        for name in fields(RecordedPrediction)
        if name.name not in ("baselines", "expected_move")
    }
    probabilities = entry.probabilities
    said = {name: [line.signal, *line.probabilities] for name, line in entry.baselines.items()}
    return row | {
        "tf": entry.tf.value,
        "label_rule": _rule_name(entry.label_rule),
        "probabilities": None if probabilities is None else json.dumps(list(probabilities)),
        "baselines": json.dumps(said, allow_nan=False),
    }


def _from_row(entries: dict[str, Any]) -> Kept:
    said = json.loads(entries["baselines"])
    probabilities, long_rule = entries["probabilities"], entries.pop("long_rule")
    if long_rule is not None:
        entries["label_rule"] = long_rule
    entries |= {
        "expected_move": _to_move(entries),
        "tf": Timeframe(entries["tf"]),
        "is_live": bool(entries["is_live"]),
        "probabilities": None if probabilities is None else tuple(json.loads(probabilities)),
        "baselines": {
            name: BaselineForecast(signal, tuple(shares))
            for name, (signal, *shares) in said.items()
        },
    }
    kept = Kept(**entries)
    _check(kept)
    _require(kept.label is None or _is_class(kept.label), "label")
    _require(kept.forward_return is None or _is_number(kept.forward_return), "forward_return")
    _require(isinstance(kept.void, str), "void")
    realized = kept.realized_variance
    _require(realized is None or _is_variance(realized), "realized_variance")
    _require(kept.resolved_at is None or _is_moment(kept.resolved_at), "resolved_at")
    return kept


def _check(entry: RecordedPrediction) -> None:
    """Refuse invalid values and values that SQLite or PostgreSQL cannot store.

    Raises:
        ValueError: A value is invalid; the message names its column.
    """
    _require(is_symbol(entry.symbol), "symbol")
    for name, most in _LONGEST.items():
        value = getattr(entry, name)
        most = _MOST_RULE_CHARS if name == "label_rule" else most
        is_text = isinstance(value, str) and value.isprintable() and len(value) <= most
        _require(is_text, name)
    if entry.label_rule:
        _check_rule(entry.label_rule)
    _require(_is_moment(entry.ts), "ts")
    _require(_is_moment(entry.written_at), "written_at")
    _require(_is_class(entry.signal), "signal")
    _require(_is_number(entry.confidence), "confidence")
    _require(_is_number(entry.close), "close")
    _require(entry.probabilities is None or _are_shares(entry.probabilities), "probabilities")
    _require(entry.expected_move is None or _is_move(entry.expected_move), "expected_move")
    for line in entry.baselines.values():
        is_known = line.signal == UNKNOWN_LABEL or _is_class(line.signal)
        _require(is_known and _are_shares(line.probabilities), "baselines")


@lru_cache(maxsize=256)
def _check_rule(text: str) -> None:
    try:
        label_rule_from_json(json.loads(text))
    except (ConfigError, TypeError, RecursionError) as error:
        raise ValueError(f"its label_rule is invalid: {error}") from error


def _require(condition: bool, name: str) -> None:
    if not condition:
        raise ValueError(f"its {name} is invalid")


def _is_moment(value: object) -> bool:
    return type(value) is int and 0 <= value <= _LAST_MOMENT


def _is_class(value: object) -> bool:
    return type(value) is int and 0 <= value < len(Signal)


def _is_move(move: ExpectedMove) -> bool:
    sizes = [move.percent, move.range_factor]
    sizes += [end for band in move.bands for end in (band.lower, band.upper)]
    is_sized = all(_is_number(size) and size > 0 for size in sizes) and move.can_be_scored
    counts = [move.horizon_bars, *(band.level for band in move.bands)]
    return is_sized and all(type(count) is int and count > 0 for count in counts)


def _is_variance(value: float) -> bool:
    return _is_number(value) and _LEAST_VARIANCE <= value <= _MOST_VARIANCE


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]


def _are_shares(values: Sequence[Any]) -> bool:
    # The comparison is also false for NaN.
    return len(values) == len(Signal) and all(
        type(value) in (int, float) and 0 <= value <= 1 for value in values
    )
