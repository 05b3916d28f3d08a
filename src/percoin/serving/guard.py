"""Middleware before every route: API key, host check, rate limits, and security headers."""

from __future__ import annotations

import hmac
import ipaddress
import json
import logging
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from percoin.serving.questions import RefusedError, shown
from percoin.serving.telemetry import Telemetry

log = logging.getLogger(__name__)

HEALTH = "/health"
# The page and its files need no key, because they hold no data. The page asks for the key.
PAGE = "/"
PAGE_FILES = "/page/"
# Whether the response may name the problems of single markets.
TRUSTED = "percoin.trusted"
# Marks a request on a connection beyond the limit; it may only ask for ``HEALTH``.
RESERVE = "percoin.reserve"

_CLIENTS_REMEMBERED = 10_000
_HEADERS = {
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-resource-policy": b"same-origin",
    b"cross-origin-opener-policy": b"same-origin",
    b"cache-control": b"no-store",
}


@dataclass(frozen=True)
class Limits:
    """Limits for one client.

    Attributes:
        requests_per_sec: Average rate; a burst may hold twice this number.
        max_query_chars: Maximum length of a query string.
        max_symbols: Maximum number of symbols in one request.
        connections: Maximum number of open connections.
    """

    requests_per_sec: float = 300.0
    max_query_chars: int = 2000
    max_symbols: int = 100
    connections: int = 64


def client_of(address: str) -> str:
    """Name the client behind an address; its limits apply to all its addresses.

    One machine can use many addresses: this machine has all of 127.0.0.0/8, and an IPv6
    client can take any of the 2**64 addresses of its network.
    """
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        parsed = parsed.ipv4_mapped or parsed
    if parsed.is_loopback:
        return "this machine"
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((int(parsed) >> 64 << 64, 64)))
    return str(parsed)


class RateLimiter:
    """Token bucket for each client: one token per request, refilled at a steady rate.

    Args:
        per_sec: Tokens per second; a bucket holds the tokens of two seconds, at least one.
        clock: Gives the time in seconds.
    """

    def __init__(self, per_sec: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_sec = per_sec
        self._size = max(1.0, 2 * per_sec)
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait_secs(self, client: str) -> float:
        """Take one token of a client; return 0, or the seconds to wait if the bucket is empty."""
        now = self._clock()
        left, since = self._buckets.pop(client, (self._size, now))
        left = min(self._size, left + (now - since) * self._per_sec)
        wait = 0.0 if left >= 1 else (1 - left) / self._per_sec
        self._buckets[client] = (left if wait else left - 1, now)
        if len(self._buckets) > _CLIENTS_REMEMBERED:
            self._buckets.popitem(last=False)
        return wait


class Guard:
    """ASGI middleware that checks each request and adds security headers to each response.

    Args:
        app: The wrapped application.
        limits: Limits per client.
        telemetry: Counts every request.
        api_key: Key that every address needs, except ``HEALTH`` and the page, which holds no
            data; None needs no key.
        hosts: Allowed host names if there is no key. This stops DNS rebinding: a page of
            another site whose name points to this machine.
    """

    def __init__(
        self,
        app: ASGIApp,
        limits: Limits,
        telemetry: Telemetry,
        api_key: str | None,
        hosts: Collection[str],
    ) -> None:
        self._app = app
        self._max_query_chars = limits.max_query_chars
        self._limiter = RateLimiter(limits.requests_per_sec)
        # A separate limiter: health checks work even if the same client sends many requests.
        self._health_limiter = RateLimiter(limits.requests_per_sec)
        self._telemetry = telemetry
        self._api_key = None if api_key is None else api_key.encode()
        self._hosts = {host.lower().encode() for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status = 0

        async def send_guarded(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *_missing(message["headers"])]
                if _is_in_reserve(scope):
                    message["headers"].append((b"connection", b"close"))
            await send(message)

        try:
            try:
                self._check(scope)
                await self._app(scope, receive, send_guarded)
            except RefusedError as refusal:
                await _send_problem(send_guarded, refusal)
            except Exception:
                number = secrets.token_hex(4)
                log.exception("REQUEST %s failed, number %s", shown(scope["path"]), number)
                if not status:
                    await _send_problem(send_guarded, _failure(number))
        finally:
            route = getattr(scope.get("route"), "path", "other")
            seconds = time.perf_counter() - began
            self._telemetry.count_request(route, scope["method"], status, seconds)

    def _check(self, scope: Scope) -> None:
        """Check that a request is allowed.

        Raises:
            RefusedError: The request is not allowed.
        """
        headers: dict[bytes, bytes] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name, value)
        is_health = scope["path"] == HEALTH
        if _is_in_reserve(scope) and not is_health:
            message = "too many connections are open; close some of yours, or come back later"
            raise RefusedError(503, "too_many_connections", message)
        client = client_of(scope["client"][0]) if scope.get("client") else ""
        wait = (self._health_limiter if is_health else self._limiter).wait_secs(client)
        if wait:
            message = f"too many requests; the next one may come in {wait:.2f} s"
            raise RefusedError(429, "too_many_requests", message)
        self._check_host(headers)
        scope[TRUSTED] = self._has_key(headers)
        if not scope[TRUSTED] and not _is_open(scope["path"]):
            message = "send the server's key as X-API-Key or as Authorization: Bearer"
            raise RefusedError(401, "unauthorized", message)
        if len(scope["query_string"]) > self._max_query_chars:
            message = f"the query is longer than {self._max_query_chars} characters"
            raise RefusedError(414, "query_too_long", message)

    def _check_host(self, headers: Mapping[bytes, bytes]) -> None:
        given = headers.get(b"host", b"")
        if self._api_key is None and _host_name(given) not in self._hosts:
            known = ", ".join(sorted(host.decode() for host in self._hosts))
            message = (
                f"the Host header {shown(given.decode('latin-1'))} does not name this server: "
                f"ask for {known}, or start it with PERCOIN_API_KEY, which allows any name"
            )
            raise RefusedError(400, "unknown_host", message)

    def _has_key(self, headers: Mapping[bytes, bytes]) -> bool:
        if self._api_key is None:
            return True
        scheme, _, bearer = headers.get(b"authorization", b"").partition(b" ")
        given = bearer.strip() if scheme.lower() == b"bearer" else b""
        # Both comparisons always run, in constant time, so that timing reveals nothing.
        is_bearer = hmac.compare_digest(given, self._api_key)
        is_named = hmac.compare_digest(headers.get(b"x-api-key", b""), self._api_key)
        return is_bearer or is_named


def _host_name(header: bytes) -> bytes:
    """The lower-case Host header without its port; the whole header if the port is no number."""
    whole = header.lower()
    name, colon, port = whole.rpartition(b":")
    is_port = bool(colon) and (port.isdigit() or not port)
    return name if is_port else whole


def _is_in_reserve(scope: Scope) -> bool:
    return bool(scope.get("state", {}).get(RESERVE))


def _is_open(path: str) -> bool:
    return path in (HEALTH, PAGE) or path.startswith(PAGE_FILES)


def problem_json(refusal: RefusedError) -> bytes:
    """The JSON body of a refusal."""
    return json.dumps({"error": {"code": refusal.code, "message": refusal.message}}).encode()


def _failure(number: str) -> RefusedError:
    message = f"the server failed at this request; its log says why, under number {number}"
    return RefusedError(500, "internal_error", message)


def _missing(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The security headers that a response does not set itself."""
    brought = {name.lower() for name, _ in headers}
    return [(name, value) for name, value in _HEADERS.items() if name not in brought]


async def _send_problem(send: Send, refusal: RefusedError) -> None:
    body = problem_json(refusal)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    if refusal.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if refusal.status == 405:
        headers.append((b"allow", b"GET"))
    if refusal.status == 429:
        headers.append((b"retry-after", b"1"))
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
