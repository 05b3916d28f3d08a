"""A receiver of alerts on this machine, which can refuse them and hang."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

from local_http import serving_http, url_of


class AlertReceiver:
    """What came in a webhook and in messages, and how the next request is answered.

    Attributes:
        url: Of the server.
        status: Answered to every request; while it is 0 requests hang, and none of them is taken.
        alerts: What was taken by the webhook.
        messages: Bodies that were taken anywhere else, as Apprise's ``json://`` sends them.
        n_requests: All of them, refused ones too.
        is_garbled: Whether a line among the headers of the answer is none.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.status = 200
        self.alerts: list[dict] = []
        self.messages: list[dict] = []
        self.n_requests = 0
        self.is_garbled = False
        self.has_ended = threading.Event()

    @property
    def kinds(self) -> list[str]:
        return [alert["kind"] for alert in self.alerts]


@contextmanager
def receiving() -> Iterator[AlertReceiver]:
    """A receiver on a port of its own, for as long as the block lasts."""
    with serving_http(_Handler) as http:
        receiver = AlertReceiver(url_of(http))
        http.receiver = receiver  # type: ignore[attr-defined]
        try:
            yield receiver
        finally:
            receiver.has_ended.set()


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        receiver: AlertReceiver = self.server.receiver  # type: ignore[attr-defined]
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        receiver.n_requests += 1
        if not receiver.status:
            while not receiver.status and not receiver.has_ended.wait(0.05):
                pass
            self.close_connection = True  # whoever sent this has given up, or shall
            return
        status = receiver.status
        if status // 100 == 2:
            is_webhook = "/hook/" in self.path
            (receiver.alerts if is_webhook else receiver.messages).extend(
                body["alerts"] if is_webhook else [body]
            )
        try:
            self.send_response(status)
            if status // 100 == 3:
                self.send_header("Location", "/hook/elsewhere")
            if receiver.is_garbled:
                self.flush_headers()
                self.wfile.write(b"this is no header\r\n")
            self.send_header("Content-Length", "0")
            self.end_headers()
        except OSError:
            self.close_connection = True  # the server was killed

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""
