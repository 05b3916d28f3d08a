"""Every error percoin raises on purpose.

::

    PercoinError
    |-- ConfigError             a key or value in the settings is invalid
    |-- SweepError              jobs of a sweep failed, or a signal stopped it
    |-- InUseError              another running process uses the file or folder
    |-- ServeError              the prediction server cannot start
    |-- RecordError             the database of the track record cannot be used now
    |-- PoolError               these markets cannot be trained together; names all of them
    |-- MarketsError            some of several markets have a problem; names all of them
    `-- MarketError             one market and timeframe: what was found, what to do
        |-- DataError
        |   |-- BarsNotFoundError    nothing stored, no such file, no such symbol
        |   |-- InvalidBarsError     bars break the schema, or their file is unreadable
        |   |-- FetchError           the exchange or its archive is unreachable or refuses
        |   |-- NotEnoughBarsError   too short for the lookback and the splits
        |   `-- InvalidForecastsError  a file of forecasts that cannot be judged
        |-- OwnCodeError         a feature or label rule of the user's own fails, or its proof
        |-- TrainingError
        |   |-- MissingClassError    a split lacks one of the three classes
        |   |-- DivergedError        the loss is no longer a finite number
        |   |-- InterruptedRunError  Ctrl-C or SIGTERM; resume=true goes on
        |   |-- ResumeError          nothing to resume, or another configuration
        |   `-- StudyError           a search for settings cannot begin, go on or end
        `-- RegistryError
            |-- ModelNotFoundError   the market has no exported model
            |-- InvalidArtifactError a file is missing, changed or from another model
            |   `-- UnreadableArtifactError  a file cannot be read now, but may be intact
            |-- VersionRefusedError  the version may not be served or changed as asked
            `-- RegistryWriteError   the new version cannot be written to the models folder

A message is one line for people. A command prints it and exits with a non-zero code.
"""

from __future__ import annotations

from pathlib import Path

# Quote currencies of exchange markets.
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
    """A key or value on the command line or in the config is invalid."""


class SweepError(PercoinError):
    """A sweep ended with unfinished jobs.

    Args:
        message: Which jobs, where to look, how to go on.
        exit_code: 128 + signal if a signal ended it.
    """

    def __init__(self, message: str, exit_code: int = PercoinError.exit_code) -> None:
        super().__init__(message)
        self.args = (message, exit_code)
        self.exit_code = exit_code

    def __str__(self) -> str:
        return str(self.args[0])


class InUseError(PercoinError):
    """Another running process uses the file or folder; the message names both.

    Args:
        place: The file or folder.
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
    """The prediction server cannot listen on the given address."""


# Advice by the error text of SQLite or PostgreSQL. No advice loses a prediction.
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
    """The database of the track record is unreachable, locked, full or broken.

    Args:
        database: Its URL without the password.
        found: The database's error text, without a full stop.
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
    """Some markets got no new model, or one that should not be accepted.

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

    @property
    def without_market(self) -> str:
        """What was found and what to do, for a line that names the market already."""
        return f"{self.found}; {self.action}"

    def __str__(self) -> str:
        return f"{self.symbol} {self.timeframe}: {self.without_market}"


class DataError(MarketError):
    """The bars of a market cannot be used."""


class BarsNotFoundError(DataError):
    """No bars are stored or offered for the market."""

    def __str__(self) -> str:
        if any(self.symbol.endswith(name) and self.symbol != name for name in _QUOTE_CURRENCIES):
            return super().__str__()
        # Only a base currency, such as BTC.
        return f"{super().__str__()}; did you mean symbol={self.symbol}USDT?"


class InvalidBarsError(DataError):
    """Bars break the schema or their file cannot be read."""


class FetchError(DataError):
    """The exchange or its archive cannot be reached, or refuses to answer."""


class NotEnoughBarsError(DataError):
    """Too few bars for the lookback, the label horizon and the splits."""


class InvalidForecastsError(DataError):
    """A file of forecasts cannot be judged as it is."""


class OwnCodeError(MarketError):
    """A feature or label rule of the user's own fails on these bars, or fails its proof."""


class TrainingError(MarketError):
    """Training cannot start or cannot go on."""


class MissingClassError(TrainingError):
    """A split has no row of one of the three classes."""


class DivergedError(TrainingError):
    """The loss is no longer a finite number."""


class InterruptedRunError(TrainingError):
    """A signal stopped the training.

    Args:
        signal_number: The signal; the exit code is 128 plus this number, as shells expect.
        found: What was interrupted, and how far it got.
        action: How to go on.
    """

    def __init__(
        self, symbol: str, timeframe: str, found: str, action: str, signal_number: int
    ) -> None:
        super().__init__(symbol, timeframe, found, action)
        self.args = (symbol, timeframe, found, action, signal_number)
        self.exit_code = 128 + signal_number


class ResumeError(TrainingError):
    """No interrupted run exists, or it had another configuration."""


class StudyError(TrainingError):
    """A search for settings cannot begin, cannot go on or found nothing."""


class RegistryError(MarketError):
    """A saved model cannot be read or written."""


class ModelNotFoundError(RegistryError):
    """The market has no exported model."""


class InvalidArtifactError(RegistryError):
    """A file of a saved model is missing, changed or belongs to another model."""


class UnreadableArtifactError(InvalidArtifactError):
    """A file of a saved model is absent or cannot be read now.

    The file may be intact, so a caller that caches this error reads the file again.
    """


class VersionRefusedError(RegistryError):
    """A version is intact but may not be served or changed as asked."""


class RegistryWriteError(RegistryError):
    """The new version cannot be written to the models folder."""
