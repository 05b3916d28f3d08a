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


def ask(port: int, path: str, timeout: float = 30) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def test_hundreds_of_clients_that_read_nothing_keep_nobody_from_asking_for_health(tmp_path):
    with listening(tmp_path, connections=16) as port:
        deaf = [deaf_client(port, 60) for _ in range(16)]
        idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(100)]
        try:
            assert [ask(port, "/health")[0] for _ in range(3)] == [200] * 3
            status, body = ask(port, "/api/predictions")
            assert (status, json.loads(body)["error"]["code"]) == (503, "too_many_connections")
        finally:
            for client in deaf + idle:
                client.close()


def test_a_client_that_reads_nothing_gives_its_place_up(tmp_path, monkeypatch):
    monkeypatch.setattr(connections, "UNREAD_SECS", 0.4)
    with listening(tmp_path, connections=1) as port:
        client = deaf_client(port, 60)
        until = time.monotonic() + 30
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
                assert ask(server.port, "/health")[0] == 200
                time.sleep(0.2)
            # Nobody has read anything, and all of them have been let go.
            assert ask(server.port, "/api/predictions")[0] == 200
        assert "Traceback" not in server.log()
        assert server.stop() == 0


class Loop:
    """Keeps what is to be called later, with how soon."""

    def __init__(self) -> None:
        self.timers = []

    def call_later(self, secs, call):
        self.timers.append(Timer(secs, call))
        return self.timers[-1]

    def pending(self) -> list[str]:
        return [timer.call.__name__ for timer in self.timers if not timer.is_cancelled]


class Timer:
    def __init__(self, secs, call) -> None:
        self.secs, self.call, self.is_cancelled = secs, call, False

    def cancel(self) -> None:
        self.is_cancelled = True


class Transport:
    """One whose client never reads: it does not end when it is closed."""

    def __init__(self) -> None:
        self.said = []

    def abort(self) -> None:
        self.said.append("abort")

    def close(self) -> None:
        self.said.append("close")

    def is_closing(self) -> bool:
        return bool(self.said)

    def get_extra_info(self, name):
        return {"peername": ("127.0.0.1", 4711), "sockname": ("127.0.0.1", 80)}.get(name)

    def resume_reading(self) -> None:
        pass


@pytest.fixture
def connection():
    config = uvicorn.Config(lambda scope: None, lifespan="off", log_config=None)
    config.load()
    state = uvicorn.server.ServerState()
    make = connections.make_protocol(of_one=1)
    made = make(config=config, server_state=state, app_state={}, _loop=Loop())
    made.connection_made(Transport())
    return made


def test_a_client_that_says_nothing_is_closed_and_then_cut_off(connection):
    loop, transport = connection.loop, connection.transport
    assert loop.pending() == ["_close"]
    assert loop.timers[0].secs == connections.REQUEST_SECS
    loop.timers[0].call()
    # It may still read what has been written, but not for good.
    assert transport.said == ["close"]
    assert loop.pending()[-1] == "abort"
    assert loop.timers[-1].secs == connections.UNREAD_SECS
    # Its last bytes go out, and it still does not go.
    connection.resume_writing()
    assert loop.pending()[-1] == "abort"
    connection.connection_lost(None)
    assert loop.pending() == []


def test_a_client_that_asks_nothing_further_is_cut_off_too(connection):
    connection.timeout_keep_alive_handler()
    assert connection.loop.pending()[-1] == "abort"


def test_a_client_that_goes_on_reading_has_its_time_again(connection):
    loop = connection.loop
    connection.pause_writing()
    connection.pause_writing()
    assert loop.pending().count("abort") == 1
    connection.resume_writing()
    assert loop.pending().count("abort") == 0
    connection.pause_writing()
    assert loop.pending().count("abort") == 1


def test_a_place_is_free_again_when_its_connection_ends(connection):
    assert connection._has_place
    assert not connection._all.enter("this machine", "next", lambda: None)
    connection.connection_lost(None)
    assert connection._all.enter("this machine", "another", lambda: None)


def test_a_connection_of_the_reserve_ends_with_its_first_answer(tmp_path):
    with listening(tmp_path, connections=1) as port, socket.create_connection(("127.0.0.1", port)):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        until = time.monotonic() + 30
        while True:
            connection.request("GET", "/health")
            response = connection.getresponse()
            response.read()
            if response.headers["connection"] == "close" or time.monotonic() > until:
                break
            connection.close()
        assert (response.status, response.headers["connection"]) == (200, "close")
        connection.close()
