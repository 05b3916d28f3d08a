"""Files over HTTP from a server that may stall, refuse or hang up; retried and resumed."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from percoin.errors import FetchError
from percoin.printable import printable
from percoin.types import Timeframe

if TYPE_CHECKING:
    import requests

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

_PARTIAL = 206
_NOT_FOUND = 404
_RANGE_PAST_END = 416
_TOO_MANY_REQUESTS = 429
# The same request may succeed a minute later.
PASSING_STATUSES = frozenset({408, 425, _TOO_MANY_REQUESTS, 500, 502, 503, 504})
_REFUSALS = {
    403: "refuses this machine (403)",
    418: "has banned this address for asking too much (418)",
    451: "does not serve this place (451, unavailable for legal reasons)",
}

# A month of 1m bars is 2 MB; a text file of the archive is 100 bytes.
_LARGEST_FILE_BYTES = 32 * 1024**2
_LARGEST_TEXT_BYTES = 64 * 1024
# If the connection breaks off within a chunk, that chunk is lost.
_CHUNK_BYTES = 4 * 1024
_LONGEST_WAIT_SECS = 120.0
_MOST_CONNECTIONS = 64
# A server may send a byte now and then for ever; after so many timeouts the attempt is over.
_TIMEOUTS_PER_ATTEMPT = 10
# A machine without a network stays without for longer than all waits.
_UNREACHABLE_ATTEMPTS = 2
_MOST_CHARS = 200
_CHECK_ADDRESSES = (
    "check source.archive_url, source.api_url and the proxy of the environment; the server may "
    "also redirect to what is no address"
)


@dataclass(frozen=True)
class Patience:
    """How long to wait and how often to try.

    Attributes:
        timeout_secs: Without a byte from the server for so long, an attempt failed.
        attempts: How often one thing is asked for, the first time included.
        backoff_secs: Wait after the first failure; it doubles each time.
        sleep: Waits for so many seconds; None is the clock's own.
    """

    timeout_secs: float = 20.0
    attempts: int = 5
    backoff_secs: float = 1.0
    sleep: Callable[[float], None] | None = None


class PassingError(Exception):
    """An attempt failed, and another one may succeed; the message says how it failed.

    Args:
        reason: For people, without the name of the server.
        retry_after: The server's own words on when to ask again, if it had any.
        unreachable: Whether there was no connection at all.
    """

    def __init__(
        self, reason: str, retry_after: str | None = None, unreachable: bool = False
    ) -> None:
        super().__init__(reason)
        self.retry_after = retry_after
        self.unreachable = unreachable


class Persistence:
    """Retries for one market.

    Args:
        symbol: For the messages.
        timeframe: For the messages.
        patience: How often, how long.
    """

    def __init__(self, symbol: str, timeframe: Timeframe, patience: Patience) -> None:
        self.symbol = symbol
        self.timeframe = timeframe
        self.patience = patience
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """End all waits and allow no further attempt; may be called from other threads."""
        self._cancelled.set()

    def check_cancelled(self) -> None:
        """Stop here if ``cancel`` was called."""
        if self._cancelled.is_set():
            raise self.error("the download was broken off", "run the same command again")

    def insist(self, server: str, attempt: Callable[[], Result]) -> Result:
        """Call ``attempt`` until it does not raise ``PassingError``.

        Raises:
            FetchError: It never did, or the server asks for a longer wait than anybody likes.
        """
        for number in range(1, self.patience.attempts + 1):
            self.check_cancelled()
            try:
                return attempt()
            except PassingError as error:
                last = number == self.patience.attempts
                hopeless = error.unreachable and number >= _UNREACHABLE_ATTEMPTS
                if last or hopeless:
                    raise self._given_up(server, error, number) from error
                self._wait(server, error, number)
        raise AssertionError("attempts is at least 1")

    def error(self, found: str, action: str) -> FetchError:
        """The error for this market."""
        return FetchError(self.symbol, self.timeframe, found, action)

    def refusal(self, server: str, status: int) -> FetchError:
        """The error for a status that a retry does not change."""
        found = f"{server} {_REFUSALS.get(status, f'answers with status {status}')}"
        return self.error(found, "use another network or address, or wait")

    def meaning_of(self, server: str, error: Exception) -> FetchError | PassingError:
        """The error to raise for a failed request: one to retry, or a final one."""
        import requests

        if isinstance(error, requests.RequestException) and not isinstance(
            error, (ValueError, requests.TooManyRedirects)
        ):
            return passing_error(error, self.patience.timeout_secs)
        found = f"{server} cannot be asked ({printable(str(error), _MOST_CHARS)})"
        if isinstance(error, (ValueError, requests.TooManyRedirects)):
            # Of requests, of urllib3 below it, or of Python's codecs.
            return self.error(found, _CHECK_ADDRESSES)
        # Of requests, before it connects: the file of trusted authorities is not there.
        return self.error(found, "correct REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE in the environment")

    def _given_up(self, server: str, error: PassingError, number: int) -> FetchError:
        if error.unreachable:
            return self.error(f"{server} cannot be reached ({error})", "check the connection")
        found = f"{server} failed {number} times ({error})"
        return self.error(found, "run the same command again later; what is complete is kept")

    def _wait(self, server: str, error: PassingError, number: int) -> None:
        secs = self.patience.backoff_secs * 2 ** (number - 1)
        asked_for = _seconds(error.retry_after)
        if asked_for is not None and asked_for > _LONGEST_WAIT_SECS:
            found = f"{server} asks to be left alone for {asked_for:.0f} s ({error})"
            raise self.error(found, "run the same command again after that")
        if asked_for is not None:
            secs = asked_for
        logger.debug("%s: %s, trying again in %.1f s", server, error, secs)
        if self.patience.sleep is not None:
            self.patience.sleep(secs)
        else:
            self._cancelled.wait(secs)


class Transfer:
    """Files of one server, resumed where they broke off.

    Args:
        persistence: For which market, how patiently.
    """

    def __init__(self, persistence: Persistence) -> None:
        import requests

        self._persistence = persistence
        self._session = requests.Session()
        for scheme in ("http://", "https://"):
            adapter = requests.adapters.HTTPAdapter(pool_maxsize=_MOST_CONNECTIONS)
            self._session.mount(scheme, adapter)
        # Compressed once more on the way, a file could not be resumed.
        self._session.headers["Accept-Encoding"] = "identity"

    def text(self, url: str) -> str | None:
        """A small text; None if there is no such file.

        Raises:
            FetchError: It cannot be had.
        """
        return self._persistence.insist(_server(url), lambda: self._read_text(url))

    def file(self, url: str, part: Path) -> bool:
        """Download into ``part``, after the bytes that an earlier attempt left there.

        Returns:
            Whether there is such a file.

        Raises:
            FetchError: It cannot be had; what came is kept in ``part``.
        """
        return self._persistence.insist(_server(url), lambda: self._read_file(url, part))

    def _read_text(self, url: str) -> str | None:
        with self._answer(url) as response:
            if response.status_code == _NOT_FOUND:
                return None
            content = b"".join(self._chunks(response, _LARGEST_TEXT_BYTES))
        return content.decode("ascii", errors="replace")

    def _read_file(self, url: str, part: Path) -> bool:
        n_before = part.stat().st_size if part.is_file() else 0
        with self._answer(url, n_before) as response:
            status, content_range = response.status_code, response.headers.get("Content-Range", "")
            if status == _NOT_FOUND:
                return False
            if status == _RANGE_PAST_END:
                if content_range == f"bytes */{n_before}":
                    return True
                part.unlink()
                raise PassingError("the file changed on the server")
            # A server that does not resume sends all of it, whatever the status is.
            goes_on = status == _PARTIAL and content_range.startswith(f"bytes {n_before}-")
            if status == _PARTIAL and not goes_on:
                part.unlink()
                raise PassingError("another part than asked for")
            room = _LARGEST_FILE_BYTES - (n_before if goes_on else 0)
            with part.open("ab" if goes_on else "wb") as file:
                for chunk in self._chunks(response, room):
                    file.write(chunk)
        return True

    @contextmanager
    def _answer(self, url: str, n_before: int = 0) -> Iterator[requests.Response]:
        """The response to a request for all but the first bytes, its errors sorted."""
        import requests

        headers = {"Range": f"bytes={n_before}-"} if n_before else {}
        timeout = self._persistence.patience.timeout_secs
        # Redirects are responses too, and have to be closed.
        came: list[requests.Response] = []
        hooks = {"response": lambda response, **_: came.append(response)}
        with ExitStack() as stack:
            stack.callback(_close_all, came)
            try:
                response = self._session.get(
                    url, headers=headers, timeout=timeout, stream=True, hooks=hooks
                )
            except (requests.RequestException, OSError, ValueError) as error:
                raise self._persistence.meaning_of(_server(url), error) from error
            self._check_status(url, response, {_PARTIAL, _RANGE_PAST_END} if n_before else set())
            try:
                yield response
            except requests.RequestException as error:
                raise passing_error(error, timeout) from error

    def _check_status(
        self, url: str, response: requests.Response, of_ranges: AbstractSet[int]
    ) -> None:
        status = response.status_code
        if status in PASSING_STATUSES:
            raise PassingError(f"status {status}", response.headers.get("Retry-After"))
        if status not in {200, _NOT_FOUND} | of_ranges:
            raise self._persistence.refusal(_server(url), status)

    def _chunks(self, response: requests.Response, limit: int) -> Iterator[bytes]:
        """The body, within a limit of bytes and of time."""
        timeout = self._persistence.patience.timeout_secs
        deadline = time.monotonic() + timeout * _TIMEOUTS_PER_ATTEMPT
        n_bytes = 0
        for chunk in response.iter_content(_CHUNK_BYTES):
            self._persistence.check_cancelled()
            n_bytes += len(chunk)
            if n_bytes > limit:
                found = f"{Path(response.url).name} is larger than any file of the archive"
                raise self._persistence.error(found, "check source.archive_url")
            if time.monotonic() > deadline:
                raise PassingError(f"only {n_bytes:,} bytes came in time")
            yield chunk


def _close_all(responses: Iterable[requests.Response]) -> None:
    for response in responses:
        response.close()


def is_address(url: str) -> bool:
    """Whether ``url`` is an address of the web: http or https, a host, and a port if any."""
    try:
        parts = urlsplit(url)
        # Reading the port checks it, encoding the host that it is a name.
        host = (parts.hostname or "").encode("idna")
        return parts.scheme in {"http", "https"} and bool(host) and parts.port != 0
    except ValueError:
        return False


def is_no_connection(error: BaseException) -> bool:
    """Whether an error of ``requests`` says that there was no connection at all."""
    from urllib3.exceptions import MaxRetryError

    return bool(error.args) and isinstance(error.args[0], MaxRetryError)


def passing_error(error: requests.RequestException, timeout_secs: float) -> PassingError:
    """What an error of ``requests`` means, in words for people."""
    import requests

    unreachable = is_no_connection(error)
    if isinstance(error, requests.Timeout):
        return PassingError(f"no answer within {timeout_secs:g} s", unreachable=unreachable)
    if unreachable:
        return PassingError("no connection", unreachable=True)
    return PassingError("the connection broke off")


def _server(url: str) -> str:
    return urlsplit(url).netloc


def _seconds(retry_after: str | None) -> float | None:
    """What a Retry-After header asks for: seconds or a date (RFC 9110, section 10.2.3)."""
    if retry_after is None:
        return None
    # \d would also match digits of other alphabets.
    if re.fullmatch(r"\s*[0-9]{1,9}\s*", retry_after):
        return float(retry_after)
    try:
        moment = parsedate_to_datetime(retry_after)
        now = datetime.now(UTC if moment.tzinfo else None)
        return max(0.0, (moment - now).total_seconds())
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
