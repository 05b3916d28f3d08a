"""Whatever a client sends to a real server: its own OpenAPI document says what may come back."""

import re
from urllib.parse import quote

import pytest
import schemathesis
from builders import write_parquet
from exported_models import bars_to_learn_from, export, make_dataset, random_network
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from small_servers import RunningServer

from percoin.types import Signal

BARS = bars_to_learn_from(1300)
ADDRESSES = [
    "/api/predictions",
    "/api/predictions/{symbol}",
    "/api/predictions/{symbol}/summary",
    "/api/bars/{symbol}",
    "/api/scoreboard",
    "/api/history/{symbol}",
    "/api/models",
    "/health",
    "/metrics",
]
# Three markets, two lengths of bars and none: where there are no more ways to ask, all of them.
FEWEST_RIGHT_WAYS = {
    "/api/predictions": 10,
    "/api/predictions/{symbol}": 5,
    "/api/predictions/{symbol}/summary": 3,
    "/api/bars/{symbol}": 10,
    "/api/scoreboard": 10,
    "/api/history/{symbol}": 10,
}
MANY = settings(
    max_examples=60,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    for symbol in ("BTCUSDT", "ETHUSDT"):
        write_parquet(BARS, folder / "klines" / symbol / "15m.parquet")
    export(folder / "models", random_network(Signal.LONG), make_dataset(BARS))
    arguments = ("source=files", "source.path=klines", "symbol=BTCUSDT,ETHUSDT,XRPUSDT")
    limits = ("limits.requests_per_sec=100000", "tf=15m,1h")
    with RunningServer(folder, *arguments, *limits) as server:
        server.wait_until_started()
        yield server


@pytest.fixture(scope="module")
def schema(server):
    # 414 is what the server says of a query that is too long, and documents.
    refusals = {"expected-statuses": ["400", "404", "405", "414", "422"]}
    config = {"checks": {"negative_data_rejection": refusals}}
    return schemathesis.openapi.from_url(
        f"{server.url}/openapi.json",
        config=schemathesis.config.SchemathesisConfig.from_dict(config),
    )


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode), ids=lambda mode: mode.value)
def test_every_route_answers_as_its_document_says(server, schema, address, mode):
    operation = schema[address]["GET"]
    n_sent = [0]
    strategy = operation.as_strategy(generation_mode=mode)

    @MANY
    @given(case=strategy)
    def send(case):
        n_sent[0] += 1
        response = case.call_and_validate(base_url=server.url)
        assert response.status_code < 500
        assert not re.search(r"Traceback|line \d|/klines|per_coin", response.text)

    try:
        send()
    except Exception as error:
        # A route without parameters has nothing that could be wrong.
        if type(error).__name__ not in {"Unsatisfiable", "SkipTest", "Skipped"}:
            raise
    if mode is schemathesis.GenerationMode.POSITIVE:
        assert n_sent[0] >= FEWEST_RIGHT_WAYS.get(address, 1)
    elif address.startswith(("/api/predictions", "/api/scoreboard", "/api/history")):
        assert n_sent[0] > 10


@MANY
@given(
    path=st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=60),
    query=st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=200),
)
def test_addresses_of_nobodys_making_are_refused_in_json(server, path, query):
    response = server.get(f"/api/{quote(path)}?{quote(query, safe='=&')}")
    assert response.status in {200, 400, 404, 414}
    if response.status != 200:
        assert set(response.json()) == {"error"}
        assert b"Traceback" not in response.body


def test_nothing_of_it_made_the_server_fail(server):
    lines = server.get("/metrics").body.decode().splitlines()
    assert [line for line in lines if re.search(r'status="500"', line)] == []
    assert "Traceback" not in server.log()
