"""Clients that do not read, and clients that come in hundreds."""

import http.client
import json
import socket
import threading
import time
from contextlib import ExitStack, closing, contextmanager, suppress

import pytest
import uvicorn
from small_servers import (
    Market,
    RunningServer,
    bring_up_to_date,
    exchange_bars,
    make_server,
)

from percoin.serving import connections
from percoin.serving.connections import Connections
from percoin.serving.guard import Limits, client_of
from percoin.serving.server import http_config

ALL = b"GET /api/bars/BTCUSDT?tf=15m&limit=1000 HTTP/1.1\r\nHost: localhost\r\n\r\n"


@contextmanager
def listening(tmp_path, **limits):
    """A server on a free port of this machine, in a thread of its own; gives the port."""
    market = Market(exchange_bars(1300), n_closed=1290)
    server = make_server(tmp_path, market, limits=Limits(requests_per_sec=1e6, **limits))
    bring_up_to_date(server)
    http_server = uvicorn.Server(http_config(server, stop_secs=1))
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        thread = threading.Thread(target=http_server.run, args=([listener],))
        thread.start()
        try:
            until = time.monotonic() + 10
            while not http_server.started and time.monotonic() < until:
                time.sleep(0.01)
            yield listener.getsockname()[1]
        finally:
            http_server.should_exit = True
            thread.join(20)
    assert not thread.is_alive()


def deaf_client(port: int, n_requests: int = 400) -> socket.socket:
    """Sends requests for 100 kB each and reads none of the responses."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", port))
    client.settimeout(0.2)
    # The server may have stopped reading, or have let go: both are right.
    with suppress(OSError):
        client.sendall(ALL * n_requests)
    return client


def ask(port: int, path: str, timeout: float = 5) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def test_hundreds_of_clients_that_read_nothing_keep_nobody_from_asking_for_health(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(connections, "UNREAD_SECS", 1.5)
    monkeypatch.setattr(connections, "REQUEST_SECS", 1.0)
    with listening(tmp_path, connections=16) as port:
        deaf = [deaf_client(port, 60) for _ in range(16)]
        idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(100)]
        try:
            assert [ask(port, "/health")[0] for _ in range(10)] == [200] * 10
            status, body = ask(port, "/api/predictions")
            assert (status, json.loads(body)["error"]["code"]) == (503, "too_many_connections")
            # What nobody reads is given up, and the places are free again.
            until = time.monotonic() + 8
            while ask(port, "/api/predictions")[0] != 200 and time.monotonic() < until:
                time.sleep(0.1)
            assert ask(port, "/api/predictions")[0] == 200
        finally:
            for client in deaf + idle:
                client.close()


def test_a_response_that_is_read_slowly_is_whole(tmp_path, monkeypatch):
    """Longer in all than nobody would be waited for, but read all the time."""
    monkeypatch.setattr(connections, "UNREAD_SECS", 0.4)
    with listening(tmp_path) as port:
        client = deaf_client(port, 60)
        client.settimeout(5)
        began, n_read = time.monotonic(), 0
        while time.monotonic() - began < 0.9:
            n_read += len(client.recv(65_536))
            time.sleep(0.002)
        assert n_read > 200_000
        assert client.recv(10) != b""
        client.close()


def test_a_client_that_reads_nothing_is_let_go_even_after_its_last_response(tmp_path, monkeypatch):
    """A close that waits for the reader would wait for good."""
    monkeypatch.setattr(connections, "UNREAD_SECS", 0.4)
    monkeypatch.setattr(connections, "REQUEST_SECS", 0.2)
    with listening(tmp_path, connections=1) as port:
        client = deaf_client(port, 60)
        until = time.monotonic() + 5
        while ask(port, "/api/predictions")[0] != 200:
            assert time.monotonic() < until, "the place was never free again"
            time.sleep(0.05)
        client.close()


def test_each_client_has_its_places_and_the_newest_of_the_reserve_is_let_in():
    closed = []
    counted = Connections(of_one=2, in_all=3, clock=lambda: 0.0)

    def enter(client, name):
        return counted.enter(client, name, lambda: closed.append(name))

    assert [enter("a", f"a{k}") for k in range(3)] == [True, True, False]
    assert [enter("b", f"b{k}") for k in range(2)] == [True, False]
    assert [enter("a", f"a{k}") for k in range(3, 8)] == [False] * 5
    # Four of a client wait in the reserve; those of another stay.
    assert closed == ["a2", "a3"]
    counted.leave("a", "a0", had_place=True)
    assert enter("b", "b2") is True
    counted.leave("b", "b1", had_place=False)
    for number in range(60):
        enter(f"c{number}", f"c{number}")
    # The reserve is full, whoever fills it: the oldest makes room.
    assert closed[2:6] == ["a4", "a5", "a6", "a7"]


def test_full_is_said_once_a_minute_with_the_setting_that_says_how_many(caplog):
    now = [0.0]
    counted = Connections(of_one=0, clock=lambda: now[0])
    for moment in (0.0, 1.0, 59.0, 61.0):
        now[0] = moment
        counted.enter("10.0.0.1", moment, lambda: None)
    assert caplog.text.count("10.0.0.1 has 0 of limits.connections=0") == 2


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("127.0.0.1", "127.8.9.10", True),
        ("127.0.0.1", "::1", True),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("2001:db8::1", "2001:db8::ffff:1:2:3", True),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("10.0.0.1", "10.0.0.2", False),
        ("testclient", "127.0.0.1", False),
    ],
)
def test_a_client_is_a_machine_whatever_its_address(one, other, is_same):
    assert (client_of(one) == client_of(other)) is is_same


@pytest.mark.slow
def test_330_connections_of_one_address_that_read_nothing_leave_health_alone(tmp_path):
    """As somebody did it: a real server with its own settings, and pipelined requests."""
    arguments = ("source=simulated", "source.n_bars=1300", "symbol=BTCUSDT", "tf=15m")
    with RunningServer(tmp_path, *arguments, "record=false") as server:
        server.wait_until_started()
        with ExitStack() as stack:
            for _ in range(330):
                stack.enter_context(closing(deaf_client(server.port, 60)))
            until = time.monotonic() + connections.UNREAD_SECS + 10
            while time.monotonic() < until:
                assert ask(server.port, "/health", timeout=20)[0] == 200
                time.sleep(0.2)
            # Nobody has read anything, and all of them have been let go.
            assert ask(server.port, "/api/predictions", timeout=20)[0] == 200
        assert "Traceback" not in server.log()
        assert server.stop() == 0
