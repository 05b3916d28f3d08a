import json

import pytest
from small_servers import Market, ask, bring_up_to_date, exchange_bars, make_server

from percoin.serving.guard import Limits, RateLimiter

KEY = "a-secret-of-the-tests"
ROUTES = [
    "/api/predictions",
    "/api/predictions/BTCUSDT",
    "/api/predictions/BTCUSDT/summary",
    "/api/models",
    "/metrics",
    "/openapi.json",
    "/nothing-here",
]


@pytest.fixture(scope="module")
def market() -> Market:
    return Market(exchange_bars(30), n_closed=20)


@pytest.fixture(scope="module")
def server(tmp_path_factory, market):
    server = make_server(tmp_path_factory.mktemp("models"), market)
    bring_up_to_date(server)
    return server


@pytest.fixture(scope="module")
def locked(tmp_path_factory, market):
    server = make_server(tmp_path_factory.mktemp("models"), market, api_key=KEY)
    bring_up_to_date(server)
    return server


def code_of(response) -> str:
    assert response.headers["content-type"] == "application/json"
    return response.json()["error"]["code"]


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-API-Key": ""},
        {"X-API-Key": KEY[:-1]},
        {"X-API-Key": KEY + "x"},
        {"Authorization": f"Basic {KEY}"},
        {"Authorization": "Bearer"},
        {"Authorization": f"Bearer {KEY[:-1]}"},
        {"Authorization": f"Bearer {KEY}x"},
        {"Authorization": f"Bearer {KEY} {KEY}"},
        {"Authorization": f"Bearer {KEY.upper()}"},
        {"Cookie": f"X-API-Key={KEY}"},
    ],
    ids=str,
)
def test_without_the_key_there_is_nothing(locked, path, headers):
    response = ask(locked, path, headers)
    assert (response.status_code, code_of(response)) == (401, "unauthorized")
    assert response.headers["www-authenticate"] == "Bearer"
    assert KEY not in response.text


@pytest.mark.parametrize("path", ROUTES[:-1])
@pytest.mark.parametrize(
    "headers", [{"X-API-Key": KEY}, {"Authorization": f"Bearer {KEY}"}], ids=str
)
def test_with_the_key_everything_is_there_under_any_name(locked, path, headers):
    assert ask(locked, path, {**headers, "Host": "percoin.example.org"}).status_code == 200


def test_health_needs_no_key_and_says_no_market_without_it(locked):
    plain = ask(locked, "/health").json()
    assert plain["markets"]["configured"] == 2
    assert "failing" not in plain
    assert ask(locked, "/health", {"X-API-Key": KEY}).json()["failing"] == []


def test_the_document_says_how_the_key_is_sent(locked, server):
    document = ask(locked, "/openapi.json", {"X-API-Key": KEY}).json()
    assert document["security"] == [{"key": []}, {"bearer": []}]
    assert document["paths"]["/health"]["get"]["security"] == []
    assert "security" not in ask(server, "/openapi.json").json()


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example.org", "evil.example.org:8000", "", ":", ":8000", "127.0.0.1.a.b"),
        *("[::1].evil.com", "[::1]evil.com", "[::1]:80.evil.com", "[::1", "[]", "::1"),
        *("localhost:80:80", "localhost:80.evil.com", "localhost:evil.com", "localhost:-1"),
        *("localhost.evil.com", "evil.com#localhost", "user@localhost", "localhost/evil"),
        *("localhost,evil.com", "localhost evil.com", "localhost:\xb2", "[::2]", "127.0.0.2"),
    ],
)
def test_a_page_whose_name_leads_here_gets_nothing(server, host):
    response = ask(server, "/api/predictions", {"Host": host.encode("latin-1")})
    assert (response.status_code, code_of(response)) == (400, "unknown_host")
    assert "PERCOIN_API_KEY" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    "host",
    ["localhost", "127.0.0.1:8000", "LOCALHOST:1", "localhost:", "[::1]", "[::1]:8000", "[::1]:"],
)
def test_this_machine_is_known_by_its_names(server, host):
    assert ask(server, "/api/predictions", {"Host": host}).status_code == 200


def test_the_query_has_a_longest_length(server):
    fits = "symbols=" + ",".join(["BTCUSDT"] * 100)
    assert ask(server, f"/api/predictions?{fits}").status_code == 200
    response = ask(server, f"/api/predictions?symbols={'A' * 2000}")
    assert (response.status_code, code_of(response)) == (414, "query_too_long")


@pytest.mark.parametrize("path", [*ROUTES, "/health", "/api/predictions?tf=2h"])
def test_every_response_tells_browsers_to_keep_to_themselves(server, path):
    headers = ask(server, path, {"Origin": "https://evil.example.org"}).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers["cache-control"] == "no-store"
    assert "server" not in headers
    assert not [name for name in headers if name.startswith("access-control")]


def test_no_other_site_may_ask_first_either(server):
    headers = {"Origin": "https://evil.example.org", "Access-Control-Request-Method": "GET"}
    response = ask(server, "/api/predictions", headers, method="OPTIONS")
    assert response.status_code == 405
    assert not [name for name in response.headers if name.startswith("access-control")]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "HEAD", "BREW"])
def test_there_is_nothing_to_change(server, method):
    response = ask(server, "/api/models", method=method)
    assert response.status_code == 405
    assert response.headers["allow"] == "GET"
    if method == "BREW":
        metrics = ask(server, "/metrics").text
        assert 'method="other"' in metrics
        assert "BREW" not in metrics


def test_a_failure_says_a_number_and_the_log_the_rest(server, monkeypatch, caplog):
    def fail(*_arguments):
        raise ZeroDivisionError("a bug in /srv/percoin/app.py")

    monkeypatch.setattr(server.board, "text", fail)
    response = ask(server, "/api/predictions/BTCUSDT")
    assert (response.status_code, code_of(response)) == (500, "internal_error")
    assert response.headers["x-content-type-options"] == "nosniff"
    for word in ("Traceback", "ZeroDivisionError", "a bug", "/srv", ".py"):
        assert word not in response.text
    number = response.json()["error"]["message"].rpartition(" ")[2]
    assert f"number {number}" in caplog.text
    assert "a bug in /srv/percoin/app.py" in caplog.text
    metrics = ask(server, "/metrics").text
    assert (
        'percoin_http_requests_total{method="GET",route="/api/predictions/{symbol}",status="500"} 1'
        in metrics
    )


def test_each_client_has_its_own_bucket():
    now = [0.0]
    limiter = RateLimiter(2.0, lambda: now[0])
    assert [limiter.wait_secs("a") for _ in range(5)] == [0, 0, 0, 0, 0.5]
    assert limiter.wait_secs("b") == 0
    now[0] = 0.5
    assert [limiter.wait_secs("a") for _ in range(2)] == [0, 0.5]
    now[0] = 100.0
    assert [limiter.wait_secs("a") for _ in range(5)] == [0, 0, 0, 0, 0.5]


def test_a_slow_rate_still_lets_one_request_in():
    now = [0.0]
    limiter = RateLimiter(0.1, lambda: now[0])
    assert limiter.wait_secs("a") == 0
    assert limiter.wait_secs("a") == pytest.approx(10)
    now[0] = 10.1
    assert limiter.wait_secs("a") == 0


def test_clients_are_forgotten_before_they_fill_the_memory():
    limiter = RateLimiter(1.0)
    for number in range(10_500):
        limiter.wait_secs(str(number))
    assert len(limiter._buckets) == 10_000


def test_one_client_that_asks_too_often_does_not_keep_others_out(tmp_path, market):
    server = make_server(tmp_path, market, limits=Limits(requests_per_sec=1.0))
    statuses = [ask(server, "/api/models").status_code for _ in range(4)]
    assert statuses[:2] != [429, 429]
    assert statuses[-1] == 429
    # Whoever watches the server from the same machine still finds it, within limits.
    statuses = [ask(server, "/health").status_code for _ in range(4)]
    assert (statuses[0], statuses[-1]) == (503, 429)
    response = ask(server, "/api/models", client="10.0.0.9")
    assert response.status_code == 200
    refused = ask(server, "/api/models")
    assert json.loads(refused.content)["error"]["code"] == "too_many_requests"
    assert refused.headers["retry-after"] == "1"


def test_a_header_makes_nobody_another_client(tmp_path, market):
    server = make_server(tmp_path, market, limits=Limits(requests_per_sec=0.1))
    for number in range(3):
        response = ask(server, "/health", {"X-Forwarded-For": f"10.0.0.{number}"})
    assert response.status_code == 429


def test_the_page_needs_no_key_and_everything_it_asks_for_does(locked):
    assert ask(locked, "/").status_code == 200
    assert ask(locked, "/page/nothing.js").status_code == 404
    for path in ("/page", "/pages/x.js", "/api/bars/BTCUSDT", "/openapi.json"):
        assert ask(locked, path).status_code == 401
    for path in (
        "/healthy",
        "/health/",
        "/health/x",
        "/health.json",
        "/healt",
        "/Health",
        "/x/health",
    ):
        assert ask(locked, path).status_code == 401
