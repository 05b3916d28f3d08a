"""A real Prometheus that scrapes a real server, asked what the dashboard asks.

``PERCOIN_PROMETHEUS`` names the program, if it is not on the path (``apt install prometheus``).
"""

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
import yaml
from filled_record import MODELLED, RULED, fill_record
from small_servers import RunningServer

ROOT = Path(__file__).parents[2]
DASHBOARD = json.loads((ROOT / "deploy/grafana/dashboards/percoin.json").read_text())
KEY = "a-secret-of-the-tests"


@pytest.fixture
def program() -> str:
    found = os.environ.get("PERCOIN_PROMETHEUS") or shutil.which("prometheus")
    if found is None:
        pytest.skip("no prometheus here")
    return found


def write_config(folder: Path, port: int) -> Path:
    """The kept config, scraping this server."""
    config = yaml.safe_load((ROOT / "deploy/prometheus.yml").read_text())
    config["global"]["scrape_interval"] = "1s"
    [scrape] = config["scrape_configs"]
    scrape["authorization"]["credentials_file"] = str(folder / "key")
    scrape["static_configs"] = [{"targets": [f"127.0.0.1:{port}"]}]
    (folder / "key").write_text(KEY)
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(config))
    return path


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def result(port: int, query: str) -> list[dict]:
    address = f"http://127.0.0.1:{port}/api/v1/query?" + urllib.parse.urlencode({"query": query})
    try:
        with urllib.request.urlopen(address, timeout=10) as answer:
            return json.load(answer)["data"]["result"]
    except OSError:
        return []


@pytest.mark.slow
def test_prometheus_has_an_answer_to_every_query_of_the_dashboard(program, tmp_path):
    fill_record(tmp_path)
    arguments = ("source=files", "source.path=klines", f"symbol={MODELLED},{RULED}", "tf=15m")
    chain = "chain=[ml,momentum,hold]"
    port = free_port()
    with RunningServer(tmp_path, *arguments, chain, PERCOIN_API_KEY=KEY) as server:
        server.wait_until_started()
        command = [
            *(program, f"--config.file={write_config(tmp_path, server.port)}"),
            *(f"--storage.tsdb.path={tmp_path / 'tsdb'}", f"--web.listen-address=127.0.0.1:{port}"),
        ]
        with (tmp_path / "prometheus.log").open("w") as log:
            prometheus = subprocess.Popen(command, stdout=log, stderr=log)
            try:
                queries = [
                    target["expr"].replace("$tf", "15m")
                    for panel in DASHBOARD["panels"]
                    for target in panel["targets"]
                ]
                assert len(queries) > 10
                until = time.monotonic() + 60
                missing = queries
                while missing and time.monotonic() < until:
                    server.get("/health")
                    time.sleep(0.2)
                    missing = [query for query in missing if not result(port, query)]
                assert missing == [], (tmp_path / "prometheus.log").read_text()[-2000:]
                [live] = result(port, 'percoin_live_skill{source="ML_PER_COIN_V1"}')
                ends = [
                    float(result(port, f"percoin_live_skill_{end}")[0]["value"][1])
                    for end in ("lower", "upper")
                ]
                standings = server.get("/api/scoreboard", {"X-API-Key": KEY}).json()["standings"]
            finally:
                prometheus.terminate()
                prometheus.wait(20)
    [own] = [one for one in standings if one["version_id"]]
    assert float(live["value"][1]) == pytest.approx(own["skill"]["value"])
    assert ends == pytest.approx([own["skill"]["lower"], own["skill"]["upper"]])
