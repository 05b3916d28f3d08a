"""Where alerts go: a webhook, and message services through Apprise.

An address holds a secret, and so may the text of an error about it: neither is ever told.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from threading import Event, Thread

import requests

from percoin.errors import ConfigError
from percoin.json_codec import dumps
from percoin.serving.alert_book import AlertBook
from percoin.serving.alerts import Alert

log = logging.getLogger(__name__)

# Few enough for the shortest messages that services take.
_MOST_AT_ONCE = 10

# Sends alerts; returns why they were not taken, empty if they were.
Send = Callable[[Sequence[Alert]], str]


def webhook(url: str, timeout_secs: float) -> Send:
    """Sends alerts as ``{"alerts": [...]}`` in a POST; a status from 200 to 299 takes them."""
    _keep_addresses_out_of_logs()

    def send(alerts: Sequence[Alert]) -> str:
        body = dumps({"alerts": alerts}, indent=None).encode()
        headers = {"Content-Type": "application/json"}
        try:
            response = requests.post(
                url,
                body,
                headers=headers,
                timeout=timeout_secs,
                allow_redirects=False,
                stream=True,  # its body is not waited for
            )
        except (OSError, ValueError) as error:  # all of requests' errors, and those of its parts
            return type(error).__name__
        response.close()
        return "" if response.status_code // 100 == 2 else f"status {response.status_code}"

    return send


def message(url: str) -> Send:
    """Sends alerts as one message to an address of Apprise.

    Raises:
        ConfigError: Apprise knows no such address.
    """
    import apprise

    _keep_addresses_out_of_logs()
    service = apprise.Apprise()
    if not service.add(url):
        raise ConfigError("Apprise knows no such address")

    def send(alerts: Sequence[Alert]) -> str:
        title = f"percoin: {len(alerts)} alert{'s' if len(alerts) > 1 else ''}"
        body = "\n".join(alert.text for alert in alerts)
        try:
            is_sent = service.notify(body, title)
        except Exception as error:  # noqa: BLE001 - more than a hundred services, each with its own
            return type(error).__name__
        return "" if is_sent else "not delivered"

    return send


def _keep_addresses_out_of_logs() -> None:
    """Silence the libraries that name them, urllib3 where a receiver's headers are broken."""
    for name in ("apprise", "urllib3.connection"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


class Sender:
    """Brings one receiver what waits for it, in a thread of its own; begins at once.

    Args:
        name: Of the receiver, as the book and the log call it.
        send: See ``Send``.
        book: Knows what waits.
        retry_secs: To the next try after a failure; doubled after each further one.
        max_retry_secs: Longest time between two tries.
        on_event: Called with ``sent`` or ``failed``, and a count.
    """

    def __init__(
        self,
        name: str,
        send: Send,
        book: AlertBook,
        retry_secs: float,
        max_retry_secs: float,
        on_event: Callable[[str, int], None],
    ) -> None:
        self._name = name
        self._send = send
        self._book = book
        self._retry_secs = retry_secs
        self._max_retry_secs = max_retry_secs
        self._on_event = on_event
        self._pause_secs = 0.0
        self._woken, self._stopped = Event(), Event()
        self._thread = Thread(target=self._work, name=f"percoin-{name}", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Something may wait."""
        self._woken.set()

    def stop(self) -> None:
        """Stop after what is being sent."""
        self._stopped.set()
        self._woken.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._stopped.is_set():
            self._woken.clear()
            waiting = self._book.waiting(self._name)
            if waiting:
                self._try(waiting[:_MOST_AT_ONCE], len(waiting))
                self._stopped.wait(self._pause_secs)
            else:
                self._woken.wait()

    def _try(self, alerts: Sequence[Alert], n_waiting: int) -> None:
        problem = self._send(alerts)
        if problem:
            # Logged once, until it works again.
            level = logging.DEBUG if self._pause_secs else logging.WARNING
            log.log(level, "ALERTS to %s failed: %s; %d wait", self._name, problem, n_waiting)
            doubled = max(self._retry_secs, 2 * self._pause_secs)
            self._pause_secs = min(doubled, self._max_retry_secs)
            self._on_event("failed", 1)
            return
        if self._pause_secs:
            log.info("ALERTS are sent again to %s", self._name)
        self._pause_secs = 0.0
        try:
            self._book.sent(self._name, alerts)
        except OSError as error:
            log.warning("ALERTS: a restart may send some to %s again: %s", self._name, error)
        self._on_event("sent", len(alerts))
