"""Every error percoin raises on purpose.

::

    PercoinError
    |-- ConfigError             a key or value that cannot be meant
    |-- SweepError              jobs of a sweep failed, or it was told to stop
    |-- InUseError              another process has the folder, and lives
    |-- ServeError              the prediction server cannot start
    |-- RecordError             the database of the track record cannot be used now
    |-- PoolError               markets that cannot be trained on together; names all of them
    |-- MarketsError            some of several markets are not as they should be; names them all
    `-- MarketError             one market and timeframe: what was found, what to do
        |-- DataError
        |   |-- BarsNotFoundError    nothing stored, no such file, no such symbol
        |   |-- InvalidBarsError     bars that break the schema, unreadable files
        |   |-- FetchError           the exchange or its archive is out of reach or refuses
        |   |-- NotEnoughBarsError   too short for the lookback and the splits
        |   `-- InvalidForecastsError  a file of forecasts that cannot be judged
        |-- TrainingError
        |   |-- MissingClassError    a split without one of the three classes
        |   |-- DivergedError        the loss is no longer a number
        |   |-- InterruptedRunError  Ctrl-C or SIGTERM; resume=true goes on
        |   |-- ResumeError          nothing to resume, or another configuration
        |   `-- StudyError           a search for settings cannot begin, go on or end
        `-- RegistryError
            |-- ModelNotFoundError   no model has been exported for the market
            |-- InvalidArtifactError a file is missing, changed or from elsewhere
            |   `-- UnreadableArtifactError  it cannot be read now, and may be whole
            |-- VersionRefusedError  a version that may not be served as it is
            `-- RegistryWriteError   the models folder refuses the new version

A message is one line for a person; a command prints it and exits non-zero.
"""

from __future__ import annotations

from pathlib import Path

# What markets of exchanges are quoted in.
_QUOTE_CURRENCIES = (
    *("USDT", "USDC", "FDUSD", "TUSD", "BUSD", "USDP", "DAI", "USD", "USD1", "USDE"),
    *("BTC", "ETH", "BNB", "XRP", "SOL", "DOGE", "TRX"),
    *("EUR", "GBP", "AUD", "TRY", "BRL", "JPY", "UAH", "RUB", "NGN", "ZAR", "PLN", "RON", "ARS"),
    *("IDR", "IDRT", "BIDR", "BKRW", "KRW", "VAI", "PAX", "USDS", "EURI", "MXN", "CZK", "COP"),
)


class PercoinError(Exception):
    """Base of all errors that end a command with one line instead of a traceback."""

    exit_code = 1


class ConfigError(PercoinError):
    """A key or value on the command line or in the config that cannot be meant."""


class SweepError(PercoinError):
    """A sweep ended with jobs that are not done.

    Args:
        message: Which ones, where to look, how to go on.
        exit_code: 128 + signal if a signal ended it.
    """

    def __init__(self, message: str, exit_code: int = PercoinError.exit_code) -> None:
        super().__init__(message)
        self.args = (message, exit_code)
        self.exit_code = exit_code

    def __str__(self) -> str:
        return str(self.args[0])


class InUseError(PercoinError):
    """Another living process has the file or folder; the message names both.

    Args:
        place: What it has.
        holder: Which process, on which machine.
        action: What the user can do, without a full stop.
    """

    def __init__(self, place: Path, holder: str, action: str) -> None:
        super().__init__(place, holder, action)
        self.holder = holder

    def __str__(self) -> str:
        place, holder, action = self.args
        return f"{place} is in use by {holder}; {action}"


class ServeError(PercoinError):
    """The prediction server cannot listen where it is told to."""


# By what SQLite and PostgreSQL say; nothing of it loses a prediction.
_OF_A_DATABASE = {
    "database is locked": "another program holds it",
    "not a database": "move the file aside, or give another record_url",
    "malformed": "keep a copy of the file, then move it aside",
    "disk is full": "free some space",
    "readonly": "check its permissions",
    "unable to open": "check the folder and its permissions",
    "authentication failed": "check user and password in record_url",
    "connection refused": "check that the server runs and record_url names it",
}


class RecordError(PercoinError):
    """The database of the track record is out of reach, locked, full or broken.

    Args:
        database: Its URL without the password.
        found: What it said, without a full stop.
    """

    def __init__(self, database: str, found: str) -> None:
        super().__init__(database, found)

    def __str__(self) -> str:
        database, found = self.args
        advice = next(
            (f"; {say}" for word, say in _OF_A_DATABASE.items() if word in found.lower()), ""
        )
        return f"{database}: the track record cannot be used now ({found}){advice}"


class PoolError(PercoinError):
    """Markets of a pool are missing or too few; the message names each with its reason."""


class MarketsError(PercoinError):
    """Some of several markets have no new model, or one that should not be accepted.

    The message names each with its reason.
    """


class MarketError(PercoinError):
    """An error about one market and timeframe.

    Args:
        symbol: Market, for example ``BTCUSDT``.
        timeframe: Bar length in the exchange's spelling, for example ``15m``.
        found: What was found, without a full stop.
        action: What the user can do next, without a full stop.
    """

    def __init__(self, symbol: str, timeframe: str, found: str, action: str) -> None:
        super().__init__(symbol, timeframe, found, action)
        self.symbol = symbol
        self.timeframe = timeframe
        self.found = found
        self.action = action

    def __str__(self) -> str:
        return f"{self.symbol} {self.timeframe}: {self.found}; {self.action}"


class DataError(MarketError):
    """The bars of a market cannot be used."""


class BarsNotFoundError(DataError):
    """No bars are stored or offered for the market."""

    def __str__(self) -> str:
        if any(self.symbol.endswith(name) and self.symbol != name for name in _QUOTE_CURRENCIES):
            return super().__str__()
        # A coin alone, such as BTC.
        return f"{super().__str__()}; did you mean symbol={self.symbol}USDT?"


class InvalidBarsError(DataError):
    """Bars break the schema or their file cannot be read."""


class FetchError(DataError):
    """The exchange or its archive cannot be reached, or refuses to answer."""


class NotEnoughBarsError(DataError):
    """Too few bars for the lookback, the label horizon and the splits."""


class InvalidForecastsError(DataError):
    """A file of forecasts cannot be judged as it is."""


class TrainingError(MarketError):
    """Training cannot start or cannot go on."""


class MissingClassError(TrainingError):
    """A split has no row of one of the three classes."""


class DivergedError(TrainingError):
    """The loss is no longer a finite number."""


class InterruptedRunError(TrainingError):
    """Training was told to stop by a signal.

    Args:
        signal_number: The signal; the exit code is 128 more, as shells expect.
        found: What was interrupted, and where it stands.
        action: How to go on.
    """

    def __init__(
        self, symbol: str, timeframe: str, found: str, action: str, signal_number: int
    ) -> None:
        super().__init__(symbol, timeframe, found, action)
        self.args = (symbol, timeframe, found, action, signal_number)
        self.exit_code = 128 + signal_number


class ResumeError(TrainingError):
    """There is no interrupted run to resume, or it had another configuration."""


class StudyError(TrainingError):
    """A search for settings cannot begin, go on or find anything."""


class RegistryError(MarketError):
    """A saved model cannot be read or written."""


class ModelNotFoundError(RegistryError):
    """No model has been exported for the market."""


class InvalidArtifactError(RegistryError):
    """A file of a saved model is missing, changed or belongs elsewhere."""


class UnreadableArtifactError(InvalidArtifactError):
    """A file of a saved model cannot be read now: it is absent, or the system refuses it.

    What lies there may be whole, so whoever remembers this reads it again.
    """


class VersionRefusedError(RegistryError):
    """A version is whole but may not be served, or not be revised, as was asked."""


class RegistryWriteError(RegistryError):
    """The models folder refuses the new version."""
