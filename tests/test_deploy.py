"""What is kept for running percoin: containers, Prometheus, Grafana, systemd, CI, hooks.

No container engine is needed: the files are read, and what they name is looked for.
"""

import configparser
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from percoin.__main__ import COMMANDS
from percoin.intervals import Interval, KnownInterval
from percoin.monitoring.scoreboard import MoveScore, Standing
from percoin.serving.telemetry import Telemetry, WatchedMarket
from percoin.types import Source, Timeframe

ROOT = Path(__file__).parents[1]
DASHBOARD = json.loads((ROOT / "deploy/grafana/dashboards/percoin.json").read_text())
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
ANSWER = {
    "pred": "SHORT",
    "source": "ML_PER_COIN_V1",
    "confidence": 0.5,
    "expected_move": 0.7,
    "verdict": "accepted",
}
STANDING = Standing(
    symbol="BTCUSDT",
    tf=Timeframe.M15,
    source="ML_PER_COIN_V1",
    bars="files",
    model_version="cnn_lstm_v1",
    version_id="1",
    label_rule=None,
    n_written=900,
    n_late=0,
    n_resolved=900,
    n_void=0,
    too_few="",
    skill=KnownInterval(0.02, -0.01, 0.05),
    hit_rate=None,
    n_moves=0,
    move=MoveScore(900, Interval(0.4, None, None), {"80": Interval(0.78, 0.7, 0.9)}),
)


@pytest.fixture(scope="module")
def exposed() -> str:
    telemetry = Telemetry()
    watched = WatchedMarket("BTCUSDT", Timeframe.M15, 10.0, ANSWER, STANDING)
    telemetry.watch_markets(lambda: [watched])
    telemetry.count_request("/health", "GET", 200, 0.1)
    telemetry.count_answer(Source("ML_PER_COIN_V1"))
    telemetry.count_load(Timeframe.M15, failed=True)
    return telemetry.exposition().decode()


def test_gauges_say_what_a_market_answers(exposed):
    named = 'symbol="BTCUSDT",tf="15m"'
    assert f'percoin_signal{{source="ML_PER_COIN_V1",{named}}} -1.0' in exposed
    assert f"percoin_confidence{{{named}}} 0.5" in exposed
    assert f"percoin_expected_move_percent{{{named}}} 0.7" in exposed
    assert f'percoin_verdict{{{named},verdict="accepted"}} 1.0' in exposed
    forecaster = f'source="ML_PER_COIN_V1",{named}'
    assert f"percoin_live_skill{{{forecaster}}} 0.02" in exposed
    assert f"percoin_live_skill_lower{{{forecaster}}} -0.01" in exposed
    assert f"percoin_live_skill_upper{{{forecaster}}} 0.05" in exposed
    assert f'percoin_band_coverage{{level="80",{named}}} 0.78' in exposed
    assert f"percoin_expected_move_qlike{{{named}}} 0.4" in exposed


def test_an_answer_without_a_model_has_no_verdict_and_no_move():
    telemetry = Telemetry()
    held = ANSWER | {"verdict": None, "expected_move": None, "pred": "NO_TRADE"}
    telemetry.watch_markets(lambda: [WatchedMarket("BTCUSDT", Timeframe.M15, 10.0, held)])
    lines = telemetry.exposition().decode().splitlines()

    absent = "percoin_(verdict|expected_move.*|live_skill.*|band_coverage){"
    assert not [line for line in lines if re.match(absent, line)]


@pytest.mark.parametrize("panel", DASHBOARD["panels"], ids=lambda panel: panel["title"])
def test_every_query_of_the_dashboard_names_metrics_and_labels_that_are_served(panel, exposed):
    for target in panel["targets"]:
        query = target["expr"]
        metrics = re.findall(r"\bpercoin_\w+", query)
        assert metrics
        for metric in metrics:
            lines = [line for line in exposed.splitlines() if line.startswith(f"{metric}{{")]
            assert lines, metric
            used = re.findall(r"(\w+)=~?\"", query) + re.findall(r"by \((\w+)\)", query)
            used += re.findall(r"{{(\w+)}}", target["legendFormat"])
            assert {label for label in used if f'{label}="' not in lines[0]} == set()


def test_panels_do_not_overlap():
    taken = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for place in [panel["gridPos"]]
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(taken) == len(set(taken))


def test_compose_names_files_volumes_and_commands_that_are_there():
    for service in COMPOSE["services"].values():
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            assert (ROOT / source).exists() or source in COMPOSE["volumes"], volume
        for config in service.get("configs", []):
            assert config["source"] in COMPOSE["configs"]
    assert COMPOSE["services"]["percoin"]["command"][0] in COMMANDS
    assert (
        re.search(r"percoin (\w+)", COMPOSE["services"]["retrain"]["entrypoint"][2])[1] in COMMANDS
    )


def test_only_the_server_is_asked_whether_it_is_well():
    """The image's check asks port 8000, which no other of its containers opens."""
    assert "healthcheck" not in COMPOSE["services"]["percoin"]
    assert COMPOSE["services"]["retrain"]["healthcheck"] == {"disable": True}


@pytest.mark.parametrize("program", ["percoin", "sleep"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_of_retraining_reaches_what_runs_and_ends_the_container(tmp_path, program, number):
    """A shell that is the first process, as in a container, passes no signal on by itself."""
    busy = f"trap 'echo {program} ended; kill $!; exit 0' TERM; echo begun; /bin/sleep 60 & wait"
    for name in ("percoin", "sleep"):
        stub = tmp_path / name
        stub.write_text(f"#!/bin/sh\n{busy if name == program else 'exit 0'}\n")
        stub.chmod(0o755)
    command = [word.replace("$$", "$") for word in COMPOSE["services"]["retrain"]["entrypoint"]]
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as shell:
        try:
            assert shell.stdout.readline() == "begun\n"
            shell.send_signal(number)
            assert shell.wait(10) == 143
            assert shell.stdout.read() == f"{program} ended\n"
        finally:
            shell.kill()


@pytest.mark.parametrize(
    ("schema", "file"),
    [("compose-spec", "compose.yaml"), ("github-workflows", ".github/workflows/check.yml")],
)
def test_a_file_fits_the_schema_of_its_kind(schema, file):
    pytest.importorskip("check_jsonschema", reason="check-jsonschema is not installed")
    command = ["-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", ROOT / file]
    checked = subprocess.run([sys.executable, *command], capture_output=True, check=False)

    assert checked.returncode == 0, checked.stdout


def test_no_port_is_open_beyond_this_machine():
    ports = [port for service in COMPOSE["services"].values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_prometheus_asks_the_server_of_the_compose_file():
    scrape = yaml.safe_load((ROOT / "deploy/prometheus.yml").read_text())["scrape_configs"][0]
    host, _, port = scrape["static_configs"][0]["targets"][0].partition(":")

    assert host in COMPOSE["services"]
    assert f"127.0.0.1:{port}:{port}" in COMPOSE["services"][host]["ports"]


def test_the_unit_runs_a_command_that_exists():
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str
    unit.read(ROOT / "deploy/percoin-serve.service")

    assert unit["Service"]["ExecStart"].split()[-1] in COMMANDS


def test_ci_and_hooks_run_targets_that_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    workflow = yaml.safe_load((ROOT / ".github/workflows/check.yml").read_text())
    steps = [step["run"] for step in workflow["jobs"]["check"]["steps"] if "run" in step]
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    lint = (ROOT / "Makefile").read_text().partition("\nlint:")[2].partition("\n\n")[0]

    assert {step.split()[1] for step in steps} <= targets
    for hook in hooks:
        assert hook["entry"].removeprefix(".venv/bin/python ").split()[1] in lint
