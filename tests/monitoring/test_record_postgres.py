"""The same record in a real PostgreSQL, which the tests start for themselves."""

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from made_up_predictions import ENTRY
from test_scoreboard import check_next_start

from percoin.errors import ConfigError, RecordError
from percoin.monitoring.record import PredictionOutcome, TrackRecord
from percoin.types import Band, ExpectedMove

WRITER = """
import sys
import tempfile
from dataclasses import replace
sys.path.insert(0, sys.argv[3])
from made_up_predictions import ENTRY
from test_scoreboard import check_next_start
from percoin.monitoring.record import TrackRecord
record = TrackRecord(sys.argv[1])
for n in range(int(sys.argv[2])):
    print(n, int(record.write(replace(ENTRY, ts=ENTRY.ts + n * 900_000))), flush=True)
"""


def find_programs() -> Path | None:
    found = shutil.which("initdb")
    folders = [Path(found).parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in folders if (folder / "pg_ctl").exists()), None)


@pytest.fixture(scope="module")
def cluster():
    """The URL of a server without its database, and how to run its programs."""
    pytest.importorskip("psycopg", reason="psycopg is not installed: pip install '.[postgres]'")
    programs = find_programs()
    if programs is None:
        pytest.skip("no PostgreSQL server is installed here (initdb, pg_ctl)")
    is_root = os.geteuid() == 0
    if is_root and not (shutil.which("runuser") and _has_user("postgres")):
        pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
    # Not pytest's folder: another user may not enter that.
    folder = Path(tempfile.mkdtemp(prefix="percoin-postgres-"))
    if is_root:
        shutil.chown(folder, "postgres")
    port, log = free_port(), folder / "log"

    def run(program: str, *arguments: str) -> None:
        before = ["runuser", "-u", "postgres", "--"] if is_root else []
        # A server that is started inherits these, and would keep a pipe open.
        silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        command = [*before, str(programs / program), *arguments]
        try:
            subprocess.run(command, check=True, timeout=60, cwd="/", **silent)
        except subprocess.CalledProcessError as error:
            error.add_note(log.read_text()[-2000:] if log.exists() else "no log")
            raise

    data, options = str(folder / "data"), f"-p {port} -k {folder} -c listen_addresses=127.0.0.1"
    run("initdb", "-D", data, "-U", "percoin", "--auth=trust", "--no-sync", "-E", "UTF8")

    def start() -> None:
        run("pg_ctl", "-D", data, "-o", options, "-w", "-l", str(log), "start")

    def stop() -> None:
        run("pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")

    start()
    try:
        yield f"postgresql://percoin@127.0.0.1:{port}", start, stop
    finally:
        stop()
        shutil.rmtree(folder)


def free_port() -> int:
    """A port that no connection gets by itself, and so takes while the server is away."""
    for port in random.sample(range(20_000, 32_000), 100):
        with socket.socket() as asked:
            try:
                asked.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no port is free")


def _has_user(name: str) -> bool:
    return subprocess.run(["id", name], capture_output=True, check=False).returncode == 0


@pytest.fixture
def url(cluster, request):
    """A database of its own for each test."""
    import psycopg

    base, _, _ = cluster
    name = f"test_{abs(hash(request.node.name))}"
    with psycopg.connect(f"{base}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return f"{base}/{name}"


def start_writer(url: str, n: int) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, url, str(n), str(Path(__file__).parent)],
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_host_that_is_gone_is_noticed_within_seconds(url):
    """What the record_url says itself goes first."""
    record = TrackRecord(f"{url}?keepalives_count=4")
    record.open()
    with record._engine.connect() as connection:
        told = connection.connection.dbapi_connection.info.get_parameters()
    record.close()
    assert told["tcp_user_timeout"] == "5000"
    assert [told[f"keepalives_{name}"] for name in ("idle", "interval", "count")] == ["5", "2", "4"]


def test_written_once_read_as_written_and_resolved_once(url):
    record, other = TrackRecord(url), TrackRecord(url)
    assert record.write(ENTRY)
    assert not other.write(replace(ENTRY, signal=0))
    [kept] = other.predictions([ENTRY.symbol], ENTRY.tf, newest=5)
    assert {name: getattr(kept, name) for name in vars(ENTRY)} == vars(ENTRY)
    assert record.open_predictions(ENTRY.symbol, ENTRY.tf, ENTRY.bars, ENTRY.ts) == [kept]
    assert record.resolve([PredictionOutcome(kept.id, 2, 0.01)], 5) == 1
    assert other.resolve([PredictionOutcome(kept.id, 0, -0.01)], 6) == 0
    assert record.predictions()[0].label == 2
    assert record.revision() == (1, 1)
    for one in (record, other):
        one.close()


def test_a_record_from_before_the_moves_gets_their_table(url):
    import psycopg

    record = TrackRecord(url)
    assert record.write(ENTRY)
    record.close()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP TABLE percoin_moves")
    move = ExpectedMove(0.5, 3, (Band(50, 99.0, 101.0),), 1.25)
    assert record.write(replace(ENTRY, ts=ENTRY.ts + 1, expected_move=move))
    assert [kept.expected_move for kept in record.predictions()] == [None, move]
    outcomes = [
        PredictionOutcome(kept.id, 2, 0.01, realized_variance=1e-4) for kept in record.predictions()
    ]
    assert record.resolve(outcomes, 5) == 2
    assert [kept.realized_variance for kept in record.predictions()] == [None, 1e-4]
    record.close()


def test_the_next_start_of_a_server_reads_only_what_is_new(url, tmp_path, monkeypatch):
    record = TrackRecord(url)
    check_next_start(record, tmp_path / "scores.bin", monkeypatch)
    record.close()


def test_two_processes_that_begin_together_double_nothing(url):
    writers = [start_writer(url, 40) for _ in range(2)]
    outputs = [writer.communicate(timeout=60)[0].splitlines() for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0]
    new = [[int(line.split()[1]) for line in output] for output in outputs]
    assert [a + b for a, b in zip(*new, strict=True)] == [1] * 40


@pytest.mark.slow
def test_kill_9_loses_nothing_and_a_restart_doubles_nothing(url):
    writer = start_writer(url, 100_000)
    told = [writer.stdout.readline() for _ in range(100)]
    os.kill(writer.pid, signal.SIGKILL)
    told += writer.stdout.readlines()
    writer.wait(10)
    writer.stdout.close()
    n_told = int([line for line in told if line.endswith("\n")][-1].split()[0]) + 1
    record = TrackRecord(url)
    n_kept = len(record.predictions())
    assert n_told <= n_kept <= n_told + 1
    again = start_writer(url, n_kept + 5)
    assert again.wait(60) == 0
    again.stdout.close()
    assert len(record.predictions()) == n_kept + 5
    record.close()


def test_a_newer_record_is_refused(url):
    import psycopg

    record = TrackRecord(url)
    record.open()
    record.close()
    with psycopg.connect(url) as connection:
        connection.execute("UPDATE percoin_record SET version = 2")
    with pytest.raises(ConfigError, match="version 2, newer than 1"):
        record.write(ENTRY)
    record.close()


@pytest.mark.slow
def test_a_server_that_went_away_is_told_in_one_line_and_used_again(url, cluster):
    _, start, stop = cluster
    record = TrackRecord(url.replace("percoin@", "percoin:secret@"))
    record.write(ENTRY)
    stop()
    later = replace(ENTRY, ts=ENTRY.ts + 1)
    try:
        with pytest.raises(RecordError) as refused:
            record.write(later)
        assert "secret" not in str(refused.value)
        assert "\n" not in str(refused.value)
    finally:
        start()
    assert record.write(later)
    assert record.revision() == (2, 0)
    record.close()


def test_rows_that_cannot_be_meant_hide_no_others_and_entries_are_refused(url, caplog):
    import psycopg

    record = TrackRecord(url)
    for changes in (
        {"bars": "half \ud800 and nothing \x00"},
        {"model_version": "v" * 65},
        {"close": float("nan")},
    ):
        with pytest.raises(ValueError, match="is invalid"):
            record.write(replace(ENTRY, **changes))
    assert record.write_all([replace(ENTRY, ts=ENTRY.ts + n) for n in range(9)]) == [True] * 9
    with psycopg.connect(url, autocommit=True) as connection:
        for number, change in enumerate(
            (
                "close = 'NaN'",
                "confidence = '-Infinity'",
                "ts = 9223372036854775807",
                "label_rule = '{}'",
                r"symbol = E'BTC\x1b[2J'",
                "baselines = '[]'",
                "probabilities = 'null'",
                "label = -7",
            ),
            start=2,
        ):
            connection.execute(f"UPDATE percoin_predictions SET {change} WHERE id = {number}")
    assert [kept.id for kept in record.predictions()] == [1]
    assert all(entry.getMessage().isprintable() for entry in caplog.records)
    assert len(caplog.records) == 8
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ALTER TABLE percoin_predictions DROP COLUMN close")
    with pytest.raises(RecordError, match="close") as refused:
        record.predictions()
    assert "\n" not in str(refused.value)
    record.close()
