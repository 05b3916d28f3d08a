"""An HTTP server of this machine, in a thread."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextmanager
def serving_http(handler: type[BaseHTTPRequestHandler]) -> Iterator[ThreadingHTTPServer]:
    """A server on a port of its own, for as long as the block lasts."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield http
        finally:
            http.shutdown()
            thread.join()


def url_of(http: ThreadingHTTPServer) -> str:
    return f"http://127.0.0.1:{http.server_port}"
